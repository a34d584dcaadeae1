//! Tokens in any state, for probers only: what is asked of the token service at [`super::PROBE_TOKEN_PATH`] with
//! `Authorization: Bearer` [`super::probe_credential`], and the list of tokens that it has revoked.

use std::collections::BTreeMap;

use model::ids::{Lane, StreamId};
use serde::{Deserialize, Serialize};

/// A token as a prober wants it. Instants are offsets from the service's now, in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeRequest {
    /// For which lane, and so by which kind of key.
    pub lane: Lane,
    /// The claim `oa_org_id`.
    pub org: String,
    /// The claim `sub`.
    pub user: String,
    /// The scopes, as they are: there may be none.
    pub scopes: Vec<String>,
    /// The streams, whoever owns them.
    pub streams: Vec<StreamId>,
    /// Which key signs.
    pub key: ProbeKey,
    /// `iat`.
    pub issued_s: i64,
    /// `nbf`.
    pub not_before_s: i64,
    /// `exp`.
    pub expires_s: i64,
    /// Whether it is on the list of revoked tokens from the start.
    pub revoked: bool,
}

/// Which of the service's keys signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeKey {
    /// The one that signs all tokens.
    Current,
    /// The one before, which is still good.
    Previous,
    /// One that is good no more.
    Retired,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeToken {
    /// The token.
    pub token: String,
}

/// The tokens that the service has revoked, `GET` [`super::REVOKED_PATH`]; for the khala lane also in a file beside the
/// shared keys.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RevokedList {
    /// `jti` and `exp` of each. One that has long expired is left out.
    pub revoked: BTreeMap<String, u64>,
}
