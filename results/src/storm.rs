//! How the fleet came back: arrivals, attempts, refusals and replays.

use std::collections::{BTreeMap, BTreeSet};

use model::quantity::Rate;
use serde::{Deserialize, Serialize};

use crate::figures::Quantile;
use crate::record::{over_capacity, round6};

/// Figures of a storm. `arrivals`, `attempts_by_clients`, `capacity` and the counters are evidence; the rest is derived.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Storm {
    /// Where the arrivals were counted: `proxy`, or `shards` when the proxy's counters are missing.
    pub counted_by: String,
    /// Connection attempts by 100 ms since the fault: (100 ms, count), in order; empty slots left out.
    pub arrivals: Vec<(u64, u32)>,
    /// The most in 100 ms.
    pub peak_100ms: u64,
    /// The most in any 1 s (ten slots in a row).
    pub peak_1s: u64,
    /// The accept rate that the target was given.
    pub capacity: Option<Rate>,
    /// `peak_1s` ÷ capacity.
    pub peak_1s_over_capacity: Option<f64>,
    /// Ten times `peak_100ms` ÷ capacity.
    pub peak_100ms_over_capacity: Option<f64>,
    /// The most in any 1 s once the first wave had ebbed to a tenth of its peak; 0 when there was no second wave.
    pub second_peak_1s: u64,
    /// Attempts, from the fault until whole: (attempts, clients).
    pub attempts_by_clients: BTreeMap<u32, u32>,
    /// Their mean; `None` without clients.
    pub attempts_mean: Option<f64>,
    /// The most that one client made.
    pub attempts_max: Option<u32>,
    /// Attempts that ended before the client was live.
    pub wasted: u64,
    /// Half of the affected clients were reconnected so long after the heal, or after they had noticed.
    pub t50_us: Quantile,
    /// 99 % were.
    pub t99_us: Quantile,
    /// All of them were.
    pub t100_us: Quantile,
    /// Refusals that named a time to wait.
    pub retry_after_given: u64,
    /// Of those, obeyed.
    pub retry_after_obeyed: u64,
    /// Rows replayed to affected clients.
    pub replayed: u64,
    /// Rows that they had missed.
    pub missed: u64,
    /// `replayed` ÷ `missed`.
    pub replayed_over_missed: Option<f64>,
}

impl Default for Storm {
    fn default() -> Self {
        Self {
            counted_by: "nobody".to_owned(),
            arrivals: Vec::new(),
            peak_100ms: 0,
            peak_1s: 0,
            capacity: None,
            peak_1s_over_capacity: None,
            peak_100ms_over_capacity: None,
            second_peak_1s: 0,
            attempts_by_clients: BTreeMap::new(),
            attempts_mean: None,
            attempts_max: None,
            wasted: 0,
            t50_us: Quantile::NotEstimable,
            t99_us: Quantile::NotEstimable,
            t100_us: Quantile::NotEstimable,
            retry_after_given: 0,
            retry_after_obeyed: 0,
            replayed: 0,
            missed: 0,
            replayed_over_missed: None,
        }
    }
}

const SLOTS_PER_SECOND: u64 = 10;

impl Storm {
    /// Derives what is derived anew.
    pub(crate) fn settle(&mut self) {
        let windows = windows(&self.arrivals);
        self.peak_100ms = self
            .arrivals
            .iter()
            .map(|(_, count)| u64::from(*count))
            .max()
            .unwrap_or(0);
        self.peak_1s = windows.iter().map(|(_, sum)| *sum).max().unwrap_or(0);
        self.second_peak_1s = second_peak(&windows, self.peak_1s);
        self.peak_1s_over_capacity = over_capacity(self.peak_1s as f64, self.capacity);
        self.peak_100ms_over_capacity =
            over_capacity((self.peak_100ms * SLOTS_PER_SECOND) as f64, self.capacity);
        let clients: u64 = self
            .attempts_by_clients
            .values()
            .copied()
            .map(u64::from)
            .sum();
        let attempts: u64 = self
            .attempts_by_clients
            .iter()
            .map(|(attempts, clients)| u64::from(*attempts) * u64::from(*clients))
            .sum();
        self.attempts_mean = ratio(attempts, clients);
        self.attempts_max = self.attempts_by_clients.keys().next_back().copied();
        self.replayed_over_missed = ratio(self.replayed, self.missed);
    }
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| round6(part as f64 / whole as f64))
}

