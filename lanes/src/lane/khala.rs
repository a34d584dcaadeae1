//! The khala lane: Phoenix frames; the replay comes before the reply, and every update twice by design.

use model::event::{canonical_json, is_key};
use model::ids::{Seq, StreamId};
use model::quantity::Span;
use model::snapshot::Cover;

use super::{Session, Signal, Stale, denied};
use crate::connection::Upgrade;
use crate::content::Row;
use crate::frame::Frame;
use crate::khala::error::{ErrorBody, ErrorCode, SlowAction};
use crate::khala::message::{
    FrameKind, Joined, Reply, Request, ResumeAfter, ServerMessage, Subscribe, Subscribed,
    UpdateBatch, Watermark,
};
use crate::khala::{REPLAY_BATCH_SIZE, socket_path};
use model::topic::{stream_of, topic_of};

const BATCH: usize = 0;
const FRAME: usize = 1;
/// Phoenix clients number their requests from 1, and the join comes first.
const JOIN: &str = "1";

pub(super) fn upgrade(jwt: &str) -> Upgrade {
    Upgrade {
        path: socket_path(jwt, "faultlane"),
        subprotocol: None,
        headers: Vec::new(),
    }
}

/// One connection's codec.
#[derive(Debug, Default)]
pub(super) struct Khala {
    requests: u64,
    /// The ref of the last subscribe.
    subscribe: Option<String>,
}

impl Khala {
    fn next_reference(&mut self) -> String {
        self.requests += 1;
        self.requests.to_string()
    }

    fn reply(&self, reference: &str, reply: &Reply) -> Option<Signal> {
        if reference == JOIN {
            return Some(match reply.response::<Joined>() {
                Ok(_) => Signal::Joined,
                Err(error) => refused(&error)?,
            });
        }
        if self.subscribe.as_deref() != Some(reference) {
            return None;
        }
        Some(match reply.response::<Subscribed>() {
            Ok(subscribed) => Signal::Subscribed {
                rows: Vec::new(),
                heads: subscribed.current_watermarks.iter().map(head).collect(),
            },
            Err(error) => refused(&error)?,
        })
    }
}

impl Session for Khala {
    fn open(&mut self) -> Vec<Frame<'static>> {
        let reference = self.next_reference();
        vec![Request::Join.encode(JOIN, &reference).into()]
    }

    fn subscribe(&mut self, cursors: &[(&str, Seq)]) -> Vec<Frame<'static>> {
        let reference = self.next_reference();
        let cursors: Vec<(String, Seq)> = cursors
            .iter()
            .map(|(stream, seq)| {
                (
                    topic_of(stream).unwrap_or_else(|| (*stream).to_owned()),
                    *seq,
                )
            })
            .collect();
        let request = Request::Subscribe(Subscribe {
            topics: cursors.iter().map(|(topic, _)| topic.clone()).collect(),
            resume_after: ResumeAfter::Map(cursors.into_iter().collect()),
            replay_batch_size: REPLAY_BATCH_SIZE,
        });
        let text = request.encode(JOIN, &reference);
        self.subscribe = Some(reference);
        vec![text.into()]
    }

    fn heartbeat(&mut self) -> Vec<Frame<'static>> {
        let reference = self.next_reference();
        vec![Request::Heartbeat.encode(JOIN, &reference).into()]
    }

    fn receive(&mut self, frame: &Frame<'_>) -> Result<Vec<Signal>, String> {
        let text = frame.as_text().ok_or("a binary message")?;
        let message = ServerMessage::decode(text).map_err(|error| error.to_string())?;
        let signal = match message {
            ServerMessage::Reply { reference, reply } => {
                reference.and_then(|reference| self.reply(&reference, &reply))
            }
            ServerMessage::UpdateBatch(batch) => Some(rows(BATCH, batch)),
            ServerMessage::Frame(frame) => match frame.kind {
                FrameKind::UpdateBatch => {
                    let batch = frame.payload().map_err(|error| error.to_string())?;
                    Some(rows(FRAME, batch))
                }
                FrameKind::Error => refused(&frame.payload().map_err(|error| error.to_string())?),
                // The reply and the tick say the same.
                FrameKind::Subscribed | FrameKind::Heartbeat => None,
            },
            ServerMessage::Error(error) => refused(&error),
            ServerMessage::ChannelError => Some(denied("the channel crashed", None)),
            ServerMessage::ChannelClosed => Some(denied("the channel was closed", None)),
            ServerMessage::Heartbeat(_) | ServerMessage::Other(_) => None,
        };
        Ok(signal.into_iter().collect())
    }
}

fn head(mark: &Watermark) -> (StreamId, Seq) {
    (stream_of(&mark.topic), mark.watermark)
}

fn rows(framing: usize, batch: UpdateBatch) -> Signal {
    let row = |update: crate::khala::message::Update| {
        let stream = stream_of(&update.topic);
        Row {
            seq: update.watermark,
            // The contract leaves it to the service how it names documents; some do so by the idempotency key.
            key: Some(update.doc_key).filter(|key| is_key(key, &stream)),
            payload: canonical_json(&update.payload),
            hash: update.payload_hash,
            stream,
        }
    };
    Signal::Rows {
        framing,
        rows: batch.updates.into_iter().map(row).collect(),
    }
}

fn refused(error: &ErrorBody) -> Option<Signal> {
    let wait = error
        .retry_after_ms
        .or(error.reconnect_after_ms)
        .map(Span::from_millis);
    Some(match error.code {
        ErrorCode::StaleCursor => stale(error),
        ErrorCode::SlowConsumer if error.action != Some(SlowAction::Disconnect) => {
            Signal::Throttled(error.message.clone())
        }
        ErrorCode::Unauthorized => denied(error.message.clone(), wait),
        // The lane will close the connection for lack of a newer token; until then it serves.
        ErrorCode::ReauthRequired => return None,
        code => denied(format!("{code}: {}", error.message), wait),
    })
}

fn stale(error: &ErrorBody) -> Signal {
    let snapshots = error.snapshot_plan.iter().flat_map(|plan| &plan.topics);
    let answers = error.stale_topics.iter().map(|topic| {
        let snapshot = snapshots
            .clone()
            .find(|snapshot| snapshot.topic == topic.topic)
            .map(|found| Cover {
                watermark: found.head_watermark,
                snapshot: found.snapshot.clone(),
            });
        Stale {
            stream: stream_of(&topic.topic),
            reason: topic.reason.name().to_owned(),
            resume_after: topic.resume_after,
            snapshot,
        }
    });
    Signal::Stale(answers.collect())
}
