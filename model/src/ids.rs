//! Names of things.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A sync transport with a wire contract.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// `SpacetimeDB` subscriptions.
    Spacetime,
    /// The legacy lane with Phoenix frames.
    Khala,
}

impl Lane {
    /// Every lane, in the order in which results list them.
    pub const ALL: [Self; 2] = [Self::Spacetime, Self::Khala];

    /// The name used on the command line, in scenarios and in results.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Spacetime => "spacetime",
            Self::Khala => "khala",
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Lane {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|lane| lane.name() == text)
            .ok_or_else(|| format!("unknown lane `{text}`; the lanes are spacetime and khala"))
    }
}

/// A client of the fleet: its ordinal over all shards. Shown as `c0042`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClientId(pub u32);

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{:04}", self.0)
    }
}

impl FromStr for ClientId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_prefix('c')
            .and_then(|digits| digits.parse().ok())
            .map(Self)
            .ok_or_else(|| format!("`{text}` is not a client id; one looks like c0042"))
    }
}

/// The header by which a fleet client tells a proxy who it is, so that a fault that takes a share of the clients
/// takes the same ones whatever the order of their connections.
pub const CLIENT_HEADER: &str = "x-faultlane-client";

/// A stream's canonical (spacetime) name, such as `runtime.run.7.events`.
pub type StreamId = String;

/// The ordering key within a stream, counted from 1. 0 stands for "before the first".
pub type Seq = u64;

/// An injection's name within a trial, such as `f1-hold`.
pub type FaultId = String;
