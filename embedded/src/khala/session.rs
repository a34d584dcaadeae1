//! One connection of the khala lane.

mod requests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use lanes::khala::CHANNEL;
use lanes::khala::error::{ErrorBody, ErrorCode, SlowAction};
use lanes::khala::frame::encode;
use lanes::khala::message::Watermark;
use lanes::khala::message::{FrameKind, Reply, ServerMessage, Subscribed, SyncFrame};
use lanes::token::{Claims, DenyReason};
use model::ids::{ClientId, StreamId};
use model::quantity::Rate;
use model::topic::topic_of;
use serde::Serialize;
use tokio_websockets::CloseCode;

use super::Khala;
use super::replay::Subscription;
use super::subscribers::{Framings, Item};
use crate::bucket::Bucket;
use crate::connection::{Connection, Event, Gone, Outbox, STRIKES, outbox};
use crate::counters::Counters;
use crate::front::Socket;

/// Updates that may wait for a connection before that is a strike.
const QUEUE_LIMIT: usize = 1_024;

/// What an evicted client is told to wait.
const RECONNECT_AFTER_MS: u64 = 2_000;

/// Requests per second and connection; more are refused as `rate_limited`.
const REQUESTS_PER_SECOND: f64 = 50.0;

static NEXT_CONNECTION: AtomicU64 = AtomicU64::new(1);

/// One connection.
#[derive(Debug)]
pub(super) struct Session {
    lane: Arc<Khala>,
    client: String,
    client_id: Option<ClientId>,
    claims: Claims,
    expires_us: u64,
    id: u64,
    joined: bool,
    streams: Vec<StreamId>,
    live: u64,
    /// Planted: a replay that has to wait for the next live update.
    held_back: Option<Box<Subscription>>,
    /// Strikes for slow reading that the client has been told of.
    told: u64,
    requests: Bucket,
}

/// Why a connection ends.
enum End {
    /// It is over already.
    Gone,
    /// It is closed with this.
    Close(CloseCode, &'static str),
}

impl From<Gone> for End {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl Session {
    pub(super) fn new(lane: Arc<Khala>, client: String, claims: Claims, expires_us: u64) -> Self {
        Self {
            lane,
            client_id: client.parse().ok(),
            client,
            claims,
            expires_us,
            id: NEXT_CONNECTION.fetch_add(1, Relaxed),
            joined: false,
            streams: Vec::new(),
            live: 0,
            held_back: None,
            told: 0,
            requests: Bucket::new(
                Rate::per_second(REQUESTS_PER_SECOND),
                2.0 * REQUESTS_PER_SECOND,
            ),
        }
    }

    /// Serves the connection until it ends.
    pub(super) async fn run(mut self, socket: Socket) {
        let lane = Arc::clone(&self.lane);
        let counters = &lane.ground.counters;
        Counters::add(&counters.upgrades, 1);
        Counters::add(&counters.connections, 1);
        // Given back even when the task is dropped at shutdown.
        let _open = Open(&lane);
        let (outbox, inbox) = outbox(QUEUE_LIMIT);
        let outbox = Arc::new(outbox);
        let expires = (lane.ground.config.strict && lane.ground.defects.enforces_expiry())
            .then_some(self.expires_us);
        let mut connection = Connection::new(socket, inbox, &lane.ground.config.profile, expires);
        let end = loop {
            let event = connection.next().await;
            if let Err(end) = self.handle(event, &mut connection, &outbox).await {
                break end;
            }
        };
        {
            let mut state = lane.ground.log.lock();
            for stream in &self.streams {
                state.audience.unsubscribe(stream, self.id);
            }
        }
        if let End::Close(code, reason) = end {
            tracing::debug!(client = self.client, reason, "closing");
            connection.close(code, reason).await;
        }
    }

    async fn handle(
        &mut self,
        event: Event<Item>,
        connection: &mut Connection<Item>,
        outbox: &Arc<Outbox<Item>>,
    ) -> Result<(), End> {
        match event {
            Event::Message(message) => self.message(&message, connection, outbox).await,
            Event::Item(Item::Live(live)) => {
                if !self.streams.iter().any(|stream| stream == live.stream()) {
                    return Ok(());
                }
                self.live += 1;
                let defects = self.lane.ground.defects;
                if defects.drops(self.live) {
                    return Ok(());
                }
                if defects.is_deaf() {
                    connection.deafen();
                }
                if connection.expired() {
                    return self.expired(connection).await;
                }
                Counters::add(&self.lane.ground.counters.delivered, 1);
                let Framings { batch, frame } = live.framings(defects, self.client_id);
                tracing::trace!(client = self.client, seq = live.seq(), "update");
                for _ in 0..=u8::from(defects.repeats(self.live)) {
                    connection.write(batch.clone()).await?;
                    connection.write(frame.clone()).await?;
                }
                if let Some(subscription) = self.held_back.take() {
                    self.replay(&subscription, connection).await?;
                }
                self.throttle(connection).await
            }
            Event::Item(Item::Subscribed(subscription)) => {
                if self.held_back.is_none() && self.lane.ground.defects.swaps(self.client_id) {
                    self.held_back = Some(subscription);
                    return Ok(());
                }
                self.replay(&subscription, connection).await
            }
            Event::Tick => self.tick(connection).await,
            Event::Expired => self.expired(connection).await,
            Event::Idle => {
                tracing::info!(client = self.client, "closed: no heartbeat");
                Err(End::Close(CloseCode::NORMAL_CLOSURE, "heartbeat_timeout"))
            }
            Event::Evicted => {
                let error = slow(SlowAction::Disconnect, connection.depth());
                self.push_error(&error, connection).await?;
                Err(End::Close(CloseCode::POLICY_VIOLATION, "slow_consumer"))
            }
            Event::Gone => Err(End::Gone),
        }
    }

