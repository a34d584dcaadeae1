//! The tokens of probes: asked of the issuer in the state that is wanted, then forged where the state is a forgery. An
//! issuer without the probers' call is asked for ordinary tokens, and cells that need more are left out.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use host::clock;
use host::http::{CallError, Client, Method, StatusCode};
use model::ids::{Lane, StreamId};
use model::instant::Mono;
use model::quantity::Span;
use model::shard::{Issuer, TokenSource};
use model::target::{MAX_TOKEN_AGE, Promise, TokenChecks};
use tokio::sync::Mutex;

use super::cell::State;
use super::forge::Parts;
use crate::client::machine::Held;
use crate::connection::reason_in;
use crate::token::{
    JWKS_PATH, Jwk, Jwks, PROBE_TOKEN_PATH, ProbeKey, ProbeRequest, ProbeToken, SCOPE_SUBSCRIBE,
    probe_credential,
};
use crate::token_client::{TokenClient, User, Wish};

const TIMEOUT: Duration = Duration::from_secs(2);
/// Tokens of probes that are not about expiry last so long, in seconds.
const TTL_S: u64 = 120;
/// An ordinary token is fetched anew when it has less left than this.
const LEFT: Span = Span::from_secs(30);
/// Lanes know of a revocation so soon.
const REVOCATION_KNOWN: Span = Span::from_secs(2);
/// A revoked token is presented for so long: it must not expire meanwhile, which is another reason.
const REVOKED_FOR: Span = Span::from_secs(60);
/// What is well beyond a boundary, and what is just beside it.
const WELL_S: i64 = 60;
const JUST_S: i64 = 5;

/// What a token is to be good for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Grant {
    pub(super) org: String,
    pub(super) scopes: Vec<String>,
    pub(super) streams: Vec<StreamId>,
}

/// What came of asking for a token.
pub(super) enum Minted {
    /// A token in that state.
    Token(String),
    /// None yet: a revocation has to get about first; or the issuer has no such tokens.
    NotYet,
    /// The issuer is away or busy.
    Away(String),
}

/// Makes tokens.
#[derive(Debug)]
pub(super) struct Mint {
    /// The embedded token service, and a prober's credential there; `None` for another issuer.
    service: Option<(Client, String)>,
    lane: Lane,
    tokens: TokenClient,
    /// The clients' organisation.
    org: String,
    /// The issuer has no call for probers.
    ordinary: AtomicBool,
    /// Revoked tokens and since when.
    revoked: Mutex<BTreeMap<Grant, (String, Mono)>>,
    held: Mutex<BTreeMap<Grant, Held>>,
}

impl Mint {
    pub(super) fn new(source: &TokenSource, tokens: TokenClient, lane: Lane) -> Self {
        let service = match &source.issuer {
            Issuer::Service {
                addr,
                session_secret,
            } => {
                let credential = probe_credential(session_secret.reveal());
                Some((Client::new(*addr), format!("Bearer {credential}")))
            }
            _ => None,
        };
        Self {
            ordinary: AtomicBool::new(service.is_none()),
            service,
            lane,
            tokens,
            org: source.org.clone(),
            revoked: Mutex::default(),
            held: Mutex::default(),
        }
    }

