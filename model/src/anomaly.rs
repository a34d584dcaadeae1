//! What a check can find.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{ClientId, Seq, StreamId};
use crate::instant::Mono;

/// A kind of finding. The predicates are those of docs/measurement.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Anomaly {
    /// Acknowledged, eligible, and absent from what a client had applied at the end.
    Lost,
    /// Seen by some client, then gone from the lane.
    Vanished,
    /// Applied across a missing seq without a reset.
    Gap,
    /// The same (stream, seq) delivered again in the same framing.
    DuplicateDelivery,
    /// Applied twice.
    DuplicateApply,
    /// Between batches: a seq below the epoch's highest that is not a duplicate.
    Reorder,
    /// Replayed although at or below the resume cursor.
    OverReplay,
    /// Never published, or its publish definitely failed.
    Phantom,
    /// One (stream, seq) with two contents, or content that is not what was published.
    Divergence,
    /// A stale cursor that the lane did not answer and the client did not detect before it applied.
    StaleCursor,
    /// Another tenant's event, or an event published after the receiver's token had expired.
    Leak,
    /// A probe that had to be refused was not.
    UnauthorizedSuccess,
    /// A probe was refused, but for a reason that misleads the client.
    WrongReason,
    /// Two live connections of one client both received.
    Zombie,
    /// A client tried again before the time that it had been told to wait.
    RetryAfterIgnored,
    /// A client was not whole again when the deadline passed.
    NotRecovered,
}

impl Anomaly {
    /// Every kind, in the order in which they are listed.
    pub const ALL: [Self; 16] = [
        Self::Lost,
        Self::Vanished,
        Self::Gap,
        Self::DuplicateDelivery,
        Self::DuplicateApply,
        Self::Reorder,
        Self::OverReplay,
        Self::Phantom,
        Self::Divergence,
        Self::StaleCursor,
        Self::Leak,
        Self::UnauthorizedSuccess,
        Self::WrongReason,
        Self::Zombie,
        Self::RetryAfterIgnored,
        Self::NotRecovered,
    ];

    /// The name in results and summaries.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Vanished => "vanished",
            Self::Gap => "gap",
            Self::DuplicateDelivery => "duplicate_delivery",
            Self::DuplicateApply => "duplicate_apply",
            Self::Reorder => "reorder",
            Self::OverReplay => "over_replay",
            Self::Phantom => "phantom",
            Self::Divergence => "divergence",
            Self::StaleCursor => "stale_cursor",
            Self::Leak => "leak",
            Self::UnauthorizedSuccess => "unauthorized_success",
            Self::WrongReason => "wrong_reason",
            Self::Zombie => "zombie",
            Self::RetryAfterIgnored => "retry_after_ignored",
            Self::NotRecovered => "not_recovered",
        }
    }

    /// Whether a single one fails a trial, even a trial that is otherwise invalid. The others are judged against the
    /// scenario's limits.
    #[must_use]
    pub const fn is_safety(self) -> bool {
        !matches!(
            self,
            Self::DuplicateDelivery
                | Self::OverReplay
                | Self::WrongReason
                | Self::RetryAfterIgnored
                | Self::NotRecovered
        )
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One instance of an anomaly, with what a person needs to look for it in the logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    /// Whose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientId>,
    /// Where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamId>,
    /// Which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<Seq>,
    /// What was seen and what was expected.
    pub detail: String,
    /// When it was noticed.
    #[serde(rename = "at_us", default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Mono>,
}

/// How often one kind was found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// All of them.
    pub count: u64,
    /// The first few.
    pub examples: Vec<Example>,
}

/// How many examples are kept of each kind.
pub const EXAMPLES_KEPT: usize = 5;

/// Everything found. A kind that was not found is absent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Findings {
    tallies: BTreeMap<Anomaly, Tally>,
}

impl Findings {
    /// Counts one.
    pub fn note(&mut self, anomaly: Anomaly, example: Example) {
        self.note_many(anomaly, 1, [example]);
    }

    /// Counts many, of which some are shown.
    pub fn note_many(
        &mut self,
        anomaly: Anomaly,
        count: u64,
        examples: impl IntoIterator<Item = Example>,
    ) {
        if count == 0 {
            return;
        }
        let tally = self.tallies.entry(anomaly).or_default();
        tally.count += count;
        let room = EXAMPLES_KEPT.saturating_sub(tally.examples.len());
        tally.examples.extend(examples.into_iter().take(room));
    }

    /// Adds what another shard found.
    pub fn merge(&mut self, other: &Self) {
        for (anomaly, tally) in &other.tallies {
            self.note_many(*anomaly, tally.count, tally.examples.iter().cloned());
        }
    }

    /// How many of a kind.
    #[must_use]
    pub fn count(&self, anomaly: Anomaly) -> u64 {
        self.tallies.get(&anomaly).map_or(0, |tally| tally.count)
    }

    /// The kinds found, with their tallies.
    pub fn iter(&self) -> impl Iterator<Item = (Anomaly, &Tally)> {
        self.tallies
            .iter()
            .map(|(anomaly, tally)| (*anomaly, tally))
    }
}
