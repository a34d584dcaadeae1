//! Upgrade refusal: the proxy answers in the lane's place, closes the connection, and the lane hears nothing of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use host::http::StatusCode;
use model::fault::RefuseUpgrade;

use super::{Bites, Rule, get, named};

/// What a refused upgrade is answered with.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) rule: Arc<Rule>,
    pub(crate) status: u16,
    /// Whole seconds.
    pub(crate) retry_after: Option<u64>,
    /// Text.
    pub(crate) body: String,
}

impl Refusal {
    pub(super) fn new(rule: &Arc<Rule>, settings: &RefuseUpgrade) -> Self {
        // Rounded up: a client that obeys must not come back before the time that was meant.
        let retry_after = settings
            .retry_after
            .map(|span| span.as_micros().div_ceil(1_000_000));
        Self {
            rule: Arc::clone(rule),
            status: settings.status,
            retry_after,
            body: String::new(),
        }
    }

    /// The answer's bytes.
    pub(crate) fn response(&self) -> Vec<u8> {
        let reason = StatusCode::from_u16(self.status)
            .ok()
            .and_then(|status| status.canonical_reason())
            .unwrap_or("Refused");
        let retry_after = self
            .retry_after
            .map(|seconds| format!("Retry-After: {seconds}\r\n"))
            .unwrap_or_default();
        let Self { status, body, .. } = self;
        let kind = if body.is_empty() {
            ""
        } else {
            "Content-Type: text/plain; charset=utf-8\r\n"
        };
        let length = body.len();
        format!(
            "HTTP/1.1 {status} {reason}\r\n{retry_after}{kind}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )
        .into_bytes()
    }
}

/// Whether an upgrade can be refused with that status.
pub(crate) fn check(status: u16) -> Result<(), String> {
    if !(400..=599).contains(&status) {
        return Err(format!(
            "status {status} does not refuse an upgrade; use one from 400 to 599, such as 503"
        ));
    }
    Ok(())
}

pub(super) fn figures(bites: &Bites) -> BTreeMap<String, u64> {
    named([
        ("refused", get(&bites.total)),
        ("retry_after_sent", get(&bites.messages)),
    ])
}
