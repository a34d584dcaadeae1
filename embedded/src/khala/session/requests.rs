//! What a client asks on its connection, and what it is answered.

use std::sync::Arc;
use std::time::Duration;

use lanes::khala::CHANNEL;
use lanes::khala::error::{ErrorBody, ErrorCode};
use lanes::khala::frame::{Frame, encode};
use lanes::khala::message::{
    FrameKind, Joined, Reply, Request, ServerMessage, Subscribe, SyncFrame,
};
use lanes::token::DenyReason;
use model::topic::{stream_of, topic_of};
use serde_json::json;
use tokio_websockets::{CloseCode, Message};

use super::super::replay;
use super::super::subscribers::Item;
use super::{End, Session, refused};
use crate::connection::{Connection, Outbox};
use crate::counters::Counters;

/// The longest message of a client.
const REQUEST_LIMIT: usize = 1 << 20;

/// Topics that one request may name.
const TOPICS_LIMIT: usize = 256;

impl Session {
    /// Answers a client's message.
    pub(super) async fn message(
        &mut self,
        message: &Message,
        connection: &mut Connection<Item>,
        outbox: &Arc<Outbox<Item>>,
    ) -> Result<(), End> {
        let received = &self.lane.ground.counters.received_bytes;
        Counters::add(received, message.as_payload().len() as u64);
        let Some(text) = message.as_text() else {
            return Ok(());
        };
        if text.len() > REQUEST_LIMIT {
            let limit = format!("a message may have {REQUEST_LIMIT} bytes");
            let error = ErrorBody::new(ErrorCode::PayloadTooLarge, limit);
            return self.push_error(&error, connection).await;
        }
        let frame = match Frame::decode(text) {
            Ok(frame) => frame,
            Err(error) => {
                let error = ErrorBody::new(ErrorCode::BadSubscription, error.to_string());
                return self.push_error(&error, connection).await;
            }
        };
        let refs = (frame.join_ref.as_deref(), frame.reference.as_deref());
        if let Err(wait) = self.requests.take(host::clock::now()) {
            let wait = wait.max(Duration::from_millis(1));
            let mut error = ErrorBody::new(ErrorCode::RateLimited, "too many requests");
            error.retry_after_ms = Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
            return self
                .reply(refs.0, refs.1, refused(&error), connection)
                .await;
        }
        match Request::decode(&frame) {
            Ok(request) => self.request(request, &frame, connection, outbox).await,
            Err(error) => {
                let error = ErrorBody::new(ErrorCode::BadSubscription, error.to_string());
                self.reply(refs.0, refs.1, refused(&error), connection)
                    .await
            }
        }
    }

    async fn request(
        &mut self,
        request: Request,
        frame: &Frame,
        connection: &mut Connection<Item>,
        outbox: &Arc<Outbox<Item>>,
    ) -> Result<(), End> {
        let (join_ref, reference) = (frame.join_ref.as_deref(), frame.reference.as_deref());
        let empty = json!({});
        match request {
            Request::TransportHeartbeat => {
                let reply = Reply::Ok(empty);
                let text = encode(None, reference, &frame.topic, "phx_reply", &reply);
                Ok(connection.write(text.into()).await?)
            }
            Request::Join => {
                self.joined = true;
                let granted = &self.claims.oa_sync_streams;
                let joined = Joined {
                    subscription_id: self.subscription_id(),
                    allowed_topics: granted.iter().filter_map(|each| topic_of(each)).collect(),
                    current_watermarks: self.watermarks(granted),
                };
                self.reply(join_ref, reference, Ok(&joined), connection)
                    .await
            }
            Request::Heartbeat => {
                self.reply(join_ref, reference, Ok(&empty), connection)
                    .await
            }
            Request::Subscribe(asked) if self.joined => {
                self.subscribe(&asked, frame, connection, outbox).await
            }
            Request::Unsubscribe(asked) => {
                {
                    let mut state = self.lane.ground.log.lock();
                    for stream in asked.topics.iter().map(|topic| stream_of(topic)) {
                        state.audience.unsubscribe(&stream, self.id);
                        self.streams.retain(|own| *own != stream);
                    }
                }
                self.reply(join_ref, reference, Ok(&empty), connection)
                    .await
            }
            Request::Leave => {
                self.reply(join_ref, reference, Ok(&empty), connection)
                    .await?;
                self.write(&ServerMessage::ChannelClosed, connection)
                    .await?;
                Err(End::Close(CloseCode::NORMAL_CLOSURE, "left"))
            }
            Request::Subscribe(_) => {
                let error = ErrorBody::new(ErrorCode::BadSubscription, "join the channel first");
                self.reply(join_ref, reference, refused(&error), connection)
                    .await
            }
            Request::Other { topic, event } => {
                let what = format!("`{event}` on `{topic}` is not known");
                let error = ErrorBody::new(ErrorCode::BadSubscription, what);
                self.reply(join_ref, reference, refused(&error), connection)
                    .await
            }
        }
    }

    async fn subscribe(
        &mut self,
        asked: &Subscribe,
        frame: &Frame,
        connection: &mut Connection<Item>,
        outbox: &Arc<Outbox<Item>>,
    ) -> Result<(), End> {
        let (join_ref, reference) = (frame.join_ref.as_deref(), frame.reference.as_deref());
        if asked.topics.is_empty() || asked.topics.len() > TOPICS_LIMIT {
            let error = ErrorBody::new(
                ErrorCode::BadSubscription,
                format!("name 1 to {TOPICS_LIMIT} topics"),
            );
            return self
                .reply(join_ref, reference, refused(&error), connection)
                .await;
        }
        let ground = &self.lane.ground;
        let foreign = |topic: &&String| !self.claims.grants(&stream_of(topic));
        if self.lane.checks_grants()
            && let Some(topic) = asked.topics.iter().find(foreign)
        {
            let reason = DenyReason::ForbiddenTopic.name();
            ground.counters.refuse(&self.client, reason, topic);
            let mut error = ErrorBody::new(ErrorCode::ForbiddenTopic, reason);
            error.topic = Some(topic.clone());
            return self
                .reply(join_ref, reference, refused(&error), connection)
                .await;
        }
        let refs = (frame.join_ref.clone(), frame.reference.clone());
        let subscribed = replay::subscribe(
            &mut ground.log.lock(),
            ground.defects,
            self.id,
            outbox,
            refs,
            asked,
        );
        match subscribed {
            Ok(streams) => {
                for stream in streams {
                    if !self.streams.contains(&stream) {
                        self.streams.push(stream);
                    }
                }
                Ok(())
            }
            Err(error) => {
                ground
                    .counters
                    .refuse(&self.client, "stale_cursor", &error.message);
                self.push_error(&error, connection).await?;
                let frame = SyncFrame::new(CHANNEL, 0, FrameKind::Error, &error);
                self.write(&ServerMessage::Frame(frame), connection).await?;
                self.reply(join_ref, reference, refused(&error), connection)
                    .await
            }
        }
    }
}
