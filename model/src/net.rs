//! Names of the network, checked when they are read: addresses and their ranges, interfaces. They end up in the arguments
//! of programs that run as root.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// An address, or all that begin alike: `10.0.0.7`, `10.0.0.0/8`, `fd00::/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    addr: IpAddr,
    len: u8,
}

impl Cidr {
    /// The first address of the range.
    #[must_use]
    pub const fn addr(self) -> IpAddr {
        self.addr
    }

    /// How many bits all its addresses share.
    #[must_use]
    pub const fn prefix_len(self) -> u8 {
        self.len
    }

    /// Whether it is a single address.
    #[must_use]
    pub const fn is_single(self) -> bool {
        self.len == width(self.addr)
    }

    /// Whether every address of `other` is one of this.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.addr.is_ipv4() == other.addr.is_ipv4()
            && self.len <= other.len
            && first_of(other.addr, self.len) == self.addr
    }
}

const fn width(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

fn first_of(addr: IpAddr, len: u8) -> IpAddr {
    match addr {
        IpAddr::V4(addr) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
            IpAddr::V4((addr.to_bits() & mask).into())
        }
        IpAddr::V6(addr) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
            IpAddr::V6((addr.to_bits() & mask).into())
        }
    }
}

impl From<IpAddr> for Cidr {
    fn from(addr: IpAddr) -> Self {
        Self {
            addr,
            len: width(addr),
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_single() {
            f.pad(&self.addr.to_string())
        } else {
            f.pad(&format!("{}/{}", self.addr, self.len))
        }
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is not an address or a range of them; write 10.0.0.7, 10.0.0.0/8 or fd00::/16"
            )
        };
        let (addr, len) = text
            .split_once('/')
            .map_or((text, None), |(a, l)| (a, Some(l)));
        let addr: IpAddr = addr.parse().map_err(|_| wrong())?;
        let len = match len {
            Some(len) => len.parse().map_err(|_| wrong())?,
            None => width(addr),
        };
        if len > width(addr) {
            return Err(wrong());
        }
        let first = first_of(addr, len);
        if first != addr {
            return Err(format!(
                "`{text}` is not the first address of its range; write {first}/{len}, or {addr} for that one alone"
            ));
        }
        Ok(Self { addr, len })
    }
}

/// A network interface by name, such as `eth0`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Interface(String);

/// What the kernel has room for.
const LONGEST_INTERFACE: usize = 15;

impl Interface {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Interface {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = (1..=LONGEST_INTERFACE).contains(&text.len())
            && text.starts_with(|first: char| first.is_ascii_alphanumeric())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if fits {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "`{}` is no name of an interface; write one such as eth0, as `ip link` shows it, of at most {LONGEST_INTERFACE} letters, digits and . _ -",
            text.escape_default()
        ))
    }
}

macro_rules! as_checked_string {
    ($type:ident, $what:literal, $example:literal) => {
        impl TryFrom<String> for $type {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "description": $what, "examples": [$example] })
            }
        }
    };
}

as_checked_string!(
    Cidr,
    "An address or a range of them, IPv4 or IPv6.",
    "10.0.0.0/8"
);
as_checked_string!(Interface, "The name of a network interface.", "eth0");

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_printed_parses_to_the_same_value(v4: u32, v6: u128, len in 0_u8..=128) {
            for (addr, len) in [(IpAddr::V4(v4.into()), len / 4), (IpAddr::V6(v6.into()), len)] {
                let cidr = Cidr { addr: first_of(addr, len), len };
                prop_assert_eq!(cidr.to_string().parse::<Cidr>(), Ok(cidr));
                prop_assert!(cidr.contains(cidr) && cidr.contains(addr.into()));
            }
        }

        #[test]
        fn no_text_panics(text in ".{0,24}") {
            let _ = (text.parse::<Cidr>(), text.parse::<Interface>());
        }
    }

    #[test]
    fn what_is_not_meant_is_refused_with_what_might_be() {
        let error = "10.1.2.3/16".parse::<Cidr>().unwrap_err();
        assert!(error.contains("10.1.0.0/16"), "{error}");
        for bad in [
            "",
            "10.0.0",
            "10.0.0.0/33",
            "fd00::/129",
            "host",
            "10.0.0.1 or 1",
        ] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
        for bad in ["", "-j", "eth0 root", "../lo", "sixteen-letters-"] {
            assert!(bad.parse::<Interface>().is_err(), "{bad}");
        }
        assert_eq!("eth0.7".parse::<Interface>().unwrap().name(), "eth0.7");
    }

    #[test]
    fn ranges_contain_what_begins_alike() {
        let cidr = |text: &str| text.parse::<Cidr>().unwrap();
        assert!(cidr("10.0.0.0/8").contains(cidr("10.2.0.0/16")));
        assert!(!cidr("10.2.0.0/16").contains(cidr("10.0.0.0/8")));
        assert!(!cidr("0.0.0.0/0").contains(cidr("::1")));
        assert!(cidr("0.0.0.0/0").contains(cidr("192.0.2.1")));
    }
}
