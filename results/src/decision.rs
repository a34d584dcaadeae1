//! The decision about a run.

use std::fmt;

use model::ids::Lane;
use serde::{Deserialize, Serialize};

use crate::record::Status;
use crate::waive::WaiverUse;

/// Go or no-go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every planned row is there and passed.
    Go,
    /// A row failed, or is not what its evidence says; or a waiver had expired.
    NoGo,
    /// Nothing failed, but not everything is there and passed.
    Inconclusive,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Go => "GO",
            Self::NoGo => "NO-GO",
            Self::Inconclusive => "INCONCLUSIVE",
        })
    }
}

/// A decision with its grounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Go or no-go.
    pub decision: Outcome,
    /// Planned rows that did not pass, absent ones among them.
    pub failures: usize,
    /// The planned rows in their order, then rows that were not planned.
    pub rows: Vec<RowDecision>,
    /// What else has to be said about the evidence, such as a torn last line.
    pub notes: Vec<String>,
    /// The run's waivers, and what became of each.
    #[serde(default)]
    pub waivers: Vec<WaiverUse>,
}

/// What became of one row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowDecision {
    /// The scenario's name.
    pub scenario: String,
    /// Which lane.
    pub lane: Lane,
    /// The trial's number, from 1.
    pub trial: u32,
    /// Recomputed from the row's evidence.
    pub status: Status,
    /// The ground for it.
    pub reason: String,
}

impl fmt::Display for Decision {
    /// The decision, what did not pass and why, the waivers, and the notes: a line each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Decision: {}", self.decision)?;
        writeln!(f, "Failures: {} of {} rows", self.failures, self.rows.len())?;
        for row in &self.rows {
            let RowDecision {
                scenario,
                lane,
                trial,
                status,
                reason,
            } = row;
            if *status != Status::Passed {
                writeln!(
                    f,
                    "  {scenario} on {lane}, trial {trial}: {status}: {reason}"
                )?;
            }
        }
        for waiver in &self.waivers {
            writeln!(f, "  waiver {waiver}")?;
        }
        self.notes
            .iter()
            .try_for_each(|note| writeln!(f, "  note: {note}"))
    }
}

impl Decision {
    /// The process's exit code: 0 go, 1 no-go, 3 inconclusive.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self.decision {
            Outcome::Go => 0,
            Outcome::NoGo => 1,
            Outcome::Inconclusive => 3,
        }
    }
}
