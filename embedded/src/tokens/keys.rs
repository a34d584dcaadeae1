//! The service's keys: a current one, which signs, and the one before, which is still good. A new service has both, so
//! that there is an old key from the start. A key that is good no more is kept for probers, in memory. The shared HS256 keys lie
//! in the file from which the khala lane reads them; the ES256 pairs beside it. Both are written whole and then
//! renamed into place, with mode 0600.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use lanes::token::{Jwks, KeySet, ProbeKey, SigningKey};
use model::event::hex;
use model::ids::Lane;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A key as its file has it: the secret, or the PKCS#8 document, in base64url.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredKey {
    kid: String,
    key: String,
}

/// What is in a key file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredKeys {
    current: StoredKey,
    #[serde(default)]
    previous: Option<StoredKey>,
}

impl StoredKeys {
    /// The file's, or new ones written to it.
    fn open(path: &Path, prefix: &str, generate: fn() -> io::Result<Vec<u8>>) -> io::Result<Self> {
        match read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let keys = Self {
                    current: StoredKey::generate(prefix, generate)?,
                    previous: Some(StoredKey::generate(prefix, generate)?),
                };
                write(path, &keys)?;
                Ok(keys)
            }
            other => other,
        }
    }

    fn rotated(&self, prefix: &str, generate: fn() -> io::Result<Vec<u8>>) -> io::Result<Self> {
        Ok(Self {
            current: StoredKey::generate(prefix, generate)?,
            previous: Some(self.current.clone()),
        })
    }

    fn each(&self) -> impl Iterator<Item = &StoredKey> {
        std::iter::once(&self.current).chain(&self.previous)
    }
}

impl StoredKey {
    fn generate(prefix: &str, generate: fn() -> io::Result<Vec<u8>>) -> io::Result<Self> {
        Ok(Self {
            kid: format!("{prefix}-{}", hex(&secret()?[..4])),
            key: BASE64.encode(generate()?),
        })
    }

    fn bytes(&self) -> io::Result<Vec<u8>> {
        BASE64
            .decode(&self.key)
            .map_err(|error| io::Error::other(format!("key `{}`: {error}", self.kid)))
    }

    fn shared(&self) -> io::Result<SigningKey> {
        Ok(SigningKey::hs256(&self.kid, &self.bytes()?))
    }

    fn pair(&self) -> io::Result<SigningKey> {
        SigningKey::es256(&self.kid, &self.bytes()?).map_err(io::Error::other)
    }
}

/// The shared keys as the khala lane reads them.
#[derive(Debug)]
pub(crate) struct SharedKeys(Vec<SigningKey>);

impl SharedKeys {
    /// Reads the file.
    ///
    /// # Errors
    /// There is none, or it is not a key file; the error names it.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let keys: StoredKeys = read(path)?;
        keys.each()
            .map(StoredKey::shared)
            .collect::<io::Result<_>>()
            .map(Self)
    }

    /// By which tokens are checked.
    pub(crate) fn verifying(&self) -> KeySet {
        let mut set = KeySet::default();
        for key in &self.0 {
            set.insert(key.kid(), key.verifying());
        }
        set
    }
}

/// The service's own view.
#[derive(Debug)]
pub(super) struct Keys {
    shared_file: PathBuf,
    pair_file: PathBuf,
    shared: StoredKeys,
    pairs: StoredKeys,
    signing: Signing,
    /// Token ids: a random start, counted on.
    tokens: (String, AtomicU64),
}

#[derive(Debug)]
struct Signing {
    current: Pair,
    previous: Option<Pair>,
    /// Good no more; a new one where none has been rotated out yet.
    retired: Pair,
    jwks: Jwks,
}

/// A key for each lane.
#[derive(Debug)]
struct Pair {
    shared: SigningKey,
    pair: SigningKey,
}

impl Pair {
    fn of(shared: &StoredKey, pair: &StoredKey) -> io::Result<Self> {
        Ok(Self {
            shared: shared.shared()?,
            pair: pair.pair()?,
        })
    }

