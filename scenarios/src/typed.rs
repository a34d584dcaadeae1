//! The tree into types. Unlike a plain deserializer it knows the place of every value, and it goes on after a mistake:
//! an unknown field is noted and skipped; a wrong value is noted, taken out of the tree, and the rest is tried again.

use std::cell::RefCell;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Expected,
    IntoDeserializer as _, MapAccess, SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use crate::diagnostic::{Diagnostic, Place};
use crate::source::Source;
use crate::tree::{Entry, Node, Origin, Value};

/// Enough to mend a file in one go; more would only scroll by.
const MISTAKES_SHOWN: usize = 20;

/// Reads `T` from a tree.
///
/// # Errors
/// All mistakes that could be found.
pub(crate) fn read<T: DeserializeOwned>(
    root: &Node,
    source: &Source,
) -> Result<T, Vec<Diagnostic>> {
    let mut root = root.clone();
    let mut mistakes: Vec<Diagnostic> = Vec::new();
    let mut removed: Vec<Vec<String>> = Vec::new();
    loop {
        let unknown = RefCell::new(Vec::new());
        let reader = Reader {
            node: &root,
            at: &root.origin,
            source,
            unknown: &unknown,
        };
        let outcome = T::deserialize(reader);
        for mistake in unknown.into_inner() {
            if !mistakes.contains(&mistake) {
                mistakes.push(mistake);
            }
        }
        let wrong = match outcome {
            Ok(value) if mistakes.is_empty() => return Ok(value),
            Ok(_) => return Err(mistakes),
            Err(wrong) => wrong,
        };
        // A field that was taken out for being wrong is not missing.
        let known = wrong.missing.is_some_and(|field| {
            removed.iter().any(|path| {
                path.split_last()
                    .is_some_and(|(last, parent)| last == field && parent == wrong.path)
            })
        });
        let path = wrong.path.clone();
        if !known {
            mistakes.push(wrong.into_diagnostic(source, &root.origin));
        }
        if path.is_empty() || mistakes.len() >= MISTAKES_SHOWN {
            return Err(mistakes);
        }
        root.remove(&path);
        removed.push(path);
    }
}

/// Where a diagnostic about something written there has to point.
pub(crate) fn place(origin: &Origin, source: &Source) -> Place {
    match origin {
        Origin::File(mark) => source.place(*mark),
        Origin::Setting(typed) => Place::Setting(typed.to_string()),
    }
}

/// `did you mean …`, or what there is.
#[must_use]
pub fn nearest(wrong: &str, known: &[&str]) -> String {
    let near = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(wrong, name), name))
        .filter(|(distance, name)| *distance <= name.len().max(wrong.len()) / 3 + 1)
        .min_by_key(|(distance, _)| *distance);
    match near {
        Some((_, name)) => format!("did you mean `{name}`?"),
        None => format!("known here: {}", known.join(", ")),
    }
}

/// A mistake on its way up: the innermost reader gives it its place, the outer ones its path.
#[derive(Debug)]
struct Wrong {
    message: String,
    hint: Option<String>,
    origin: Option<Origin>,
    path: Vec<String>,
    missing: Option<&'static str>,
}

impl Wrong {
    fn new(message: String) -> Self {
        Self {
            message,
            hint: None,
            origin: None,
            path: Vec::new(),
            missing: None,
        }
    }

    fn hinting(self, hint: String) -> Self {
        Self {
            hint: Some(hint),
            ..self
        }
    }

    fn at(mut self, origin: &Origin) -> Self {
        self.origin.get_or_insert_with(|| origin.clone());
        self
    }

    fn under(mut self, key: &str) -> Self {
        self.path.insert(0, key.to_owned());
        self
    }

