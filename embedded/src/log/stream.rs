//! One stream: what it keeps for replay, and what it knows of all it ever had.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use lanes::khala::error::StaleReason;
use lanes::spacetime::rows::SyncEvent;
use model::ids::Seq;
use model::snapshot::Snapshot;

/// What a stream keeps and how much of it one replay may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Events kept for replay; older ones go.
    pub retention: u64,
    /// The largest replay.
    pub replay: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            retention: u64::MAX,
            replay: u64::MAX,
        }
    }
}

/// A stream.
#[derive(Debug, Default)]
pub struct Stream {
    /// In the order of their seqs, with holes where some were removed.
    events: VecDeque<Arc<SyncEvent>>,
    floor: Seq,
    head: Seq,
    updated_ms: Option<u64>,
    snapshot: Snapshot,
}

/// From where to where a stream can be replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The lowest cursor from which every event is still there: oldest − 1.
    pub floor: Seq,
    /// The newest seq.
    pub head: Seq,
    /// The largest replay.
    pub budget: u64,
}

impl Window {
    /// Why a cursor cannot be resumed from; `None` when it can.
    #[must_use]
    pub fn stale(&self, cursor: Seq) -> Option<StaleReason> {
        if cursor > self.head {
            Some(StaleReason::CursorAheadOfHead)
        } else if cursor < self.floor {
            Some(StaleReason::RetentionFloorBreach)
        } else if self.head - cursor > self.budget.max(1) {
            Some(StaleReason::ReplayBudgetExceeded)
        } else {
            None
        }
    }
}

impl Stream {
    /// Adds the next event; when the head had last changed before.
    pub(super) fn push(
        &mut self,
        event: Arc<SyncEvent>,
        at_ms: u64,
        retention: u64,
    ) -> Option<u64> {
        self.head = event.seq;
        self.snapshot.push(&event.payload_hash);
        self.events.push_back(event);
        while self.events.len() as u64 > retention {
            if let Some(oldest) = self.events.pop_front() {
                self.floor = oldest.seq;
            }
        }
        self.updated_ms.replace(at_ms)
    }

    /// Lets go of the events with these keys. Head, floor and digest stay: they are of all that was ever appended.
    pub(super) fn remove(&mut self, keys: &HashSet<&str>) {
        self.events
            .retain(|event| !keys.contains(event.idempotency_key.as_str()));
    }

    /// The newest seq; 0 for none.
    #[must_use]
    pub const fn head(&self) -> Seq {
        self.head
    }

    /// When the head last changed, in milli-seconds since the Unix epoch.
    #[must_use]
    pub const fn updated_ms(&self) -> Option<u64> {
        self.updated_ms
    }

    /// The digest of all that was ever appended.
    #[must_use]
    pub const fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The events above a cursor that are still there, in order.
    pub fn after(&self, cursor: Seq) -> impl Iterator<Item = &Arc<SyncEvent>> {
        let from = self.events.partition_point(|event| event.seq <= cursor);
        self.events.range(from..)
    }

    pub(super) fn window(&self, budget: Budget) -> Window {
        Window {
            floor: self.floor,
            head: self.head,
            budget: budget.replay,
        }
    }
}
