//! The spacetime lane: a subscription by query, of which the initial rows are the replay.

use model::ids::Seq;

use super::{Session, Signal, denied};
use crate::connection::Upgrade;
use crate::content;
use crate::spacetime::message::{ClientMessage, MessageId, QueryId, ServerMessage, UpdateStatus};
use crate::spacetime::query::{events_after, head_of};
use crate::spacetime::rows::Row;
use crate::spacetime::{SUBPROTOCOL, subscribe_path};

/// Answered with an error, which keeps the connection alive all the same, and costs no query.
const KEEP_ALIVE: &str = "SELECT 1";

pub(super) fn upgrade(database: &str, jwt: &str) -> Upgrade {
    Upgrade {
        path: subscribe_path(database),
        subprotocol: Some(SUBPROTOCOL),
        // Without a token a real server lets anybody in as somebody new; an empty one it calls malformed.
        headers: Some(jwt)
            .filter(|jwt| !jwt.is_empty())
            .map(|jwt| ("Authorization", format!("Bearer {jwt}")))
            .into_iter()
            .collect(),
    }
}

/// One connection's codec. Subscriptions are numbered: 0 is none yet.
#[derive(Debug, Default)]
pub(super) struct Spacetime {
    subscription: u32,
    requests: u32,
}

impl Spacetime {
    fn next_request(&mut self) -> u32 {
        self.requests += 1;
        self.requests
    }
}

impl Session for Spacetime {
    fn open(&mut self) -> Vec<String> {
        Vec::new()
    }

    fn subscribe(&mut self, cursors: &[(&str, Seq)]) -> Vec<String> {
        let mut messages = Vec::with_capacity(2);
        if self.subscription > 0 {
            messages.push(ClientMessage::UnsubscribeMulti {
                request_id: self.next_request(),
                query_id: QueryId {
                    id: self.subscription,
                },
            });
        }
        self.subscription += 1;
        let query_strings = cursors
            .iter()
            .flat_map(|(stream, after)| [events_after(stream, *after), head_of(stream)])
            .collect();
        messages.push(ClientMessage::SubscribeMulti {
            query_strings,
            request_id: self.next_request(),
            query_id: QueryId {
                id: self.subscription,
            },
        });
        messages.iter().map(ClientMessage::encode).collect()
    }

    fn heartbeat(&mut self) -> Vec<String> {
        let message = ClientMessage::OneOffQuery {
            message_id: MessageId::Bytes(self.next_request().to_be_bytes().to_vec()),
            query_string: KEEP_ALIVE.to_owned(),
        };
        vec![message.encode()]
    }

    fn receive(&mut self, text: &str) -> Result<Vec<Signal>, String> {
        let message = ServerMessage::decode(text).map_err(|error| error.to_string())?;
        let signal = match message {
            ServerMessage::IdentityToken(_) => Signal::Joined,
            ServerMessage::SubscribeMultiApplied(applied)
                if applied.query_id.id == self.subscription =>
            {
                let rows = applied
                    .update
                    .inserted()
                    .map_err(|error| error.to_string())?;
                let mut heads = Vec::new();
                let mut events = Vec::with_capacity(rows.len());
                for row in rows {
                    match row {
                        Row::Event(_) => events.extend(event(row)),
                        Row::Head(head) => heads.push((head.stream_id, head.head_seq)),
                        Row::Checkpoint(_) => {}
                    }
                }
                Signal::Subscribed {
                    rows: events,
                    heads,
                }
            }
            ServerMessage::TransactionUpdate(update) => match update.status {
                UpdateStatus::Committed(update) => live(&update)?,
                UpdateStatus::Failed(_) | UpdateStatus::OutOfEnergy(_) => return Ok(Vec::new()),
            },
            ServerMessage::TransactionUpdateLight(update) => live(&update.update)?,
            ServerMessage::SubscriptionError(refused) => denied(refused.error, None),
            ServerMessage::SubscribeMultiApplied(_)
            | ServerMessage::InitialSubscription(_)
            | ServerMessage::OneOffQueryResponse(_)
            | ServerMessage::SubscribeApplied(_)
            | ServerMessage::UnsubscribeApplied(_)
            | ServerMessage::UnsubscribeMultiApplied(_) => return Ok(Vec::new()),
        };
        Ok(vec![signal])
    }
}

fn live(update: &crate::spacetime::message::DatabaseUpdate) -> Result<Signal, String> {
    let rows = update.inserted().map_err(|error| error.to_string())?;
    let rows = rows.into_iter().filter_map(event).collect();
    Ok(Signal::Rows { framing: 0, rows })
}

fn event(row: Row) -> Option<content::Row> {
    let Row::Event(event) = row else { return None };
    Some(content::Row {
        stream: event.stream_id,
        seq: event.seq,
        key: Some(event.idempotency_key),
        payload: event.payload_json,
        hash: event.payload_hash,
    })
}
