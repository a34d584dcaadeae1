//! When the system is steady: a whole window in which nearly all clients were live, deliveries were in time, nobody
//! lagged behind, and nobody had to connect anew. Pure: it is fed one sample a tick.

use std::collections::VecDeque;

use model::instant::Mono;
use model::shard::ShardStatus;
use scenarios::plan::Steady;

/// The fleet at one instant; counters are cumulative over all shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sample {
    /// When.
    pub at: Mono,
    /// Clients that should be live.
    pub intended: u32,
    /// Clients that are.
    pub live: u32,
    /// The fewest that were since the sample before.
    pub live_min: u32,
    /// Affected by the episode so far.
    pub affected: u32,
    /// Of those, whole again.
    pub recovered: u32,
    /// Behind what was acknowledged by the tick before.
    pub behind: u32,
    /// Connection attempts.
    pub attempts: u64,
    /// Rows delivered.
    pub delivered: u64,
    /// Of those, late.
    pub late: u64,
    /// Safety anomalies noticed.
    pub safety: u64,
    /// Events invoked and acknowledged.
    pub published: (u64, u64),
}

impl Sample {
    /// Sums up the shards.
    #[must_use]
    pub fn of(at: Mono, shards: &[ShardStatus]) -> Self {
        shards.iter().fold(
            Self {
                at,
                ..Self::default()
            },
            |sum, shard| Self {
                at,
                intended: sum.intended + shard.intended,
                live: sum.live + shard.live,
                live_min: sum.live_min + shard.live_min,
                affected: sum.affected + shard.affected,
                recovered: sum.recovered + shard.recovered,
                behind: sum.behind + shard.behind,
                attempts: sum.attempts + shard.attempts,
                delivered: sum.delivered + shard.delivered,
                late: sum.late + shard.late,
                safety: sum.safety + shard.safety,
                published: (
                    sum.published.0 + shard.published.0,
                    sum.published.1 + shard.published.1,
                ),
            },
        )
    }
}

/// Looks for the first steady window.
#[derive(Debug)]
pub struct SteadyWatch {
    criteria: Steady,
    samples: VecDeque<Sample>,
    unsteady_because: String,
    relapses: u32,
}

impl SteadyWatch {
    /// Looks from the first sample on.
    #[must_use]
    pub fn new(criteria: Steady) -> Self {
        Self {
            criteria,
            samples: VecDeque::new(),
            unsteady_because: "nothing was seen yet".to_owned(),
            relapses: 0,
        }
    }

    /// Takes a sample; the start of the steady window when this one completes it.
    pub fn push(&mut self, sample: Sample) -> Option<Mono> {
        if let Some(before) = self.samples.back()
            && let Some(reason) = self.disturbance(before, &sample)
        {
            // A stretch of one sample is not yet something to fall out of.
            self.relapses += u32::from(self.samples.len() > 1);
            self.samples.clear();
            self.unsteady_because = reason;
        }
        self.samples.push_back(sample);
        while let Some(first) = self.samples.front().copied() {
            if sample.at.since(first.at) < self.criteria.window {
                return None;
            }
            match self.late(&first, &sample) {
                None => return Some(first.at),
                Some(reason) => self.unsteady_because = reason,
            }
            self.samples.pop_front();
        }
        None
    }

    /// Why there is no steady window yet.
    #[must_use]
    pub fn unsteady_because(&self) -> &str {
        &self.unsteady_because
    }

    /// How often a stretch that had begun well was broken.
    #[must_use]
    pub const fn relapses(&self) -> u32 {
        self.relapses
    }

    fn disturbance(&self, before: &Sample, now: &Sample) -> Option<String> {
        let missing_allowed = (1.0 - self.criteria.connected.as_ratio()) * f64::from(now.intended);
        let missing = now.intended.saturating_sub(now.live_min);
        if f64::from(missing) > missing_allowed {
            return Some(format!(
                "{missing} of {} clients were not live",
                now.intended
            ));
        }
        // What one client that stumbles would do is no disturbance that it is not already above.
        if f64::from(now.behind) > missing_allowed + 1.0 {
            return Some(format!("{} clients were behind", now.behind));
        }
        let attempts = now.attempts - before.attempts.min(now.attempts);
        if attempts as f64 > missing_allowed + 1.0 {
            return Some(format!("{attempts} connection attempts in one tick"));
        }
        (now.safety > before.safety).then(|| "a safety anomaly was noticed".to_owned())
    }

    /// Over a window p99 is within the limit when at most 1 % came later.
    fn late(&self, first: &Sample, last: &Sample) -> Option<String> {
        let delivered = last.delivered - first.delivered.min(last.delivered);
        let late = last.late - first.late.min(last.late);
        let limit = self.criteria.delivery_p99;
        match delivered {
            0 => Some("nothing was delivered".to_owned()),
            _ if late as f64 > delivered as f64 * 0.01 => Some(format!(
                "{late} of {delivered} deliveries took longer than {limit}"
            )),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::quantity::{Share, Span};

    fn criteria() -> Steady {
        Steady {
            window: Span::from_secs(1),
            connected: Share::ratio(0.999),
            delivery_p99: Span::from_millis(100),
            within: Span::from_secs(10),
        }
    }

    /// 100 live clients and 10 deliveries a tick of 100 ms.
    fn sample(tick: u64) -> Sample {
        Sample {
            at: Mono(tick * 100_000),
            intended: 100,
            live: 100,
            live_min: 100,
            delivered: tick * 10,
            ..Sample::default()
        }
    }

    fn first_steady(samples: impl Iterator<Item = Sample>) -> (Option<Mono>, SteadyWatch) {
        let mut watch = SteadyWatch::new(criteria());
        let mut samples = samples;
        let found = samples.find_map(|sample| watch.push(sample));
        (found, watch)
    }

    #[test]
    fn a_clean_window_is_named_by_its_start() {
        let (found, watch) = first_steady((5..40).map(sample));
        assert_eq!(found, Some(Mono(500_000)));
        assert_eq!(watch.relapses(), 0);
    }

    #[test]
    fn a_relapse_restarts_the_window_and_is_counted() {
        let dip = |tick| Sample {
            live_min: if tick == 12 { 99 } else { 100 },
            ..sample(tick)
        };
        let (found, watch) = first_steady((5..40).map(dip));
        assert_eq!(found, Some(Mono(1_200_000)));
        assert_eq!(watch.relapses(), 1);
    }

    #[test]
    fn a_dip_between_two_samples_counts_although_both_look_well() {
        let (found, watch) = first_steady((0..8).map(|tick| Sample {
            live_min: 60,
            ..sample(tick)
        }));
        assert_eq!(found, None);
        assert!(
            watch.unsteady_because().contains("40 of 100"),
            "{}",
            watch.unsteady_because()
        );
    }

    #[test]
    fn late_or_absent_deliveries_attempts_and_anomalies_are_unsteady() {
        let late = |tick| Sample {
            late: tick,
            ..sample(tick)
        };
        let none = |tick| Sample {
            delivered: 0,
            ..sample(tick)
        };
        let attempts = |tick| Sample {
            attempts: tick * 5,
            ..sample(tick)
        };
        let safety = |tick| Sample {
            safety: tick,
            ..sample(tick)
        };
        let behind = |tick| Sample {
            behind: 2,
            ..sample(tick)
        };
        let cases: [&dyn Fn(u64) -> Sample; 5] = [&late, &none, &attempts, &safety, &behind];
        for (case, make) in cases.iter().enumerate() {
            let (found, _) = first_steady((0..30).map(make));
            assert_eq!(found, None, "case {case}");
        }
    }
}
