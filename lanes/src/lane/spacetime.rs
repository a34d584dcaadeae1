//! The spacetime lane: a subscription by query, of which the initial rows are the replay.

use std::sync::Arc;

use model::ids::{Seq, StreamId};
use model::target::Access;

use super::{Session, Signal, denied};
use crate::connection::Upgrade;
use crate::content::Row;
use crate::frame::Frame;
use crate::spacetime::message::{
    ClientMessage, DatabaseUpdate, MessageId, QueryId, ServerMessage, UpdateStatus,
};
use crate::spacetime::named;
use crate::spacetime::rows::RowError;
use crate::spacetime::{subprotocol, subscribe_path};

/// Answered with an error, which keeps the connection alive all the same, and costs no query.
const KEEP_ALIVE: &str = "SELECT 1";

/// Head by stream.
type Heads = Vec<(StreamId, Seq)>;

pub(super) fn upgrade(access: &Access, jwt: &str) -> Upgrade {
    Upgrade {
        path: subscribe_path(&access.names.database, access.wire),
        subprotocol: Some(subprotocol(access.wire)),
        // Without a token a real server lets anybody in as somebody new; an empty one it calls malformed.
        headers: Some(jwt)
            .filter(|jwt| !jwt.is_empty())
            .map(|jwt| ("Authorization", format!("Bearer {jwt}")))
            .into_iter()
            .collect(),
    }
}

/// One connection's codec. Subscriptions are numbered: 0 is none yet.
#[derive(Debug)]
pub(super) struct Spacetime {
    access: Arc<Access>,
    subscription: u32,
    requests: u32,
}

impl Spacetime {
    pub(super) const fn new(access: Arc<Access>) -> Self {
        Self {
            access,
            subscription: 0,
            requests: 0,
        }
    }

    fn next_request(&mut self) -> u32 {
        self.requests += 1;
        self.requests
    }

    /// The events and the heads among the rows that came; other tables are nobody's business here.
    fn rows(&self, update: &DatabaseUpdate) -> Result<(Vec<Row>, Heads), RowError> {
        let names = &self.access.names;
        let (mut events, mut heads) = (Vec::new(), Vec::new());
        for table in &update.tables {
            let rows = table.updates.iter().flat_map(|query| &query.inserts);
            if table.table_name == names.events.name {
                for row in rows {
                    events.push(named::event(names, row)?);
                }
            } else if table.table_name == names.heads.name {
                for row in rows {
                    heads.push(named::head(names, row)?);
                }
            }
        }
        Ok((events, heads))
    }

    fn live(&self, update: &DatabaseUpdate) -> Result<Signal, RowError> {
        let rows = self.rows(update)?.0;
        Ok(Signal::Rows { framing: 0, rows })
    }
}

impl Session for Spacetime {
    fn open(&mut self) -> Vec<Frame<'static>> {
        Vec::new()
    }

    fn subscribe(&mut self, cursors: &[(&str, Seq)]) -> Vec<Frame<'static>> {
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
        let names = &self.access.names;
        let query_strings = cursors
            .iter()
            .flat_map(|(stream, after)| {
                [
                    named::events_after(names, stream, *after),
                    named::head_of(names, stream),
                ]
            })
            .collect();
        messages.push(ClientMessage::SubscribeMulti {
            query_strings,
            request_id: self.next_request(),
            query_id: QueryId {
                id: self.subscription,
            },
        });
        let wire = self.access.wire;
        messages.iter().map(|message| message.frame(wire)).collect()
    }

    fn heartbeat(&mut self) -> Vec<Frame<'static>> {
        let message = ClientMessage::OneOffQuery {
            message_id: MessageId::Bytes(self.next_request().to_be_bytes().to_vec()),
            query_string: KEEP_ALIVE.to_owned(),
        };
        vec![message.frame(self.access.wire)]
    }

    fn receive(&mut self, frame: &Frame<'_>) -> Result<Vec<Signal>, String> {
        let message = ServerMessage::of(frame).map_err(|error| error.to_string())?;
        let signal = match message {
            ServerMessage::IdentityToken(_) => Ok(Signal::Joined),
            ServerMessage::SubscribeMultiApplied(applied)
                if applied.query_id.id == self.subscription =>
            {
                self.rows(&applied.update)
                    .map(|(rows, heads)| Signal::Subscribed { rows, heads })
            }
            ServerMessage::TransactionUpdate(update) => match update.status {
                UpdateStatus::Committed(update) => self.live(&update),
                // The answer to something that this connection asked, though it calls no reducers: after its module
                // was published anew a real server goes on delivering and answers every request with `no such module`.
                UpdateStatus::Failed(reason) => Ok(denied(reason, None)),
                UpdateStatus::OutOfEnergy(_) => return Ok(Vec::new()),
            },
            ServerMessage::TransactionUpdateLight(update) => self.live(&update.update),
            ServerMessage::SubscriptionError(refused) => Ok(denied(refused.error, None)),
            ServerMessage::SubscribeMultiApplied(_)
            | ServerMessage::InitialSubscription(_)
            | ServerMessage::OneOffQueryResponse(_)
            | ServerMessage::SubscribeApplied(_)
            | ServerMessage::UnsubscribeApplied(_)
            | ServerMessage::UnsubscribeMultiApplied(_) => return Ok(Vec::new()),
        };
        signal
            .map(|signal| vec![signal])
            .map_err(|error| error.to_string())
    }
}
