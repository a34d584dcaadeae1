//! What each side sends on the channel, by event.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use model::ids::Seq;
use serde::de::{self, DeserializeOwned, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::{ErrorBody, ErrorCode};
use super::frame::{Frame, encode};
use super::{CHANNEL, PHOENIX, REPLAY_BATCH_SIZE, SCHEMA_VERSION};

/// What a client sends. Each is answered by a [`Reply`] with its ref.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// `phx_join`; answered with [`Joined`].
    Join,
    /// `phx_leave`.
    Leave,
    /// The transport's heartbeat, on the topic `phoenix`.
    TransportHeartbeat,
    /// `sync:heartbeat`.
    Heartbeat,
    /// `sync:subscribe`; answered with [`Subscribed`] or an [`ErrorBody`].
    Subscribe(Subscribe),
    /// `sync:unsubscribe`.
    Unsubscribe(Unsubscribe),
    /// Anything else.
    Other {
        /// Its topic.
        topic: String,
        /// Its event.
        event: String,
    },
}

/// The payload of `sync:subscribe`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscribe {
    /// What to subscribe to.
    pub topics: Vec<String>,
    /// The cursors; a topic without one starts at 0.
    #[serde(default)]
    pub resume_after: ResumeAfter,
    /// How many updates a replay batch may hold.
    #[serde(default = "replay_batch_size")]
    pub replay_batch_size: u32,
}

const fn replay_batch_size() -> u32 {
    REPLAY_BATCH_SIZE
}

/// The payload of `sync:unsubscribe`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsubscribe {
    /// What to unsubscribe from.
    pub topics: Vec<String>,
}

/// Cursors, in either of the two forms in which clients send them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ResumeAfter {
    /// `{topic: n}`
    Map(BTreeMap<String, Seq>),
    /// `[{topic, watermark}]`
    List(Vec<Watermark>),
}

impl Default for ResumeAfter {
    fn default() -> Self {
        Self::Map(BTreeMap::new())
    }
}

impl ResumeAfter {
    /// A topic's cursor.
    #[must_use]
    pub fn of(&self, topic: &str) -> Option<Seq> {
        match self {
            Self::Map(map) => map.get(topic).copied(),
            Self::List(list) => list
                .iter()
                .find(|entry| entry.topic == topic)
                .map(|entry| entry.watermark),
        }
    }
}

/// A topic's newest seq, or a cursor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watermark {
    /// The topic.
    pub topic: String,
    /// The seq.
    pub watermark: Seq,
}

impl Request {
    /// Writes the request. `join_ref` is the ref of the join; that of the join itself for the join.
    #[must_use]
    pub fn encode(&self, join_ref: &str, reference: &str) -> String {
        let (join_ref, reference) = (Some(join_ref), Some(reference));
        let empty = serde_json::Map::new();
        match self {
            Self::Join => encode(join_ref, reference, CHANNEL, "phx_join", &empty),
            Self::Leave => encode(join_ref, reference, CHANNEL, "phx_leave", &empty),
            Self::TransportHeartbeat => encode(None, reference, PHOENIX, "heartbeat", &empty),
            Self::Heartbeat => encode(join_ref, reference, CHANNEL, "sync:heartbeat", &empty),
            Self::Subscribe(body) => encode(join_ref, reference, CHANNEL, "sync:subscribe", body),
            Self::Unsubscribe(body) => {
                encode(join_ref, reference, CHANNEL, "sync:unsubscribe", body)
            }
            Self::Other { topic, event } => encode(join_ref, reference, topic, event, &empty),
        }
    }

