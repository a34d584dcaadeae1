//! The tables of the sync module, as the embedded lane offers them. A row travels as a JSON text inside the JSON
//! message: with named columns in snapshots, as an array of its columns in order in updates. In a binary message it is
//! always its columns in order. Decoding takes all three.

use std::fmt;

use model::ids::{Seq, StreamId};
use model::target::Wire;
use serde::{Deserialize, Serialize};

use super::bsatn::{Bsatn, Reader};
use super::message::Encoded;

/// Why a row is not one of its table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a row of `{table}`: {why}")]
pub struct RowError {
    table: String,
    why: String,
}

impl RowError {
    pub(super) fn new(table: &str, why: impl fmt::Display) -> Self {
        Self {
            table: table.to_owned(),
            why: why.to_string(),
        }
    }

    pub(super) fn lacks(table: &str, what: &str) -> Self {
        Self::new(table, format_args!("nothing in it holds `{what}`"))
    }
}

/// A table of the sync module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Checkpoints of clients.
    StreamCheckpoint,
    /// The newest seq of each stream.
    StreamHead,
    /// The events.
    SyncEvent,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 3] = [Self::StreamCheckpoint, Self::StreamHead, Self::SyncEvent];

    /// Its name in queries and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::StreamCheckpoint => "stream_checkpoint",
            Self::StreamHead => "stream_head",
            Self::SyncEvent => "sync_event",
        }
    }

    /// Its id in messages, as a real server numbers the module's tables.
    #[must_use]
    pub const fn id(self) -> u32 {
        match self {
            Self::StreamCheckpoint => 4097,
            Self::StreamHead => 4098,
            Self::SyncEvent => 4099,
        }
    }

    /// Its columns in order.
    #[must_use]
    pub const fn columns(self) -> &'static [&'static str] {
        match self {
            Self::StreamCheckpoint => &[
                "checkpoint_key",
                "client_id",
                "stream_id",
                "last_applied_seq",
                "durable_offset",
                "updated_at_unix_ms",
            ],
            Self::StreamHead => &["stream_id", "head_seq", "updated_at_unix_ms"],
            Self::SyncEvent => &[
                "stream_id",
                "seq",
                "idempotency_key",
                "payload_hash",
                "payload_json",
                "committed_at_unix_ms",
                "durable_offset",
                "confirmed_read",
            ],
        }
    }

    /// The table of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.name() == name)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A row of `sync_event`, and the arguments of `append_sync_event`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncEvent {
    /// The stream.
    pub stream_id: StreamId,
    /// Its place in the stream, from 1.
    pub seq: Seq,
    /// A repeated key is accepted and inserts nothing.
    pub idempotency_key: String,
    /// `sha256:<hex>` of `payload_json`.
    pub payload_hash: String,
    /// Canonical JSON.
    pub payload_json: String,
    /// Milli-seconds since the Unix epoch, as the publisher says.
    pub committed_at_unix_ms: u64,
    /// As the publisher says.
    pub durable_offset: u64,
    /// As the publisher says.
    pub confirmed_read: bool,
}

/// A row of `stream_head`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamHead {
    /// The stream.
    pub stream_id: StreamId,
    /// Its newest seq.
    pub head_seq: Seq,
    /// When it became so, in milli-seconds since the Unix epoch.
    pub updated_at_unix_ms: u64,
}

/// A row of `stream_checkpoint`, and the arguments of `ack_stream_checkpoint`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamCheckpoint {
    /// `client:stream`.
    pub checkpoint_key: String,
    /// The client.
    pub client_id: String,
    /// The stream.
    pub stream_id: StreamId,
    /// What it has applied.
    pub last_applied_seq: Seq,
    /// As the client says.
    pub durable_offset: u64,
    /// Milli-seconds since the Unix epoch.
    pub updated_at_unix_ms: u64,
}

/// A row of any of the tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Row {
    /// Of `sync_event`.
    Event(SyncEvent),
    /// Of `stream_head`.
    Head(StreamHead),
    /// Of `stream_checkpoint`.
    Checkpoint(StreamCheckpoint),
}

impl Row {
    /// Decodes a row in any of its forms.
    ///
    /// # Errors
    /// It is not a row of that table.
    pub fn decode(table: Table, row: &Encoded) -> Result<Self, RowError> {
        Ok(match table {
            Table::SyncEvent => Self::Event(decoded(table, row)?),
            Table::StreamHead => Self::Head(decoded(table, row)?),
            Table::StreamCheckpoint => Self::Checkpoint(decoded(table, row)?),
        })
    }

    /// As snapshots have it.
    #[must_use]
    pub fn in_snapshot(&self, wire: Wire) -> Encoded {
        match wire {
            Wire::Json => Encoded::Text(self.named()),
            Wire::Bsatn => Encoded::Binary(self.binary()),
        }
    }

    /// As updates have it.
    #[must_use]
    pub fn in_update(&self, wire: Wire) -> Encoded {
        match wire {
            Wire::Json => Encoded::Text(self.positional()),
            Wire::Bsatn => Encoded::Binary(self.binary()),
        }
    }

    fn binary(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Event(row) => row.write(&mut out),
            Self::Head(row) => row.write(&mut out),
            Self::Checkpoint(row) => row.write(&mut out),
        }
        out
    }

    /// Its table.
    #[must_use]
    pub const fn table(&self) -> Table {
        match self {
            Self::Event(_) => Table::SyncEvent,
            Self::Head(_) => Table::StreamHead,
            Self::Checkpoint(_) => Table::StreamCheckpoint,
        }
    }

    /// The text with named columns, as snapshots have it.
    #[must_use]
    pub fn named(&self) -> String {
        serde_json::to_string(self).expect("a row of strings and numbers has a JSON form")
    }

    /// The text with the columns in order, as updates and calls have it.
    #[must_use]
    pub fn positional(&self) -> String {
        match self {
            Self::Event(row) => row.positional(),
            Self::Head(row) => text(&(&row.stream_id, row.head_seq, row.updated_at_unix_ms)),
            Self::Checkpoint(row) => text(&(
                &row.checkpoint_key,
                &row.client_id,
                &row.stream_id,
                row.last_applied_seq,
                row.durable_offset,
                row.updated_at_unix_ms,
            )),
        }
    }
}

impl SyncEvent {
    /// The columns in order as a JSON array: the arguments of a call and the form of updates.
    #[must_use]
    pub fn positional(&self) -> String {
        text(&(
            &self.stream_id,
            self.seq,
            &self.idempotency_key,
            &self.payload_hash,
            &self.payload_json,
            self.committed_at_unix_ms,
            self.durable_offset,
            self.confirmed_read,
        ))
    }
}

/// A row of a table, in any of its forms.
fn decoded<T: Bsatn + serde::de::DeserializeOwned>(
    table: Table,
    row: &Encoded,
) -> Result<T, RowError> {
    match row {
        Encoded::Text(text) => {
            serde_json::from_str(text).map_err(|error| RowError::new(table.name(), error))
        }
        Encoded::Binary(bytes) => {
            let mut from = Reader::new(bytes);
            T::read(&mut from)
                .and_then(|row| from.end().map(|()| row))
                .map_err(|error| RowError::new(table.name(), error))
        }
    }
}

fn text(columns: &impl Serialize) -> String {
    serde_json::to_string(columns).expect("a tuple of strings and numbers has a JSON form")
}
