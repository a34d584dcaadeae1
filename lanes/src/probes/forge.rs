//! Tokens that need no issuer: made by a prober from a good one, or by a key of its own.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use model::ids::Lane;
use serde_json::{Value, json};

use crate::token::{KeyError, SigningKey};

/// A key id that no issuer has.
const UNKNOWN_KID: &str = "probe-unknown";

/// A token in its three parts.
#[derive(Debug, Clone)]
pub(super) struct Parts {
    header: Value,
    claims: Value,
    signature: Vec<u8>,
}

impl Parts {
    /// The parts of a token; `None` for what is not one.
    pub(super) fn of(token: &str) -> Option<Self> {
        let mut parts = token.split('.').map(|part| BASE64.decode(part).ok());
        let mut next = || parts.next().flatten();
        Some(Self {
            header: serde_json::from_slice(&next()?).ok()?,
            claims: serde_json::from_slice(&next()?).ok()?,
            signature: next()?,
        })
    }

    fn token(&self) -> String {
        let part = |value: &Value| BASE64.encode(value.to_string());
        format!(
            "{}.{}.{}",
            part(&self.header),
            part(&self.claims),
            BASE64.encode(&self.signature)
        )
    }

    fn kid(&self) -> &str {
        self.header["kid"].as_str().unwrap_or_default()
    }

    /// Without the key's id.
    pub(super) fn without_kid(mut self) -> String {
        if let Some(header) = self.header.as_object_mut() {
            header.remove("kid");
        }
        self.token()
    }

    /// `alg: none`, and no signature.
    pub(super) fn unsigned(mut self) -> String {
        self.header["alg"] = json!("none");
        self.signature.clear();
        self.token()
    }

    /// The other algorithm's name on the same signature.
    pub(super) fn with_swapped_alg(mut self) -> String {
        let other = if self.header["alg"] == "HS256" {
            "ES256"
        } else {
            "HS256"
        };
        self.header["alg"] = json!(other);
        self.token()
    }

    /// With one more stream granted.
    pub(super) fn granting(mut self, stream: &str) -> String {
        if let Some(granted) = self.claims["oa_sync_streams"].as_array_mut() {
            granted.push(json!(stream));
        } else {
            self.claims["oa_sync_streams"] = json!([stream]);
        }
        self.token()
    }

    /// With one bit of the signature changed.
    pub(super) fn with_other_signature(mut self) -> String {
        if let Some(byte) = self.signature.first_mut() {
            *byte ^= 1;
        }
        self.token()
    }

    /// HS256 by the bytes of a public key, under the id that the token names.
    ///
    /// # Errors
    /// See [`SigningKey::sign`].
    pub(super) fn confused(self, public_key: &[u8]) -> Result<String, KeyError> {
        SigningKey::hs256(self.kid(), public_key).sign(&self.claims)
    }

    /// The same claims by a key of the prober's own, of the lane's kind.
    ///
    /// # Errors
    /// See [`SigningKey::sign`].
    pub(super) fn by_a_stranger(self, lane: Lane) -> Result<String, KeyError> {
        let key = match lane {
            Lane::Khala => SigningKey::hs256(UNKNOWN_KID, &SigningKey::generate_secret()?),
            Lane::Spacetime => SigningKey::es256(UNKNOWN_KID, &SigningKey::generate_es256()?)?,
        };
        key.sign(&self.claims)
    }
}

#[cfg(test)]
mod tests {
    use crate::token::{DenyReason, KeySet, unverified};

    use super::*;

    #[test]
    fn each_forgery_is_a_token_with_one_thing_wrong() {
        let claims = json!({
            "iss": "i", "aud": "a", "sub": "s", "jti": "j", "iat": 1, "nbf": 1, "exp": 2,
            "oa_org_id": "o", "oa_session_id": "s", "oa_device_id": "d",
            "oa_sync_scopes": [], "oa_sync_streams": [], "oa_claims_version": 1,
        });
        let key = SigningKey::hs256("k", b"secret");
        let mut keys = KeySet::default();
        keys.insert("k", key.verifying());
        let token = key.sign(&claims).unwrap();
        let parts = || Parts::of(&token).unwrap();
        let forged = [
            (parts().without_kid(), DenyReason::MissingKid),
            (parts().unsigned(), DenyReason::InvalidSignature),
            (parts().with_swapped_alg(), DenyReason::InvalidSignature),
            (parts().granting("rival"), DenyReason::InvalidSignature),
            (parts().with_other_signature(), DenyReason::InvalidSignature),
            (
                parts().confused(b"public").unwrap(),
                DenyReason::InvalidSignature,
            ),
            (
                parts().by_a_stranger(Lane::Khala).unwrap(),
                DenyReason::UnknownKid,
            ),
        ];
        assert!(keys.signed(&token).is_ok());
        for (forged, reason) in forged {
            assert_eq!(keys.signed(&forged), Err(reason), "{forged}");
            assert!(unverified(&forged).is_some(), "{forged}");
        }
        let (_, claims) = unverified(&parts().granting("rival")).unwrap();
        assert!(claims.grants("rival"));
    }
}
