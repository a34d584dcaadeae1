//! Snapshot plans: where clients with stale cursors go on.

use model::ids::Seq;
use model::snapshot::Snapshot;
use serde::{Deserialize, Serialize};

/// The format of a snapshot plan.
pub const FORMAT: &str = "openagents.sync.snapshot.v1";

/// From where to go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotPlan {
    /// [`FORMAT`].
    pub format: String,
    /// Each stale topic.
    pub topics: Vec<TopicSnapshot>,
}

/// A topic's snapshot. After taking it, subscribe with `head_watermark` as the cursor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicSnapshot {
    /// The topic.
    pub topic: String,
    /// Up to which seq the snapshot covers it.
    pub head_watermark: Seq,
    /// Its content.
    pub snapshot: Snapshot,
}
