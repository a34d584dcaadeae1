//! What the probes of a shard are told: clients that must be refused, and clients that resume from stale cursors.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::StreamId;
use crate::quantity::Span;

/// The probes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbesConfig {
    /// Each probe is run once in five times this.
    pub every: Span,
    /// A stream of `TokenSource::org` for which tokens are tried. Nothing is written to it.
    pub stream: StreamId,
    /// Where cursors are tried; `None` on a target without such a stream: they are then not probed.
    #[serde(default)]
    pub stale: Option<StaleStream>,
    /// Another organisation; `None` on a target that knows but one: what belongs to another is then not probed.
    #[serde(default)]
    pub rival: Option<Rival>,
    /// What is tried with a token; everything where nothing is said.
    #[serde(default)]
    pub operations: Option<Vec<Operation>>,
    /// What has to come of a probe, by its name, where that is not what follows from the target's promise.
    #[serde(default)]
    pub expect: BTreeMap<String, Outcome>,
}

/// A stream of `TokenSource::org` whose budgets are so small that there soon is something to be stale against. It is
/// published to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StaleStream {
    /// Its name.
    pub stream: StreamId,
    /// Events that are kept.
    #[schemars(range(min = 1))]
    pub retention: u64,
    /// The largest replay, in events.
    #[schemars(range(min = 1))]
    pub replay_budget: u64,
}

/// An organisation of which the probes also hold a session, and a stream of its own, which is published to: the
/// tenants' canary. A token of one must not open the other's stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rival {
    /// Its name.
    pub org: String,
    /// Its stream.
    pub stream: StreamId,
}

/// What is tried with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// To have the token service grant the stream.
    Grant,
    /// To be let in.
    Connect,
    /// To subscribe from the beginning.
    Subscribe,
    /// To subscribe from the head.
    Resume,
    /// To append, at a seq that is never next: what is let through conflicts and changes nothing.
    Append,
    /// To read the head over HTTP: by SQL where the lane has it.
    Read,
}

impl Operation {
    /// The name in a probe's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Grant => "grant",
            Self::Connect => "connect",
            Self::Subscribe => "subscribe",
            Self::Resume => "resume",
            Self::Append => "append",
            Self::Read => "read",
        }
    }
}

/// What has to come of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is accepted.
    Accepted,
    /// It is refused, for whichever reason.
    Refused,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
        })
    }
}
