//! One connection of the spacetime lane.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use lanes::frame::Frame;
use lanes::spacetime::message::{
    ClientMessage, ConnectionId, DatabaseUpdate, Identity, IdentityToken, Maybe, MessageId,
    OneOffQueryResponse, OneOffTable, QueryId, ServerMessage, SubscriptionError, TimeDuration,
    TransactionUpdateLight, UpdateStatus,
};
use lanes::spacetime::query::Query;
use lanes::token::{DenyReason, SigningKey};
use model::ids::ClientId;
use model::target::Wire;
use tokio_websockets::{CloseCode, Message};

use super::applied::{Applied, AppliedKind};
use super::reducer::{self, Call, Outcome};
use super::subscribers::{Item, SetId};
use super::{Caller, Spacetime, snapshot};
use crate::connection::{Connection, Event, Gone, Outbox, outbox};
use crate::counters::Counters;
use crate::front::Socket;

/// A third of the messages that may wait for a connection: a real server gives up beyond 16,384.
const QUEUE_LIMIT: usize = 5_461;

static NEXT_CONNECTION: AtomicU64 = AtomicU64::new(1);

/// One connection.
#[derive(Debug)]
pub(super) struct Session {
    lane: Arc<Spacetime>,
    caller: Caller,
    client_id: Option<ClientId>,
    id: u64,
    connection_id: u128,
    light: bool,
    wire: Wire,
    updates: u64,
    /// Planted: the rows of a subscription that have to wait for the next live update.
    held_back: Option<Box<Applied>>,
}

/// Why a connection ends.
enum End {
    /// It is over already, or it is ended without a Close.
    Gone,
    /// It is closed with this.
    Close(CloseCode, String),
    /// It is given up: nothing is sent any more, and the socket stays open until the client says something.
    Zombie,
}

impl From<Gone> for End {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl Session {
    pub(super) fn new(
        lane: Arc<Spacetime>,
        caller: Caller,
        connection_id: Option<u128>,
        light: bool,
        wire: Wire,
    ) -> Self {
        let id = NEXT_CONNECTION.fetch_add(1, Relaxed);
        let connection_id = connection_id.unwrap_or_else(|| {
            // Without randomness the ordinal has to do: it is unique within the process.
            let random = SigningKey::generate_secret().unwrap_or_default();
            let mut number = [0_u8; 16];
            number.copy_from_slice(&random[..16]);
            u128::from_le_bytes(number).max(u128::from(id))
        });
        Self {
            lane,
            client_id: caller.client.parse().ok(),
            caller,
            id,
            connection_id,
            light,
            wire,
            updates: 0,
            held_back: None,
        }
    }

    /// Serves the connection until it ends.
    pub(super) async fn run(mut self, socket: Socket) {
        let lane = Arc::clone(&self.lane);
        let ground = &lane.ground;
        Counters::add(&ground.counters.upgrades, 1);
        Counters::add(&ground.counters.connections, 1);
        // Given back even when the task is dropped at shutdown.
        let _open = Open(&lane);
        let (outbox, inbox) = outbox(QUEUE_LIMIT);
        let outbox = Arc::new(outbox);
        let enforced = ground.config.strict && ground.defects.enforces_expiry();
        let expires = self.caller.expires_us.filter(|_| enforced);
        let mut connection = Connection::new(socket, inbox, &ground.config.profile, expires);
        ground.log.lock().audience.join(
            self.id,
            Arc::clone(&outbox),
            self.client_id,
            self.light,
            self.wire,
        );
        let end = match self.greet(&mut connection).await {
            Err(end) => end,
            Ok(()) => loop {
                let event = connection.next().await;
                if let Err(end) = self.handle(event, &mut connection, &outbox).await {
                    break end;
                }
            },
        };
        ground.log.lock().audience.leave(self.id);
        match end {
            End::Gone => {}
            End::Close(code, reason) => {
                tracing::debug!(client = self.caller.client, reason, "closing");
                connection.close(code, &reason).await;
            }
            End::Zombie => connection.linger().await,
        }
    }

    async fn greet(&self, connection: &mut Connection<Item>) -> Result<(), End> {
        let greeting = ServerMessage::IdentityToken(IdentityToken {
            identity: Identity {
                text: format!("0x{}", self.caller.known.identity),
            },
            token: self.caller.known.token.clone(),
            connection_id: ConnectionId {
                number: self.connection_id,
            },
        });
        connection
            .write_message(greeting.frame(self.wire).into_message())
            .await?;
        Ok(connection.ping().await?)
    }

