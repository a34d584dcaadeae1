//! Subscribing: which cursors are stale, and what is replayed to the others.

use std::sync::Arc;

use lanes::khala::error::{ErrorBody, ErrorCode, StaleTopic};
use lanes::khala::message::{Subscribe, Watermark};
use lanes::khala::snapshot::{FORMAT, SnapshotPlan, TopicSnapshot};
use lanes::spacetime::rows::SyncEvent;
use model::ids::{Seq, StreamId};
use model::topic::stream_of;

use super::subscribers::Item;
use crate::connection::Outbox;
use crate::defect::Defects;
use crate::log::{State, Streams};

use super::subscribers::Subscribers;

/// The largest replay batch that a client can ask for.
const LARGEST_BATCH: u32 = 1_000;

/// A subscription that is made: what is still to be sent for it.
#[derive(Debug)]
pub(crate) struct Subscription {
    /// The request's join ref and ref.
    pub(crate) refs: (Option<String>, Option<String>),
    /// Each topic's replay.
    pub(crate) replays: Vec<Replay>,
    /// How many updates a batch may hold.
    pub(crate) batch_size: usize,
}

/// A topic's replay.
#[derive(Debug)]
pub(crate) struct Replay {
    pub(crate) topic: String,
    pub(crate) events: Vec<Arc<SyncEvent>>,
    pub(crate) head: Seq,
}

impl Subscription {
    /// The topics' newest seqs.
    pub(crate) fn watermarks(&self) -> Vec<Watermark> {
        self.replays
            .iter()
            .map(|replay| Watermark {
                topic: replay.topic.clone(),
                watermark: replay.head,
            })
            .collect()
    }
}

/// Subscribes a connection: from now on live updates queue up behind the replay.
///
/// # Errors
/// `stale_cursor`; nothing is subscribed to then.
pub(crate) fn subscribe(
    state: &mut State<Subscribers>,
    defects: Defects,
    connection: u64,
    outbox: &Arc<Outbox<Item>>,
    refs: (Option<String>, Option<String>),
    asked: &Subscribe,
) -> Result<Vec<StreamId>, Box<ErrorBody>> {
    let topics: Vec<(&String, StreamId, Seq)> = asked
        .topics
        .iter()
        .map(|topic| {
            (
                topic,
                stream_of(topic),
                asked.resume_after.of(topic).unwrap_or(0),
            )
        })
        .collect();
    if defects.answers_stale_cursors() {
        let refused: Vec<StaleTopic> = topics
            .iter()
            .filter_map(|(topic, stream, cursor)| {
                stale_topic(&state.streams, topic, stream, *cursor)
            })
            .filter(|stale| {
                !defects.takes_cursor_below_floor()
                    || stale.resume_after + 1 != stale.retention_floor
            })
            .collect();
        if !refused.is_empty() {
            return Err(Box::new(refusal(&state.streams, refused)));
        }
    }
    let replays = topics
        .iter()
        .map(|(topic, stream, cursor)| {
            let stream = state.streams.get(stream);
            Replay {
                topic: (*topic).clone(),
                events: stream
                    .after(cursor.saturating_sub(defects.replays_below()))
                    .filter(|event| !defects.skips(event.seq))
                    .cloned()
                    .collect(),
                head: stream.head(),
            }
        })
        .collect();
    for (_, stream, _) in &topics {
        state.audience.subscribe(stream, connection, outbox);
    }
    let batch_size = asked.replay_batch_size.clamp(1, LARGEST_BATCH) as usize;
    // A subscription is no update: it is not what makes a consumer slow.
    let _ = outbox.push(Item::Subscribed(Box::new(Subscription {
        refs,
        replays,
        batch_size,
    })));
    Ok(topics.into_iter().map(|(_, stream, _)| stream).collect())
}

fn stale_topic(streams: &Streams, topic: &str, stream: &str, cursor: Seq) -> Option<StaleTopic> {
    let window = streams.window(stream);
    let reason = window.stale(cursor)?;
    Some(StaleTopic {
        topic: topic.to_owned(),
        reason,
        qos_tier: tier(topic).to_owned(),
        resume_after: cursor,
        retention_floor: window.floor,
        head_watermark: window.head,
        replay_lag: window.head.saturating_sub(cursor),
        replay_budget_events: window.budget,
    })
}

fn refusal(streams: &Streams, stale: Vec<StaleTopic>) -> ErrorBody {
    let mut reasons: Vec<_> = stale.iter().map(|topic| topic.reason).collect();
    reasons.sort_unstable();
    reasons.dedup();
    let topics: Vec<&str> = stale.iter().map(|topic| topic.topic.as_str()).collect();
    let message = format!("cursors are stale: {}", topics.join(", "));
    let snapshots = stale
        .iter()
        .map(|stale| TopicSnapshot {
            topic: stale.topic.clone(),
            head_watermark: stale.head_watermark,
            snapshot: Some(streams.get(&stream_of(&stale.topic)).snapshot().clone()),
        })
        .collect();
    ErrorBody {
        full_resync_required: Some(true),
        reason_codes: reasons,
        snapshot_plan: Some(SnapshotPlan {
            format: FORMAT.to_owned(),
            topics: snapshots,
        }),
        stale_topics: stale,
        ..ErrorBody::new(ErrorCode::StaleCursor, message)
    }
}

/// The class of service of a topic.
fn tier(topic: &str) -> &'static str {
    if topic.starts_with("run:") || topic.ends_with("_summaries") {
        "run_events"
    } else if topic.starts_with("worker:") {
        "lifecycle"
    } else if topic == "runtime.codex_worker_events" {
        "codex_events"
    } else {
        "standard"
    }
}
