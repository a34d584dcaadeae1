//! The counters of a proxy.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use host::harness::Gauge;
use model::histogram::Micros;
use model::instant::Mono;
use model::role::ProxyStatus;
use model::shard::Harness;

use crate::tap::Way;

/// Arrivals are counted by so many micro-seconds.
const BIN_US: u64 = 100_000;
/// 10 minutes of them are kept.
const BINS: u64 = 6_000;

/// What `GET /status` shows, except for what the registry and the rules know.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) accepted: AtomicU64,
    arrivals: Mutex<VecDeque<(u64, u32)>>,
    upgraded: AtomicU64,
    refused: Mutex<BTreeMap<u16, u64>>,
    refused_with_retry_after: AtomicU64,
    upstream_bytes: AtomicU64,
    downstream_bytes: AtomicU64,
    upstream_received: AtomicU64,
    downstream_received: AtomicU64,
    upstream_frames: AtomicU64,
    downstream_frames: AtomicU64,
    pub(crate) gauge: Gauge,
    /// Connections that began with TLS which passes through.
    pub(crate) opaque: AtomicU64,
    client_tls_failed: AtomicU64,
    lane_tls_failed: AtomicU64,
}

impl Counters {
    /// Counts an accepted connection and says how many there were before it.
    pub(crate) fn arrived(&self, now: Mono) -> u64 {
        let bin = now.0 / BIN_US;
        let mut arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        match arrivals.back_mut() {
            Some((last, count)) if *last == bin => *count += 1,
            _ => arrivals.push_back((bin, 1)),
        }
        while arrivals
            .front()
            .is_some_and(|(first, _)| first + BINS <= bin)
        {
            arrivals.pop_front();
        }
        self.accepted.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts the answer to an upgrade, the lane's or the proxy's own.
    pub(crate) fn answered(&self, status: u16, retry_after: bool) {
        if status == 101 {
            self.upgraded.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        *refused.entry(status).or_default() += 1;
        if retry_after {
            self.refused_with_retry_after
                .fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes note of an error that came of reading from that side, if it is one of TLS.
    pub(crate) fn broke(&self, with: Way, error: &io::Error) {
        let inner = error.get_ref();
        if inner
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
            .is_some()
        {
            self.tls_failed(with, &host::tls::reason(error));
        }
    }

    /// Counts TLS that failed, with the lane (upstream) or with a client. Every client fails for the same
    /// reason, mostly: only the first is worth a warning.
    pub(crate) fn tls_failed(&self, with: Way, reason: &str) {
        let (failed, with) = match with {
            Way::Upstream => (&self.lane_tls_failed, "the lane"),
            Way::Downstream => (&self.client_tls_failed, "a client"),
        };
        if failed.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(
                with,
                reason,
                "TLS failed; further failures are only counted"
            );
        }
    }

    /// Whether clients speak TLS that passes through, and none was seen to speak WebSocket.
    pub(crate) fn sees_only_tls(&self) -> bool {
        self.opaque.load(Ordering::Relaxed) > 0 && self.upgraded.load(Ordering::Relaxed) == 0
    }

    /// Bytes that were read, whatever became of them.
    pub(crate) const fn received(&self, way: Way) -> &AtomicU64 {
        match way {
            Way::Upstream => &self.upstream_received,
            Way::Downstream => &self.downstream_received,
        }
    }

    /// Bytes that were passed on.
    pub(crate) const fn bytes(&self, way: Way) -> &AtomicU64 {
        match way {
            Way::Upstream => &self.upstream_bytes,
            Way::Downstream => &self.downstream_bytes,
        }
    }

    pub(crate) const fn frames(&self, way: Way) -> &AtomicU64 {
        match way {
            Way::Upstream => &self.upstream_frames,
            Way::Downstream => &self.downstream_frames,
        }
    }

    pub(crate) fn status(&self, open: u64, faults: Vec<String>) -> ProxyStatus {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (receive_lag, busiest) = self.gauge.read();
        ProxyStatus {
            open,
            accepted: get(&self.accepted),
            arrivals: self
                .arrivals
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .iter()
                .copied()
                .collect(),
            upgraded: get(&self.upgraded),
            refused: self
                .refused
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            refused_with_retry_after: get(&self.refused_with_retry_after),
            upstream_bytes: get(&self.upstream_bytes),
            downstream_bytes: get(&self.downstream_bytes),
            frames: (get(&self.upstream_frames), get(&self.downstream_frames)),
            faults,
            harness: Harness {
                receive_lag,
                send_lag: Micros::default(),
                busiest,
            },
            opaque: get(&self.opaque),
            tls_failed: (get(&self.client_tls_failed), get(&self.lane_tls_failed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_binned_and_forgotten_after_ten_minutes() {
        let counters = Counters::default();
        for at in [0, 99_999, 100_000, 599_900_000] {
            counters.arrived(Mono(at));
        }
        assert_eq!(
            counters.status(0, Vec::new()).arrivals,
            [(0, 2), (1, 1), (5_999, 1)]
        );
        counters.arrived(Mono(600_000_000));
        let status = counters.status(0, Vec::new());
        assert_eq!(status.arrivals, [(1, 1), (5_999, 1), (6_000, 1)]);
        assert_eq!(status.accepted, 5);
    }
}
