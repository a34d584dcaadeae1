//! What one client did and was told, moment by moment: what a shard keeps of a client that was anomalous.

use serde::{Deserialize, Serialize};

use crate::anomaly::{Anomaly, Findings};
use crate::ids::{ClientId, Seq, StreamId};
use crate::instant::Mono;

/// How many moments of a client are kept: the last ones.
pub const MOMENTS_KEPT: usize = 256;

/// How many clients of a shard are kept in a trial's evidence.
pub const CLIENTS_KEPT: usize = 50;

/// Something that happened to a client.
///
/// Thousands of clients keep hundreds of these each, so one is 32 bytes; only what broke has a text of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// When, or when it began.
    #[serde(rename = "at_us")]
    pub at: Mono,
    /// What.
    pub what: What,
}

/// What happened. Streams are places in [`ClientRecord::streams`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The token service was asked for a token of so many seconds.
    TokenAsked {
        /// The lifetime that was asked for.
        ttl_s: u32,
    },
    /// A token came. The token itself is never here.
    TokenFetched {
        /// When it expires.
        #[serde(rename = "exp_us")]
        exp: Mono,
    },
    /// None came.
    TokenRefused {
        /// The HTTP status, if there was an answer.
        status: Option<u16>,
        /// The reason given, or what broke.
        reason: Box<str>,
    },
    /// The token of the open connection expired, as a planted expiry has it.
    TokenExpired,
    /// A connection was attempted.
    Dialled {
        /// Its number, from 1.
        connection: u32,
    },
    /// The attempt failed.
    Refused {
        /// The HTTP status, if there was an answer.
        status: Option<u16>,
        /// The reason given, or what broke.
        reason: Box<str>,
    },
    /// The upgrade was accepted.
    Upgraded,
    /// The lane let the client in.
    Joined,
    /// A subscribe was sent.
    Subscribed {
        /// After which cursor, by stream.
        after: Box<[Seq]>,
    },
    /// The replay was complete.
    Live,
    /// Rows arrived: a run of seqs of one stream without a hole.
    Rows {
        /// Whose.
        stream: u16,
        /// In which of the lane's framings.
        framing: u8,
        /// By a replay, not live.
        replay: bool,
        /// The first seq.
        first: Seq,
        /// How many.
        count: u32,
        /// From the first to the last of them.
        lasted_us: u32,
    },
    /// A hole in what came live.
    Gap {
        /// Where.
        stream: u16,
        /// The seq that should have come.
        awaited: Seq,
        /// How far beyond it the one was that did.
        beyond: u32,
    },
    /// A cursor that the lane cannot continue, by the lane's word or by the client's own comparison.
    Stale {
        /// Whose.
        stream: u16,
        /// Why, such as `retention_floor_breach`.
        reason: Box<str>,
    },
    /// The stream was begun anew.
    Reset {
        /// Which.
        stream: u16,
        /// From a snapshot up to here; 0 from nothing.
        to: Seq,
    },
    /// The connection is gone.
    Lost {
        /// What was noticed of it.
        reason: Box<str>,
    },
    /// The client gave the connection up itself, for a newer token.
    Replaced,
    /// It waits before it tries again.
    Waits {
        /// Until when.
        #[serde(rename = "until_us")]
        until: Mono,
    },
    /// It will not try again.
    Stopped,
    /// Something was found about it.
    Found {
        /// What.
        anomaly: Anomaly,
        /// In which of its streams, if in one of them.
        stream: Option<u16>,
        /// The first such seq; 0 where it is not about a seq.
        seq: Seq,
        /// How often in succession.
        times: u32,
        /// From the first to the last of them.
        lasted_us: u32,
    },
}

/// What is kept of a client that was anomalous, or that did not have everything in the end: a line of
/// `clients/NAME.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClientRecord {
    /// Who.
    pub client: ClientId,
    /// Its state and what it lacked, where it did not have everything when the trial ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfinished: Option<String>,
    /// What the shard found about it.
    pub findings: Findings,
    /// Its streams.
    pub streams: Vec<StreamId>,
    /// How many moments before those in `moments` are forgotten.
    pub forgotten: u64,
    /// The last ones.
    pub moments: Vec<Moment>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_32_bytes() {
        assert_eq!(size_of::<Moment>(), 32);
    }
}
