//! Faults of what a node's machine has to give: processor time, memory, room on a disk.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::quantity::{ByteSize, Share};

/// Settings of [`super::Fault::CpuBurn`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CpuBurn {
    /// How many cores.
    pub cores: Cores,
    /// How much of each: so much of every 20 ms a worker computes, and it sleeps for the rest.
    #[serde(default)]
    pub load: Share,
    /// Each worker stays on a core of its own, instead of going where the kernel puts it.
    #[serde(default)]
    pub pin: bool,
}

/// Settings of [`super::Fault::MemoryFill`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MemoryFill {
    /// How much memory, or which share of what is available.
    pub size: Amount,
    /// So much stays available, or 5 % of the machine's memory or 128MiB where that is more.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reserve: ByteSize,
}

/// Settings of [`super::Fault::DiskFill`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskFill {
    /// How many bytes, or which share of what is free.
    pub size: Amount,
    /// So much stays free, or 5 % of the file system or 64MiB where that is more.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reserve: ByteSize,
    /// In which folder: one that the agent's policy names under `disk_folders`, or below it. Without, where the node's
    /// data lie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(size: &ByteSize) -> bool {
    size.bytes() == 0
}

/// So many cores, written `2`, or a share of those that there are, written `50%`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cores {
    /// So many.
    Count(u32),
    /// That share.
    Share(Share),
}

impl Cores {
    /// How many that is where there are so many: never more, and of a share at least one.
    #[must_use]
    pub fn of(self, there: u32) -> u32 {
        match self {
            Self::Count(count) => count.min(there),
            Self::Share(share) => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a share of a u32"
                )]
                let count = (f64::from(there) * share.as_ratio()).ceil() as u32;
                count.clamp(1, there.max(1))
            }
        }
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Share(share) => write!(f, "{share}"),
        }
    }
}

impl Serialize for Cores {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(count) => serializer.serialize_u32(*count),
            Self::Share(share) => share.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Cores {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl de::Visitor<'_> for Either {
            type Value = Cores;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of cores, such as 2, or a share of them, such as 50%")
            }

            fn visit_u64<E: de::Error>(self, count: u64) -> Result<Cores, E> {
                u32::try_from(count).map(Cores::Count).map_err(|_| {
                    E::custom(format!(
                        "{count} cores are more than any machine has; write 2"
                    ))
                })
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Cores, E> {
                if let Ok(count) = text.parse() {
                    return Ok(Cores::Count(count));
                }
                text.parse().map(Cores::Share).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Cores {
    fn schema_name() -> Cow<'static, str> {
        "Cores".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A number of cores, or a share of those that there are.",
            "examples": [2, "50%"],
            "oneOf": [
                {"type": "integer", "minimum": 1},
                {"type": "string", "pattern": r"^([0-9]+|[0-9._]+ ?%)$"}
            ]
        })
    }
}

/// So many bytes, written `200MiB`, or a share of what there is, written `50%`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Amount {
    /// So many.
    Bytes(ByteSize),
    /// That share.
    Share(Share),
}

impl Amount {
    /// How many bytes that is where there are so many: of a share never more, rounded down.
    #[must_use]
    pub fn of(self, there: u64) -> u64 {
        match self {
            Self::Bytes(size) => size.bytes(),
            Self::Share(share) => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a float cast saturates"
                )]
                let bytes = (there as f64 * share.as_ratio()) as u64;
                bytes.min(there)
            }
        }
    }

    /// Whether it is nothing, however much there is.
    #[must_use]
    pub fn is_none(self) -> bool {
        match self {
            Self::Bytes(size) => size.bytes() == 0,
            Self::Share(share) => share.as_ratio() <= 0.0,
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(size) => write!(f, "{size}"),
            Self::Share(share) => write!(f, "{share}"),
        }
    }
}

impl FromStr for Amount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim_end().ends_with('%') {
            return text.parse().map(Self::Share);
        }
        text.parse().map(Self::Bytes).map_err(|_| {
            format!(
                "`{text}` is neither a size nor a share; write a number and a unit, such as 200MiB or 50%"
            )
        })
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

impl JsonSchema for Amount {
    fn schema_name() -> Cow<'static, str> {
        "Amount".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A size, or a share of what there is.",
            "examples": ["200MiB", "50%"],
            "pattern": r"^[0-9._]+ ?(([KMG]i?)?B|%)$"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_again(count: u32, bytes in 0_u64..1 << 50, percent in 0_u32..=100) {
            let share = Share::ratio(f64::from(percent) / 100.0);
            for cores in [Cores::Count(count), Cores::Share(share)] {
                let text = serde_json::to_string(&cores).unwrap();
                prop_assert_eq!(serde_json::from_str::<Cores>(&text).unwrap(), cores);
            }
            for amount in [Amount::Bytes(ByteSize::new(bytes)), Amount::Share(share)] {
                let text = serde_json::to_string(&amount).unwrap();
                prop_assert_eq!(serde_json::from_str::<Amount>(&text).unwrap(), amount);
            }
        }
    }

    #[test]
    fn a_share_is_of_what_there_is_and_a_count_is_never_more() {
        let half = Share::ratio(0.5);
        assert_eq!(Cores::Share(half).of(3), 2);
        assert_eq!(Cores::Share(Share::ratio(0.01)).of(2), 1);
        assert_eq!((Cores::Count(9).of(2), Cores::Count(1).of(2)), (2, 1));
        assert_eq!(Amount::Share(half).of(1_001), 500);
        assert_eq!(Amount::Bytes(ByteSize::new(7)).of(3), 7);
        assert!(Amount::Share(Share::ratio(0.0)).is_none() && !Amount::Share(half).is_none());
    }

    #[test]
    fn what_is_neither_is_named_with_a_remedy() {
        for text in ["\"many\"", "-1", "5000000000"] {
            let error = serde_json::from_str::<Cores>(text).unwrap_err().to_string();
            assert!(
                error.contains("such as") || error.contains("write 2"),
                "{error}"
            );
        }
        let error = "lots".parse::<Amount>().unwrap_err();
        assert!(
            error.contains("`lots`") && error.contains("200MiB"),
            "{error}"
        );
    }
}
