//! Fetching tokens, from whoever issues them.
//!
//! ```text
//! service   the embedded token service       http      an endpoint of the target's own
//! command   a program that the agent runs    (files are at hand)
//! ```

mod command;
mod http;
mod service;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use host::clock;
use host::peer::PeerError;
use model::ids::{ClientId, Lane, StreamId};
use model::quantity::Span;
use model::shard::{Issuer, TokenSource};
use model::target::{Secret, TokenAsk};
use serde_json::Value;

use self::command::Command;
use self::http::Endpoint;
use self::service::Service;
use crate::client::machine::{Held, Refusal};

/// A token that says nothing of its end is good for longer than any drill.
const FOR_GOOD: Span = Span::from_secs(365 * 24 * 3_600);

/// A client of whoever issues tokens, for one lane and any user.
#[derive(Debug, Clone)]
pub struct TokenClient {
    desk: Desk,
    identities: Option<u32>,
}

#[derive(Debug, Clone)]
enum Desk {
    Service(Service),
    Http(Arc<Endpoint>),
    Command(Arc<Command>),
    Files(Arc<[Secret]>),
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Whose organisation.
    pub org: String,
    /// Whose token.
    pub user: User,
    /// The scopes.
    pub scopes: Vec<String>,
    /// The streams.
    pub streams: Vec<StreamId>,
    /// The lifetime in seconds.
    pub ttl: u64,
}

/// Whose token it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// A client of the fleet.
    Client(ClientId),
    /// A part of the harness, such as `probe`.
    Part(&'static str),
}

/// What of a wish an issuer can be told. What it is not told, its tokens have as they have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heeds {
    /// The organisation.
    pub org: bool,
    /// The scopes.
    pub scopes: bool,
    /// The streams.
    pub streams: bool,
}

/// A token as it was issued.
struct Issued {
    token: String,
    /// When it expires, in seconds since the Unix epoch, where the issuer says so beside the token.
    expires: Option<u64>,
    /// So long before that it is to be renewed.
    lead: Span,
}

impl TokenClient {
    /// A client of that issuer. `lead` is how long before a token's end it is renewed, where its issuer does not say.
    ///
    /// # Errors
    /// Its TLS settings are of no use.
    pub fn new(source: &TokenSource, lane: Lane, lead: Span) -> Result<Self, PeerError> {
        let desk = match &source.issuer {
            Issuer::Service {
                addr,
                session_secret,
            } => Desk::Service(Service::new(*addr, session_secret, lane)),
            Issuer::Http { endpoint, addr } => {
                Desk::Http(Arc::new(Endpoint::new(endpoint, *addr, lead)?))
            }
            Issuer::Command { name, agent } => {
                Desk::Command(Arc::new(Command::new(name, *agent, lead)))
            }
            Issuer::Files(tokens) => Desk::Files(tokens.clone().into()),
        };
        Ok(Self {
            desk,
            identities: source.identities,
        })
    }

    /// What its tokens can be asked to be.
    #[must_use]
    pub fn heeds(&self) -> Heeds {
        match &self.desk {
            Desk::Service(_) | Desk::Command(_) => Heeds {
                org: true,
                scopes: true,
                streams: true,
            },
            Desk::Http(endpoint) => endpoint.heeds(),
            Desk::Files(_) => Heeds {
                org: false,
                scopes: false,
                streams: false,
            },
        }
    }

    /// Fetches a token.
    ///
    /// # Errors
    /// The refusal; one without a status where the issuer did not answer.
    pub async fn fetch(&self, wish: &Wish) -> Result<Held, Refusal> {
        let identity = self.identity(wish.user);
        let ask = || TokenAsk {
            identity: identity.clone(),
            tenant: wish.org.clone(),
            streams: wish.streams.clone(),
            scopes: wish.scopes.clone(),
            ttl_seconds: wish.ttl,
        };
        let issued = match &self.desk {
            Desk::Service(service) => service.fetch(&identity, wish).await?,
            Desk::Http(endpoint) => endpoint.fetch(&ask()).await?,
            Desk::Command(command) => command.fetch(&ask()).await?,
            Desk::Files(tokens) => self.at_hand(tokens, wish.user)?,
        };
        Ok(held(issued))
    }

    /// The name of a user's identity. Where clients share identities they are called as the first clients are, and the
    /// harness's own parts have the first of them.
    fn identity(&self, user: User) -> String {
        match (user, self.identities) {
            (User::Client(client), None) => client.to_string(),
            (User::Part(part), None) => part.to_owned(),
            (user, Some(identities)) => ClientId(place(user, identities)).to_string(),
        }
    }

    fn at_hand(&self, tokens: &[Secret], user: User) -> Result<Issued, Refusal> {
        let count = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
        let place = place(user, self.identities.unwrap_or(count).min(count));
        let refusal = |reason: String| Refusal {
            reason,
            ..Refusal::default()
        };
        let token = tokens
            .get(place as usize)
            .ok_or_else(|| refusal("there is no file with a token".to_owned()))?;
        let expires = expiry(token.reveal());
        let now = clock::unix_micros() / 1_000_000;
        if let Some(over) = expires.and_then(|exp| now.checked_sub(exp)) {
            let over = Span::from_secs(over);
            return Err(refusal(format!(
                "the token of file {} has been expired for {over}: put a new one there",
                place + 1
            )));
        }
        Ok(Issued {
            token: token.reveal().to_owned(),
            expires,
            // There is no other to be had.
            lead: Span::ZERO,
        })
    }
}

fn place(user: User, identities: u32) -> u32 {
    match user {
        User::Client(client) => client.0 % identities.max(1),
        User::Part(_) => 0,
    }
}

fn held(issued: Issued) -> Held {
    let (now, unix_us) = (clock::now(), clock::unix_micros());
    // What the lane will go by is the claim; a token without one lasts as long as its issuer says.
    let exp_unix = expiry(&issued.token)
        .or(issued.expires)
        .unwrap_or_else(|| (unix_us + FOR_GOOD.as_micros()) / 1_000_000);
    let left = Span::from_micros(exp_unix.saturating_mul(1_000_000).saturating_sub(unix_us));
    let exp = now + left;
    Held {
        jwt: issued.token,
        exp_unix,
        exp,
        refresh_after: (exp - issued.lead).max(now),
    }
}

/// The claim `exp` of a JWT, unverified: it is the client's own token.
fn expiry(jwt: &str) -> Option<u64> {
    let claims = URL_SAFE_NO_PAD.decode(jwt.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<Value>(&claims).ok()?["exp"].as_u64()
}

#[cfg(test)]
mod tests;