    async fn handle(
        &mut self,
        event: Event<Item>,
        connection: &mut Connection<Item>,
        outbox: &Arc<Outbox<Item>>,
    ) -> Result<(), End> {
        let ground = &self.lane.ground;
        match event {
            Event::Message(message) => self.message(&message, outbox).await,
            Event::Item(Item::Update(message)) => {
                self.updates += 1;
                if ground.defects.drops(self.updates) {
                    return Ok(());
                }
                if ground.defects.is_deaf() {
                    connection.deafen();
                }
                if connection.expired() {
                    return Err(self.expired());
                }
                Counters::add(&ground.counters.delivered, 1);
                if ground.defects.repeats(self.updates) {
                    connection.write_message(message.clone()).await?;
                }
                connection.write_message(message).await?;
                match self.held_back.take() {
                    Some(applied) => self.rows(*applied, connection).await,
                    None => Ok(()),
                }
            }
            Event::Item(Item::Answer(message)) => Ok(connection.write_message(message).await?),
            Event::Item(Item::Rows(applied)) => {
                if self.held_back.is_none() && ground.defects.swaps(self.client_id) {
                    self.held_back = Some(applied);
                    return Ok(());
                }
                self.rows(*applied, connection).await
            }
            Event::Tick => Ok(connection.ping().await?),
            Event::Expired => Err(self.expired()),
            Event::Idle => {
                tracing::info!(client = self.caller.client, "given up: nothing was heard");
                Err(if ground.config.strict {
                    End::Gone
                } else {
                    End::Zombie
                })
            }
            Event::Evicted if ground.config.strict => {
                let reason = "slow_consumer".to_owned();
                Err(End::Close(CloseCode::POLICY_VIOLATION, reason))
            }
            Event::Evicted => Err(End::Zombie),
            Event::Gone => Err(End::Gone),
        }
    }

    async fn rows(&self, applied: Applied, connection: &mut Connection<Item>) -> Result<(), End> {
        let ground = &self.lane.ground;
        if connection.expired() {
            return Err(self.expired());
        }
        Counters::add(&ground.counters.delivered, applied.delivers());
        let message = applied.encode(self.wire, ground.defects, self.client_id);
        Ok(connection.write_message(message).await?)
    }

    fn expired(&self) -> End {
        let ground = &self.lane.ground;
        let reason = ground.defects.named_reason(DenyReason::TokenExpired).name();
        Counters::add(&ground.counters.expired_live, 1);
        tracing::info!(
            client = self.caller.client,
            reason,
            "closed: the token has expired"
        );
        End::Close(CloseCode::POLICY_VIOLATION, reason.to_owned())
    }

    async fn message(&mut self, message: &Message, outbox: &Arc<Outbox<Item>>) -> Result<(), End> {
        let counters = &self.lane.ground.counters;
        Counters::add(&counters.received_bytes, message.as_payload().len() as u64);
        let Some(frame) = Frame::of(message) else {
            return Ok(());
        };
        let message = ClientMessage::of(&frame).map_err(|error| {
            // A Close frame has room for 123 bytes of reason.
            let reason = error.to_string();
            let reason = reason.chars().filter(char::is_ascii).take(100).collect();
            End::Close(CloseCode::INTERNAL_SERVER_ERROR, reason)
        })?;
        match message {
            ClientMessage::CallReducer {
                reducer,
                args,
                request_id,
                ..
            } => {
                let call = Call {
                    caller_identity: self.caller.known.identity.clone(),
                    connection_id: self.connection_id,
                    reducer,
                    args: Arc::new(args),
                    request_id,
                    connection: Some(self.id),
                };
                self.call(call, outbox).await;
            }
            ClientMessage::Subscribe {
                query_strings,
                request_id,
            } => self.legacy(&query_strings, request_id, outbox),
            ClientMessage::OneOffQuery {
                message_id,
                query_string,
            } => {
                let (error, tables) = match self.one_off(&query_string) {
                    Ok(table) => (Maybe::NONE, vec![table]),
                    Err(error) => (Maybe::Some(error), Vec::new()),
                };
                let answer = OneOffQueryResponse {
                    message_id: match self.wire {
                        Wire::Json => MessageId::Hex(message_id.to_hex()),
                        Wire::Bsatn => message_id,
                    },
                    error,
                    tables,
                    total_host_execution_duration: TimeDuration::default(),
                };
                self.answer_with(outbox, &ServerMessage::OneOffQueryResponse(answer));
            }
            ClientMessage::SubscribeSingle {
                query,
                request_id,
                query_id,
            } => {
                let kind = AppliedKind::Single(query_id.id);
                self.subscribe(&[query], request_id, query_id, kind, outbox);
            }
            ClientMessage::SubscribeMulti {
                query_strings,
                request_id,
                query_id,
            } => {
                let kind = AppliedKind::Multi(query_id.id);
                self.subscribe(&query_strings, request_id, query_id, kind, outbox);
            }
            ClientMessage::Unsubscribe {
                request_id,
                query_id,
            } => {
                let kind = AppliedKind::EndSingle(query_id.id);
                self.unsubscribe(request_id, query_id, kind, outbox);
            }
            ClientMessage::UnsubscribeMulti {
                request_id,
                query_id,
            } => {
                let kind = AppliedKind::EndMulti(query_id.id);
                self.unsubscribe(request_id, query_id, kind, outbox);
            }
        }
        Ok(())
    }

