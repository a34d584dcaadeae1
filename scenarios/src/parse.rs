//! YAML text into a tree with positions. The only file that names the YAML library.

use std::fmt;
use std::rc::Rc;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Number;
use serde_yaml::budget::BudgetBreach;
use serde_yaml::{
    DuplicateKeyPolicy, Error, Location, MergeKeyPolicy, MessageFormatter as _, Options, Spanned,
    UserMessageFormatter,
};

use crate::diagnostic::{Diagnostic, Diagnostics, Place};
use crate::source::Source;
use crate::tree::{Entry, Mark, Node, Origin, Value};

/// Reads a scenario or a target file.
pub(crate) fn tree(source: &Source) -> Result<Node, Diagnostics> {
    source.check_text()?;
    read(&source.text, |mark| source.place(mark))
}

/// Reads the value of a `--set`; every node of it was written by that setting.
pub(crate) fn setting(value: &str, typed: &Rc<str>) -> Result<Node, Diagnostics> {
    let place = || Place::Setting(typed.to_string());
    if value.trim().is_empty() {
        let hint = "write KEY=VALUE, such as bounds.recovery.p99=5s";
        return Err(
            Diagnostic::error(place(), "the setting has no value".to_owned())
                .hint(hint)
                .into(),
        );
    }
    let mut node = read(value, |_| place())?;
    written_by(&mut node, &Origin::Setting(Rc::clone(typed)));
    Ok(node)
}

fn written_by(node: &mut Node, origin: &Origin) {
    node.origin = origin.clone();
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|item| written_by(item, origin)),
        Value::Map(entries) => {
            for entry in entries {
                entry.origin = origin.clone();
                written_by(&mut entry.node, origin);
            }
        }
        _ => {}
    }
}

fn read(text: &str, place: impl Fn(Mark) -> Place) -> Result<Node, Diagnostics> {
    serde_yaml::from_str_with_options(text, options()).map_err(|error| {
        let error = error.without_snippet();
        let mark = error.location().map_or(Mark::START, mark);
        let (message, hint) = explain(error);
        Diagnostic::error(place(mark), message).hint(hint).into()
    })
}

/// The YAML library's errors in this language's words: what is wrong, and what to do.
fn explain(error: &Error) -> (String, &'static str) {
    const SMALL: &str =
        "such a file is small: some hundred values, nested a few levels, with few aliases";
    match error {
        Error::Budget {
            breach: BudgetBreach::Documents { .. },
            ..
        }
        | Error::MultipleDocuments { .. } => (
            "there is a second YAML document".to_owned(),
            "one file holds one document: remove the `---`",
        ),
        // The mistake is where the alias is used; what it stands for was fine where it was written.
        Error::AliasError { error, .. } => explain(error),
        Error::UnsupportedTag { tag, .. } => (
            format!("the tag `{tag}` is not supported"),
            "leave it out: a value's type is known from the setting",
        ),
        Error::Budget {
            breach:
                BudgetBreach::RecordedAnchorEvents { .. } | BudgetBreach::RecordedAnchorBytes { .. },
            ..
        }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. }
        | Error::AliasReplayCounterOverflow { .. } => (
            "the aliases expand to more than such a file may be".to_owned(),
            SMALL,
        ),
        Error::Budget { .. } => (
            "the YAML is larger than such a file may be".to_owned(),
            SMALL,
        ),
        Error::DuplicateMappingKey { key, .. } => {
            let key = key
                .as_ref()
                .map(|key| format!(" `{key}`"))
                .unwrap_or_default();
            (format!("duplicate key{key}"), "give each key once")
        }
        Error::MergeKeyNotAllowed { .. } => (
            "merge keys (`<<`) are not supported".to_owned(),
            "write the settings out",
        ),
        // The parser's own limit is reached before the budget's, and has no kind of its own.
        other if message(other).contains("recursion limit") => (
            "the YAML is nested deeper than a scenario may be".to_owned(),
            SMALL,
        ),
        other => (
            message(other),
            "check the indentation (spaces, no tabs), the quotes and the brackets here and just before",
        ),
    }
}

fn message(error: &Error) -> String {
    UserMessageFormatter.format_message(error).into_owned()
}

/// Far above what any file needs, far below what could hurt. Merge keys are refused because what they bring in has
/// no place of its own to point at.
fn options() -> Options {
    serde_yaml::options! {
        budget: serde_yaml::budget! {
            max_events: 20_000,
            max_nodes: 10_000,
            max_aliases: 100,
            max_anchors: 100,
            max_recorded_anchor_events: 10_000,
            max_recorded_anchor_bytes: 1024 * 1024,
            max_depth: 24,
            flow_nesting_limit: 24,
            max_documents: 1,
            max_total_scalar_bytes: 512 * 1024,
        },
        alias_limits: serde_yaml::alias_limits! {
            max_total_replayed_events: 10_000,
            max_replay_stack_depth: 8,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Error,
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}

fn mark(location: Location) -> Mark {
    let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX).max(1);
    Mark {
        line: number(location.line()),
        column: number(location.column()),
        width: number(location.span().len()),
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        let mut mark = mark(spanned.referenced);
        if matches!(spanned.value, Value::List(_) | Value::Map(_)) {
            mark.width = 1;
        }
        Ok(Self {
            origin: Origin::File(mark),
            value: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom(format!("`{value}` is not a number")))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries: Vec<Entry> = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            if entries.iter().any(|entry| entry.key == key.value) {
                return Err(A::Error::custom(format!("duplicate key `{}`", key.value)));
            }
            let origin = Origin::File(mark(key.referenced));
            entries.push(Entry {
                key: key.value,
                origin,
                node: map.next_value()?,
            });
        }
        Ok(Value::Map(entries))
    }
}
