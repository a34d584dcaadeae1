//! The rows that match a query now.

use std::sync::Arc;

use lanes::spacetime::query::Query;
use lanes::spacetime::rows::{Row, StreamCheckpoint, StreamHead, SyncEvent, Table};
use model::ids::ClientId;

use crate::defect::Defects;
use crate::log::{Stream, Streams};

/// A row as the log has it, not yet copied.
#[derive(Debug, Clone)]
pub(crate) enum Found {
    /// Of `sync_event`.
    Event(Arc<SyncEvent>),
    /// Of `stream_head`.
    Head(StreamHead),
    /// Of `stream_checkpoint`.
    Checkpoint(Arc<StreamCheckpoint>),
}

impl Found {
    /// The row; with other content where a defect alters it.
    pub(crate) fn row(&self, defects: Defects, client: Option<ClientId>) -> Row {
        match self {
            Self::Event(event) if defects.alters(client, event.seq) => {
                Row::Event(defects.altered(event))
            }
            Self::Event(event) => Row::Event(event.as_ref().clone()),
            Self::Head(row) => Row::Head(row.clone()),
            Self::Checkpoint(row) => Row::Checkpoint(row.as_ref().clone()),
        }
    }
}

/// A stream's row of `stream_head`; `None` for a stream without events.
pub(crate) fn head_row(name: &str, stream: &Stream) -> Option<StreamHead> {
    Some(StreamHead {
        stream_id: name.to_owned(),
        head_seq: stream.head(),
        updated_at_unix_ms: stream.updated_ms()?,
    })
}

/// All rows that match.
pub(crate) fn find(streams: &Streams, query: &Query, defects: Defects) -> Vec<Found> {
    match query.table {
        Table::SyncEvent => match query.stream() {
            Some(stream) => events(streams.get(stream), query, defects),
            None => streams
                .iter()
                .flat_map(|(_, stream)| events(stream, query, defects))
                .collect(),
        },
        Table::StreamHead => streams
            .iter()
            .filter(|(name, _)| query.stream().is_none_or(|stream| stream == *name))
            .filter_map(|(name, stream)| head_row(name, stream))
            .filter(|row| query.matches(&Row::Head(row.clone())))
            .map(Found::Head)
            .collect(),
        Table::StreamCheckpoint => streams
            .checkpoints()
            .filter(|row| query.matches(&Row::Checkpoint(row.as_ref().clone())))
            .cloned()
            .map(Found::Checkpoint)
            .collect(),
    }
}

fn events(stream: &Stream, query: &Query, defects: Defects) -> Vec<Found> {
    // The resume query, which nearly all are, is decided by stream and cursor; others look at the whole row.
    let resume = query
        .conditions
        .iter()
        .all(|condition| ["stream_id", "seq"].contains(&condition.column));
    let below = defects.replays_below();
    stream
        .after(query.after().saturating_sub(below))
        .filter(|event| !defects.skips(event.seq))
        .filter(|event| {
            (resume && query.bounds_seq(event.seq.saturating_add(below)))
                || (!resume && query.matches(&Row::Event(event.as_ref().clone())))
        })
        .cloned()
        .map(Found::Event)
        .collect()
}
