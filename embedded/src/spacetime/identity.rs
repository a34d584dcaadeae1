//! Identities, and the tokens that this server signs itself, as a real one does for `POST /v1/identity`. Their key
//! lies in the data folder, so that they outlive a restart.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use lanes::token::{Claims, Expected, KeyError, KeySet, SigningKey};
use model::event::hex;
use sha2::{Digest, Sha256};

/// The issuer of this server's own tokens, as a real one's.
const ISSUER: &str = "localhost";

const AUDIENCE: &str = "spacetimedb";

/// 100 years: these tokens do not expire.
const FOREVER_S: u64 = 100 * 365 * 86_400;

/// Who somebody is, and the token that says so.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Known {
    /// 64 hexadecimal digits.
    pub(crate) identity: String,
    pub(crate) token: String,
}

/// The server's own key.
#[derive(Debug)]
pub(crate) struct Identities {
    key: SigningKey,
    keys: KeySet,
}

impl Identities {
    /// The key in the data folder, or a new one.
    pub(crate) fn open(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join("identity.pk8");
        let document = match fs::read(&path) {
            Ok(document) => document,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let document = SigningKey::generate_es256().map_err(io::Error::other)?;
                let mut file = fs::OpenOptions::new()
                    .create(true)
                    .truncate(true)
                    .write(true)
                    .mode(0o600)
                    .open(&path)?;
                file.write_all(&document)?;
                document
            }
            Err(error) => return Err(error),
        };
        let key = SigningKey::es256("identity", &document).map_err(io::Error::other)?;
        let mut keys = KeySet::default();
        keys.insert(key.kid(), key.verifying());
        Ok(Self { key, keys })
    }

    /// A new identity.
    pub(crate) fn create(&self) -> Result<Known, KeyError> {
        let subject = hex(&SigningKey::generate_secret()?[..16]);
        Ok(Known {
            identity: identity_of(ISSUER, &subject),
            token: self.sign(&subject, FOREVER_S)?,
        })
    }

    /// A token for who is known already.
    pub(crate) fn short_lived(&self, known: &Known, seconds: u64) -> Result<String, KeyError> {
        let own = self.claims(&known.token).map(|claims| claims.sub);
        self.sign(own.as_deref().unwrap_or(&known.identity), seconds)
    }

    /// Whoever one of this server's own tokens stands for.
    pub(crate) fn known(&self, token: &str) -> Option<Known> {
        let claims = self.claims(token)?;
        Some(Known {
            identity: identity_of(ISSUER, &claims.sub),
            token: token.to_owned(),
        })
    }

    /// Whoever the issuer's claims stand for.
    pub(crate) fn of_claims(claims: &Claims, token: &str) -> Known {
        Known {
            identity: identity_of(&claims.iss, &claims.sub),
            token: token.to_owned(),
        }
    }

    /// The publishers, who have a secret and no token.
    pub(crate) fn publisher() -> Known {
        Known {
            identity: identity_of("publisher", ""),
            token: String::new(),
        }
    }

    fn claims(&self, token: &str) -> Option<Claims> {
        let expected = Expected {
            issuer: ISSUER,
            audience: AUDIENCE,
            skew_us: 60_000_000,
            max_age_us: None,
            now_us: host::clock::unix_micros(),
        };
        self.keys.verify(token, &expected).ok()
    }

    fn sign(&self, subject: &str, seconds: u64) -> Result<String, KeyError> {
        let now = host::clock::unix_micros() / 1_000_000;
        self.key.sign(&Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: subject.to_owned(),
            jti: String::new(),
            iat: now,
            nbf: now,
            exp: now + seconds,
            oa_org_id: String::new(),
            oa_session_id: String::new(),
            oa_device_id: String::new(),
            oa_sync_scopes: Vec::new(),
            oa_sync_streams: Vec::new(),
            oa_claims_version: 1,
        })
    }
}

/// An identity is a hash of issuer and subject, and begins with `c200`. Which hash is the server's own affair.
fn identity_of(issuer: &str, subject: &str) -> String {
    let sum = Sha256::digest(format!("{issuer}|{subject}"));
    format!("c200{}", hex(&sum[..30]))
}
