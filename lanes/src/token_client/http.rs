//! An HTTP endpoint of the target's own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use host::http::{Client, Method};
use host::peer::{Peer, PeerError, Reach};
use model::quantity::Span;
use model::target::{Access, TokenAsk, TokenEndpoint};
use serde_json::Value;

use super::service::{accepted, unusable};
use super::{Heeds, Issued};
use crate::client::machine::Refusal;

/// Somebody else's service, maybe far away.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A client of the endpoint.
#[derive(Debug)]
pub(super) struct Endpoint {
    http: Client,
    method: Method,
    settings: TokenEndpoint,
    lead: Span,
}

impl Endpoint {
    pub(super) fn new(
        settings: &TokenEndpoint,
        addr: SocketAddr,
        lead: Span,
    ) -> Result<Self, PeerError> {
        let access = Access {
            authority: Some(settings.authority.clone()),
            tls: settings.tls.clone(),
            ..Access::plain(addr, addr)
        };
        let peer: Arc<Peer> = Reach::of(&access)?.direct;
        Ok(Self {
            http: Client::of(peer),
            method: settings.method.parse().unwrap_or(Method::POST),
            settings: settings.clone(),
            lead,
        })
    }

    pub(super) fn heeds(&self) -> Heeds {
        let body = self.settings.body.reveal();
        Heeds {
            org: body.contains("{tenant}"),
            scopes: body.contains("{scopes}"),
            streams: body.contains("{streams}"),
        }
    }

    pub(super) async fn fetch(&self, ask: &TokenAsk) -> Result<Issued, Refusal> {
        let settings = &self.settings;
        let headers: Vec<(&str, &str)> = settings
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.reveal()))
            .collect();
        let body = settings.body_for(ask).into_bytes();
        let answer = self
            .http
            .send(
                self.method.clone(),
                &settings.path,
                &headers,
                body.into(),
                TIMEOUT,
            )
            .await;
        let answer = accepted(answer)?;
        let parsed: Value = serde_json::from_slice(&answer.body)
            .map_err(|error| unusable(&answer, format!("the token endpoint's answer: {error}")))?;
        let (token, expires) = settings.token_in(&parsed).ok_or_else(|| {
            let field = &settings.token_field;
            unusable(
                &answer,
                format!("the token endpoint's answer has no text at `{field}`"),
            )
        })?;
        Ok(Issued {
            token: token.reveal().to_owned(),
            expires,
            lead: self.lead,
        })
    }
}
