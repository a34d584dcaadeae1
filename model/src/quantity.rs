//! Quantities with their units: `250ms`, `200/s`, `64KiB`, `25%`. On the wire and in files they are strings, so that
//! no reader has to guess a unit; parsing is exact and what is printed parses to the same value.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A length of time in whole micro-seconds, written `150us`, `250ms`, `2s`, `5m` or `1h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(u64);

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// So many micro-seconds.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// So many milli-seconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000))
    }

    /// So many seconds.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }

    /// In micro-seconds.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// In seconds.
    #[must_use]
    pub const fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// As the standard library's type.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_micros(self.0)
    }

    /// So many times as long.
    #[must_use]
    pub const fn times(self, factor: u64) -> Self {
        Self(self.0.saturating_mul(factor))
    }

    /// The sum, capped at the largest value.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// Multiplied by a factor of at least 0.
    #[must_use]
    pub fn scale(self, factor: f64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a float cast saturates"
        )]
        Self((self.0 as f64 * factor.max(0.0)).round() as u64)
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        span.duration()
    }
}

const TIME_UNITS: [(&str, u64); 5] = [
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
];

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.pad("0s");
        }
        let (unit, size) = TIME_UNITS
            .into_iter()
            .find(|(_, size)| self.0.is_multiple_of(*size))
            .unwrap_or(("us", 1));
        f.pad(&format!("{}{unit}", self.0 / size))
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is not a duration; write a number and a unit, such as 250ms, 2s or 1m"
            )
        };
        if text.starts_with('-') {
            return Err(format!("`{text}` is negative; a duration is 0s or longer"));
        }
        let (number, unit) = split(text).ok_or_else(wrong)?;
        let size = match unit {
            "us" | "µs" => 1,
            _ => {
                TIME_UNITS
                    .into_iter()
                    .find(|(name, _)| *name == unit)
                    .ok_or_else(wrong)?
                    .1
            }
        };
        let micros = number * size as f64;
        if !(0.0..=1e15).contains(&micros) {
            return Err(format!(
                "`{text}` is out of range; a duration is at most 31 years"
            ));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "just checked"
        )]
        Ok(Self(micros.round() as u64))
    }
}

/// Splits `2.5s` into its number and its unit.
fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_')
        .unwrap_or(text.len());
    let number = text[..end].replace('_', "").parse().ok()?;
    Some((number, text[end..].trim_start()))
}

/// Events per second, written `200/s`, `30/m` or `0.5/s`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Rate(f64);

impl Rate {
    /// So many a second; not negative and finite.
    #[must_use]
    pub fn per_second(rate: f64) -> Self {
        Self(if rate.is_finite() { rate.max(0.0) } else { 0.0 })
    }

    /// How many a second.
    #[must_use]
    pub const fn as_per_second(self) -> f64 {
        self.0
    }

    /// The time from one event to the next, if they are evenly spaced; `None` for a rate of zero.
    #[must_use]
    pub fn interval(self) -> Option<Duration> {
        (self.0 > 0.0).then(|| Duration::from_secs_f64(1.0 / self.0))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/s", self.0))
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is not a rate; write a number and a unit, such as 200/s or 30/m");
        let (number, unit) = split(text).ok_or_else(wrong)?;
        let seconds = match unit {
            "/s" => 1.0,
            "/m" => 60.0,
            "/h" => 3600.0,
            _ => return Err(wrong()),
        };
        Ok(Self(number / seconds))
    }
}

/// A number of bytes, written `512B`, `64KiB`, `5MB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(u64);

const BYTE_UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

impl ByteSize {
    /// So many bytes.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |size: u64| self.0 > 0 && self.0.is_multiple_of(size);
        let (unit, size) = BYTE_UNITS
            .into_iter()
            .find(|(_, size)| fits(*size))
            .unwrap_or(("B", 1));
        f.pad(&format!("{}{unit}", self.0 / size))
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("`{text}` is not a size; write a number and a unit, such as 512B, 64KiB or 5MB")
        };
        let (number, unit) = split(text).ok_or_else(wrong)?;
        let size = BYTE_UNITS
            .into_iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(wrong)?
            .1;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a float cast saturates"
        )]
        Ok(Self((number * size as f64).round() as u64))
    }
}