    /// A token in a state; `foreign` is the stream that a tampered payload adds.
    pub(super) async fn mint(
        &self,
        state: State,
        grant: &Grant,
        promise: &Promise,
        foreign: &str,
    ) -> Minted {
        match state {
            State::Missing => return Minted::Token(String::new()),
            // The secret in use is 32 hexadecimal digits.
            State::WrongSecret => return Minted::Token("not-the-secret".to_owned()),
            State::Revoked => return self.revoked(grant, promise).await,
            _ => {}
        }
        let token = match self.issue(state, grant, promise).await {
            Minted::Token(token) => token,
            other => return other,
        };
        let Some(parts) = Parts::of(&token) else {
            return Minted::NotYet;
        };
        let forged = match state {
            State::MissingKid => Ok(parts.without_kid()),
            State::AlgNone => Ok(parts.unsigned()),
            State::SwappedAlg => Ok(parts.with_swapped_alg()),
            State::TamperedPayload => Ok(parts.granting(foreign)),
            State::TamperedSignature => Ok(parts.with_other_signature()),
            State::UnknownKid => parts.by_a_stranger(self.lane),
            State::Confused => match self.public_key().await {
                Ok(Some(key)) => parts.confused(&key),
                Ok(None) => return Minted::NotYet,
                Err(error) => return Minted::Away(error.to_string()),
            },
            _ => Ok(token),
        };
        match forged {
            Ok(token) => Minted::Token(token),
            Err(error) => Minted::Away(error.to_string()),
        }
    }

    /// A revoked token, once it has been revoked for long enough.
    async fn revoked(&self, grant: &Grant, promise: &Promise) -> Minted {
        let mut revoked = self.revoked.lock().await;
        let now = clock::now();
        if let Some((token, since)) = revoked.get(grant) {
            let age = now.since(*since);
            if age < REVOCATION_KNOWN {
                return Minted::NotYet;
            }
            if age < REVOKED_FOR {
                return Minted::Token(token.clone());
            }
        }
        match self.issue(State::Revoked, grant, promise).await {
            Minted::Token(token) => {
                revoked.insert(grant.clone(), (token, clock::now()));
                Minted::NotYet
            }
            other => other,
        }
    }

    async fn issue(&self, state: State, grant: &Grant, promise: &Promise) -> Minted {
        let service = self.service.as_ref();
        let Some((http, credential)) = service.filter(|_| !self.ordinary.load(Relaxed)) else {
            return self.ordinary(state, grant).await;
        };
        let request = request(self.lane, state, grant, promise);
        let body = serde_json::to_vec(&request).expect("texts and numbers have a JSON form");
        let headers = [
            ("content-type", "application/json"),
            ("authorization", credential.as_str()),
        ];
        let answer = http
            .send(
                Method::POST,
                PROBE_TOKEN_PATH,
                &headers,
                body.into(),
                TIMEOUT,
            )
            .await;
        match answer {
            Ok(answer) if answer.status.is_success() => {
                match serde_json::from_slice::<ProbeToken>(&answer.body) {
                    Ok(minted) => Minted::Token(minted.token),
                    Err(error) => Minted::Away(format!("the issuer's answer: {error}")),
                }
            }
            Ok(answer)
                if [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED]
                    .contains(&answer.status) =>
            {
                tracing::info!(
                    "the token service has no {PROBE_TOKEN_PATH}: tokens in other states than valid or forged are \
                     not probed"
                );
                self.ordinary.store(true, Relaxed);
                self.ordinary(state, grant).await
            }
            Ok(answer) => Minted::Away(reason_in(&answer.body)),
            Err(error) => Minted::Away(error.to_string()),
        }
    }

    async fn ordinary(&self, state: State, grant: &Grant) -> Minted {
        let forged = matches!(
            state,
            State::Valid
                | State::MissingKid
                | State::AlgNone
                | State::SwappedAlg
                | State::TamperedPayload
                | State::TamperedSignature
                | State::UnknownKid
                | State::Confused
        );
        // An ordinary request without scopes is one for the common scope.
        if !forged || grant.scopes.is_empty() || grant.streams.is_empty() {
            return Minted::NotYet;
        }
        // A token of an issuer that cannot be told for what is for whatever it is for: nothing follows from it.
        let heeds = self.tokens.heeds();
        if (!heeds.scopes && grant.scopes != [SCOPE_SUBSCRIBE])
            || (!heeds.org && grant.org != self.org)
        {
            return Minted::NotYet;
        }
        let mut held = self.held.lock().await;
        if let Some(held) = held.get(grant)
            && held.exp.since(clock::now()) > LEFT
        {
            return Minted::Token(held.jwt.clone());
        }
        match self.tokens.fetch(&wish(grant)).await {
            Ok(fetched) => {
                let token = fetched.jwt.clone();
                held.insert(grant.clone(), fetched);
                Minted::Token(token)
            }
            Err(refusal) => Minted::Away(refusal.reason),
        }
    }

