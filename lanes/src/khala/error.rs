//! Refusals: the payload of `sync:error`, of an error reply and of an error frame.

use std::fmt;

use model::ids::Seq;
use serde::{Deserialize, Serialize};

use super::snapshot::SnapshotPlan;

/// What went wrong, by which a client knows what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Refresh the token and reconnect.
    Unauthorized,
    /// The topic is not granted.
    ForbiddenTopic,
    /// The request makes no sense.
    BadSubscription,
    /// Reset, take the snapshot, then deltas.
    StaleCursor,
    /// The client reads too slowly.
    SlowConsumer,
    /// The message was too large.
    PayloadTooLarge,
    /// Wait `retry_after_ms`.
    RateLimited,
    /// Reconnect with a jittered backoff.
    Internal,
    /// The session must be authorized anew.
    ReauthRequired,
    /// A code that is not known here.
    #[serde(other)]
    Unknown,
}

impl ErrorCode {
    /// The code on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::ForbiddenTopic => "forbidden_topic",
            Self::BadSubscription => "bad_subscription",
            Self::StaleCursor => "stale_cursor",
            Self::SlowConsumer => "slow_consumer",
            Self::PayloadTooLarge => "payload_too_large",
            Self::RateLimited => "rate_limited",
            Self::Internal => "internal",
            Self::ReauthRequired => "reauth_required",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Why a cursor cannot be resumed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StaleReason {
    /// Events after it are gone: it is below the floor.
    RetentionFloorBreach,
    /// More events lie between it and the head than one replay may have.
    ReplayBudgetExceeded,
    /// It is beyond the head: the head went back, or the cursor is another's.
    CursorAheadOfHead,
    /// A reason that is not known here: the cursor is stale all the same.
    #[serde(other)]
    Unknown,
}

impl StaleReason {
    /// The reason on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RetentionFloorBreach => "retention_floor_breach",
            Self::ReplayBudgetExceeded => "replay_budget_exceeded",
            Self::CursorAheadOfHead => "cursor_ahead_of_head",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for StaleReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A topic whose cursor is stale.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaleTopic {
    /// The topic.
    pub topic: String,
    /// Why.
    pub reason: StaleReason,
    /// The class of service by which the budget is set.
    pub qos_tier: String,
    /// The cursor that was presented.
    pub resume_after: Seq,
    /// The lowest cursor that can be resumed from: oldest − 1.
    pub retention_floor: Seq,
    /// The newest seq.
    pub head_watermark: Seq,
    /// How far the cursor is behind the head; 0 when it is ahead.
    pub replay_lag: u64,
    /// How far it may be.
    pub replay_budget_events: u64,
}

/// What the server does about a slow consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlowAction {
    /// A strike: it reads no more requests until the queue is half empty.
    Throttle,
    /// The third strike: the connection is closed.
    Disconnect,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What.
    pub code: ErrorCode,
    /// For a reader. For `unauthorized` it is the deny reason, see [`crate::token::DenyReason`].
    pub message: String,
    /// The client has to start from a snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_resync_required: Option<bool>,
    /// For `stale_cursor`: the distinct reasons of `stale_topics`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reason_codes: Vec<StaleReason>,
    /// For `stale_cursor`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stale_topics: Vec<StaleTopic>,
    /// For `stale_cursor`: from where to go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_plan: Option<SnapshotPlan>,
    /// For `slow_consumer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<SlowAction>,
    /// For `slow_consumer` and `forbidden_topic`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// For `slow_consumer`: messages that wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_depth: Option<u64>,
    /// For `slow_consumer`: messages that may wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_limit: Option<u64>,
    /// For `slow_consumer`: come back after so many milli-seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconnect_after_ms: Option<u64>,
    /// For `rate_limited`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl ErrorBody {
    /// A refusal with nothing but code and message.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            full_resync_required: None,
            reason_codes: Vec::new(),
            stale_topics: Vec::new(),
            snapshot_plan: None,
            action: None,
            topic: None,
            queue_depth: None,
            queue_limit: None,
            reconnect_after_ms: None,
            retry_after_ms: None,
        }
    }
}
