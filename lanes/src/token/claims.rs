//! What a token says, and what a lane makes of it.

use model::ids::StreamId;
use model::target::TokenChecks;
use serde::{Deserialize, Serialize};

use super::deny::DenyReason;

/// The claims. Instants are whole seconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The token service's base URL.
    pub iss: String,
    /// For which lane: [`super::AUDIENCE_KHALA`] or [`super::AUDIENCE_SPACETIME`].
    pub aud: String,
    /// The user.
    pub sub: String,
    /// The token's id.
    pub jti: String,
    /// Issued at.
    pub iat: u64,
    /// Valid from.
    pub nbf: u64,
    /// Valid until.
    pub exp: u64,
    /// The user's organisation.
    pub oa_org_id: String,
    /// The session for which it was issued.
    pub oa_session_id: String,
    /// The device.
    pub oa_device_id: String,
    /// What may be done with it.
    pub oa_sync_scopes: Vec<String>,
    /// To which streams it may be done.
    #[serde(default)]
    pub oa_sync_streams: Vec<StreamId>,
    /// 1.
    pub oa_claims_version: u32,
}

/// What a lane expects of a token.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// Its issuer.
    pub issuer: &'a str,
    /// Its audience.
    pub audience: &'a str,
    /// How far past `exp` it is accepted, in micro-seconds.
    pub skew_us: u64,
    /// How long ago it may have been issued, in micro-seconds and not counting the skew; `None` for any time.
    pub max_age_us: Option<u64>,
    /// The wall clock, in micro-seconds since the Unix epoch.
    pub now_us: u64,
}

impl Claims {
    /// Whether the token has a scope.
    #[must_use]
    pub fn has_scope(&self, scope: &str) -> bool {
        self.oa_sync_scopes.iter().any(|own| own == scope)
    }

    /// Whether the token grants a stream.
    #[must_use]
    pub fn grants(&self, stream: &str) -> bool {
        self.oa_sync_streams.iter().any(|own| own == stream)
    }

    /// From when on it is refused, in micro-seconds since the Unix epoch.
    #[must_use]
    pub const fn refused_from_us(&self, skew_us: u64) -> u64 {
        self.exp.saturating_mul(1_000_000).saturating_add(skew_us)
    }

    /// Checks everything but the signature.
    ///
    /// # Errors
    /// The first that is wrong: issuer and audience, then not yet valid, then expired, then too old.
    pub fn check(&self, expected: &Expected<'_>) -> Result<(), DenyReason> {
        if self.iss != expected.issuer || self.aud != expected.audience {
            return Err(DenyReason::ClaimMismatch);
        }
        let valid_from = self.iat.max(self.nbf).saturating_mul(1_000_000);
        if valid_from.saturating_sub(TokenChecks::NBF_SKEW.as_micros()) > expected.now_us {
            return Err(DenyReason::TokenNotYetValid);
        }
        if expected.now_us >= self.refused_from_us(expected.skew_us) {
            return Err(DenyReason::TokenExpired);
        }
        let age = expected
            .now_us
            .saturating_sub(self.iat.saturating_mul(1_000_000));
        let oldest = expected
            .max_age_us
            .map(|age| age.saturating_add(expected.skew_us));
        if oldest.is_some_and(|oldest| age > oldest) {
            return Err(DenyReason::TokenTooOld);
        }
        Ok(())
    }
}
