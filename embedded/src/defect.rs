//! Planted defects: each question that a server asks itself before it does a thing right, in one place. Without a
//! defect every answer is the right one.
//!
//! | defect | where it bites |
//! |---|---|
//! | lose-acknowledged | [`Defects::durability`]: acknowledged at once, written 700 ms later |
//! | forget-log | [`Defects::durability`]: never written; [`Defects::answers_stale_cursors`] (khala) |
//! | skip-seq | [`Defects::skips`]: one seq of each stream is in the head's count and never delivered |
//! | alter-content | [`Defects::alters`]: every 16th event has other content for a quarter of the clients |
//! | gap-livelock | [`Defects::drops`]: one live delivery of each connection is dropped; the rest is the client's |
//! | deliver-after-expiry | [`Defects::enforces_expiry`] |
//! | accept-wrong-scope | [`Defects::checks_grants`]: scopes, grants and tenants |
//! | ignore-stale-cursor | [`Defects::answers_stale_cursors`] (khala) |
//! | expired-called-invalid | [`Defects::named_reason`] |
//! | serve-after-close | [`Defects::is_deaf`]: once a connection is live, its client is not heard any more |
//! | deliver-twice | [`Defects::repeats`]: every fourth live update of a connection |
//! | swap-batches | [`Defects::swaps`]: a replay waits until the next live update has been sent |
//! | over-replay | [`Defects::replays_below`]: three events too many |
//! | deliver-phantom | [`Defects::alters`]: every 16th event is one that nobody published, for a quarter of the clients |
//! | accept-alg-none, accept-unknown-kid | [`Defects::overlooks`]: an unsigned token, or one by an unknown key |
//! | accept-not-yet-valid, accept-too-old, accept-revoked | [`Defects::overlooks`]: that one check of the claims |
//! | accept-foreign-append | [`Defects::checks_append_stream`] |
//! | off-by-one-floor | [`Defects::takes_cursor_below_floor`] (khala) |

use std::time::Duration;

use lanes::spacetime::rows::SyncEvent;
use lanes::token::DenyReason;
use model::defect::Defect;
use model::event::{canonical_json, payload_hash};
use model::ids::{ClientId, Seq};
use model::role::LaneConfig;
use serde_json::{Value, json};

use crate::log::Durability;

/// How long an event that was acknowledged stays off the disk under lose-acknowledged. At a few events per second a
/// kill at any instant loses some.
const ACKNOWLEDGED_BEFORE_DISK: Duration = Duration::from_millis(700);

/// How often a real server of the spacetime lane syncs; its answers do not wait for it.
const REAL_SYNC: Duration = Duration::from_millis(500);

/// The one defect of a server, if any, and what it changes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Defects {
    planted: Option<Defect>,
    /// The lane has run before, in the same data folder.
    restarted: bool,
}

impl Defects {
    /// What is planted in a server that has no folder to come back to.
    pub(crate) const fn of(planted: Option<Defect>) -> Self {
        Self {
            planted,
            restarted: false,
        }
    }

    /// What is planted in a lane with this data folder.
    pub(crate) fn of_lane(config: &LaneConfig) -> Self {
        let restarted = config.data_dir.is_dir();
        Self {
            planted: config.defect,
            restarted,
        }
    }

    fn is(self, defect: Defect) -> bool {
        self.planted == Some(defect)
    }

    /// When an event is on disk.
    pub(crate) fn durability(self, strict: bool) -> Durability {
        match self.planted {
            Some(Defect::LoseAcknowledged) => Durability::Late(ACKNOWLEDGED_BEFORE_DISK),
            Some(Defect::ForgetLog) => Durability::Never,
            _ if strict => Durability::Synced,
            _ => Durability::Late(REAL_SYNC),
        }
    }

    /// Whether a seq of a stream is withheld. Early in the stream, so that every drill sees it.
    pub(crate) fn skips(self, seq: Seq) -> bool {
        self.is(Defect::SkipSeq) && seq == 17
    }

    /// Whether a client gets other content for a seq: a quarter of the fleet's clients, always the same.
    pub(crate) fn alters(self, client: Option<ClientId>, seq: Seq) -> bool {
        (self.is(Defect::AlterContent) || self.is(Defect::DeliverPhantom))
            && seq.is_multiple_of(16)
            && client.is_some_and(|client| client.0 % 4 == 3)
    }

