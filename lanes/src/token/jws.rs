//! Signatures, by ring: HS256 for khala, ES256 for spacetime.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
    UnparsedPublicKey,
};
use ring::{hmac, rand::SecureRandom as _};
use serde::{Deserialize, Serialize};

use super::claims::{Claims, Expected};
use super::deny::DenyReason;

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not a PKCS#8 document of a P-256 key.
    #[error(
        "key `{kid}` is not a P-256 key in PKCS#8: {reason}; remove its file to have a new one made"
    )]
    NotAKey {
        /// Which.
        kid: String,
        /// Why.
        reason: String,
    },
    /// The system has no randomness to give.
    #[error("the system's random generator failed")]
    NoRandomness,
}

/// A key that signs.
pub enum SigningKey {
    /// HMAC with SHA-256.
    Hs256 {
        /// Its id.
        kid: String,
        /// The shared secret.
        key: hmac::Key,
    },
    /// ECDSA with P-256 and SHA-256.
    Es256 {
        /// Its id.
        kid: String,
        /// The pair.
        pair: EcdsaKeyPair,
        /// Randomness for signatures.
        random: SystemRandom,
    },
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("alg", &self.algorithm())
            .field("kid", &self.kid())
            .finish_non_exhaustive()
    }
}

#[derive(Serialize, Deserialize)]
struct Header {
    typ: Option<String>,
    alg: String,
    kid: Option<String>,
}

impl SigningKey {
    /// A shared key.
    pub fn hs256(kid: impl Into<String>, secret: &[u8]) -> Self {
        Self::Hs256 {
            kid: kid.into(),
            key: hmac::Key::new(hmac::HMAC_SHA256, secret),
        }
    }

    /// A pair from its PKCS#8 document.
    ///
    /// # Errors
    /// The document is not one of a P-256 key.
    pub fn es256(kid: impl Into<String>, pkcs8: &[u8]) -> Result<Self, KeyError> {
        let (kid, random) = (kid.into(), SystemRandom::new());
        match EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &random) {
            Ok(pair) => Ok(Self::Es256 { kid, pair, random }),
            Err(error) => Err(KeyError::NotAKey {
                kid,
                reason: error.to_string(),
            }),
        }
    }

    /// The PKCS#8 document of a new P-256 pair.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn generate_es256() -> Result<Vec<u8>, KeyError> {
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map(|document| document.as_ref().to_vec())
            .map_err(|_| KeyError::NoRandomness)
    }

    /// A new shared secret.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn generate_secret() -> Result<[u8; 32], KeyError> {
        let mut secret = [0_u8; 32];
        SystemRandom::new()
            .fill(&mut secret)
            .map_err(|_| KeyError::NoRandomness)?;
        Ok(secret)
    }

    /// Its id.
    #[must_use]
    pub fn kid(&self) -> &str {
        match self {
            Self::Hs256 { kid, .. } | Self::Es256 { kid, .. } => kid,
        }
    }

    const fn algorithm(&self) -> &'static str {
        match self {
            Self::Hs256 { .. } => "HS256",
            Self::Es256 { .. } => "ES256",
        }
    }

    /// The key that checks its signatures.
    #[must_use]
    pub fn verifying(&self) -> VerifyingKey {
        match self {
            Self::Hs256 { key, .. } => VerifyingKey::Hs256(key.clone()),
            Self::Es256 { pair, .. } => VerifyingKey::Es256(pair.public_key().as_ref().to_vec()),
        }
    }

    /// The public half for a JWKS; `None` for a shared key.
    #[must_use]
    pub fn jwk(&self) -> Option<Jwk> {
        let Self::Es256 { kid, pair, .. } = self else {
            return None;
        };
        let point = pair.public_key().as_ref();
        Some(Jwk {
            kty: "EC".to_owned(),
            crv: "P-256".to_owned(),
            alg: "ES256".to_owned(),
            usage: "sig".to_owned(),
            kid: kid.clone(),
            x: BASE64.encode(&point[1..33]),
            y: BASE64.encode(&point[33..65]),
        })
    }

    /// A token with these claims.
    ///
    /// # Errors
    /// The system has no randomness for a signature.
    pub fn sign(&self, claims: &impl Serialize) -> Result<String, KeyError> {
        let header = Header {
            typ: Some("JWT".to_owned()),
            alg: self.algorithm().to_owned(),
            kid: Some(self.kid().to_owned()),
        };
        let part = |json: serde_json::Result<Vec<u8>>| {
            BASE64.encode(json.expect("strings and numbers have a JSON form"))
        };
        let signed = format!(
            "{}.{}",
            part(serde_json::to_vec(&header)),
            part(serde_json::to_vec(claims))
        );
        let signature = match self {
            Self::Hs256 { key, .. } => hmac::sign(key, signed.as_bytes()).as_ref().to_vec(),
            Self::Es256 { pair, random, .. } => pair
                .sign(random, signed.as_bytes())
                .map_err(|_| KeyError::NoRandomness)?
                .as_ref()
                .to_vec(),
        };
        Ok(format!("{signed}.{}", BASE64.encode(signature)))
    }
}