    /// Reads the request in a frame.
    ///
    /// # Errors
    /// The payload is not that of its event.
    pub fn decode(frame: &Frame) -> Result<Self, serde_json::Error> {
        Ok(match (frame.topic.as_str(), frame.event.as_str()) {
            (PHOENIX, "heartbeat") => Self::TransportHeartbeat,
            (CHANNEL, "phx_join") => Self::Join,
            (CHANNEL, "phx_leave") => Self::Leave,
            (CHANNEL, "sync:heartbeat") => Self::Heartbeat,
            (CHANNEL, "sync:subscribe") => {
                Self::Subscribe(Deserialize::deserialize(&frame.payload)?)
            }
            (CHANNEL, "sync:unsubscribe") => {
                Self::Unsubscribe(Deserialize::deserialize(&frame.payload)?)
            }
            _ => Self::Other {
                topic: frame.topic.clone(),
                event: frame.event.clone(),
            },
        })
    }
}

/// What a server sends.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerMessage {
    /// `phx_reply`.
    Reply {
        /// The request's ref.
        reference: Option<String>,
        /// What became of it.
        reply: Reply,
    },
    /// `sync:update_batch`.
    UpdateBatch(UpdateBatch),
    /// `sync:frame`.
    Frame(SyncFrame),
    /// `sync:heartbeat`: the server's tick.
    Heartbeat(Vec<Watermark>),
    /// `sync:error`.
    Error(ErrorBody),
    /// `phx_error`: the channel crashed.
    ChannelError,
    /// `phx_close`: the channel was closed.
    ChannelClosed,
    /// Anything else, by its event.
    Other(String),
}

/// The payload of `phx_reply`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", content = "response", rename_all = "snake_case")]
pub enum Reply {
    /// Depends on the request: [`Joined`], [`Subscribed`], or an empty object.
    Ok(Value),
    /// Mostly an [`ErrorBody`].
    Error(Value),
}

impl Reply {
    /// The response to a request that succeeded.
    ///
    /// # Errors
    /// It failed, or the response is not what is expected.
    pub fn response<T: DeserializeOwned>(&self) -> Result<T, Box<ErrorBody>> {
        let unexpected = |error: serde_json::Error| {
            let message = format!("the reply is not what was expected: {error}");
            ErrorBody::new(ErrorCode::Internal, message)
        };
        match self {
            Self::Ok(value) => T::deserialize(value).map_err(|error| Box::new(unexpected(error))),
            Self::Error(value) => Err(Box::new(
                ErrorBody::deserialize(value).unwrap_or_else(unexpected),
            )),
        }
    }
}

/// The response to `phx_join`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// Names the connection's subscription.
    pub subscription_id: String,
    /// What the token grants.
    pub allowed_topics: Vec<String>,
    /// Their newest seqs.
    pub current_watermarks: Vec<Watermark>,
}

/// The response to `sync:subscribe`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscribed {
    /// Names the connection's subscription.
    pub subscription_id: String,
    /// What is subscribed to now.
    pub topics: Vec<String>,
    /// Their newest seqs.
    pub current_watermarks: Vec<Watermark>,
}

/// The payload of `sync:update_batch`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UpdateBatch {
    /// The updates, of one topic, in order.
    pub updates: Vec<Update>,
    /// No replay batch of the topic follows. Always true for live updates.
    pub replay_complete: bool,
    /// The topic's newest seq.
    pub head_watermarks: Vec<Watermark>,
}

/// An update.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Update {
    /// The topic.
    pub topic: String,
    /// The document: here the event's idempotency key.
    pub doc_key: String,
    /// The document's version.
    pub doc_version: u64,
    /// The content.
    pub payload: Value,
    /// `sha256:<hex>` of the content as canonical JSON.
    pub payload_hash: String,
    /// The seq.
    pub watermark: Seq,
    /// The content must be fetched elsewhere.
    pub hydration_required: bool,
}

/// What a `sync:frame` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FrameKind {
    /// The response to `sync:subscribe` once more: [`Subscribed`].
    #[serde(rename = "KHALA_FRAME_KIND_SUBSCRIBED")]
    Subscribed,
    /// [`UpdateBatch`].
    #[serde(rename = "KHALA_FRAME_KIND_UPDATE_BATCH")]
    UpdateBatch,
    /// The tick: watermarks.
    #[serde(rename = "KHALA_FRAME_KIND_HEARTBEAT")]
    Heartbeat,
    /// [`ErrorBody`]; the frame's seq is 0.
    #[serde(rename = "KHALA_FRAME_KIND_ERROR")]
    Error,
}

