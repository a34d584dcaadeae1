//! Who gets what live. Connections whose queries match a change alike share the encoded message.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use lanes::spacetime::message::{
    DatabaseUpdate, QueryUpdate, ServerMessage, TableUpdate, TransactionUpdateLight, UpdateStatus,
};
use lanes::spacetime::query::Query;
use lanes::spacetime::rows::{Row, StreamHead};
use model::ids::{ClientId, StreamId};
use model::target::Wire;
use tokio_websockets::Message;

use super::applied::Applied;
use super::reducer::Call;
use crate::connection::Outbox;
use crate::counters::Counters;
use crate::defect::Defects;
use crate::log::{Audience, Change, Streams};

/// What waits for a connection.
#[derive(Debug)]
pub(crate) enum Item {
    /// A live update.
    Update(Message),
    /// An answer.
    Answer(Message),
    /// The rows of a subscription that was made or ended. The log had them at the moment at which live updates began,
    /// or ceased, to queue behind.
    Rows(Box<Applied>),
}

/// Which of a connection's subscriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SetId {
    /// The one of `Subscribe`, which replaces what it was.
    Legacy,
    /// Of a query id.
    Query(u32),
}

/// A connection as the log's audience knows it.
#[derive(Debug)]
struct Subscriber {
    outbox: Arc<Outbox<Item>>,
    client: Option<ClientId>,
    light: bool,
    wire: Wire,
    sets: BTreeMap<SetId, Vec<Query>>,
}

impl Subscriber {
    fn queries(&self) -> impl Iterator<Item = &Query> {
        self.sets.values().flatten()
    }
}

/// The connections and what they subscribe to.
#[derive(Debug)]
pub(crate) struct Subscribers {
    defects: Defects,
    counters: Arc<Counters>,
    connections: HashMap<u64, Subscriber>,
    /// Connections by the streams to which a query of theirs is confined.
    streams: HashMap<StreamId, Vec<u64>>,
    /// Connections with a query that is confined to no stream.
    anywhere: Vec<u64>,
}

impl Subscribers {
    pub(crate) fn new(defects: Defects, counters: Arc<Counters>) -> Self {
        Self {
            defects,
            counters,
            connections: HashMap::new(),
            streams: HashMap::new(),
            anywhere: Vec::new(),
        }
    }

    /// Adds a connection.
    pub(crate) fn join(
        &mut self,
        connection: u64,
        outbox: Arc<Outbox<Item>>,
        client: Option<ClientId>,
        light: bool,
        wire: Wire,
    ) {
        let subscriber = Subscriber {
            outbox,
            client,
            light,
            wire,
            sets: BTreeMap::new(),
        };
        self.connections.insert(connection, subscriber);
    }

    /// Removes a connection.
    pub(crate) fn leave(&mut self, connection: u64) {
        if let Some(gone) = self.connections.remove(&connection) {
            self.drop_index(connection, gone.queries());
        }
    }

    /// Makes or replaces a subscription.
    pub(crate) fn subscribe(&mut self, connection: u64, set: SetId, queries: Vec<Query>) {
        self.unsubscribe(connection, set);
        let Some(subscriber) = self.connections.get_mut(&connection) else {
            return;
        };
        for query in &queries {
            let index = match query.stream() {
                Some(stream) => self.streams.entry(stream.to_owned()).or_default(),
                None => &mut self.anywhere,
            };
            if !index.contains(&connection) {
                index.push(connection);
            }
        }
        subscriber.sets.insert(set, queries);
    }

    /// Ends a subscription; its queries, `None` when there is none.
    pub(crate) fn unsubscribe(&mut self, connection: u64, set: SetId) -> Option<Vec<Query>> {
        let subscriber = self.connections.get_mut(&connection)?;
        let ended = subscriber.sets.remove(&set)?;
        let left: Vec<Query> = subscriber.queries().cloned().collect();
        self.drop_index(connection, ended.iter());
        for query in &left {
            let index = match query.stream() {
                Some(stream) => self.streams.entry(stream.to_owned()).or_default(),
                None => &mut self.anywhere,
            };
            if !index.contains(&connection) {
                index.push(connection);
            }
        }
        Some(ended)
    }

    fn drop_index<'a>(&mut self, connection: u64, queries: impl Iterator<Item = &'a Query>) {
        for query in queries {
            match query.stream() {
                None => self.anywhere.retain(|id| *id != connection),
                Some(stream) => {
                    if let Some(index) = self.streams.get_mut(stream) {
                        index.retain(|id| *id != connection);
                    }
                }
            }
        }
    }
}

/// A change to one table: the row that came and the one that it replaced.
struct RowChange {
    came: Row,
    gone: Option<Row>,
}