/// A key that checks signatures.
#[derive(Debug, Clone)]
pub enum VerifyingKey {
    /// The shared key.
    Hs256(hmac::Key),
    /// The public key: an uncompressed point, 65 bytes.
    Es256(Vec<u8>),
}

/// A public key as a JWKS has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwk {
    /// `EC`.
    pub kty: String,
    /// `P-256`.
    pub crv: String,
    /// `ES256`.
    pub alg: String,
    /// `sig`.
    #[serde(rename = "use")]
    pub usage: String,
    /// Its id.
    pub kid: String,
    /// A coordinate in base64url.
    pub x: String,
    /// The other.
    pub y: String,
}

impl Jwk {
    /// The key as an uncompressed point, 65 bytes; `None` for one that is not a P-256 key.
    #[must_use]
    pub fn point(&self) -> Option<Vec<u8>> {
        let (x, y) = (BASE64.decode(&self.x).ok()?, BASE64.decode(&self.y).ok()?);
        let fits = self.crv == "P-256" && x.len() == 32 && y.len() == 32;
        fits.then(|| [&[4_u8][..], &x, &y].concat())
    }
}

/// A set of public keys.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Jwks {
    /// The keys.
    pub keys: Vec<Jwk>,
}

/// The keys that a lane trusts, by id.
#[derive(Debug, Clone, Default)]
pub struct KeySet {
    keys: BTreeMap<String, VerifyingKey>,
}

impl KeySet {
    /// Adds a key.
    pub fn insert(&mut self, kid: impl Into<String>, key: VerifyingKey) {
        self.keys.insert(kid.into(), key);
    }

    /// The keys of a JWKS. Those that are not P-256 keys are left out.
    #[must_use]
    pub fn of_jwks(jwks: &Jwks) -> Self {
        let mut set = Self::default();
        for jwk in &jwks.keys {
            if let Some(point) = jwk.point() {
                set.insert(&jwk.kid, VerifyingKey::Es256(point));
            }
        }
        set
    }

    /// Whether a token names a key that is not in the set: the keys may have been rotated.
    #[must_use]
    pub fn lacks_key_of(&self, token: &str) -> bool {
        parts(token)
            .and_then(|parts| parts.header.kid)
            .is_some_and(|kid| !self.keys.contains_key(&kid))
    }

    /// Checks a token: signature, then claims.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn verify(&self, token: &str, expected: &Expected<'_>) -> Result<Claims, DenyReason> {
        let claims = self.signed(token)?;
        claims.check(expected)?;
        Ok(claims)
    }

    /// Checks a token's signature only: what its key has signed.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn signed(&self, token: &str) -> Result<Claims, DenyReason> {
        if token.is_empty() {
            return Err(DenyReason::MissingToken);
        }
        let parts = parts(token).ok_or(DenyReason::InvalidSignature)?;
        let kid = parts.header.kid.ok_or(DenyReason::MissingKid)?;
        let key = self.keys.get(&kid).ok_or(DenyReason::UnknownKid)?;
        let genuine = match key {
            VerifyingKey::Hs256(key) => {
                parts.header.alg == "HS256"
                    && hmac::verify(key, parts.signed.as_bytes(), &parts.signature).is_ok()
            }
            VerifyingKey::Es256(point) => {
                parts.header.alg == "ES256"
                    && UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
                        .verify(parts.signed.as_bytes(), &parts.signature)
                        .is_ok()
            }
        };
        if !genuine {
            return Err(DenyReason::InvalidSignature);
        }
        serde_json::from_slice(&parts.claims).map_err(|_| DenyReason::ClaimMismatch)
    }
}

/// The algorithm that a token names and the claims that it makes, whoever may have signed it.
#[must_use]
pub fn unverified(token: &str) -> Option<(String, Claims)> {
    let parts = parts(token)?;
    Some((
        parts.header.alg,
        serde_json::from_slice(&parts.claims).ok()?,
    ))
}

struct Parts<'a> {
    header: Header,
    claims: Vec<u8>,
    signed: &'a str,
    signature: Vec<u8>,
}

