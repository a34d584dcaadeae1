//! Fetching tokens.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use host::clock;
use host::http::{Client, Method, header};
use model::ids::{Lane, StreamId};
use model::instant::Mono;
use model::quantity::Span;
use model::shard::TokenSource;
use serde_json::Value;

use crate::client::machine::{Held, Refusal};
use crate::connection::{reason_in, retry_after};
use crate::token::{
    SPACETIME_TOKEN_PATH, SYNC_TOKEN_PATH, TokenAnswer, TokenRequest, session_credential,
};

/// The service answers at once or not at all.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A client of the token service, for one lane and any user.
#[derive(Debug, Clone)]
pub struct TokenClient {
    http: Client,
    path: &'static str,
    secret: String,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Whose organisation.
    pub org: String,
    /// Whose token: a client's id, or a probe's name.
    pub user: String,
    /// The scopes.
    pub scopes: Vec<String>,
    /// The streams.
    pub streams: Vec<StreamId>,
    /// The lifetime in seconds.
    pub ttl: u64,
}

impl TokenClient {
    /// A client of that service.
    #[must_use]
    pub fn new(source: &TokenSource, lane: Lane) -> Self {
        Self {
            http: Client::new(source.addr),
            path: match lane {
                Lane::Spacetime => SPACETIME_TOKEN_PATH,
                Lane::Khala => SYNC_TOKEN_PATH,
            },
            secret: source.session_secret.clone(),
        }
    }

    /// Fetches a token.
    ///
    /// # Errors
    /// The refusal; one without a status where the service did not answer.
    pub async fn fetch(&self, wish: &Wish) -> Result<Held, Refusal> {
        let credential = session_credential(&self.secret, &wish.org, &wish.user);
        let request = TokenRequest {
            scopes: wish.scopes.clone(),
            streams: wish.streams.clone(),
            topics: Vec::new(),
            ttl_seconds: Some(wish.ttl),
            device_id: Some(wish.user.clone()),
        };
        let body = serde_json::to_vec(&request).expect("a request of texts has a JSON form");
        let headers = [
            ("content-type", "application/json"),
            ("authorization", &format!("Bearer {credential}")),
        ];
        let answer = self
            .http
            .send(Method::POST, self.path, &headers, body.into(), TIMEOUT)
            .await
            .map_err(|error| Refusal {
                reason: error.to_string(),
                ..Refusal::default()
            })?;
        if !answer.status.is_success() {
            let wait = answer.headers.get(header::RETRY_AFTER);
            return Err(Refusal {
                status: Some(answer.status.as_u16()),
                reason: reason_in(&answer.body),
                retry_after: wait.and_then(|value| retry_after(value.to_str().ok()?)),
            });
        }
        held(&answer.body).ok_or_else(|| Refusal {
            status: Some(answer.status.as_u16()),
            reason: "the token service's answer has no token with a lifetime".to_owned(),
            retry_after: None,
        })
    }
}

fn held(body: &[u8]) -> Option<Held> {
    let TokenAnswer { data } = serde_json::from_slice(body).ok()?;
    let (now, unix_us) = (clock::now(), clock::unix_micros());
    // What the lane will go by is the claim; a token without one lasts as long as the service says.
    let exp_unix = expiry(&data.token).unwrap_or(data.expires_at);
    let left = Span::from_micros(exp_unix.saturating_mul(1_000_000).saturating_sub(unix_us));
    let lead = Span::from_secs(data.expires_in.saturating_sub(data.refresh_after_in));
    let exp: Mono = now + left;
    Some(Held {
        jwt: data.token,
        exp_unix,
        exp,
        refresh_after: (exp - lead).max(now),
    })
}

/// The claim `exp` of a JWT, unverified: it is the client's own token.
fn expiry(jwt: &str) -> Option<u64> {
    let claims = URL_SAFE_NO_PAD.decode(jwt.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<Value>(&claims).ok()?["exp"].as_u64()
}
