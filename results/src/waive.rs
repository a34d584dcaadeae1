//! Waivers at work: laid over rows when they are written, and accounted for when a run is decided.
//!
//! A row carries what was waived in it, so that its verdict stays a function of the row; a run folder carries the
//! waivers and `run.json` their digest, so that the gate can tell whether a row was waived what the run was allowed.

use std::fmt;

use scenarios::waivers::{Date, Waiver, Waivers};
use serde::{Deserialize, Serialize};

use crate::record::{AnomalyCount, Row, RowWaiver};

/// The waivers of a run, as of the day on which it began.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct InForce {
    pub(crate) waivers: Waivers,
    /// `None` where the run does not say when it began: then none of them holds.
    on: Option<Date>,
}

impl InForce {
    /// `started` is the run's, RFC 3339.
    pub(crate) fn new(waivers: Waivers, started: &str) -> Self {
        Self {
            waivers,
            on: Date::of_rfc3339(started),
        }
    }

    fn expired(&self, waiver: &Waiver) -> bool {
        self.on.is_none_or(|on| waiver.expired(on))
    }

    /// Lays them over a row. Its verdict is to be drawn anew after that.
    pub(crate) fn lay_over(&self, row: &mut Row) {
        for (anomaly, tally) in &mut row.anomalies {
            let waiver = self.waivers.about(*anomaly, &row.scenario, row.lane);
            tally.waiver = waiver.map(|waiver| {
                let mut laid = RowWaiver {
                    owner: waiver.owner.clone(),
                    expires: waiver.expires,
                    reason: waiver.reason.clone(),
                    at_most: waiver.scope.at_most,
                    expired: self.expired(waiver),
                    holds: false,
                };
                laid.holds = laid.spares(tally.count);
                laid
            });
        }
    }

    /// Whether a row was waived what these waive, and nothing else.
    pub(crate) fn agree_with(&self, row: &Row) -> bool {
        let mut anew = row.clone();
        self.lay_over(&mut anew);
        anew.anomalies == row.anomalies
    }

    /// What became of each of them.
    pub(crate) fn account(&self, rows: &[Row]) -> Vec<WaiverUse> {
        let of = |waiver: &Waiver| {
            let counts: Vec<u64> = rows
                .iter()
                .filter(|row| waiver.scope.covers(&row.scenario, row.lane))
                .filter_map(|row| row.anomalies.get(&waiver.anomaly)?.count)
                .filter(|count| *count > 0)
                .collect();
            let most = waiver.scope.at_most.unwrap_or(u64::MAX);
            WaiverUse {
                state: if self.expired(waiver) {
                    WaiverState::Expired
                } else if counts.is_empty() {
                    WaiverState::Unused
                } else if counts.iter().any(|count| *count > most) {
                    WaiverState::Exceeded
                } else {
                    WaiverState::Used
                },
                found: counts.iter().sum(),
                trials: counts.len(),
                waiver: waiver.clone(),
            }
        };
        self.waivers.waivers.iter().map(of).collect()
    }
}

/// What became of a waiver in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaiverState {
    /// Something was waived by it.
    Used,
    /// There was nothing to waive.
    Unused,
    /// In some trial there was more than it waives.
    Exceeded,
    /// It had expired when the run began.
    Expired,
}

impl fmt::Display for WaiverState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Used => "used",
            Self::Unused => "unused",
            Self::Exceeded => "exceeded",
            Self::Expired => "expired",
        })
    }
}

/// A waiver and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaiverUse {
    /// The waiver.
    pub waiver: Waiver,
    /// What became of it.
    pub state: WaiverState,
    /// How many of its anomaly were found where it applies.
    pub found: u64,
    /// In so many trials.
    pub trials: usize,
}

impl fmt::Display for WaiverUse {
    /// One line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            waiver,
            state,
            found,
            trials,
        } = self;
        write!(
            f,
            "{state}: {waiver}, until {}: {}",
            waiver.expires, waiver.reason
        )?;
        match found {
            0 => Ok(()),
            found => write!(f, " ({found} in {trials} trials)"),
        }
    }
}

impl RowWaiver {
    /// Whether it spares the trial so many.
    pub(crate) fn spares(&self, count: Option<u64>) -> bool {
        let within = |most| count.is_none_or(|count| count <= most);
        !self.expired && self.at_most.is_none_or(within)
    }
}

impl AnomalyCount {
    /// The waiver by which this does not fail its trial.
    #[must_use]
    pub fn waived(&self) -> Option<&RowWaiver> {
        self.waiver.as_ref().filter(|waiver| waiver.holds)
    }
}

impl fmt::Display for RowWaiver {
    /// As it stands beside what was found.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            owner,
            expires,
            reason,
            at_most,
            expired,
            holds,
        } = self;
        match at_most {
            _ if *expired => write!(f, "the waiver of {owner} expired on {expires}: {reason}"),
            Some(most) if !*holds => {
                write!(f, "{owner} waives at most {most} until {expires}: {reason}")
            }
            _ => write!(f, "waived by {owner} until {expires}: {reason}"),
        }
    }
}
