//! Why a lane refuses a token.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A deny reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DenyReason {
    /// There is none.
    MissingToken,
    /// It was signed by a key that is not known.
    UnknownKid,
    /// It does not say by which key it was signed.
    MissingKid,
    /// It is not a token, or the signature is not its key's.
    InvalidSignature,
    /// Issuer or audience are not this lane's.
    ClaimMismatch,
    /// It is past `exp` and the skew.
    TokenExpired,
    /// Its `iat` or `nbf` is in the future.
    TokenNotYetValid,
    /// It is older than the server takes.
    TokenTooOld,
    /// It was revoked.
    TokenRevoked,
    /// It lacks the scope.
    MissingScope,
    /// It does not grant the topic or stream.
    ForbiddenTopic,
    /// The request's `Origin` is not on the list.
    OriginNotAllowed,
}

impl DenyReason {
    /// Every reason.
    pub const ALL: [Self; 12] = [
        Self::MissingToken,
        Self::UnknownKid,
        Self::MissingKid,
        Self::InvalidSignature,
        Self::ClaimMismatch,
        Self::TokenExpired,
        Self::TokenNotYetValid,
        Self::TokenTooOld,
        Self::TokenRevoked,
        Self::MissingScope,
        Self::ForbiddenTopic,
        Self::OriginNotAllowed,
    ];

    /// The reason on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::MissingToken => "missing_token",
            Self::UnknownKid => "unknown_kid",
            Self::MissingKid => "missing_kid",
            Self::InvalidSignature => "invalid_signature",
            Self::ClaimMismatch => "claim_mismatch",
            Self::TokenExpired => "token_expired",
            Self::TokenNotYetValid => "token_not_yet_valid",
            Self::TokenTooOld => "token_too_old",
            Self::TokenRevoked => "token_revoked",
            Self::MissingScope => "missing_scope",
            Self::ForbiddenTopic => "forbidden_topic",
            Self::OriginNotAllowed => "origin_not_allowed",
        }
    }

    /// The status with which an upgrade is refused for it.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::MissingScope | Self::ForbiddenTopic | Self::OriginNotAllowed => 403,
            _ => 401,
        }
    }

    /// Whether a fresh token would mend it. One that is not valid yet may have been issued by a clock that is right again by
    /// now, and to wait for the time that it names could take for ever.
    #[must_use]
    pub const fn refresh_helps(self) -> bool {
        matches!(
            self,
            Self::MissingToken
                | Self::UnknownKid
                | Self::TokenExpired
                | Self::TokenNotYetValid
                | Self::TokenTooOld
                | Self::TokenRevoked
        )
    }
}

impl fmt::Display for DenyReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for DenyReason {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|reason| reason.name() == text)
            .ok_or_else(|| format!("`{text}` is not a deny reason"))
    }
}

/// The body of a refused upgrade or call of the embedded lanes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// A deny reason's name, or a text.
    pub error: String,
}

/// The deny reason in the body of a refusal: of an embedded lane (`{"error": reason}`) or of a real `SpacetimeDB`
/// (`TokenError(Error(ExpiredSignature))` and the like).
#[must_use]
pub fn deny_reason(body: &[u8]) -> Option<DenyReason> {
    if let Ok(refusal) = serde_json::from_slice::<Refusal>(body) {
        return refusal.error.parse().ok();
    }
    let text = std::str::from_utf8(body).ok()?.trim();
    if let Ok(reason) = text.parse() {
        return Some(reason);
    }
    [
        ("ExpiredSignature", DenyReason::TokenExpired),
        ("KeyIDNotFound", DenyReason::UnknownKid),
        ("ImmatureSignature", DenyReason::TokenNotYetValid),
        ("InvalidIssuer", DenyReason::ClaimMismatch),
        ("InvalidAudience", DenyReason::ClaimMismatch),
        ("InvalidSignature", DenyReason::InvalidSignature),
        ("InvalidToken", DenyReason::InvalidSignature),
    ]
    .into_iter()
    .find(|(mark, _)| text.contains(mark))
    .map(|(_, reason)| reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_found_in_either_servers_body() {
        for reason in DenyReason::ALL {
            let body = serde_json::to_vec(&Refusal {
                error: reason.to_string(),
            });
            assert_eq!(deny_reason(&body.unwrap()), Some(reason));
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.name());
        }
        assert_eq!(
            deny_reason(b"TokenError(Error(ExpiredSignature))"),
            Some(DenyReason::TokenExpired)
        );
        assert_eq!(
            deny_reason(b"TokenError(Error(InvalidToken))"),
            Some(DenyReason::InvalidSignature)
        );
        assert_eq!(deny_reason(b"no valid protocol selected"), None);
        assert_eq!(deny_reason(b"{\"error\":\"busy\"}"), None);
    }
}
