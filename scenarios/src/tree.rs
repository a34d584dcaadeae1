//! A file between text and types: a tree in which every node knows where it was written, so that what a command
//! line lays over it is checked like the rest and blamed on the right place.

use std::rc::Rc;

use serde::Serialize;
use serde::ser::{SerializeMap as _, SerializeSeq as _, Serializer};
use serde_json::Number;

/// A place in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// In characters, at least 1.
    pub width: usize,
}

impl Mark {
    /// The beginning of a text.
    pub const START: Self = Self {
        line: 1,
        column: 1,
        width: 1,
    };
}

/// Where a node was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    File(Mark),
    /// A setting of the command line, as it was typed.
    Setting(Rc<str>),
}

/// A node and where it was written.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) origin: Origin,
    pub(crate) value: Value,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key, where it was written, and its node.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) origin: Origin,
    pub(crate) node: Node,
}

impl Entry {
    /// Where a reader is best pointed to. A map or a list is where its first item is, which says less than its key;
    /// unless a command line has put it there.
    pub(crate) fn pointer(&self) -> &Origin {
        match (&self.node.value, &self.node.origin) {
            (Value::Map(_) | Value::List(_) | Value::Null, Origin::File(_)) => &self.origin,
            (_, origin) => origin,
        }
    }
}

impl Node {
    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    fn child(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::List(items) => items.get(key.parse::<usize>().ok()?),
            _ => self.get(key).map(|entry| &entry.node),
        }
    }

    /// Where the node at a path was written, or as much of the path as there is.
    pub(crate) fn origin_of(&self, path: &[&str]) -> &Origin {
        let mut node = self;
        let mut origin = &self.origin;
        for key in path {
            let Some(child) = node.child(key) else {
                return origin;
            };
            origin = node.get(key).map_or(&child.origin, Entry::pointer);
            node = child;
        }
        origin
    }

    /// Where the key at a path was written, or as much of the path as there is.
    pub(crate) fn key_origin_of(&self, path: &[&str]) -> &Origin {
        let Some((last, parents)) = path.split_last() else {
            return &self.origin;
        };
        let parent = parents.iter().try_fold(self, |node, key| node.child(key));
        match parent.and_then(|parent| parent.get(last)) {
            Some(entry) => &entry.origin,
            None => self.origin_of(path),
        }
    }

    /// Removes a key of a map.
    pub(crate) fn take(&mut self, key: &str) -> Option<Node> {
        let Value::Map(entries) = &mut self.value else {
            return None;
        };
        let place = entries.iter().position(|entry| entry.key == key)?;
        Some(entries.remove(place).node)
    }

    /// Removes what is at a path; nothing when it is not there.
    pub(crate) fn remove(&mut self, path: &[String]) {
        let Some((key, rest)) = path.split_first() else {
            return;
        };
        match &mut self.value {
            Value::Map(_) if rest.is_empty() => drop(self.take(key)),
            Value::Map(entries) => {
                if let Some(entry) = entries.iter_mut().find(|entry| entry.key == *key) {
                    entry.node.remove(rest);
                }
            }
            Value::List(items) => match key.parse::<usize>() {
                Ok(place) if place < items.len() && rest.is_empty() => drop(items.remove(place)),
                Ok(place) if place < items.len() => items[place].remove(rest),
                _ => {}
            },
            _ => {}
        }
    }

    /// Lays another tree over this one: maps key by key, lists item by item, anything else replaces.
    pub(crate) fn overlay(&mut self, over: Self) {
        match (&mut self.value, over.value) {
            (Value::Map(entries), Value::Map(others)) => {
                for other in others {
                    match entries.iter_mut().find(|entry| entry.key == other.key) {
                        Some(entry) => entry.node.overlay(other.node),
                        None => entries.push(other),
                    }
                }
            }
            (Value::List(items), Value::List(others)) => {
                let known = items.len().min(others.len());
                let mut others = others.into_iter();
                for (item, other) in items.iter_mut().zip(others.by_ref().take(known)) {
                    item.overlay(other);
                }
                items.extend(others);
            }
            (_, value) => {
                *self = Self {
                    origin: over.origin,
                    value,
                }
            }
        }
    }

    /// Sets what is at a dotted path, making maps on the way. `Err` names a place in a list that is not there.
    pub(crate) fn set(&mut self, path: &[&str], node: Self) -> Result<(), String> {
        let Some((key, rest)) = path.split_first() else {
            *self = node;
            return Ok(());
        };
        if let Value::List(items) = &mut self.value {
            let count = items.len();
            return match key
                .parse::<usize>()
                .ok()
                .and_then(|place| items.get_mut(place))
            {
                Some(item) => item.set(rest, node),
                None => Err(format!(
                    "`{key}` is not a place in a list of {count}, counted from 0"
                )),
            };
        }
        if !matches!(self.value, Value::Map(_)) {
            *self = Self {
                origin: node.origin.clone(),
                value: Value::Map(Vec::new()),
            };
        }
        let Value::Map(entries) = &mut self.value else {
            return Ok(());
        };
        let place = entries
            .iter()
            .position(|entry| entry.key == *key)
            .unwrap_or_else(|| {
                let origin = node.origin.clone();
                let empty = Self {
                    origin: origin.clone(),
                    value: Value::Null,
                };
                entries.push(Entry {
                    key: (*key).to_owned(),
                    origin,
                    node: empty,
                });
                entries.len() - 1
            });
        entries[place].node.set(rest, node)
    }
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.value {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Number(number) => number.serialize(serializer),
            Value::Text(text) => serializer.serialize_str(text),
            Value::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                items
                    .iter()
                    .try_for_each(|item| list.serialize_element(item))?;
                list.end()
            }
            Value::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                entries
                    .iter()
                    .try_for_each(|entry| map.serialize_entry(&entry.key, &entry.node))?;
                map.end()
            }
        }
    }
}
