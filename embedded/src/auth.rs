//! Tokens as a lane checks them. khala reads the shared keys from the token service's file; spacetime fetches the
//! issuer's JWKS by discovery. Both look again when a token names a key that they do not know. A strict lane also
//! refuses tokens beyond the greatest age and those that their issuer has revoked.

mod revoked;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use host::http::Client;
use lanes::token::{
    Claims, DenyReason, Expected, Jwks, KeySet, REVOKED_PATH, RevokedList, unverified,
};
use model::instant::Mono;
use model::quantity::Span;
use model::target::TokenChecks;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use self::revoked::Revoked;
use crate::defect::Defects;
use crate::tokens::keys::SharedKeys;

/// How long a fetch of the issuer's keys may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(2);

const NO_ADDRESS: &str = "the issuer has no usable address";

/// Tokens with an unknown `kid` make the keys be looked up no more often than this.
const LOOK_AGAIN_AFTER: Span = Span::from_millis(200);

/// Where the keys come from.
#[derive(Debug)]
enum Source {
    /// The shared HS256 keys.
    File(PathBuf),
    /// The issuer's JWKS. `None` for an issuer that is not `http://ADDRESS:PORT`.
    Issuer(Option<Client>),
}

impl Source {
    /// The tokens that are revoked now.
    async fn revoked(&self) -> Result<RevokedList, String> {
        match self {
            Self::File(path) => {
                crate::tokens::revoked::read(path).map_err(|error| error.to_string())
            }
            Self::Issuer(None) => Err(NO_ADDRESS.to_owned()),
            Self::Issuer(Some(client)) => client
                .get(REVOKED_PATH, FETCH_TIMEOUT)
                .await
                .map_err(|error| error.to_string()),
        }
    }
}

/// Checks tokens.
#[derive(Debug)]
pub(crate) struct Verifier {
    source: Source,
    issuer: String,
    audience: &'static str,
    skew: Span,
    checks: TokenChecks,
    defects: Defects,
    keys: Mutex<KeySet>,
    last_look: tokio::sync::Mutex<Option<Mono>>,
    revoked: Revoked,
}

impl Verifier {
    /// A verifier with the shared keys in a file.
    pub(crate) fn of_file(
        path: &Path,
        issuer: &str,
        audience: &'static str,
        skew: Span,
        checks: TokenChecks,
        defects: Defects,
    ) -> Self {
        Self::new(
            Source::File(path.to_owned()),
            issuer,
            audience,
            skew,
            checks,
            defects,
        )
    }

    /// A verifier with the issuer's public keys.
    pub(crate) fn of_issuer(
        issuer: &str,
        audience: &'static str,
        skew: Span,
        checks: TokenChecks,
        defects: Defects,
    ) -> Self {
        let client = issuer
            .strip_prefix("http://")
            .and_then(|rest| rest.trim_end_matches('/').parse().ok())
            .map(Client::new);
        if client.is_none() {
            tracing::warn!(
                issuer,
                "tokens cannot be checked: the issuer is not http://ADDRESS:PORT"
            );
        }
        Self::new(
            Source::Issuer(client),
            issuer,
            audience,
            skew,
            checks,
            defects,
        )
    }

    fn new(
        source: Source,
        issuer: &str,
        audience: &'static str,
        skew: Span,
        checks: TokenChecks,
        defects: Defects,
    ) -> Self {
        Self {
            source,
            issuer: issuer.to_owned(),
            audience,
            skew,
            checks,
            defects,
            keys: Mutex::default(),
            last_look: tokio::sync::Mutex::default(),
            revoked: Revoked::default(),
        }
    }

    /// Checks a token. The claims, and when it ends, in micro-seconds since the Unix epoch.
    ///
    /// # Errors
    /// The reason to name.
    pub(crate) async fn verify(&self, token: Option<&str>) -> Result<(Claims, u64), DenyReason> {
        let token = token.ok_or(DenyReason::MissingToken)?;
        if self.lock().lacks_key_of(token) {
            self.look_again(token).await;
        }
        let expected = Expected {
            issuer: &self.issuer,
            audience: self.audience,
            skew_us: self.skew.as_micros(),
            max_age_us: self.checks.max_age.map(Span::as_micros),
            now_us: host::clock::unix_micros(),
        };
        let claims = self.claims(token, &expected).await;
        let claims = claims.map_err(|reason| self.defects.named_reason(reason))?;
        let ends = claims.refused_from_us(self.skew.as_micros());
        Ok((claims, ends))
    }

    async fn claims(&self, token: &str, expected: &Expected<'_>) -> Result<Claims, DenyReason> {
        let (algorithm, claimed) = unverified(token).unzip();
        let overlooks = |reason| {
            let algorithm = algorithm.as_deref().unwrap_or_default();
            self.defects.overlooks(reason, algorithm)
        };
        let signed = self.lock().signed(token);
        let claims = match signed {
            Err(reason) if overlooks(reason) => claimed.ok_or(reason)?,
            signed => signed?,
        };
        match claims.check(expected) {
            Err(reason) if !overlooks(reason) => return Err(reason),
            _ => {}
        }
        if self.checks.revocation
            && self.revoked.has(&self.source, &claims.jti).await
            && !overlooks(DenyReason::TokenRevoked)
        {
            return Err(DenyReason::TokenRevoked);
        }
        Ok(claims)
    }

    /// Keeps the list of revoked tokens up to date until `shutdown`.
    pub(crate) async fn keep_up(&self, shutdown: CancellationToken) {
        if self.checks.revocation {
            self.revoked.keep_looking(&self.source, shutdown).await;
        }
    }

    /// Fetches the keys for a token whose key is not known. Whoever comes while that is under way waits for it instead
    /// of being refused for a key that is about to be known.
    async fn look_again(&self, token: &str) {
        let mut last = self.last_look.lock().await;
        let now = host::clock::now();
        let just_looked = last.is_some_and(|at| now.since(at) < LOOK_AGAIN_AFTER);
        if just_looked || !self.lock().lacks_key_of(token) {
            return;
        }
        match self.fetch().await {
            Ok(keys) => *self.lock() = keys,
            Err(error) => {
                tracing::warn!(error, "the keys could not be had; the known ones stay");
            }
        }
        *last = Some(host::clock::now());
    }

    async fn fetch(&self) -> Result<KeySet, String> {
        match &self.source {
            Source::File(path) => SharedKeys::read(path)
                .map(|keys| keys.verifying())
                .map_err(|error| error.to_string()),
            Source::Issuer(None) => Err(NO_ADDRESS.to_owned()),
            Source::Issuer(Some(client)) => {
                let discovered: Discovery = client
                    .get("/.well-known/openid-configuration", FETCH_TIMEOUT)
                    .await
                    .map_err(|error| error.to_string())?;
                let path = discovered
                    .jwks_uri
                    .strip_prefix(&self.issuer)
                    .ok_or_else(|| {
                        format!("jwks_uri {} is not the issuer's", discovered.jwks_uri)
                    })?;
                let jwks: Jwks = client
                    .get(path, FETCH_TIMEOUT)
                    .await
                    .map_err(|error| error.to_string())?;
                Ok(KeySet::of_jwks(&jwks))
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, KeySet> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Deserialize)]
struct Discovery {
    jwks_uri: String,
}
