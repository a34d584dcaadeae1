//! Opcodes by name or number.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::websocket::{First, opcode};

const NAMES: [(&str, u8); 6] = [
    ("text", opcode::TEXT),
    ("binary", opcode::BINARY),
    ("continuation", opcode::CONTINUATION),
    ("ping", opcode::PING),
    ("pong", opcode::PONG),
    ("close", opcode::CLOSE),
];

/// One opcode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub(crate) struct Opcode(u8);

impl Opcode {
    /// Whether a message has it.
    pub(super) const fn is_of(self, first: &First) -> bool {
        let is_continued = !first.fin && !first.is_control();
        self.0 == first.opcode || self.0 == opcode::CONTINUATION && is_continued
    }
}

impl TryFrom<Value> for Opcode {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let named = NAMES.iter().find(|(name, _)| value == *name);
        let number = value.as_u64().and_then(|number| u8::try_from(number).ok());
        let code = named.map(|(_, code)| *code).or(number);
        code.filter(|code| *code < 16).map(Self).ok_or_else(|| {
            let all = NAMES.map(|(name, _)| name).join(", ");
            format!("opcode {value} is not one of {all}, and no number from 0 to 15")
        })
    }
}

impl From<Opcode> for Value {
    fn from(Opcode(code): Opcode) -> Self {
        let named = NAMES.iter().find(|(_, named)| *named == code);
        named.map_or_else(|| code.into(), |(name, _)| (*name).into())
    }
}

impl JsonSchema for Opcode {
    fn schema_name() -> Cow<'static, str> {
        "Opcode".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names = NAMES.map(|(name, _)| name);
        json_schema!({"anyOf": [
            {"type": "string", "enum": names},
            {"type": "integer", "minimum": 0, "maximum": 15},
        ]})
    }
}