    fn new() -> io::Result<Self> {
        Self::of(
            &StoredKey::generate("hs", secret)?,
            &StoredKey::generate("es", pair)?,
        )
    }

    const fn of_lane(&self, lane: Lane) -> &SigningKey {
        match lane {
            Lane::Khala => &self.shared,
            Lane::Spacetime => &self.pair,
        }
    }
}

impl Keys {
    /// The keys in `shared_file` and beside it; new ones where there are none.
    pub(super) fn open(shared_file: &Path) -> io::Result<Self> {
        let pair_file = shared_file.with_extension("es256.json");
        let shared = StoredKeys::open(shared_file, "hs", secret)?;
        let pairs = StoredKeys::open(&pair_file, "es", pair)?;
        Ok(Self {
            signing: Signing::of(&shared, &pairs, None)?,
            shared_file: shared_file.to_owned(),
            pair_file,
            shared,
            pairs,
            tokens: (hex(&secret()?[..6]), AtomicU64::new(1)),
        })
    }

    /// New keys sign from now on; those before the current ones are no longer good.
    pub(super) fn rotate(&mut self) -> io::Result<()> {
        let shared = self.shared.rotated("hs", secret)?;
        let pairs = self.pairs.rotated("es", pair)?;
        let retired = self.signing.previous.take();
        let signing = Signing::of(&shared, &pairs, retired)?;
        write(&self.shared_file, &shared)?;
        write(&self.pair_file, &pairs)?;
        (self.shared, self.pairs, self.signing) = (shared, pairs, signing);
        Ok(())
    }

    pub(super) const fn signing(&self, lane: Lane) -> &SigningKey {
        self.signing.current.of_lane(lane)
    }

    /// A key for a prober; `None` for a previous one where there is none.
    pub(super) fn of(&self, which: ProbeKey, lane: Lane) -> Option<&SigningKey> {
        let pair = match which {
            ProbeKey::Current => Some(&self.signing.current),
            ProbeKey::Previous => self.signing.previous.as_ref(),
            ProbeKey::Retired => Some(&self.signing.retired),
        };
        pair.map(|pair| pair.of_lane(lane))
    }

    pub(super) fn jwks(&self) -> Jwks {
        self.signing.jwks.clone()
    }

    pub(super) fn token_id(&self) -> String {
        format!("{}-{}", self.tokens.0, self.tokens.1.fetch_add(1, Relaxed))
    }
}

impl Signing {
    fn of(shared: &StoredKeys, pairs: &StoredKeys, retired: Option<Pair>) -> io::Result<Self> {
        let mut jwks = Jwks::default();
        for stored in pairs.each() {
            jwks.keys.extend(stored.pair()?.jwk());
        }
        let previous = shared.previous.as_ref().zip(pairs.previous.as_ref());
        Ok(Self {
            current: Pair::of(&shared.current, &pairs.current)?,
            previous: previous
                .map(|(shared, pair)| Pair::of(shared, pair))
                .transpose()?,
            retired: retired.map_or_else(Pair::new, Ok)?,
            jwks,
        })
    }
}

fn secret() -> io::Result<Vec<u8>> {
    let secret = SigningKey::generate_secret().map_err(io::Error::other)?;
    Ok(secret.to_vec())
}

fn pair() -> io::Result<Vec<u8>> {
    SigningKey::generate_es256().map_err(io::Error::other)
}

pub(super) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let named = |error: io::Error| {
        io::Error::new(error.kind(), format!("keys {}: {error}", path.display()))
    };
    serde_json::from_slice(&fs::read(path).map_err(named)?).map_err(|error| named(error.into()))
}

pub(super) fn write(path: &Path, keys: &impl Serialize) -> io::Result<()> {
    let whole = || {
        let temporary = path.with_extension("new");
        let mut file = fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(&serde_json::to_vec(keys)?)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    whole().map_err(|error: io::Error| {
        io::Error::new(error.kind(), format!("keys {}: {error}", path.display()))
    })
}