    fn into_diagnostic(self, source: &Source, root: &Origin) -> Diagnostic {
        let place = place(self.origin.as_ref().unwrap_or(root), source);
        let diagnostic = Diagnostic::error(place, self.message);
        match self.hint {
            Some(hint) => diagnostic.hint(hint),
            None => diagnostic,
        }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Wrong {}

impl de::Error for Wrong {
    fn custom<T: fmt::Display>(message: T) -> Self {
        // The quantities say what is wrong and what would be right in one sentence.
        let message = message.to_string();
        match message.split_once("; ") {
            Some((message, remedy)) => Self::new(message.to_owned()).hinting(remedy.to_owned()),
            None => Self::new(message),
        }
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let wanted = expected.to_string();
        let (wanted, hint) = match wanted.as_str() {
            "u8" | "u16" | "u32" | "u64" => (
                "a whole number from 0",
                "write digits only, without quotes, such as 200",
            ),
            "f64" => ("a number", "write digits only, without quotes, such as 2.5"),
            "a sequence" | "a tuple" => ("a list", "begin each item with `- `"),
            text if text.starts_with("struct ") || text == "a map" => (
                "a mapping of settings",
                "write `key: value` lines below it, indented, or { key: value }",
            ),
            text => (text, "docs/ has an example of each setting"),
        };
        let given = match unexpected {
            Unexpected::Str(text) => format!("`{text}`"),
            Unexpected::Unsigned(number) => format!("`{number}`"),
            Unexpected::Signed(number) => format!("`{number}`"),
            Unexpected::Float(number) => format!("`{number}`"),
            Unexpected::Bool(value) => format!("`{value}`"),
            Unexpected::Unit => "nothing".to_owned(),
            Unexpected::Map => "a mapping".to_owned(),
            Unexpected::Seq => "a list".to_owned(),
            other => other.to_string(),
        };
        Self::new(format!("{given} was given where {wanted} is wanted")).hinting(hint.to_owned())
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(unexpected, expected)
    }

    fn missing_field(field: &'static str) -> Self {
        let wrong = Self::new(format!("`{field}` is missing"))
            .hinting("it has to be stated; add it".to_owned());
        Self {
            missing: Some(field),
            ..wrong
        }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("unknown field `{field}`")).hinting(nearest(field, expected))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("`{variant}` is not known")).hinting(nearest(variant, expected))
    }
}

/// Reads one node.
#[derive(Clone, Copy)]
struct Reader<'a> {
    node: &'a Node,
    /// Where to point for what is missing in it.
    at: &'a Origin,
    source: &'a Source,
    unknown: &'a RefCell<Vec<Diagnostic>>,
}

impl<'a> Reader<'a> {
    fn entry(self, entry: &'a Entry) -> Self {
        Self {
            node: &entry.node,
            at: entry.pointer(),
            ..self
        }
    }

    fn text<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match &self.node.value {
            Value::Number(number) => {
                let hint = format!(
                    "give it its unit: {number}s or {number}ms for a time, {number}/s for a rate, {number}KiB for a \
                     size, {number}% for a share; quote it where text is meant"
                );
                Err(Wrong::new(format!("`{number}` is a bare number"))
                    .hinting(hint)
                    .at(self.at))
            }
            _ => self.any(visitor),
        }
    }

    fn any<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => visitor.visit_u64(number),
                (None, Some(number)) => visitor.visit_i64(number),
                (None, None) => visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::Text(text) => visitor.visit_str(text),
            Value::List(items) => visitor.visit_seq(Items {
                reader: self,
                items: items.iter().enumerate(),
            }),
            Value::Map(entries) => visitor.visit_map(Fields {
                reader: self,
                entries: entries.iter(),
                known: None,
                current: None,
            }),
        }
        .map_err(|wrong: Wrong| wrong.at(self.at))
    }
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.any(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.text(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.text(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        let entries: &[Entry] = match &self.node.value {
            Value::Map(entries) => entries,
            // `hold:` with nothing after it reads as `hold: {}`.
            Value::Null => &[],
            // Serde would take the items for the fields in their order.
            Value::List(_) => {
                let wrong: Wrong = de::Error::invalid_type(Unexpected::Seq, &"a map");
                return Err(wrong.at(self.at));
            }
            _ => return self.any(visitor),
        };
        visitor
            .visit_map(Fields {
                reader: self,
                entries: entries.iter(),
                known: Some(fields),
                current: None,
            })
            .map_err(|wrong| wrong.at(self.at))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        let variant = match &self.node.value {
            Value::Text(name) => Variant {
                reader: self,
                name,
                content: None,
                variants,
            },
            Value::Map(entries) => match entries.as_slice() {
                [entry] => Variant {
                    reader: self,
                    name: &entry.key,
                    content: Some(entry),
                    variants,
                },
                [] => {
                    let hint = format!("one of {}", variants.join(", "));
                    return Err(Wrong::new("nothing is chosen".to_owned())
                        .hinting(hint)
                        .at(self.at));
                }
                [_, second, ..] => {
                    let wrong = Wrong::new(format!(
                        "`{}` is one too many: only one can be chosen",
                        second.key
                    ));
                    let hint = "keep one of them; on a timeline each fault is an item of its own"
                        .to_owned();
                    return Err(wrong.hinting(hint).at(&second.origin));
                }
            },
            _ => return self.any(visitor),
        };
        visitor.visit_enum(variant)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct seq tuple tuple_struct
        map identifier ignored_any
    }
}

struct Items<'a> {
    reader: Reader<'a>,
    items: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Wrong;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Wrong> {
        let Some((place, node)) = self.items.next() else {
            return Ok(None);
        };
        let reader = Reader {
            node,
            at: &node.origin,
            ..self.reader
        };
        seed.deserialize(reader)
            .map(Some)
            .map_err(|wrong| wrong.at(&node.origin).under(&place.to_string()))
    }
}