/// A share from 0 to 1, written `25%`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Share(f64);

impl Share {
    /// All of it.
    pub const ALL: Self = Self(1.0);

    /// A ratio, limited to 0 to 1.
    #[must_use]
    pub fn ratio(ratio: f64) -> Self {
        Self(if ratio.is_nan() {
            0.0
        } else {
            ratio.clamp(0.0, 1.0)
        })
    }

    /// As a ratio from 0 to 1.
    #[must_use]
    pub const fn as_ratio(self) -> f64 {
        self.0
    }
}

impl Default for Share {
    fn default() -> Self {
        Self::ALL
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Rounded to what a person would have written: 0.999 × 100 is 99.90000000000001.
        f.pad(&format!("{}%", (self.0 * 1e8).round() / 1e6))
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is not a share; write a percentage from 0% to 100%, such as 25%");
        match split(text).ok_or_else(wrong)? {
            (percent, "%") if percent <= 100.0 => Ok(Self(percent / 100.0)),
            _ => Err(wrong()),
        }
    }
}

macro_rules! as_string {
    ($type:ident, $what:literal, $example:literal, $pattern:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string", "description": $what, "examples": [$example], "pattern": $pattern
                })
            }
        }
    };
}

as_string!(
    Span,
    "A duration: a number and us, ms, s, m or h.",
    "250ms",
    r"^[0-9._]+ ?(us|µs|ms|s|m|h)$"
);
as_string!(
    Rate,
    "A rate: a number and /s, /m or /h.",
    "200/s",
    r"^[0-9._]+ ?/[smh]$"
);
as_string!(
    ByteSize,
    "A size: a number and B, KB, MB, GB, KiB, MiB or GiB.",
    "64KiB",
    r"^[0-9._]+ ?([KMG]i?)?B$"
);
as_string!(
    Share,
    "A percentage from 0% to 100%.",
    "25%",
    r"^[0-9._]+ ?%$"
);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_printed_parses_to_the_same_value(micros in 0_u64..1 << 49, bytes in 0_u64..1 << 50) {
            prop_assert_eq!(Span(micros).to_string().parse::<Span>(), Ok(Span(micros)));
            prop_assert_eq!(ByteSize(bytes).to_string().parse::<ByteSize>(), Ok(ByteSize(bytes)));
        }

        #[test]
        fn no_text_panics(text in ".{0,12}") {
            let _ = (text.parse::<Span>(), text.parse::<Rate>(), text.parse::<ByteSize>(), text.parse::<Share>());
        }
    }

    #[test]
    fn values_are_read_with_their_units() {
        assert_eq!("1.5s".parse(), Ok(Span::from_millis(1_500)));
        assert_eq!("250 ms".parse(), Ok(Span::from_millis(250)));
        assert_eq!("30/m".parse(), Ok(Rate::per_second(0.5)));
        assert_eq!("64KiB".parse(), Ok(ByteSize::new(65_536)));
        assert_eq!(
            "99.9%".parse::<Share>().map(|share| share.to_string()),
            Ok("99.9%".to_owned())
        );
    }

    #[test]
    fn a_wrong_value_is_named_with_a_remedy() {
        for text in ["", "5", "s", "5 parsecs", "1e3s"] {
            let message = text.parse::<Span>().unwrap_err();
            assert!(
                message.contains(&format!("`{text}`")) && message.contains("250ms"),
                "{message}"
            );
        }
        assert!("-2s".parse::<Span>().unwrap_err().contains("negative"));
        assert!("120%".parse::<Share>().is_err() && "5/h".parse::<Rate>().is_ok());
    }
}
