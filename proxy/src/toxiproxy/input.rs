//! Request bodies, read as Toxiproxy reads them: keys in any case of letters, the last of several counts, null is no
//! value, unknown fields are ignored, and so is what follows the first JSON value.

use std::fmt;

use host::http::Failure;
use model::fault::Direction;
use model::quantity::{Share, Span};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::ended::TlsInput;
use super::error::{bad_body, invalid_stream, invalid_type, missing_field};
use crate::identity::IdentifyBy;
use crate::toxics::{Settings, TYPES};

/// An object whose keys are in lower case.
#[derive(Debug, Default)]
pub(super) struct Fields(Map<String, Value>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Map::new();
                while let Some((key, value)) = map.next_entry::<String, Value>()? {
                    if !value.is_null() {
                        fields.insert(key.to_lowercase(), value);
                    }
                }
                Ok(Fields(fields))
            }

            fn visit_unit<E>(self) -> Result<Fields, E> {
                Ok(Fields::default())
            }
        }

        deserializer.deserialize_any(Object)
    }
}

/// The first JSON value of a body.
fn first<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, Failure> {
    let mut values = serde_json::Deserializer::from_slice(body).into_iter();
    // What Go says of a body that has none.
    let value = values.next().ok_or_else(|| bad_body("EOF"))?;
    value.map_err(bad_body)
}

impl Fields {
    pub(super) fn read(body: &[u8]) -> Result<Self, Failure> {
        first(body)
    }

    fn take<T: for<'de> Deserialize<'de>>(&mut self, key: &str) -> Result<Option<T>, Failure> {
        let value = self.0.remove(key).map(T::deserialize).transpose();
        value.map_err(|error| bad_body(format_args!("{key}: {error}")))
    }

    /// The attributes of a toxic, over those that it has.
    fn attributes(&mut self, before: Option<&Settings>) -> Result<Map<String, Value>, Failure> {
        let before = before.map(serde_json::to_value).transpose();
        let mut attributes = match before.map_err(bad_body)? {
            Some(Value::Object(before)) => before,
            _ => Map::new(),
        };
        let Fields(given) = self.take("attributes")?.unwrap_or_default();
        attributes.extend(given);
        Ok(attributes)
    }

    fn toxicity(&mut self) -> Result<Option<Share>, Failure> {
        let toxicity = self.take::<f64>("toxicity")?;
        if let Some(toxicity) = toxicity.filter(|toxicity| !(0.0..=1.0).contains(toxicity)) {
            return Err(bad_body(format_args!(
                "toxicity: {toxicity} is not from 0 to 1"
            )));
        }
        Ok(toxicity.map(Share::ratio))
    }

    fn identify_by(&mut self) -> Result<Option<IdentifyBy>, Failure> {
        let by: Option<IdentifyBy> = self.take("identify_by")?;
        by.as_ref()
            .map_or(Ok(()), IdentifyBy::check)
            .map_err(bad_body)?;
        Ok(by)
    }

    fn tls(&mut self) -> Result<Option<TlsInput>, Failure> {
        let tls = self.0.remove("tls").map(TlsInput::read);
        tls.transpose().map_err(bad_body)
    }

    fn lifetime(&mut self) -> Result<Option<Span>, Failure> {
        Ok(self.take::<u64>("for")?.map(Span::from_millis))
    }
}

/// A proxy as somebody wants it.
#[derive(Debug)]
pub(super) struct ProxyInput {
    pub(super) name: String,
    /// Empty for any port of loopback.
    pub(super) listen: String,
    pub(super) upstream: String,
    pub(super) enabled: bool,
    pub(super) identify_by: Option<IdentifyBy>,
    pub(super) tls: Option<TlsInput>,
}

impl ProxyInput {
    fn of(fields: &mut Fields) -> Result<Self, Failure> {
        Ok(Self {
            name: fields.take("name")?.unwrap_or_default(),
            listen: fields.take("listen")?.unwrap_or_default(),
            upstream: fields.take("upstream")?.unwrap_or_default(),
            enabled: fields.take("enabled")?.unwrap_or(true),
            identify_by: fields.identify_by()?,
            tls: fields.tls()?,
        })
    }

    /// The field that is missing.
    fn missing(&self) -> Option<&'static str> {
        let required = [("name", &self.name), ("upstream", &self.upstream)];
        let missing = required.into_iter().find(|(_, value)| value.is_empty());
        missing.map(|(field, _)| field)
    }

    pub(super) fn read(body: &[u8]) -> Result<Self, Failure> {
        let input = Self::of(&mut Fields::read(body)?)?;
        match input.missing() {
            Some(field) => Err(missing_field(field)),
            None => Ok(input),
        }
    }

    /// Those of `POST /populate`, all of them checked.
    pub(super) fn read_all(body: &[u8]) -> Result<Vec<Self>, Failure> {
        let list: Option<Vec<Fields>> = first(body)?;
        let inputs: Vec<Self> = list
            .unwrap_or_default()
            .into_iter()
            .map(|mut fields| Self::of(&mut fields))
            .collect::<Result<_, _>>()?;
        for (at, input) in inputs.iter().enumerate() {
            if let Some(field) = input.missing() {
                let at = at + 1;
                return Err(missing_field(format_args!("{field} at proxy {at}")));
            }
        }
        Ok(inputs)
    }
}