    /// Tells a client that reads too slowly so, once for each strike.
    async fn throttle(&mut self, connection: &mut Connection<Item>) -> Result<(), End> {
        let strikes = (connection.depth() / QUEUE_LIMIT) as u64;
        if strikes > self.told && strikes < STRIKES {
            self.told = strikes;
            let error = slow(SlowAction::Throttle, connection.depth());
            self.push_error(&error, connection).await?;
        }
        Ok(())
    }

    async fn expired(&self, connection: &mut Connection<Item>) -> Result<(), End> {
        let reason = self
            .lane
            .ground
            .defects
            .named_reason(DenyReason::TokenExpired);
        let counters = &self.lane.ground.counters;
        Counters::add(&counters.expired_live, 1);
        tracing::info!(
            client = self.client,
            reason = reason.name(),
            "closed: the token has expired"
        );
        // The write may not wait: nothing else is sent on this connection.
        let error = ErrorBody::new(ErrorCode::Unauthorized, reason.name());
        let _ = self.push_error(&error, connection).await;
        Err(End::Close(CloseCode::POLICY_VIOLATION, reason.name()))
    }

    async fn tick(&self, connection: &mut Connection<Item>) -> Result<(), End> {
        if !self.joined {
            return Ok(());
        }
        let watermarks = self.watermarks(&self.streams);
        let frame = SyncFrame::new(CHANNEL, 0, FrameKind::Heartbeat, &watermarks);
        self.write(&ServerMessage::Heartbeat(watermarks), connection)
            .await?;
        self.write(&ServerMessage::Frame(frame), connection).await
    }

    fn watermarks(&self, streams: &[StreamId]) -> Vec<Watermark> {
        let state = self.lane.ground.log.lock();
        streams
            .iter()
            .filter_map(|stream| {
                Some(Watermark {
                    topic: topic_of(stream)?,
                    watermark: state.streams.get(stream).head(),
                })
            })
            .collect()
    }

    async fn replay(
        &mut self,
        subscription: &Subscription,
        connection: &mut Connection<Item>,
    ) -> Result<(), End> {
        let defects = self.lane.ground.defects;
        for replay in &subscription.replays {
            let mut batches = replay.events.chunks(subscription.batch_size).peekable();
            let mut more = true;
            while more {
                if connection.expired() {
                    return self.expired(connection).await;
                }
                // A topic with nothing to replay has one empty batch, which says so.
                let events = batches.next().unwrap_or_default();
                more = batches.peek().is_some();
                Counters::add(&self.lane.ground.counters.delivered, events.len() as u64);
                let altered: Vec<_> = events
                    .iter()
                    .map(|event| {
                        defects
                            .alters(self.client_id, event.seq)
                            .then(|| defects.altered(event))
                    })
                    .collect();
                let events = events
                    .iter()
                    .zip(&altered)
                    .map(|(event, altered)| altered.as_ref().unwrap_or(event));
                let framings = Framings::of(&replay.topic, events, replay.head, !more);
                connection.write(framings.batch).await?;
                connection.write(framings.frame).await?;
            }
        }
        let body = Subscribed {
            subscription_id: self.subscription_id(),
            topics: subscription
                .replays
                .iter()
                .map(|replay| replay.topic.clone())
                .collect(),
            current_watermarks: subscription.watermarks(),
        };
        let frame = SyncFrame::new(CHANNEL, 0, FrameKind::Subscribed, &body);
        self.write(&ServerMessage::Frame(frame), connection).await?;
        let (join_ref, reference) = &subscription.refs;
        self.reply(
            join_ref.as_deref(),
            reference.as_deref(),
            Ok(&body),
            connection,
        )
        .await
    }

    fn subscription_id(&self) -> String {
        format!("sub-{}", self.id)
    }

    async fn push_error(
        &self,
        error: &ErrorBody,
        connection: &mut Connection<Item>,
    ) -> Result<(), End> {
        let error = ServerMessage::Error(error.clone());
        self.write(&error, connection).await
    }

    async fn write(
        &self,
        message: &ServerMessage,
        connection: &mut Connection<Item>,
    ) -> Result<(), End> {
        Ok(connection.write(Bytes::from(message.encode(None))).await?)
    }

    async fn reply(
        &self,
        join_ref: Option<&str>,
        reference: Option<&str>,
        outcome: Result<&(impl Serialize + Sync), serde_json::Value>,
        connection: &mut Connection<Item>,
    ) -> Result<(), End> {
        let reply = match outcome {
            Ok(response) => Reply::Ok(serde_json::to_value(response).unwrap_or_default()),
            Err(error) => Reply::Error(error),
        };
        let text = encode(join_ref, reference, CHANNEL, "phx_reply", &reply);
        Ok(connection.write(text.into()).await?)
    }
}

fn refused(error: &ErrorBody) -> Result<&'static (), serde_json::Value> {
    Err(serde_json::to_value(error).unwrap_or_default())
}

fn slow(action: SlowAction, depth: usize) -> ErrorBody {
    ErrorBody {
        action: Some(action),
        queue_depth: Some(depth as u64),
        queue_limit: Some(QUEUE_LIMIT as u64),
        reconnect_after_ms: Some(RECONNECT_AFTER_MS),
        full_resync_required: Some(false),
        ..ErrorBody::new(ErrorCode::SlowConsumer, "updates are read too slowly")
    }
}

/// An open connection in the counters.
struct Open<'a>(&'a Arc<Khala>);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.ground.counters.connections.fetch_sub(1, Relaxed);
    }
}