/// The payload of `sync:frame`: the other framing of every message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncFrame {
    /// The topic; the channel for frames that concern no topic.
    pub topic: String,
    /// The seq of its last update; 0 for errors, heartbeats and subscribed.
    pub seq: Seq,
    /// What `payload_bytes` is.
    pub kind: FrameKind,
    /// JSON in base64.
    pub payload_bytes: String,
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
}

/// The payload bytes of a frame are not what its kind says.
#[derive(Debug, thiserror::Error)]
#[error("sync:frame {topic} seq {seq}: payload_bytes: {reason}")]
pub struct BadFrame {
    topic: String,
    seq: Seq,
    reason: String,
}

impl SyncFrame {
    /// A frame around a payload.
    #[must_use]
    pub fn new(topic: &str, seq: Seq, kind: FrameKind, payload: &impl Serialize) -> Self {
        let payload = serde_json::to_vec(payload).expect("payloads of this crate have a JSON form");
        Self {
            topic: topic.to_owned(),
            seq,
            kind,
            payload_bytes: BASE64.encode(payload),
            schema_version: SCHEMA_VERSION,
        }
    }

    /// The payload: [`Subscribed`], [`UpdateBatch`], a list of [`Watermark`]s or [`ErrorBody`], by the kind.
    ///
    /// # Errors
    /// The bytes are not base64, or not JSON of that type.
    pub fn payload<T: DeserializeOwned>(&self) -> Result<T, BadFrame> {
        let bad = |reason: String| BadFrame {
            topic: self.topic.clone(),
            seq: self.seq,
            reason,
        };
        let bytes = BASE64
            .decode(&self.payload_bytes)
            .map_err(|error| bad(error.to_string()))?;
        serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))
    }
}

/// The payload of the server's `sync:heartbeat`. The contract does not say what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Tick {
    #[serde(default)]
    watermarks: Vec<Watermark>,
}

impl ServerMessage {
    /// Writes the message. Pushes have no `join_ref`, so that one text serves all subscribers.
    #[must_use]
    pub fn encode(&self, join_ref: Option<&str>) -> String {
        let push = |event: &str, payload: &dyn erased::Payload| payload.push(event);
        match self {
            Self::Reply { reference, reply } => {
                encode(join_ref, reference.as_deref(), CHANNEL, "phx_reply", reply)
            }
            Self::UpdateBatch(batch) => push("sync:update_batch", batch),
            Self::Frame(frame) => push("sync:frame", frame),
            Self::Heartbeat(watermarks) => push(
                "sync:heartbeat",
                &Tick {
                    watermarks: watermarks.clone(),
                },
            ),
            Self::Error(error) => push("sync:error", error),
            Self::ChannelError => push("phx_error", &serde_json::Map::new()),
            Self::ChannelClosed => push("phx_close", &serde_json::Map::new()),
            Self::Other(event) => push(event, &serde_json::Map::new()),
        }
    }

    /// Reads a message. The payload is decoded as its event says, without a detour through a [`Value`].
    ///
    /// # Errors
    /// The text is not a frame, or its payload not that of its event.
    pub fn decode(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str::<Decoded>(text).map(|decoded| decoded.0)
    }
}

mod erased {
    use serde::Serialize;

    use super::{CHANNEL, encode};

    /// Payloads of pushes, whatever their type.
    pub(super) trait Payload {
        /// The frame of a push.
        fn push(&self, event: &str) -> String;
    }

    impl<T: Serialize> Payload for T {
        fn push(&self, event: &str) -> String {
            encode(None, None, CHANNEL, event, self)
        }
    }
}

struct Decoded(ServerMessage);

impl<'de> Deserialize<'de> for Decoded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(FiveVisitor)
    }
}

struct FiveVisitor;

