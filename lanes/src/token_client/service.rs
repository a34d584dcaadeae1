//! The embedded token service.

use std::net::SocketAddr;
use std::time::Duration;

use host::http::{CallError, Client, Method, Response, header};
use model::ids::Lane;
use model::quantity::Span;
use model::target::Secret;

use super::{Issued, Wish};
use crate::client::machine::Refusal;
use crate::connection::{reason_in, retry_after};
use crate::token::{
    SPACETIME_TOKEN_PATH, SYNC_TOKEN_PATH, TokenAnswer, TokenRequest, session_credential,
};

/// The service answers at once or not at all.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A client of the service, for one lane.
#[derive(Debug, Clone)]
pub(super) struct Service {
    http: Client,
    path: &'static str,
    secret: Secret,
}

impl Service {
    pub(super) fn new(addr: SocketAddr, secret: &Secret, lane: Lane) -> Self {
        Self {
            http: Client::new(addr),
            path: match lane {
                Lane::Spacetime => SPACETIME_TOKEN_PATH,
                Lane::Khala => SYNC_TOKEN_PATH,
            },
            secret: secret.clone(),
        }
    }

    pub(super) async fn fetch(&self, user: &str, wish: &Wish) -> Result<Issued, Refusal> {
        let credential = session_credential(self.secret.reveal(), &wish.org, user);
        let request = TokenRequest {
            scopes: wish.scopes.clone(),
            streams: wish.streams.clone(),
            topics: Vec::new(),
            ttl_seconds: Some(wish.ttl),
            device_id: Some(user.to_owned()),
        };
        let body = serde_json::to_vec(&request).expect("a request of texts has a JSON form");
        let headers = [
            ("content-type", "application/json"),
            ("authorization", &format!("Bearer {credential}")),
        ];
        let answer = self
            .http
            .send(Method::POST, self.path, &headers, body.into(), TIMEOUT)
            .await;
        let answer = accepted(answer)?;
        let TokenAnswer { data } = serde_json::from_slice(&answer.body).map_err(|error| {
            let reason =
                format!("the token service's answer has no token with a lifetime: {error}");
            unusable(&answer, reason)
        })?;
        Ok(Issued {
            lead: Span::from_secs(data.expires_in.saturating_sub(data.refresh_after_in)),
            expires: Some(data.expires_at),
            token: data.token,
        })
    }
}

/// An answer with a status of success; everything else is a refusal.
pub(super) fn accepted(answer: Result<Response, CallError>) -> Result<Response, Refusal> {
    let answer = answer.map_err(|error| Refusal {
        reason: error.to_string(),
        ..Refusal::default()
    })?;
    if answer.status.is_success() {
        return Ok(answer);
    }
    let wait = answer.headers.get(header::RETRY_AFTER);
    Err(Refusal {
        status: Some(answer.status.as_u16()),
        reason: reason_in(&answer.body),
        retry_after: wait.and_then(|value| retry_after(value.to_str().ok()?)),
    })
}

/// A refusal for an answer that is of no use.
pub(super) fn unusable(answer: &Response, reason: String) -> Refusal {
    Refusal {
        status: Some(answer.status.as_u16()),
        reason,
        retry_after: None,
    }
}