    /// The issuer's newest public key; `None` where it has none, or none that is known here.
    async fn public_key(&self) -> Result<Option<Vec<u8>>, CallError> {
        let Some((http, _)) = &self.service else {
            return Ok(None);
        };
        let jwks: Jwks = http.get(JWKS_PATH, TIMEOUT).await?;
        Ok(jwks.keys.first().and_then(Jwk::point))
    }
}

/// The ordinary request for a token that is good for this.
pub(super) fn wish(grant: &Grant) -> Wish {
    Wish {
        org: grant.org.clone(),
        user: User::Part("probe"),
        scopes: grant.scopes.clone(),
        streams: grant.streams.clone(),
        ttl: TTL_S,
    }
}

/// What is asked of the issuer for a state. Whole seconds, and the service's now is rounded down.
fn request(lane: Lane, state: State, grant: &Grant, promise: &Promise) -> ProbeRequest {
    let seconds = |span: Span| i64::try_from(span.as_micros().div_ceil(1_000_000)).unwrap_or(0);
    let (skew, nbf_skew) = (seconds(promise.token_skew), seconds(TokenChecks::NBF_SKEW));
    let age = seconds(promise.token_checks.max_age.unwrap_or(MAX_TOKEN_AGE));
    let lasts = i64::try_from(TTL_S).unwrap_or(0);
    let long_ago = -(skew + 5 * WELL_S);
    let (issued, not_before, expires) = match state {
        State::Expired => (long_ago, long_ago, -(skew + WELL_S)),
        State::PastSkew => (long_ago, long_ago, -(skew + 2)),
        State::WithinSkew => (long_ago, long_ago, JUST_S - skew),
        State::NotYetValid => (0, nbf_skew + 10 * WELL_S, nbf_skew + 20 * WELL_S),
        State::BeforeNbfSkew => (0, nbf_skew + JUST_S, nbf_skew + lasts),
        State::WithinNbfSkew => (0, nbf_skew - JUST_S, nbf_skew + lasts),
        State::TooOld => {
            let issued = -(age + skew + WELL_S);
            (issued, issued, lasts)
        }
        _ => (0, 0, lasts),
    };
    ProbeRequest {
        lane,
        org: grant.org.clone(),
        user: "probe".to_owned(),
        scopes: grant.scopes.clone(),
        streams: grant.streams.clone(),
        key: match state {
            State::PreviousKey => ProbeKey::Previous,
            State::RetiredKey => ProbeKey::Retired,
            _ => ProbeKey::Current,
        },
        issued_s: issued,
        not_before_s: not_before,
        expires_s: expires,
        revoked: state == State::Revoked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_has_to_be_expired_is_so_by_more_than_the_skew_without_a_wait() {
        let grant = Grant {
            org: "org".to_owned(),
            scopes: Vec::new(),
            streams: Vec::new(),
        };
        for skew in [0, 30, 60] {
            let promise = Promise::strict(Span::from_secs(skew));
            let skew = i64::try_from(skew).unwrap();
            let of = |state| request(Lane::Khala, state, &grant, &promise);
            assert!(of(State::Expired).expires_s < -skew - 30);
            assert!(of(State::PastSkew).expires_s < -skew);
            let within = of(State::WithinSkew).expires_s;
            assert!(within > -skew + 2 && within <= -skew + JUST_S);
            for state in [State::Expired, State::PastSkew, State::WithinSkew] {
                assert!(of(state).issued_s < of(state).expires_s);
                assert!(-of(state).issued_s < 3_600, "not too old as well");
            }
            assert!(-of(State::TooOld).issued_s > 3_600 + skew && of(State::TooOld).expires_s > 0);
        }
    }
}