impl<'de> Visitor<'de> for FiveVisitor {
    type Value = Decoded;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[join_ref, ref, topic, event, payload]")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut five: A) -> Result<Decoded, A::Error> {
        fn next<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(
            five: &mut A,
            at: usize,
        ) -> Result<T, A::Error> {
            five.next_element()?
                .ok_or_else(|| de::Error::invalid_length(at, &FiveVisitor))
        }
        let _join_ref: Option<String> = next(&mut five, 0)?;
        let reference: Option<String> = next(&mut five, 1)?;
        let _topic: String = next(&mut five, 2)?;
        let event: String = next(&mut five, 3)?;
        let message = match event.as_str() {
            "phx_reply" => ServerMessage::Reply {
                reference,
                reply: next(&mut five, 4)?,
            },
            "sync:update_batch" => ServerMessage::UpdateBatch(next(&mut five, 4)?),
            "sync:frame" => ServerMessage::Frame(next(&mut five, 4)?),
            "sync:heartbeat" => ServerMessage::Heartbeat(next::<Tick, _>(&mut five, 4)?.watermarks),
            "sync:error" => ServerMessage::Error(next(&mut five, 4)?),
            _ => {
                let _payload: de::IgnoredAny = next(&mut five, 4)?;
                match event.as_str() {
                    "phx_error" => ServerMessage::ChannelError,
                    "phx_close" => ServerMessage::ChannelClosed,
                    _ => ServerMessage::Other(event),
                }
            }
        };
        if five.next_element::<de::IgnoredAny>()?.is_some() {
            return Err(de::Error::invalid_length(6, &FiveVisitor));
        }
        Ok(Decoded(message))
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::{StaleReason, StaleTopic};
    use super::super::snapshot::{FORMAT, SnapshotPlan, TopicSnapshot};
    use super::*;
    use model::snapshot::Snapshot;
    use serde_json::json;

    fn request(text: &str) -> Request {
        Request::decode(&Frame::decode(text).unwrap()).unwrap()
    }

