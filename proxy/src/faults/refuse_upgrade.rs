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
        let status = self.status;
        format!(
            "HTTP/1.1 {status} {reason}\r\n{retry_after}Content-Length: 0\r\nConnection: close\r\n\r\n"
        )
        .into_bytes()
    }
}

pub(super) fn check(settings: &RefuseUpgrade) -> Result<(), String> {
    if !(400..=599).contains(&settings.status) {
        return Err(format!(
            "status {} does not refuse an upgrade; use one from 400 to 599, such as 503",
            settings.status
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
