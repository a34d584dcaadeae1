//! The wall clock as a part of the target sees it.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::quantity::Span;

/// Settings of [`super::Fault::ClockSkew`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClockSkew {
    /// How far the clock is ahead (`+1h`) or behind (`-1h`).
    pub offset: Offset,
}

/// How far a clock is ahead or behind, written `+1h` or `-90s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offset {
    by: Span,
    behind: bool,
}

impl Offset {
    /// So far ahead.
    #[must_use]
    pub const fn ahead(by: Span) -> Self {
        Self { by, behind: false }
    }

    /// So far behind.
    #[must_use]
    pub const fn behind(by: Span) -> Self {
        Self { by, behind: true }
    }

    /// How far, whichever way.
    #[must_use]
    pub const fn by(self) -> Span {
        self.by
    }

    /// Whether it is ahead.
    #[must_use]
    pub const fn is_ahead(self) -> bool {
        !self.behind
    }

    /// A clock that says so many micro-seconds, as it says with this offset. The epoch is the earliest.
    #[must_use]
    pub const fn applied_to(self, micros: u64) -> u64 {
        if self.behind {
            micros.saturating_sub(self.by.as_micros())
        } else {
            micros.saturating_add(self.by.as_micros())
        }
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.behind { '-' } else { '+' };
        write!(f, "{sign}{}", self.by)
    }
}

impl FromStr for Offset {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let trimmed = text.trim();
        let (behind, rest) = match trimmed.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, trimmed.strip_prefix('+').unwrap_or(trimmed)),
        };
        let by = rest.parse().map_err(|_| {
            format!("`{text}` is not an offset; write how far the clock is ahead or behind, such as +1h or -90s")
        })?;
        Ok(Self { by, behind })
    }
}

impl Serialize for Offset {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Offset {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

impl JsonSchema for Offset {
    fn schema_name() -> Cow<'static, str> {
        "Offset".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "How far a clock is ahead or behind: a sign, a number and us, ms, s, m or h.",
            "examples": ["+1h", "-90s"],
            "pattern": r"^[+-]?[0-9._]+ ?(us|µs|ms|s|m|h)$"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_printed_parses_to_the_same_value(micros in 0_u64..1 << 49, behind: bool) {
            let offset = Offset { by: Span::from_micros(micros), behind };
            prop_assert_eq!(offset.to_string().parse::<Offset>(), Ok(offset));
        }
    }

    #[test]
    fn a_clock_is_ahead_or_behind_and_never_before_the_epoch() {
        let hour = Span::from_secs(3_600);
        assert_eq!(Offset::ahead(hour).applied_to(5), 3_600_000_005);
        assert_eq!(Offset::behind(hour).applied_to(3_600_000_005), 5);
        assert_eq!(Offset::behind(hour).applied_to(5), 0);
        assert_eq!("1h".parse(), Ok(Offset::ahead(hour)));
        for text in ["", "+", "--1h", "1", "soon"] {
            let error = text.parse::<Offset>().unwrap_err();
            assert!(error.contains("+1h"), "{error}");
        }
    }
}
