//! External probes in the evidence: what a scenario asked beside the lane, and how often it was told well.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What follows from a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeRule {
    /// While it fails the system is not steady.
    Steady,
    /// When it fails for long after the last heal the trial is ended.
    Abort,
    /// When it fails for long at any time, be it before the first fault, the trial is ended.
    AbortAlways,
}

impl fmt::Display for ProbeRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Steady => "steady",
            Self::Abort => "abort",
            Self::AbortAlways => "abort, always",
        })
    }
}

/// A probe and what came of it, from the fleet's first connection to the end of the way back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalProbe {
    /// Its name in the plan.
    pub name: String,
    /// What follows from it.
    pub rule: ProbeRule,
    /// What it asked, such as `GET http://127.0.0.1:9000/healthz`.
    pub ask: String,
    /// Which answer is good.
    pub wanted: String,
    /// How often it was asked. The last time may have been cut off without an answer.
    pub asked: u64,
    /// How often the answer was good.
    pub good: u64,
    /// How often it was not, or there was none.
    pub failed: u64,
    /// What it was told when it last failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<String>,
    /// The longest time over which it failed whenever it was asked: from the question that first failed to the last
    /// failure in a row.
    pub longest_failing_us: u64,
    /// Whether that ended the trial.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub breached: bool,
}
