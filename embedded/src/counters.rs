//! What a lane counts since it started.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use hyper::header::HeaderMap;
use model::ids::CLIENT_HEADER;
use model::role::LaneStatus;

/// The counters of [`LaneStatus`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections: AtomicU64,
    pub(crate) upgrades: AtomicU64,
    pub(crate) refused_rate: AtomicU64,
    pub(crate) expired_live: AtomicU64,
    pub(crate) appended: AtomicU64,
    pub(crate) delivered: AtomicU64,
    pub(crate) received_bytes: AtomicU64,
    refused: Mutex<BTreeMap<String, u64>>,
}

impl Counters {
    /// Counts and logs a refusal, so that it can be seen from both sides.
    pub(crate) fn refuse(&self, client: &str, reason: &str, what: &str) {
        tracing::info!(client, reason, what, "refused");
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        *refused.entry(reason.to_owned()).or_default() += 1;
    }

    /// Counts one more.
    pub(crate) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Relaxed);
    }

    /// All of them; the heads are the log's to add.
    pub(crate) fn status(&self) -> LaneStatus {
        LaneStatus {
            held: BTreeMap::new(),
            pid: std::process::id(),
            connections: self.connections.load(Relaxed),
            upgrades: self.upgrades.load(Relaxed),
            refused_rate: self.refused_rate.load(Relaxed),
            refused: self
                .refused
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            expired_live: self.expired_live.load(Relaxed),
            appended: self.appended.load(Relaxed),
            delivered: self.delivered.load(Relaxed),
            received_bytes: self.received_bytes.load(Relaxed),
            heads: BTreeMap::new(),
        }
    }
}

/// Who a request says it comes from: a fleet client's id, or `-`.
pub(crate) fn client_of(headers: &HeaderMap) -> String {
    headers
        .get(CLIENT_HEADER)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("-")
        .to_owned()
}