    /// Whether a connection's `count`th live update (from 1) is dropped.
    pub(crate) fn drops(self, count: u64) -> bool {
        self.is(Defect::GapLivelock) && count == 11
    }

    /// Whether live connections end with their token.
    pub(crate) fn enforces_expiry(self) -> bool {
        !self.is(Defect::DeliverAfterExpiry)
    }

    /// Whether scopes, grants and tenants are looked at.
    pub(crate) fn checks_grants(self) -> bool {
        !self.is(Defect::AcceptWrongScope)
    }

    /// Whether an append has to be to a stream that its token grants.
    pub(crate) fn checks_append_stream(self) -> bool {
        self.checks_grants() && !self.is(Defect::AcceptForeignAppend)
    }

    /// Whether a reason to refuse a token is passed over. `algorithm` is what the token names.
    pub(crate) fn overlooks(self, reason: DenyReason, algorithm: &str) -> bool {
        match self.planted {
            Some(Defect::AcceptAlgNone) => {
                reason == DenyReason::InvalidSignature && algorithm == "none"
            }
            Some(Defect::AcceptUnknownKid) => reason == DenyReason::UnknownKid,
            Some(Defect::AcceptNotYetValid) => reason == DenyReason::TokenNotYetValid,
            Some(Defect::AcceptTooOld) => reason == DenyReason::TokenTooOld,
            Some(Defect::AcceptRevoked) => reason == DenyReason::TokenRevoked,
            _ => false,
        }
    }

    /// Whether a cursor of the floor less one is resumed from as if it were the floor.
    pub(crate) fn takes_cursor_below_floor(self) -> bool {
        self.is(Defect::OffByOneFloor)
    }

    /// Whether a stale cursor is answered with `stale_cursor`. A log that has forgotten does not know what is stale.
    pub(crate) fn answers_stale_cursors(self) -> bool {
        let forgotten = self.is(Defect::ForgetLog) && self.restarted;
        !self.is(Defect::IgnoreStaleCursor) && !forgotten
    }

    /// Whether what clients send is not heard once they are live, so that a connection outlives its client's Close.
    pub(crate) fn is_deaf(self) -> bool {
        self.is(Defect::ServeAfterClose)
    }

    /// Whether a connection's `count`th live update (from 1) is sent twice.
    pub(crate) fn repeats(self, count: u64) -> bool {
        self.is(Defect::DeliverTwice) && count.is_multiple_of(4)
    }

    /// Whether a replay changes places with the live update that follows it. Only for the fleet's clients: whoever else
    /// asks may be the only one who does, on a stream where nothing follows.
    pub(crate) fn swaps(self, client: Option<ClientId>) -> bool {
        self.is(Defect::SwapBatches) && client.is_some()
    }

    /// How far below the cursor that was named a replay begins.
    pub(crate) fn replays_below(self) -> u64 {
        if self.is(Defect::OverReplay) { 3 } else { 0 }
    }

    /// What is delivered in an event's place where [`Self::alters`] says so: the event with other content and a hash
    /// that fits it, or one that bears no mark of whoever publishes.
    pub(crate) fn altered(self, event: &SyncEvent) -> SyncEvent {
        if self.is(Defect::DeliverPhantom) {
            let payload_json = canonical_json(&json!({"by": "nobody", "seq": event.seq}));
            SyncEvent {
                idempotency_key: format!("nobody:{}:{}", event.stream_id, event.seq),
                payload_hash: payload_hash(&payload_json),
                payload_json,
                ..event.clone()
            }
        } else {
            altered(event)
        }
    }

    /// The reason that is named for a refusal.
    pub(crate) fn named_reason(self, reason: DenyReason) -> DenyReason {
        if self.is(Defect::ExpiredCalledInvalid) && reason == DenyReason::TokenExpired {
            DenyReason::InvalidSignature
        } else {
            reason
        }
    }
}

/// The event with other content and a hash that fits it.
fn altered(event: &SyncEvent) -> SyncEvent {
    let mut payload = serde_json::from_str(&event.payload_json).unwrap_or(Value::Null);
    match &mut payload {
        Value::Object(fields) => drop(fields.insert("padding".to_owned(), "altered".into())),
        other => *other = "altered".into(),
    }
    let payload_json = canonical_json(&payload);
    SyncEvent {
        payload_hash: payload_hash(&payload_json),
        payload_json,
        ..event.clone()
    }
}
