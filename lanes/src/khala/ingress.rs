//! How publishers append to the khala lane: an HTTP API inside the service, `Authorization: Bearer <secret>`. The
//! embedded lane also takes a token with the scope and the grant there, and refuses others for their deny reason.
//!
//! `POST /internal/sync/append` takes an [`Append`] and answers 200 [`Appended`], or 409 with
//! `{"error": "sequence_conflict expected_next_seq=X actual_next_seq=Y"}`. `GET /internal/sync/head?stream_id=…`
//! answers [`Head`]. `POST /internal/sync/remove` takes a [`Remove`], from publishers only, and answers `{}`; a target
//! file may name another path for it, or none.

use model::ids::{Seq, StreamId};
use serde::{Deserialize, Serialize};

/// Where to append.
pub const APPEND_PATH: &str = "/internal/sync/append";

/// Where to ask for a stream's head: with `?stream_id=…`.
pub const HEAD_PATH: &str = "/internal/sync/head";

/// Where to remove events.
pub const REMOVE_PATH: &str = "/internal/sync/remove";

/// Events to remove. What is not there is passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remove {
    /// The stream.
    pub stream_id: StreamId,
    /// Their keys.
    pub idempotency_keys: Vec<String>,
}

/// An event to append.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Append {
    /// The stream.
    pub stream_id: StreamId,
    /// A repeated key is accepted and appends nothing.
    pub idempotency_key: String,
    /// `sha256:<hex>` of `payload_json`.
    pub payload_hash: String,
    /// Canonical JSON.
    pub payload_json: String,
    /// The seq it must get; 0 for whichever is next.
    #[serde(default)]
    pub expected_next_seq: Seq,
    /// Milli-seconds since the Unix epoch.
    #[serde(default)]
    pub committed_at_unix_ms: u64,
}

/// An event is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appended {
    /// Its seq.
    pub seq: Seq,
    /// Its key was known; `seq` is what it had got then.
    pub duplicate: bool,
}

/// A stream's window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The newest seq; 0 for an empty stream.
    pub head: Seq,
    /// The lowest cursor that can be resumed from.
    pub floor: Seq,
}