    /// Calls are answered in order: a committed one by its update, which the log's audience queues.
    async fn call(&self, call: Call, outbox: &Outbox<Item>) {
        let answer = match self.lane.call(&self.caller, call.clone()).await {
            Ok(Outcome::Committed) => return,
            Ok(Outcome::Unchanged) => UpdateStatus::Committed(DatabaseUpdate::default()),
            Err(error) => UpdateStatus::Failed(error.to_string()),
        };
        let message = match answer {
            UpdateStatus::Committed(update) if self.light => {
                ServerMessage::TransactionUpdateLight(TransactionUpdateLight {
                    request_id: call.request_id,
                    update,
                })
            }
            status => ServerMessage::TransactionUpdate(call.update(status, self.wire)),
        };
        self.answer_with(outbox, &message);
    }

    fn parse(&self, texts: &[String]) -> Result<Vec<Query>, String> {
        texts
            .iter()
            .map(|text| {
                let query =
                    Query::parse(text).map_err(|error| format!("{error}, executing: `{text}`"))?;
                match self.lane.query_refusal(&self.caller, &query) {
                    None => Ok(query),
                    Some(reason) => Err(reason),
                }
            })
            .collect()
    }

    fn legacy(&self, texts: &[String], request_id: u32, outbox: &Outbox<Item>) {
        match self.parse(texts) {
            Ok(queries) => {
                self.apply(
                    queries,
                    SetId::Legacy,
                    AppliedKind::Legacy,
                    request_id,
                    outbox,
                );
            }
            Err(error) => {
                let none = Call {
                    caller_identity: self.caller.known.identity.clone(),
                    connection_id: self.connection_id,
                    reducer: "<none>".to_owned(),
                    args: Arc::new(reducer::none(self.wire)),
                    request_id,
                    connection: None,
                };
                let failed = none.update(UpdateStatus::Failed(error), self.wire);
                self.answer_with(outbox, &ServerMessage::TransactionUpdate(failed));
            }
        }
    }

    fn subscribe(
        &self,
        texts: &[String],
        request_id: u32,
        query_id: QueryId,
        kind: AppliedKind,
        outbox: &Outbox<Item>,
    ) {
        match self.parse(texts) {
            Ok(queries) => {
                self.apply(queries, SetId::Query(query_id.id), kind, request_id, outbox);
            }
            Err(error) => self.refuse(request_id, query_id, error, outbox),
        }
    }

    /// Subscribes: the rows are found, and live updates queue up behind them, under one lock.
    fn apply(
        &self,
        queries: Vec<Query>,
        set: SetId,
        kind: AppliedKind,
        request_id: u32,
        outbox: &Outbox<Item>,
    ) {
        let defects = self.lane.ground.defects;
        let mut state = self.lane.ground.log.lock();
        let rows = queries
            .iter()
            .map(|query| (query.table, snapshot::find(&state.streams, query, defects)))
            .collect();
        state.audience.subscribe(self.id, set, queries);
        let _ = outbox.push(Item::Rows(Box::new(Applied {
            kind,
            request_id,
            rows,
        })));
    }

    fn unsubscribe(
        &self,
        request_id: u32,
        query_id: QueryId,
        kind: AppliedKind,
        outbox: &Outbox<Item>,
    ) {
        let defects = self.lane.ground.defects;
        let mut state = self.lane.ground.log.lock();
        let ended = state
            .audience
            .unsubscribe(self.id, SetId::Query(query_id.id));
        let Some(queries) = ended else {
            drop(state);
            let id = query_id.id;
            let error = format!("Subscription not found: QueryId {{ id: {id} }}");
            return self.refuse(request_id, query_id, error, outbox);
        };
        let rows = queries
            .iter()
            .map(|query| (query.table, snapshot::find(&state.streams, query, defects)))
            .collect();
        let _ = outbox.push(Item::Rows(Box::new(Applied {
            kind,
            request_id,
            rows,
        })));
    }

    fn one_off(&self, text: &str) -> Result<OneOffTable, String> {
        let query = Query::parse(text).map_err(|error| error.to_string())?;
        if let Some(reason) = self.lane.query_refusal(&self.caller, &query) {
            return Err(reason);
        }
        let defects = self.lane.ground.defects;
        let found = snapshot::find(&self.lane.ground.log.lock().streams, &query, defects);
        Ok(OneOffTable {
            table_name: query.table.name().to_owned(),
            rows: found
                .iter()
                .map(|row| row.row(defects, self.client_id).in_snapshot(self.wire))
                .collect(),
        })
    }

    fn refuse(&self, request_id: u32, query_id: QueryId, error: String, outbox: &Outbox<Item>) {
        let error = SubscriptionError {
            total_host_execution_duration_micros: 0,
            request_id: Maybe::Some(request_id),
            query_id: Maybe::Some(query_id.id),
            table_id: Maybe::NONE,
            error,
        };
        self.answer_with(outbox, &ServerMessage::SubscriptionError(error));
    }

    fn answer_with(&self, outbox: &Outbox<Item>, message: &ServerMessage) {
        let _ = outbox.push(Item::Answer(message.frame(self.wire).into_message()));
    }
}

/// An open connection in the counters.
struct Open<'a>(&'a Arc<Spacetime>);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.ground.counters.connections.fetch_sub(1, Relaxed);
    }
}
