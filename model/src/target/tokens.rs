//! Where a target's tokens come from.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::TlsClient;
use crate::ids::StreamId;

/// A text that no log, no `Debug` output and no evidence shows.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for whoever sends it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Where tokens come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenSupply {
    /// The embedded token service, which the target trusts as an issuer: one that runs already, or one that the drill
    /// starts.
    Service(Option<TokenService>),
    /// An HTTP endpoint.
    Http(Box<TokenEndpoint>),
    /// A command that the agent's own configuration has under this name.
    Command(String),
    /// Tokens that were made beforehand, one an identity.
    Files(Vec<Secret>),
}

/// An embedded token service that runs already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenService {
    /// `host:port` to connect to.
    pub dial: String,
    /// From which session credentials are derived: `--session-secret`.
    pub session_secret: Secret,
}

/// An HTTP endpoint that issues tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenEndpoint {
    /// `host:port` to connect to.
    pub dial: String,
    /// What `Host` and SNI say: the host, with its port where that is not the scheme's own.
    pub authority: String,
    /// Path and query.
    pub path: String,
    /// TLS, for `https`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsClient>,
    /// The method, such as `POST`.
    pub method: String,
    /// Headers of the request.
    #[serde(default)]
    pub headers: Vec<(String, Secret)>,
    /// The body, in which `{identity}`, `{tenant}`, `{streams}`, `{scopes}` and `{ttl_seconds}` are replaced; empty for
    /// none.
    pub body: Secret,
    /// Where the token is in the answer: keys joined by dots, such as `data.token`.
    pub token_field: String,
    /// Where the answer says when the token expires, in seconds since the Unix epoch; the token's own `exp` where
    /// nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_field: Option<String>,
}

/// What a token is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenAsk {
    /// Whose: a client's identity.
    pub identity: String,
    /// Of which organisation.
    pub tenant: String,
    /// For which streams.
    pub streams: Vec<StreamId>,
    /// With which scopes.
    pub scopes: Vec<String>,
    /// For how long, in seconds.
    pub ttl_seconds: u64,
}

/// The placeholders of [`TokenEndpoint::body`], without their braces.
pub const PLACEHOLDERS: [&str; 5] = ["identity", "tenant", "streams", "scopes", "ttl_seconds"];

impl TokenEndpoint {
    /// The body of a request. Texts are escaped as JSON and stand between the template's own quotes; lists are JSON
    /// arrays. What a value holds is not looked at again, so an identity cannot smuggle in a placeholder.
    #[must_use]
    pub fn body_for(&self, ask: &TokenAsk) -> String {
        let text = |text: &str| {
            let quoted = Value::from(text).to_string();
            quoted[1..quoted.len() - 1].to_owned()
        };
        let mut rest = self.body.reveal();
        let mut body = String::new();
        while let Some(at) = rest.find('{') {
            let (before, from) = rest.split_at(at);
            body.push_str(before);
            let inner = &from[1..];
            let name = PLACEHOLDERS
                .into_iter()
                .find(|name| inner.starts_with(&format!("{name}}}")));
            let Some(name) = name else {
                body.push('{');
                rest = inner;
                continue;
            };
            body.push_str(&match name {
                "identity" => text(&ask.identity),
                "tenant" => text(&ask.tenant),
                "streams" => Value::from(ask.streams.clone()).to_string(),
                "scopes" => Value::from(ask.scopes.clone()).to_string(),
                _ => ask.ttl_seconds.to_string(),
            });
            rest = &inner[name.len() + 1..];
        }
        body + rest
    }

    /// The token in an answer, and when it expires in seconds since the Unix epoch, if the answer says so.
    #[must_use]
    pub fn token_in(&self, answer: &Value) -> Option<(Secret, Option<u64>)> {
        let at = |path: &str| {
            path.split('.')
                .try_fold(answer, |value, key| value.get(key))
        };
        let token = at(&self.token_field)?.as_str()?;
        let expires = self.expires_field.as_deref().and_then(at);
        Some((Secret::new(token), expires.and_then(Value::as_u64)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn endpoint(body: &str) -> TokenEndpoint {
        TokenEndpoint {
            dial: "127.0.0.1:1".to_owned(),
            authority: "localhost".to_owned(),
            path: "/token".to_owned(),
            tls: None,
            method: "POST".to_owned(),
            headers: vec![("authorization".to_owned(), Secret::new("Bearer hush"))],
            body: Secret::new(body),
            token_field: "data.token".to_owned(),
            expires_field: Some("data.expires_at".to_owned()),
        }
    }

    #[test]
    fn a_body_is_valid_json_whatever_an_identity_is_called() {
        let template = r#"{"user": "{identity}", "org": "{tenant}", "streams": {streams}, "scopes": {scopes},
            "ttl": {ttl_seconds}, "other": {"{unknown}": 1}}"#;
        let ask = TokenAsk {
            identity: "a\"b {streams}".to_owned(),
            tenant: "acme".to_owned(),
            streams: vec!["s.1".to_owned(), "s.2".to_owned()],
            scopes: vec!["sync.subscribe".to_owned()],
            ttl_seconds: 300,
        };
        let body: Value = serde_json::from_str(&endpoint(template).body_for(&ask)).expect("JSON");
        assert_eq!(
            body,
            json!({"user": "a\"b {streams}", "org": "acme", "streams": ["s.1", "s.2"], "scopes": ["sync.subscribe"],
                   "ttl": 300, "other": {"{unknown}": 1}})
        );
    }

    #[test]
    fn a_token_is_found_where_the_target_says_it_is() {
        let endpoint = endpoint("");
        let answer = json!({"data": {"token": "t", "expires_at": 12}});
        assert_eq!(
            endpoint.token_in(&answer),
            Some((Secret::new("t"), Some(12)))
        );
        assert_eq!(endpoint.token_in(&json!({"token": "t"})), None);
    }

    #[test]
    fn secrets_are_not_printed() {
        let shown = format!("{:?}", endpoint("hush"));
        assert!(!shown.contains("hush"), "{shown}");
    }
}
