//! Defects that can be planted, each with the anomaly that it must be called: a checker that cannot fail is a bug.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::anomaly::Anomaly;
use crate::ids::Lane;

/// What goes wrong on purpose, in the embedded lane, its token service or the fleet's clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Defect {
    /// Lane: acknowledged events are not on disk yet, and a kill loses them.
    LoseAcknowledged,
    /// Lane: the log is in memory only; after a restart an empty stream answers "replay complete".
    ForgetLog,
    /// Lane: a seq is never delivered, neither live nor on replay.
    SkipSeq,
    /// Lane: one (stream, seq) is delivered with other content to some clients.
    AlterContent,
    /// Client: it resumes from one below what it had applied, and applies that event again.
    ApplyTwice,
    /// Lane and client: a delivery is dropped, and on the gap the client moves its watermark to incoming − 1 instead
    /// of resuming.
    GapLivelock,
    /// Lane: a connection is served on after its token has expired.
    DeliverAfterExpiry,
    /// Lane: subscriptions outside the token's grant are accepted.
    AcceptWrongScope,
    /// Client: Retry-After is ignored.
    IgnoreRetryAfter,
    /// Client: some clients never reconnect.
    NeverRecover,
    /// Lane (khala) or client (spacetime, where detection is the client's): a stale cursor goes unnoticed.
    IgnoreStaleCursor,
    /// Lane: an expired token is refused as invalid, so that the client has no cause to refresh it.
    ExpiredCalledInvalid,
    /// Lane: a connection is served on after its client has closed it and has the next one live.
    ServeAfterClose,
    /// Lane: some live deliveries are made twice.
    DeliverTwice,
    /// Lane: a replay and the live delivery that follows it change places.
    SwapBatches,
    /// Lane: a replay begins below the cursor that was named.
    OverReplay,
    /// Lane: an event that nobody published is delivered.
    DeliverPhantom,
    /// Lane: a token with `alg: none` is taken without a signature.
    AcceptAlgNone,
    /// Lane: a token whose key is not known is taken without its signature being checked.
    AcceptUnknownKid,
    /// Lane: an append is not confined to the streams that its token grants.
    AcceptForeignAppend,
    /// Lane: the list of revoked tokens is not looked at.
    AcceptRevoked,
    /// Lane: `nbf` is not looked at.
    AcceptNotYetValid,
    /// Lane: however old a token is, it is taken.
    AcceptTooOld,
    /// Lane (khala) or client (spacetime): a cursor just below the floor is resumed from, and the event between them is
    /// missing.
    OffByOneFloor,
}

impl Defect {
    /// Every defect, in the order in which `--defect list` shows them.
    pub const ALL: [Self; 24] = [
        Self::LoseAcknowledged,
        Self::ForgetLog,
        Self::SkipSeq,
        Self::AlterContent,
        Self::ApplyTwice,
        Self::GapLivelock,
        Self::DeliverAfterExpiry,
        Self::AcceptWrongScope,
        Self::IgnoreRetryAfter,
        Self::NeverRecover,
        Self::IgnoreStaleCursor,
        Self::ExpiredCalledInvalid,
        Self::ServeAfterClose,
        Self::DeliverTwice,
        Self::SwapBatches,
        Self::OverReplay,
        Self::DeliverPhantom,
        Self::AcceptAlgNone,
        Self::AcceptUnknownKid,
        Self::AcceptForeignAppend,
        Self::AcceptRevoked,
        Self::AcceptNotYetValid,
        Self::AcceptTooOld,
        Self::OffByOneFloor,
    ];

    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LoseAcknowledged => "lose-acknowledged",
            Self::ForgetLog => "forget-log",
            Self::SkipSeq => "skip-seq",
            Self::AlterContent => "alter-content",
            Self::ApplyTwice => "apply-twice",
            Self::GapLivelock => "gap-livelock",
            Self::DeliverAfterExpiry => "deliver-after-expiry",
            Self::AcceptWrongScope => "accept-wrong-scope",
            Self::IgnoreRetryAfter => "ignore-retry-after",
            Self::NeverRecover => "never-recover",
            Self::IgnoreStaleCursor => "ignore-stale-cursor",
            Self::ExpiredCalledInvalid => "expired-called-invalid",
            Self::ServeAfterClose => "serve-after-close",
            Self::DeliverTwice => "deliver-twice",
            Self::SwapBatches => "swap-batches",
            Self::OverReplay => "over-replay",
            Self::DeliverPhantom => "deliver-phantom",
            Self::AcceptAlgNone => "accept-alg-none",
            Self::AcceptUnknownKid => "accept-unknown-kid",
            Self::AcceptForeignAppend => "accept-foreign-append",
            Self::AcceptRevoked => "accept-revoked",
            Self::AcceptNotYetValid => "accept-not-yet-valid",
            Self::AcceptTooOld => "accept-too-old",
            Self::OffByOneFloor => "off-by-one-floor",
        }
    }

    /// The anomaly that a drill must name.
    #[must_use]
    pub const fn anomaly(self) -> Anomaly {
        match self {
            Self::LoseAcknowledged | Self::GapLivelock => Anomaly::Lost,
            Self::ForgetLog => Anomaly::Vanished,
            Self::SkipSeq => Anomaly::Gap,
            Self::AlterContent => Anomaly::Divergence,
            Self::ApplyTwice => Anomaly::DuplicateApply,
            Self::DeliverAfterExpiry => Anomaly::Leak,
            Self::AcceptWrongScope
            | Self::AcceptAlgNone
            | Self::AcceptUnknownKid
            | Self::AcceptForeignAppend
            | Self::AcceptRevoked
            | Self::AcceptNotYetValid
            | Self::AcceptTooOld => Anomaly::UnauthorizedSuccess,
            Self::IgnoreRetryAfter => Anomaly::RetryAfterIgnored,
            Self::NeverRecover => Anomaly::NotRecovered,
            Self::IgnoreStaleCursor | Self::OffByOneFloor => Anomaly::StaleCursor,
            Self::ExpiredCalledInvalid => Anomaly::WrongReason,
            Self::ServeAfterClose => Anomaly::Zombie,
            Self::DeliverTwice => Anomaly::DuplicateDelivery,
            Self::SwapBatches => Anomaly::Reorder,
            Self::OverReplay => Anomaly::OverReplay,
            Self::DeliverPhantom => Anomaly::Phantom,
        }
    }

    /// The library scenario that shows it.
    #[must_use]
    pub const fn scenario(self) -> &'static str {
        match self {
            Self::DeliverAfterExpiry | Self::ExpiredCalledInvalid | Self::ServeAfterClose => {
                "token-expiry-storm"
            }
            Self::IgnoreRetryAfter => "reconnect-storm",
            _ => "restart",
        }
    }

    /// Whether it is planted in the fleet's clients alone: then it can be planted against any target.
    #[must_use]
    pub const fn is_of_clients(self) -> bool {
        matches!(
            self,
            Self::ApplyTwice
                | Self::IgnoreRetryAfter
                | Self::NeverRecover
                | Self::IgnoreStaleCursor
        )
    }

    /// The lanes on which it can be planted.
    #[must_use]
    pub const fn lanes(self) -> &'static [Lane] {
        &Lane::ALL
    }
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Defect {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|defect| defect.name() == text)
            .ok_or_else(|| format!("unknown defect `{text}`; `--defect list` names them all"))
    }
}
