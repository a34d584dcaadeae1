//! Tokens: what is in them, how they are signed and checked, how they are asked for, and why they are refused.
//!
//! ```text
//! claims    what a token says              deny      why a lane refuses one
//! jws       HS256 and ES256, keys          session   the credential that the token service wants
//! service   request and answer of the token service
//! probe     tokens in any state, for probers; revoked tokens
//! ```

mod claims;
mod deny;
mod jws;
mod probe;
mod service;
mod session;

pub use claims::{Claims, Expected};
pub use deny::{DenyReason, Refusal, deny_reason};
pub use jws::{Jwk, Jwks, KeyError, KeySet, SigningKey, VerifyingKey, unverified};
pub use probe::{ProbeKey, ProbeRequest, ProbeToken, RevokedList};
pub use service::{TokenAnswer, TokenGrant, TokenRequest};
pub use session::{Session, is_probe_credential, probe_credential, session_credential};

/// The path of the token service for khala tokens (HS256).
pub const SYNC_TOKEN_PATH: &str = "/api/sync/token";

/// The path of the token service for spacetime tokens (ES256).
pub const SPACETIME_TOKEN_PATH: &str = "/api/spacetime/token";

/// The path of the token service for probers.
pub const PROBE_TOKEN_PATH: &str = "/api/probe/token";

/// The path of the issuer's public keys.
pub const JWKS_PATH: &str = "/.well-known/jwks.json";

/// The path of the issuer's list of revoked tokens.
pub const REVOKED_PATH: &str = "/.well-known/revoked.json";

/// The scope that subscribing takes.
pub const SCOPE_SUBSCRIBE: &str = "sync.subscribe";

/// The scope that storing a checkpoint takes.
pub const SCOPE_CHECKPOINT: &str = "sync.checkpoint";

/// The scope that appending an event takes.
pub const SCOPE_APPEND: &str = "sync.append";

/// Every scope there is.
pub const SCOPES: [&str; 3] = [SCOPE_SUBSCRIBE, SCOPE_CHECKPOINT, SCOPE_APPEND];

/// The audience of khala tokens.
pub const AUDIENCE_KHALA: &str = "khala";

/// The audience of spacetime tokens.
pub const AUDIENCE_SPACETIME: &str = "spacetimedb";
