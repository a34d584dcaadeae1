//! Values that can be written in two ways. Read by hand: serde's untagged enums lose the places of mistakes.

use std::borrow::Cow;
use std::fmt;

use model::quantity::Span;
use model::target::Durability;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor, value};

/// `durable`, `within 500ms` or `{ within: 500ms }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged(pub Durability);

/// `[a.jwt, b.jwt]`, or the folder that holds them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenFiles {
    /// Each file holds a token.
    Files(Vec<String>),
    /// Each file in it holds a token.
    Folder(String),
}

/// `[a, b]`, or `{ pattern: "run.{n}.events", count: 12 }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamNames {
    /// Their names.
    Names(Vec<String>),
    /// `{n}` is each number from 1 to `count`.
    Pattern(StreamPattern),
}

/// Streams that are numbered.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamPattern {
    /// The name, with `{n}` for its number.
    pub pattern: String,
    /// How many, from 1.
    pub count: u32,
}

fn texts<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<Vec<String>, A::Error> {
    let mut texts = Vec::new();
    while let Some(text) = seq.next_element()? {
        texts.push(text);
    }
    Ok(texts)
}

macro_rules! by_hand {
    ($type:ident, $expecting:literal, $schema:expr, { $($method:item)+ }) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Either;
                impl<'de> Visitor<'de> for Either {
                    type Value = $type;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }

                    $($method)+
                }
                deserializer.deserialize_any(Either)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                let schema: fn(&mut SchemaGenerator) -> Schema = $schema;
                schema(generator)
            }
        }
    };
}

by_hand!(
    Acknowledged,
    "`durable`, or `within` and a time",
    |generator| {
        let span = generator.subschema_for::<Span>();
        json_schema!({
            "description": "What an acknowledgement is worth: `durable`, or `within 500ms`.",
            "anyOf": [
                { "type": "string", "pattern": "^(durable|within +[0-9._]+ ?(us|µs|ms|s|m|h))$" },
                {
                    "type": "object", "properties": { "within": span }, "required": ["within"],
                    "additionalProperties": false
                }
            ]
        })
    },
    {
        fn visit_str<E: Error>(self, text: &str) -> Result<Acknowledged, E> {
            if text == "durable" {
                return Ok(Acknowledged(Durability::Durable));
            }
            match text.strip_prefix("within ") {
                Some(window) => window
                    .trim()
                    .parse()
                    .map(|window| Acknowledged(Durability::Within(window)))
                    .map_err(E::custom),
                None => Err(E::custom(format!(
                    "`{text}` is no promise about acknowledged events; write durable, or within 500ms"
                ))),
            }
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Acknowledged, A::Error> {
            Durability::deserialize(value::MapAccessDeserializer::new(map)).map(Acknowledged)
        }
    }
);

by_hand!(
    TokenFiles,
    "a list of files, or a folder",
    |_| json_schema!({
        "description": "Files that hold a token each, or a folder of them.",
        "anyOf": [{ "type": "array", "items": { "type": "string" } }, { "type": "string" }]
    }),
    {
        fn visit_str<E: Error>(self, folder: &str) -> Result<TokenFiles, E> {
            Ok(TokenFiles::Folder(folder.to_owned()))
        }

        fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<TokenFiles, A::Error> {
            texts(seq).map(TokenFiles::Files)
        }
    }
);

by_hand!(
    StreamNames,
    "a list of names, or { pattern: …, count: … }",
    |generator| {
        let pattern = generator.subschema_for::<StreamPattern>();
        json_schema!({
            "description": "The streams that may be published to: their names, or a pattern with a count.",
            "anyOf": [{ "type": "array", "items": { "type": "string" }, "minItems": 1 }, pattern]
        })
    },
    {
        fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<StreamNames, A::Error> {
            texts(seq).map(StreamNames::Names)
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<StreamNames, A::Error> {
            StreamPattern::deserialize(value::MapAccessDeserializer::new(map))
                .map(StreamNames::Pattern)
        }
    }
);