/// The arrivals in the second that ends with a slot, for every slot at which that number changes: (slot, sum).
fn windows(arrivals: &[(u64, u32)]) -> Vec<(u64, u64)> {
    let slots: BTreeSet<u64> = arrivals
        .iter()
        .flat_map(|(slot, _)| [*slot, slot.saturating_add(SLOTS_PER_SECOND)])
        .collect();
    let (mut sum, mut enters, mut leaves) = (0_u64, 0, 0);
    slots
        .into_iter()
        .map(|slot| {
            while let Some((_, count)) = arrivals.get(enters).filter(|(at, _)| *at <= slot) {
                sum += u64::from(*count);
                enters += 1;
            }
            while let Some((_, count)) = arrivals
                .get(leaves)
                .filter(|(at, _)| at.saturating_add(SLOTS_PER_SECOND) <= slot)
            {
                sum -= u64::from(*count);
                leaves += 1;
            }
            (slot, sum)
        })
        .collect()
}

fn second_peak(windows: &[(u64, u64)], peak: u64) -> u64 {
    windows
        .iter()
        .skip_while(|(_, sum)| *sum < peak)
        .skip_while(|(_, sum)| *sum * 10 > peak)
        .map(|(_, sum)| *sum)
        .max()
        .filter(|second| *second * 10 > peak)
        .unwrap_or(0)
}

/// Merges the arrivals of several counters, keeps those from slot `from` on, and counts slots from there.
pub(crate) fn since(from: u64, counters: &[&[(u64, u32)]]) -> Vec<(u64, u32)> {
    let mut merged: BTreeMap<u64, u32> = BTreeMap::new();
    for (slot, count) in counters.iter().copied().flatten() {
        if let Some(offset) = slot.checked_sub(from) {
            *merged.entry(offset).or_default() += count;
        }
    }
    merged.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_second_wave_is_told_from_the_tail_of_the_first() {
        let peaks = |arrivals: &[(u64, u32)]| {
            let windows = windows(arrivals);
            let peak = windows.iter().map(|(_, sum)| *sum).max().unwrap_or(0);
            (peak, second_peak(&windows, peak))
        };
        assert_eq!(peaks(&[(0, 50), (1, 50), (3, 8), (14, 2)]), (108, 0));
        assert_eq!(peaks(&[(0, 50), (1, 50), (40, 30), (41, 10)]), (100, 40));
        assert_eq!(peaks(&[]), (0, 0));
        assert_eq!(peaks(&[(0, 9), (u64::MAX - 1, 4)]), (9, 4), "at once");
    }

    proptest! {
        #[test]
        fn a_window_is_the_sum_of_ten_slots(counts in prop::collection::btree_map(0_u64..60, 1_u32..9, 1..40)) {
            let arrivals: Vec<_> = counts.iter().map(|(slot, count)| (*slot, *count)).collect();
            let expected = |slot: u64| -> u64 {
                let within = counts.iter().filter(|(at, _)| **at <= slot && **at + 10 > slot);
                within.map(|(_, count)| u64::from(*count)).sum()
            };
            let windows = windows(&arrivals);
            for (slot, sum) in &windows {
                prop_assert_eq!(*sum, expected(*slot));
            }
            let peak = (0..80).map(expected).max();
            prop_assert_eq!(windows.into_iter().map(|(_, sum)| sum).max(), peak);
        }
    }
}
