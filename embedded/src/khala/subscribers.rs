//! Who gets what live. An update is encoded once, in both framings, and its bytes are shared.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use lanes::khala::message::{FrameKind, ServerMessage, SyncFrame, Update, UpdateBatch, Watermark};
use lanes::spacetime::rows::SyncEvent;
use model::ids::{ClientId, Seq, StreamId};
use model::topic::topic_of;
use serde_json::Value;

use super::replay::Subscription;
use crate::connection::Outbox;
use crate::counters::Counters;
use crate::defect::Defects;
use crate::log::{Audience, Change, Streams};

/// What waits for a connection.
#[derive(Debug)]
pub(crate) enum Item {
    /// A live update.
    Live(Arc<Live>),
    /// A subscription's replay and reply. The log had it at the moment at which live updates began to queue behind.
    Subscribed(Box<Subscription>),
}

/// An event on its way to subscribers.
#[derive(Debug)]
pub(crate) struct Live {
    event: Arc<SyncEvent>,
    topic: Arc<str>,
    framings: OnceLock<Framings>,
    altered: OnceLock<Framings>,
}

/// One batch in both framings.
#[derive(Debug, Clone)]
pub(crate) struct Framings {
    pub(crate) batch: Bytes,
    pub(crate) frame: Bytes,
}

impl Framings {
    /// Encodes events of one topic.
    pub(crate) fn of<'a>(
        topic: &str,
        events: impl IntoIterator<Item = &'a SyncEvent>,
        head: Seq,
        replay_complete: bool,
    ) -> Self {
        let updates: Vec<Update> = events
            .into_iter()
            .map(|event| Update {
                topic: topic.to_owned(),
                doc_key: event.idempotency_key.clone(),
                doc_version: event.seq,
                // A payload that is not JSON goes as a text: the hash will not fit it, and the client will say so.
                payload: serde_json::from_str(&event.payload_json)
                    .unwrap_or_else(|_| Value::String(event.payload_json.clone())),
                payload_hash: event.payload_hash.clone(),
                watermark: event.seq,
                hydration_required: false,
            })
            .collect();
        let seq = updates.last().map_or(head, |update| update.watermark);
        let batch = UpdateBatch {
            updates,
            replay_complete,
            head_watermarks: vec![Watermark {
                topic: topic.to_owned(),
                watermark: head,
            }],
        };
        let frame = SyncFrame::new(topic, seq, FrameKind::UpdateBatch, &batch);
        Self {
            batch: ServerMessage::UpdateBatch(batch).encode(None).into(),
            frame: ServerMessage::Frame(frame).encode(None).into(),
        }
    }
}

impl Live {
    /// The stream.
    pub(crate) fn stream(&self) -> &str {
        &self.event.stream_id
    }

    /// The seq.
    pub(crate) fn seq(&self) -> Seq {
        self.event.seq
    }

    /// What a client gets: the same bytes for all of them, unless content is altered for some.
    pub(crate) fn framings(&self, defects: Defects, client: Option<ClientId>) -> &Framings {
        let encode = |event: &SyncEvent| Framings::of(&self.topic, [event], event.seq, true);
        if defects.alters(client, self.event.seq) {
            self.altered
                .get_or_init(|| encode(&defects.altered(&self.event)))
        } else {
            self.framings.get_or_init(|| encode(&self.event))
        }
    }
}

/// The connections that subscribe to each stream.
#[derive(Debug)]
pub(crate) struct Subscribers {
    defects: Defects,
    counters: Arc<Counters>,
    streams: HashMap<StreamId, Topic>,
}

#[derive(Debug)]
struct Topic {
    name: Arc<str>,
    connections: Vec<(u64, Arc<Outbox<Item>>)>,
}

impl Subscribers {
    pub(crate) fn new(defects: Defects, counters: Arc<Counters>) -> Self {
        Self {
            defects,
            counters,
            streams: HashMap::new(),
        }
    }

    /// Adds a connection to a stream, once.
    pub(crate) fn subscribe(&mut self, stream: &str, connection: u64, outbox: &Arc<Outbox<Item>>) {
        let topic = self
            .streams
            .entry(stream.to_owned())
            .or_insert_with(|| Topic {
                name: topic_of(stream).unwrap_or_else(|| stream.to_owned()).into(),
                connections: Vec::new(),
            });
        if topic.connections.iter().all(|(id, _)| *id != connection) {
            topic.connections.push((connection, Arc::clone(outbox)));
        }
    }

    /// Removes a connection from a stream.
    pub(crate) fn unsubscribe(&mut self, stream: &str, connection: u64) {
        if let Some(topic) = self.streams.get_mut(stream) {
            topic.connections.retain(|(id, _)| *id != connection);
        }
    }
}

impl Audience for Subscribers {
    type Tag = ();

    fn committed(&mut self, _: &Streams, change: &Change, (): ()) {
        let Change::Event { event, .. } = change else {
            return;
        };
        let Some(topic) = self.streams.get(&event.stream_id) else {
            return;
        };
        if self.defects.skips(event.seq) {
            return;
        }
        let live = Arc::new(Live {
            event: Arc::clone(event),
            topic: Arc::clone(&topic.name),
            framings: OnceLock::new(),
            altered: OnceLock::new(),
        });
        for (_, outbox) in &topic.connections {
            if let Some(depth) = outbox.push(Item::Live(Arc::clone(&live))) {
                self.counters
                    .refuse("-", "slow_consumer", &format!("{depth} updates queued"));
            }
        }
    }
}