fn parts(token: &str) -> Option<Parts<'_>> {
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, claims) = signed.split_once('.')?;
    Some(Parts {
        header: serde_json::from_slice(&BASE64.decode(header).ok()?).ok()?,
        claims: BASE64.decode(claims).ok()?,
        signed,
        signature: BASE64.decode(signature).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claims() -> Claims {
        Claims {
            iss: "http://127.0.0.1:1".to_owned(),
            aud: "khala".to_owned(),
            sub: "c0001".to_owned(),
            jti: "j".to_owned(),
            iat: 1_000,
            nbf: 1_000,
            exp: 1_060,
            oa_org_id: "org".to_owned(),
            oa_session_id: "s".to_owned(),
            oa_device_id: "d".to_owned(),
            oa_sync_scopes: vec!["sync.subscribe".to_owned()],
            oa_sync_streams: vec!["runtime.run.1.events".to_owned()],
            oa_claims_version: 1,
        }
    }

    const EXPECTED: Expected<'static> = Expected {
        issuer: "http://127.0.0.1:1",
        audience: "khala",
        skew_us: 2_000_000,
        max_age_us: Some(3_600_000_000),
        now_us: 1_030_000_000,
    };

    fn keys() -> [SigningKey; 2] {
        let document = SigningKey::generate_es256().unwrap();
        [
            SigningKey::hs256("h1", b"secret"),
            SigningKey::es256("e1", &document).unwrap(),
        ]
    }

    fn set(keys: &[SigningKey]) -> KeySet {
        let mut set = KeySet::default();
        for key in keys {
            set.insert(key.kid(), key.verifying());
        }
        set
    }

    #[test]
    fn a_genuine_token_is_accepted_until_it_has_expired() {
        for key in keys() {
            let (token, set) = (key.sign(&claims()).unwrap(), set(&[key]));
            let at = |now_us| set.verify(&token, &Expected { now_us, ..EXPECTED });
            assert_eq!(at(1_030_000_000), Ok(claims()));
            assert_eq!(at(1_061_999_999), Ok(claims()));
            assert_eq!(at(1_062_000_000), Err(DenyReason::TokenExpired));
            assert_eq!(at(969_999_999), Err(DenyReason::TokenNotYetValid));
        }
    }

    #[test]
    fn a_token_is_too_old_from_its_age_on_however_long_it_lasts() {
        let [key, _] = keys();
        let lasting = Claims {
            exp: 9_000,
            ..claims()
        };
        let (token, set) = (key.sign(&lasting).unwrap(), set(&[key]));
        let at = |now_us| set.verify(&token, &Expected { now_us, ..EXPECTED });
        assert_eq!(at(4_602_000_000), Ok(lasting.clone()));
        assert_eq!(at(4_602_000_001), Err(DenyReason::TokenTooOld));
        let any_age = Expected {
            now_us: 8_999_000_000,
            max_age_us: None,
            ..EXPECTED
        };
        assert_eq!(set.verify(&token, &any_age), Ok(lasting.clone()));
    }

    #[test]
    fn each_refusal_has_its_reason() {
        let keys = keys();
        let token = keys[0].sign(&claims()).unwrap();
        let other = SigningKey::hs256("h1", b"other").sign(&claims()).unwrap();
        let set = set(&keys);
        assert_eq!(set.verify("", &EXPECTED), Err(DenyReason::MissingToken));
        assert_eq!(
            set.verify("nonsense", &EXPECTED),
            Err(DenyReason::InvalidSignature)
        );
        assert_eq!(
            set.verify(&other, &EXPECTED),
            Err(DenyReason::InvalidSignature)
        );
        let stranger = SigningKey::hs256("h2", b"secret").sign(&claims()).unwrap();
        assert_eq!(
            set.verify(&stranger, &EXPECTED),
            Err(DenyReason::UnknownKid)
        );
        assert!(set.lacks_key_of(&stranger) && !set.lacks_key_of(&token));
        let wrong = Expected {
            audience: "spacetimedb",
            ..EXPECTED
        };
        assert_eq!(set.verify(&token, &wrong), Err(DenyReason::ClaimMismatch));
        let (_, rest) = token.split_once('.').unwrap();
        let no_kid = format!("{}.{rest}", BASE64.encode(r#"{"alg":"HS256"}"#));
        assert_eq!(set.verify(&no_kid, &EXPECTED), Err(DenyReason::MissingKid));
    }

    #[test]
    fn a_shared_key_is_not_taken_for_the_public_one() {
        let [_, pair] = keys();
        let VerifyingKey::Es256(point) = pair.verifying() else {
            panic!("not a pair");
        };
        // The classic confusion: an HMAC made with the public key's bytes under the pair's id.
        let forged = SigningKey::hs256("e1", &point).sign(&claims()).unwrap();
        assert_eq!(
            set(&[pair]).verify(&forged, &EXPECTED),
            Err(DenyReason::InvalidSignature)
        );
    }

    #[test]
    fn a_jwks_checks_what_its_pair_signed() {
        let [shared, pair] = keys();
        assert_eq!(shared.jwk(), None);
        let jwks = Jwks {
            keys: vec![pair.jwk().unwrap()],
        };
        let token = pair.sign(&claims()).unwrap();
        assert_eq!(
            KeySet::of_jwks(&jwks).verify(&token, &EXPECTED),
            Ok(claims())
        );
    }

    proptest! {
        #[test]
        fn a_token_changed_anywhere_is_refused(at in 0_usize..400, letter in "[A-Za-z0-9_.-]") {
            let key = SigningKey::hs256("h1", b"secret");
            let token = key.sign(&claims()).unwrap();
            let at = at % token.len();
            let mut changed = token.clone();
            changed.replace_range(at..=at, &letter);
            if changed != token {
                prop_assert!(set(&[key]).verify(&changed, &EXPECTED).is_err());
            }
        }
    }
}