/// What somebody wants to change about a proxy.
#[derive(Debug)]
pub(super) struct ProxyPatch {
    pub(super) listen: Option<String>,
    pub(super) upstream: Option<String>,
    pub(super) enabled: Option<bool>,
    pub(super) identify_by: Option<IdentifyBy>,
    pub(super) tls: Option<TlsInput>,
}

impl ProxyPatch {
    pub(super) fn read(body: &[u8]) -> Result<Self, Failure> {
        let mut fields = Fields::read(body)?;
        Ok(Self {
            listen: fields.take("listen")?,
            upstream: fields.take("upstream")?,
            enabled: fields.take("enabled")?,
            identify_by: fields.identify_by()?,
            tls: fields.tls()?,
        })
    }
}

/// A toxic as somebody wants it, but for its attributes, which are looked at last.
#[derive(Debug)]
pub(super) struct ToxicInput {
    pub(super) name: String,
    pub(super) stream: String,
    pub(super) direction: Direction,
    pub(super) toxicity: Share,
    /// How long it stays.
    pub(super) lifetime: Option<Span>,
    kind: String,
    fields: Fields,
}

impl ToxicInput {
    /// Reads it as far as its stream.
    pub(super) fn read(body: &[u8]) -> Result<Self, Failure> {
        let mut fields = Fields::read(body)?;
        let kind: String = fields.take("type")?.unwrap_or_default();
        let name: Option<String> = fields.take("name")?;
        let stream: Option<String> = fields.take("stream")?;
        let (toxicity, lifetime) = (fields.toxicity()?, fields.lifetime()?);
        let stream = stream.unwrap_or_else(|| "downstream".to_owned());
        let direction = match stream.to_lowercase().as_str() {
            "upstream" => Direction::Upstream,
            "downstream" => Direction::Downstream,
            "both" => Direction::Both,
            _ => return Err(invalid_stream()),
        };
        let name = name.filter(|name| !name.is_empty());
        Ok(Self {
            name: name.unwrap_or_else(|| format!("{kind}_{stream}")),
            toxicity: toxicity.unwrap_or_default(),
            stream,
            direction,
            lifetime,
            kind,
            fields,
        })
    }

    /// Whether there is such a type.
    pub(super) fn check_type(&self) -> Result<(), Failure> {
        if TYPES.contains(&self.kind.as_str()) {
            Ok(())
        } else {
            Err(invalid_type())
        }
    }

    /// Its settings.
    pub(super) fn settings(&mut self) -> Result<Settings, Failure> {
        let attributes = self.fields.attributes(None)?;
        let settings = Settings::parse(&self.kind, attributes).ok_or_else(invalid_type)?;
        settings
            .and_then(|settings| {
                settings.check_direction(self.direction)?;
                Ok(settings)
            })
            .map_err(bad_body)
    }
}

/// What somebody wants to change about a toxic.
#[derive(Debug)]
pub(super) struct ToxicPatch {
    pub(super) settings: Settings,
    pub(super) toxicity: Option<Share>,
    pub(super) lifetime: Option<Span>,
}

impl ToxicPatch {
    /// Reads it for a toxic that has these settings.
    pub(super) fn read(body: &[u8], before: &Settings) -> Result<Self, Failure> {
        let mut fields = Fields::read(body)?;
        let (toxicity, lifetime) = (fields.toxicity()?, fields.lifetime()?);
        let attributes = fields.attributes(Some(before))?;
        let settings = Settings::parse(before.name(), attributes).ok_or_else(invalid_type)?;
        Ok(Self {
            settings: settings.map_err(bad_body)?,
            toxicity,
            lifetime,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// JSON, or nearly, with the keys that matter and others.
    fn json() -> impl Strategy<Value = String> {
        const KEYS: &[&str] = &[
            "name",
            "TYPE",
            "stream",
            "Attributes",
            "toxicity",
            "for",
            "listen",
            "upstream",
            "enabled",
            "identify_by",
            "tls",
            "self_issued",
            "certificate",
            "header",
            "latency",
        ];
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("\"latency\"".to_owned()),
            Just("\"both\"".to_owned()),
            any::<i64>().prop_map(|number| number.to_string()),
            any::<f64>().prop_map(|number| number.to_string()),
            ".{0,8}",
        ];
        leaf.prop_recursive(3, 24, 6, |inner| {
            let pair = (prop::sample::select(KEYS), inner.clone());
            let pair = pair.prop_map(|(key, value)| format!("\"{key}\":{value}"));
            prop_oneof![
                prop::collection::vec(pair, 0..6)
                    .prop_map(|pairs| format!("{{{}}}", pairs.join(","))),
                prop::collection::vec(inner, 0..4)
                    .prop_map(|items| format!("[{}]", items.join(","))),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_body_is_read_or_refused_with_400(body in prop_oneof![json(), ".{0,40}"]) {
            let body = body.as_bytes();
            let toxic = ToxicInput::read(body).and_then(|mut toxic| {
                toxic.check_type()?;
                toxic.settings()
            });
            let before = Settings::parse("latency", Map::new()).unwrap().unwrap();
            for refused in [
                ProxyInput::read(body).err(),
                ProxyInput::read_all(body).err(),
                ProxyPatch::read(body).err(),
                ToxicPatch::read(body, &before).err(),
                toxic.err(),
            ] {
                prop_assert!(refused.is_none_or(|refused| refused.status == 400));
            }
        }
    }
}
