//! A line of the log.

use std::sync::Arc;

use lanes::spacetime::rows::{StreamCheckpoint, SyncEvent};
use model::ids::{Seq, StreamId};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// An event was appended.
    Event {
        /// The event.
        #[serde(serialize_with = "inner", deserialize_with = "shared")]
        event: Arc<SyncEvent>,
        /// When, in milli-seconds since the Unix epoch.
        at_ms: u64,
    },
    /// Events were removed. Seqs and heads stay as they were.
    Removed {
        /// From which stream; from all where nothing is said.
        stream_id: Option<StreamId>,
        /// Their keys, which may be appended again.
        keys: Vec<String>,
    },
    /// A checkpoint was stored.
    Checkpoint {
        /// The row.
        #[serde(serialize_with = "inner", deserialize_with = "shared")]
        row: Arc<StreamCheckpoint>,
    },
}

impl Record {
    /// The event's seq; 0 for what is no event.
    #[must_use]
    pub fn seq(&self) -> Seq {
        match self {
            Self::Event { event, .. } => event.seq,
            Self::Removed { .. } | Self::Checkpoint { .. } => 0,
        }
    }
}

fn inner<T: Serialize, S: Serializer>(value: &Arc<T>, serializer: S) -> Result<S::Ok, S::Error> {
    value.as_ref().serialize(serializer)
}

fn shared<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Arc<T>, D::Error> {
    T::deserialize(deserializer).map(Arc::new)
}
