//! Request and answer of the token service.

use model::ids::StreamId;
use serde::{Deserialize, Serialize};

/// What a client asks for, with `Authorization: Bearer <session credential>`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TokenRequest {
    /// See [`super::SCOPES`]. An unknown one is refused with 422 `invalid_scope`; none at all means
    /// [`super::SCOPE_SUBSCRIBE`].
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Streams of the client's organisation; others are refused with 403.
    #[serde(default)]
    pub streams: Vec<StreamId>,
    /// Streams by their topics.
    #[serde(default)]
    pub topics: Vec<String>,
    /// The lifetime; brought within the service's limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
    /// The device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenAnswer {
    /// The token and what it is good for.
    pub data: TokenGrant,
}

/// A token and what it is good for. Instants are whole seconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenGrant {
    /// The token.
    pub token: String,
    /// `Bearer`.
    pub token_type: String,
    /// `khala_ws` or `spacetime_ws`.
    pub transport: String,
    /// Lifetime in seconds.
    pub expires_in: u64,
    /// Seconds after which to fetch another.
    pub refresh_after_in: u64,
    /// Issued at.
    pub issued_at: u64,
    /// When to fetch another.
    pub refresh_after: u64,
    /// Valid until.
    pub expires_at: u64,
    /// The service's base URL.
    pub issuer: String,
    /// The lane.
    pub audience: String,
    /// The user.
    pub subject: String,
    /// What may be done with it.
    pub scopes: Vec<String>,
    /// Its streams by their topics.
    pub granted_topics: Vec<String>,
    /// To which streams it may be done.
    pub granted_streams: Vec<StreamId>,
    /// The key that signed it.
    pub kid: String,
    /// Its id.
    pub token_id: String,
    /// The session.
    pub session_id: String,
    /// The device.
    pub device_id: String,
}
