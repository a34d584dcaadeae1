//! What the proxy has to reach.

use serde::Serialize;

use crate::measures::bandwidth::Rate;
use crate::measures::delay::Delay;
use crate::measures::idle::Idle;
use crate::pairs::{Paired, Ratio};
use crate::peers::{FAULTLANE, HAPROXY, TOXIPROXY};

/// One thing to reach, and whether it was.
#[derive(Debug, Clone, Serialize)]
pub struct Criterion {
    /// In words.
    pub wanted: String,
    /// What was found.
    pub found: String,
    /// `None` where a peer was not at hand.
    pub met: Option<bool>,
}

/// A bound that a ratio's interval has to reach.
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn is_reached(&self, ratio: Ratio) -> bool {
        match *self {
            Self::AtLeast(bound) => ratio.high >= bound,
            Self::AtMost(bound) => ratio.low <= bound,
        }
    }
}

/// Figure, bound, peer.
const RATIOS: [(&str, Bound, &str); 8] = [
    ("one-stream throughput", Bound::AtLeast(1.3), HAPROXY),
    ("50-connection requests", Bound::AtLeast(1.0), HAPROXY),
    ("1-connection p50", Bound::AtMost(1.0), HAPROXY),
    ("1-connection p99", Bound::AtMost(1.0), HAPROXY),
    ("new connections", Bound::AtLeast(1.0), HAPROXY),
    ("one-stream throughput", Bound::AtLeast(2.0), TOXIPROXY),
    ("50-stream throughput", Bound::AtLeast(2.0), TOXIPROXY),
    ("new connections", Bound::AtLeast(2.5), TOXIPROXY),
];
/// User memory of an idle connection, in bytes.
const IDLE: f64 = 4096.0;
/// What a delay's error may have at its 99th percentile beyond that of a bare timerfd, in micro-seconds.
const DELAY_US: f64 = 300.0;
const BANDWIDTH_PERCENT: f64 = 1.0;

pub(crate) fn judge(
    paired: &[Paired],
    idle: &[Idle],
    delays: &[Delay],
    rates: &[Rate],
) -> Vec<Criterion> {
    let mut criteria: Vec<Criterion> = RATIOS
        .iter()
        .map(|(figure, bound, peer)| ratio(paired, figure, bound, peer))
        .collect();
    criteria.extend(
        idle.iter()
            .filter(|idle| idle.peer == FAULTLANE)
            .map(|idle| {
                let bytes = idle.bytes_per_connection;
                Criterion {
                    wanted: format!("memory of an idle connection ≤ {IDLE} B"),
                    found: format!("{bytes:.0} B"),
                    met: Some(bytes <= IDLE),
                }
            }),
    );
    for delay in delays.iter().filter(|delay| delay.peer == FAULTLANE) {
        let beyond = delay.beyond_p99_us;
        criteria.push(Criterion {
            wanted: format!(
                "error p99 of {} ms ≤ {DELAY_US} µs beyond a bare timerfd's",
                delay.asked_ms
            ),
            found: beyond.map_or_else(String::new, |beyond| format!("{beyond:+.0} µs")),
            met: beyond.map(|beyond| beyond <= DELAY_US),
        });
    }
    for rate in rates.iter().filter(|rate| rate.peer == FAULTLANE) {
        criteria.push(Criterion {
            wanted: format!("{} kB/s within {BANDWIDTH_PERCENT} %", rate.asked),
            found: format!("{:+.2} %", rate.error_percent),
            met: Some(rate.error_percent.abs() <= BANDWIDTH_PERCENT),
        });
    }
    criteria
}

fn ratio(paired: &[Paired], figure: &str, bound: &Bound, peer: &str) -> Criterion {
    let found = paired.iter().find(|paired| paired.figure == figure);
    let ratio = found.and_then(|paired| paired.ratios.get(peer)).copied();
    let (sign, limit) = match bound {
        Bound::AtLeast(limit) => ('≥', limit),
        Bound::AtMost(limit) => ('≤', limit),
    };
    Criterion {
        wanted: format!("{figure} {sign} {limit:.1} × {peer}"),
        found: ratio.map_or_else(
            || format!("no {peer} here"),
            |Ratio { median, low, high }| format!("{median:.2} × ({low:.2} to {high:.2})"),
        ),
        met: ratio.map(|ratio| bound.is_reached(ratio)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_reached_by_the_intervals_better_end() {
        let ratio = Ratio {
            median: 0.95,
            low: 0.9,
            high: 1.05,
        };
        assert!(Bound::AtLeast(1.0).is_reached(ratio));
        assert!(!Bound::AtLeast(1.1).is_reached(ratio));
        assert!(Bound::AtMost(0.9).is_reached(ratio));
        assert!(!Bound::AtMost(0.8).is_reached(ratio));
    }

    #[test]
    fn what_was_not_at_hand_is_neither_met_nor_missed() {
        let criteria = judge(&[], &[], &[], &[]);
        assert_eq!(criteria.len(), RATIOS.len());
        assert!(criteria.iter().all(|criterion| criterion.met.is_none()));
    }
}