    #[test]
    fn requests_are_read_in_the_forms_that_clients_send() {
        let subscribe = |resume: &str| {
            request(&format!(
                r#"["1","3","sync:v1","sync:subscribe",{{"topics":["run:1:events"]{resume}}}]"#
            ))
        };
        for (resume, cursor) in [
            ("", None),
            (r#","resume_after":{"run:1:events":7}"#, Some(7)),
            (
                r#","resume_after":[{"topic":"run:1:events","watermark":8}]"#,
                Some(8),
            ),
        ] {
            let Request::Subscribe(body) = subscribe(resume) else {
                panic!("not a subscribe");
            };
            assert_eq!(body.resume_after.of("run:1:events"), cursor);
            assert_eq!(body.replay_batch_size, 200);
        }
        assert_eq!(
            request(r#"[null,"4","phoenix","heartbeat",{}]"#),
            Request::TransportHeartbeat
        );
        assert_eq!(
            request(r#"["1","1","sync:v1","phx_join",{}]"#),
            Request::Join
        );
        for text in [
            "",
            "{}",
            "[]",
            r#"["1","1","sync:v1","phx_join"]"#,
            "[1,2,3,4,5]",
        ] {
            assert!(Frame::decode(text).is_err(), "{text}");
        }
    }

    #[test]
    fn requests_survive_the_wire() {
        for each in [
            Request::Join,
            Request::Leave,
            Request::TransportHeartbeat,
            Request::Heartbeat,
            Request::Subscribe(Subscribe {
                topics: vec!["run:1:events".to_owned()],
                resume_after: ResumeAfter::Map([("run:1:events".to_owned(), 3)].into()),
                replay_batch_size: 50,
            }),
            Request::Unsubscribe(Unsubscribe {
                topics: vec!["run:1:events".to_owned()],
            }),
        ] {
            assert_eq!(request(&each.encode("1", "2")), each);
        }
    }

    fn batch() -> UpdateBatch {
        UpdateBatch {
            updates: vec![Update {
                topic: "run:1:events".to_owned(),
                doc_key: "k".to_owned(),
                doc_version: 5,
                payload: json!({"b": [1, null], "a": "ü"}),
                payload_hash: "sha256:00".to_owned(),
                watermark: 5,
                hydration_required: false,
            }],
            replay_complete: true,
            head_watermarks: vec![Watermark {
                topic: "run:1:events".to_owned(),
                watermark: 5,
            }],
        }
    }

    #[test]
    fn messages_survive_the_wire() {
        let mut stale = ErrorBody::new(ErrorCode::StaleCursor, "stale");
        stale.full_resync_required = Some(true);
        stale.reason_codes = vec![StaleReason::RetentionFloorBreach];
        stale.stale_topics = vec![StaleTopic {
            topic: "run:1:events".to_owned(),
            reason: StaleReason::RetentionFloorBreach,
            qos_tier: "run_events".to_owned(),
            resume_after: 1,
            retention_floor: 2,
            head_watermark: 9,
            replay_lag: 8,
            replay_budget_events: 3,
        }];
        stale.snapshot_plan = Some(SnapshotPlan {
            format: FORMAT.to_owned(),
            topics: vec![TopicSnapshot {
                topic: "run:1:events".to_owned(),
                head_watermark: 9,
                snapshot: Some(Snapshot::default()),
            }],
        });
        let frame = SyncFrame::new("run:1:events", 5, FrameKind::UpdateBatch, &batch());
        assert_eq!(frame.payload::<UpdateBatch>().unwrap(), batch());
        for message in [
            ServerMessage::Reply {
                reference: Some("3".to_owned()),
                reply: Reply::Error(serde_json::to_value(&stale).unwrap()),
            },
            ServerMessage::UpdateBatch(batch()),
            ServerMessage::Frame(frame),
            ServerMessage::Heartbeat(batch().head_watermarks),
            ServerMessage::Error(stale),
            ServerMessage::ChannelClosed,
            ServerMessage::ChannelError,
            ServerMessage::Other("presence".to_owned()),
        ] {
            assert_eq!(
                ServerMessage::decode(&message.encode(Some("1"))).unwrap(),
                message
            );
        }
    }

    #[test]
    fn frames_have_the_contracts_shape() {
        let text = ServerMessage::UpdateBatch(batch()).encode(None);
        assert_eq!(
            text,
            r#"[null,null,"sync:v1","sync:update_batch",{"updates":[{"topic":"run:1:events","doc_key":"k","doc_version":5,"payload":{"a":"ü","b":[1,null]},"payload_hash":"sha256:00","watermark":5,"hydration_required":false}],"replay_complete":true,"head_watermarks":[{"topic":"run:1:events","watermark":5}]}]"#
        );
        let reply = ServerMessage::Reply {
            reference: Some("2".to_owned()),
            reply: Reply::Ok(json!({})),
        };
        assert_eq!(
            reply.encode(Some("1")),
            r#"["1","2","sync:v1","phx_reply",{"status":"ok","response":{}}]"#
        );
        let unknown = r#"[null,null,"sync:v1","sync:error",{"code":"brand_new","message":"?"}]"#;
        assert!(matches!(
            ServerMessage::decode(unknown).unwrap(),
            ServerMessage::Error(error) if error.code == ErrorCode::Unknown
        ));
        let tick = r#"["1",null,"sync:v1","sync:heartbeat",{"server_time_unix_ms":1}]"#;
        assert_eq!(
            ServerMessage::decode(tick).unwrap(),
            ServerMessage::Heartbeat(Vec::new())
        );
        for bad in [
            r#"[null,null,"sync:v1","sync:frame",{}]"#,
            r#"[null,null,"sync:v1","sync:error"]"#,
            r#"[null,null,"sync:v1","phx_close",{},1]"#,
            "null",
        ] {
            assert!(ServerMessage::decode(bad).is_err(), "{bad}");
        }
    }
}