impl RowChange {
    /// The table's update for a connection: one entry for each of its queries that matches.
    fn update(&self, matched: &[(bool, bool)], wire: Wire) -> Option<TableUpdate> {
        let updates: Vec<QueryUpdate> = matched
            .iter()
            .map(|(came, gone)| QueryUpdate {
                deletes: self
                    .gone
                    .iter()
                    .filter(|_| *gone)
                    .map(|row| row.in_update(wire))
                    .collect(),
                inserts: came
                    .then(|| self.came.in_update(wire))
                    .into_iter()
                    .collect(),
            })
            .collect();
        (!updates.is_empty()).then(|| TableUpdate::new(self.came.table(), updates))
    }

    /// Whether the row that came, and the one that went, are among each of the queries; those with neither left out.
    fn matched<'a>(&self, queries: impl Iterator<Item = &'a Query>) -> Vec<(bool, bool)> {
        queries
            .map(|query| {
                let gone = self.gone.as_ref().is_some_and(|row| query.matches(row));
                (query.matches(&self.came), gone)
            })
            .filter(|(came, gone)| *came || *gone)
            .collect()
    }
}

/// Which connections get the same message: those whose queries match alike.
#[derive(PartialEq, Eq, Hash)]
struct Shape {
    matched: Vec<Vec<(bool, bool)>>,
    altered: bool,
    light: bool,
    wire: Wire,
}

impl Audience for Subscribers {
    type Tag = Call;

    fn committed(&mut self, _: &Streams, change: &Change, call: Call) {
        let (stream, changes) = rows_of(change);
        let seq = match change {
            Change::Event { event, .. } => Some(event.seq),
            Change::Checkpoint { .. } => None,
        };
        let defects = self.defects;
        let skipped = seq.is_some_and(|seq| self.defects.skips(seq));
        let mut encoded: HashMap<Shape, Message> = HashMap::new();
        let indexed = self.streams.get(stream).map_or(&[][..], Vec::as_slice);
        let caller = call.connection.filter(|id| !indexed.contains(id));
        let others = self
            .anywhere
            .iter()
            .filter(|id| !indexed.contains(id) && caller != Some(**id));
        for id in indexed.iter().chain(caller.iter()).chain(others) {
            let Some(subscriber) = self.connections.get(id) else {
                continue;
            };
            let shape = Shape {
                matched: changes
                    .iter()
                    .enumerate()
                    .map(|(at, change)| {
                        // The event comes first; withholding it leaves the head.
                        if skipped && at == 0 {
                            Vec::new()
                        } else {
                            change.matched(subscriber.queries())
                        }
                    })
                    .collect(),
                altered: seq.is_some_and(|seq| self.defects.alters(subscriber.client, seq)),
                light: subscriber.light,
                wire: subscriber.wire,
            };
            let is_caller = call.connection == Some(*id);
            if !is_caller && shape.matched.iter().all(Vec::is_empty) {
                continue;
            }
            let message = encoded
                .entry(shape)
                .or_insert_with_key(|shape| encode(defects, shape, &changes, &call));
            if let Some(depth) = subscriber.outbox.push(Item::Update(message.clone())) {
                self.counters
                    .refuse("-", "slow_consumer", &format!("{depth} messages queued"));
            }
        }
    }
}

fn encode(defects: Defects, shape: &Shape, changes: &[RowChange], call: &Call) -> Message {
    let mut tables = Vec::new();
    for (change, matched) in changes.iter().zip(&shape.matched) {
        let other = match &change.came {
            Row::Event(event) if shape.altered => Some(RowChange {
                came: Row::Event(defects.altered(event)),
                gone: None,
            }),
            _ => None,
        };
        tables.extend(other.as_ref().unwrap_or(change).update(matched, shape.wire));
    }
    let update = DatabaseUpdate { tables };
    let message = if shape.light {
        ServerMessage::TransactionUpdateLight(TransactionUpdateLight {
            request_id: call.request_id,
            update,
        })
    } else {
        ServerMessage::TransactionUpdate(call.update(UpdateStatus::Committed(update), shape.wire))
    };
    message.frame(shape.wire).into_message()
}

fn rows_of(change: &Change) -> (&str, Vec<RowChange>) {
    match change {
        Change::Event {
            event,
            head_before_ms,
            at_ms,
        } => {
            let head = |head_seq, updated_at_unix_ms| {
                Row::Head(StreamHead {
                    stream_id: event.stream_id.clone(),
                    head_seq,
                    updated_at_unix_ms,
                })
            };
            let event_row = RowChange {
                came: Row::Event(event.as_ref().clone()),
                gone: None,
            };
            let head_row = RowChange {
                came: head(event.seq, *at_ms),
                gone: head_before_ms.map(|before| head(event.seq - 1, before)),
            };
            (&event.stream_id, vec![event_row, head_row])
        }
        Change::Checkpoint { row, before } => {
            let change = RowChange {
                came: Row::Checkpoint(row.as_ref().clone()),
                gone: before
                    .as_ref()
                    .map(|row| Row::Checkpoint(row.as_ref().clone())),
            };
            (&row.stream_id, vec![change])
        }
    }
}