struct Fields<'a> {
    reader: Reader<'a>,
    entries: std::slice::Iter<'a, Entry>,
    /// The fields of a struct; `None` for a map, whose keys are free.
    known: Option<&'static [&'static str]>,
    current: Option<&'a Entry>,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Wrong;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Wrong> {
        for entry in self.entries.by_ref() {
            if let Some(fields) = self
                .known
                .filter(|fields| !fields.contains(&entry.key.as_str()))
            {
                let place = place(&entry.origin, self.reader.source);
                let mistake = Diagnostic::error(place, format!("unknown field `{}`", entry.key));
                let hint = if fields.is_empty() {
                    "it has no settings: write {}".to_owned()
                } else {
                    nearest(&entry.key, fields)
                };
                self.reader.unknown.borrow_mut().push(mistake.hint(hint));
                continue;
            }
            self.current = Some(entry);
            let key: StrDeserializer<'_, Wrong> = entry.key.as_str().into_deserializer();
            return seed
                .deserialize(key)
                .map(Some)
                .map_err(|wrong| wrong.at(&entry.origin));
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Wrong> {
        let entry = self
            .current
            .take()
            .ok_or_else(|| Wrong::new("a value without a key".to_owned()))?;
        let reader = self.reader.entry(entry);
        seed.deserialize(reader)
            .map_err(|wrong| wrong.at(reader.at).under(&entry.key))
    }
}

struct Variant<'a> {
    reader: Reader<'a>,
    name: &'a str,
    content: Option<&'a Entry>,
    variants: &'static [&'static str],
}

impl<'a> Variant<'a> {
    fn content(&self) -> Result<(Reader<'a>, &'a Entry), Wrong> {
        self.content
            .map(|entry| (self.reader.entry(entry), entry))
            .ok_or_else(|| {
                let hint = format!("write {{ {}: {{}} }} with its settings inside", self.name);
                Wrong::new(format!("`{}` lacks its settings", self.name))
                    .hinting(hint)
                    .at(self.reader.at)
            })
    }
}

impl<'de, 'a> EnumAccess<'de> for Variant<'a> {
    type Error = Wrong;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Wrong> {
        let at = self.content.map_or(self.reader.at, |entry| &entry.origin);
        if !self.variants.contains(&self.name) {
            let wrong: Wrong = de::Error::unknown_variant(self.name, self.variants);
            return Err(wrong.at(at));
        }
        let name: StrDeserializer<'a, Wrong> = self.name.into_deserializer();
        Ok((seed.deserialize(name).map_err(|wrong| wrong.at(at))?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Wrong;

    fn unit_variant(self) -> Result<(), Wrong> {
        match self.content {
            None => Ok(()),
            Some(entry) => {
                let hint = format!("write just {}", self.name);
                Err(Wrong::new(format!("`{}` takes no settings", self.name))
                    .hinting(hint)
                    .at(&entry.origin))
            }
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Wrong> {
        let (reader, entry) = self.content()?;
        seed.deserialize(reader)
            .map_err(|wrong| wrong.at(reader.at).under(&entry.key))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Wrong> {
        self.content()?.0.any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        self.content()?.0.deserialize_struct("", fields, visitor)
    }
}
