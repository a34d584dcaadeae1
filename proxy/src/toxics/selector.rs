//! Which messages of a WebSocket a toxic takes: the attribute `match` of those that are about messages.

mod opcode;
mod pattern;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::opcode::Opcode;
use self::pattern::{Hex, Literal, Pattern};
use crate::websocket::First;

/// Messages for which all of these hold; those that are not given do.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Selector {
    /// Its opcode is one of these: `text`, `binary`, `continuation`, `ping`, `pong`, `close`, or a number from 0 to 15.
    /// A message in fragments has that of its first frame, and is a `continuation` too. Without this it is data.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    opcode: Vec<Opcode>,
    /// Its payload contains this text.
    #[serde(skip_serializing_if = "Option::is_none")]
    contains: Option<Literal>,
    /// Its payload matches this regular expression.
    #[serde(skip_serializing_if = "Option::is_none")]
    regex: Option<Pattern>,
    /// Its payload is JSON and has something at this place (RFC 6901).
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<String>,
    /// At `pointer` it has this value.
    #[serde(skip_serializing_if = "Option::is_none")]
    equals: Option<Value>,
    /// Its payload has these bytes, as hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<Hex>,
    /// They begin at this offset of the payload; without it, at the first byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    /// It is the one with this number, from 1, of those for which the above holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    nth: Option<u64>,
    /// Its number is a multiple of this.
    #[serde(skip_serializing_if = "Option::is_none")]
    every: Option<u64>,
    /// It is in a share of them, from 0 to 1, that is drawn from the seed.
    #[serde(skip_serializing_if = "Option::is_none")]
    share: Option<f64>,
}

impl Selector {
    /// # Errors
    /// What does not make sense.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.nth == Some(0) {
            return Err("match: nth 0 is no message; the first one is 1".to_owned());
        }
        if self.every == Some(0) {
            return Err("match: every 0 is no message; 1 is each of them".to_owned());
        }
        if let Some(share) = self.share.filter(|share| !(0.0..=1.0).contains(share)) {
            return Err(format!("match: share {share} is not from 0 to 1"));
        }
        if self.equals.is_some() && self.pointer.is_none() {
            return Err("match: equals needs a pointer, such as \"/type\" or \"\"".to_owned());
        }
        if self.offset.is_some() && self.bytes.is_none() {
            return Err("match: offset needs bytes, such as \"0a00\"".to_owned());
        }
        if let Some(pointer) = &self.pointer
            && !pointer.is_empty()
            && !pointer.starts_with('/')
        {
            return Err(format!(
                "match: pointer {pointer:?} does not begin with \"/\""
            ));
        }
        Ok(())
    }

    /// Whether nothing is selected.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the opcode is named; `None` where none is.
    pub(super) fn names(&self, first: &First) -> Option<bool> {
        let named = || self.opcode.iter().any(|opcode| opcode.is_of(first));
        (!self.opcode.is_empty()).then(named)
    }

    pub(super) const fn reads_payload(&self) -> bool {
        self.contains.is_some()
            || self.regex.is_some()
            || self.pointer.is_some()
            || self.bytes.is_some()
    }

    /// Whether the payload is one that is meant.
    pub(super) fn finds(&self, payload: &[u8]) -> bool {
        self.contains
            .as_ref()
            .is_none_or(|text| text.is_in(payload))
            && self.regex.as_ref().is_none_or(|regex| regex.is_in(payload))
            && self.bytes.as_ref().is_none_or(|bytes| {
                let offset = usize::try_from(self.offset.unwrap_or(0)).unwrap_or(usize::MAX);
                let rest = payload.get(offset..);
                rest.is_some_and(|rest| rest.starts_with(bytes.as_ref()))
            })
            && self.pointer.as_ref().is_none_or(|pointer| {
                let json: Result<Value, _> = serde_json::from_slice(payload);
                json.is_ok_and(|json| {
                    let there = json.pointer(pointer);
                    there.is_some_and(|there| {
                        self.equals.as_ref().is_none_or(|equals| equals == there)
                    })
                })
            })
    }

    /// Whether the match of this number, from 1, is meant.
    pub(super) fn counts(&self, number: u64) -> bool {
        self.nth.is_none_or(|nth| number == nth)
            && self.every.is_none_or(|every| number.is_multiple_of(every))
    }

    pub(super) const fn share(&self) -> Option<f64> {
        self.share
    }
}
