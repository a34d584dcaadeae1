//! What is looked for in a payload. Each is a string in the settings, and made ready once.

use std::sync::Arc;

use memchr::memmem::Finder;
use regex::bytes::{Regex, RegexBuilder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Memory that one expression may take.
const COMPILED: usize = 1 << 20;

/// A regular expression.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub(crate) struct Pattern(Arc<Regex>);

impl Pattern {
    pub(super) fn is_in(&self, payload: &[u8]) -> bool {
        self.0.is_match(payload)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(pattern: String) -> Result<Self, String> {
        let compiled = RegexBuilder::new(&pattern)
            .size_limit(COMPILED)
            .dfa_size_limit(COMPILED)
            .build();
        compiled
            .map(|regex| Self(Arc::new(regex)))
            .map_err(|error| format!("regex {pattern:?}: {error}"))
    }
}

impl From<Pattern> for String {
    fn from(Pattern(regex): Pattern) -> Self {
        regex.as_str().to_owned()
    }
}

/// A text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Literal(String);

impl Literal {
    pub(super) fn is_in(&self, payload: &[u8]) -> bool {
        Finder::new(&self.0).find(payload).is_some()
    }
}

/// Bytes as hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub(crate) struct Hex(Vec<u8>);

impl AsRef<[u8]> for Hex {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<String> for Hex {
    type Error = String;

    fn try_from(digits: String) -> Result<Self, String> {
        let nibble = |digit: char| {
            digit
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        };
        let nibbles: Option<Vec<u8>> = digits.chars().map(nibble).collect();
        let nibbles = nibbles.filter(|nibbles| nibbles.len().is_multiple_of(2));
        let pairs = nibbles.ok_or_else(|| {
            format!("bytes {digits:?} are not pairs of hexadecimal digits, such as \"0aff\"")
        })?;
        Ok(Self(
            pairs.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect(),
        ))
    }
}

impl From<Hex> for String {
    fn from(Hex(bytes): Hex) -> Self {
        let nibbles = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        nibbles
            .filter_map(|nibble| char::from_digit(nibble.into(), 16))
            .collect()
    }
}
