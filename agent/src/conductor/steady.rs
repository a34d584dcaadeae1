//! When the system is steady: a whole window in which nearly all clients were live, deliveries were in time, nobody
//! lagged behind, nobody had to connect anew, and every external probe was asked and did not fail. Pure: it is fed one
//! sample a tick, and what the probes were told.

use std::collections::VecDeque;

use model::instant::Mono;
use model::shard::ShardStatus;
use scenarios::plan::{Probe, Steady};

use super::probe::{Answer, is_of_steady, named};

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

/// A probe that has to be good.
#[derive(Debug)]
struct Watched {
    place: usize,
    named: String,
    /// When it was asked, the last time that the answer was good.
    good: Option<Mono>,
}

/// Looks for the first steady window.
#[derive(Debug)]
pub struct SteadyWatch {
    criteria: Steady,
    probes: Vec<Watched>,
    samples: VecDeque<Sample>,
    /// No window begins before this: until then a probe was failing.
    not_before: Mono,
    unsteady_because: String,
    relapses: u32,
}

impl SteadyWatch {
    /// Looks from the first sample on. Of the plan's probes those count that steady state asks for.
    #[must_use]
    pub fn new(criteria: Steady, probes: &[Probe]) -> Self {
        let probes = probes.iter().enumerate();
        let probes = probes.filter(|(_, probe)| is_of_steady(probe));
        Self {
            criteria,
            probes: probes
                .map(|(place, probe)| Watched {
                    place,
                    named: named(probe),
                    good: None,
                })
                .collect(),
            samples: VecDeque::new(),
            not_before: Mono(0),
            unsteady_because: "nothing was seen yet".to_owned(),
            relapses: 0,
        }
    }

    /// Takes what probes were told since the sample before.
    pub fn hear(&mut self, answers: &[Answer]) {
        for answer in answers {
            let mut probes = self.probes.iter_mut();
            let Some(probe) = probes.find(|probe| probe.place == answer.place) else {
                continue;
            };
            let Err(why) = &answer.outcome else {
                probe.good = Some(answer.asked);
                continue;
            };
            let reason = format!("{} failed: {why}", probe.named);
            self.not_before = self.not_before.max(answer.at);
            self.disturbed(reason);
        }
    }

    /// Takes a sample; the start of the steady window when this one completes it.
    pub fn push(&mut self, sample: Sample) -> Option<Mono> {
        if let Some(before) = self.samples.back()
            && let Some(reason) = self.disturbance(before, &sample)
        {
            self.disturbed(reason);
        }
        if sample.at < self.not_before {
            return None;
        }
        self.samples.push_back(sample);
        while let Some(first) = self.samples.front().copied() {
            if sample.at.since(first.at) < self.criteria.window {
                return None;
            }
            match self
                .late(&first, &sample)
                .or_else(|| self.unasked(first.at))
            {
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

    fn disturbed(&mut self, reason: String) {
        // A stretch of one sample is not yet something to fall out of.
        self.relapses += u32::from(self.samples.len() > 1);
        self.samples.clear();
        self.unsteady_because = reason;
    }

    /// A probe that was not asked within the window has not said that it is well.
    fn unasked(&self, from: Mono) -> Option<String> {
        let asked = |probe: &Watched| probe.good.is_some_and(|good| good >= from);
        let unasked = self.probes.iter().find(|probe| !asked(probe))?;
        let name = &unasked.named;
        Some(format!("{name} had no good answer within the window"))
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
    use scenarios::plan::{Ask, CommandAsk, Rule};

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
        let mut watch = SteadyWatch::new(criteria(), &[]);
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

    fn probe(name: &str, rule: Rule) -> Probe {
        Probe {
            name: name.to_owned(),
            ask: Ask::Command(CommandAsk {
                run: name.to_owned(),
                contains: None,
            }),
            every: Span::from_secs(1),
            within: Span::from_secs(1),
            rule,
        }
    }

    /// Asked just before a tick, answered just after it.
    fn answer(place: usize, tick: u64, outcome: Result<(), String>) -> Answer {
        Answer {
            place,
            asked: Mono(tick * 100_000 - 1_000),
            at: Mono(tick * 100_000 + 1_000),
            outcome,
        }
    }

    /// Samples of ticks 5 to 39, with what probes said at some of them.
    fn with_probes(
        probes: &[Probe],
        answers: impl Fn(u64) -> Vec<Answer>,
    ) -> (Option<Mono>, SteadyWatch) {
        let mut watch = SteadyWatch::new(criteria(), probes);
        let found = (5..40).find_map(|tick| {
            watch.hear(&answers(tick));
            watch.push(sample(tick))
        });
        (found, watch)
    }

    #[test]
    fn a_failed_probe_disturbs_the_window_and_is_named_with_what_it_said() {
        let probes = [probe("healthz", Rule::Steady)];
        let (found, watch) = with_probes(&probes, |tick| match tick {
            8 => vec![answer(0, 8, Err("status 503".to_owned()))],
            _ if tick % 2 == 0 => vec![answer(0, tick, Ok(()))],
            _ => Vec::new(),
        });
        // The sample of tick 8 was taken before the failure was known, so the window begins after it.
        assert_eq!(found, Some(Mono(900_000)));
        assert_eq!(watch.relapses(), 1);
        let always_wrong = |tick| vec![answer(0, tick, Err("the query yields 12".to_owned()))];
        let (found, watch) = with_probes(&probes, always_wrong);
        assert_eq!(found, None);
        assert_eq!(
            watch.unsteady_because(),
            "probe `healthz` (command healthz) failed: the query yields 12"
        );
    }

    #[test]
    fn a_window_holds_a_good_answer_of_every_probe() {
        let probes = [probe("a", Rule::Steady), probe("b", Rule::Steady)];
        let only_one = |tick| vec![answer(0, tick, Ok(()))];
        let (found, watch) = with_probes(&probes, only_one);
        assert_eq!(found, None);
        let why = watch.unsteady_because();
        assert!(
            why.contains("`b`") && why.contains("no good answer"),
            "{why}"
        );
        // Asked before the first window began, and not again before tick 20.
        let seldom = |tick| match tick {
            5 | 20 => vec![answer(0, tick, Ok(())), answer(1, tick, Ok(()))],
            _ => Vec::new(),
        };
        let (found, _) = with_probes(&probes, seldom);
        assert_eq!(found, Some(Mono(1_000_000)));
    }

    #[test]
    fn a_probe_of_an_abort_rule_has_no_say_in_steadiness() {
        let rule = Rule::Abort {
            lasting: Span::from_secs(1),
            always: true,
        };
        let wrong = |tick| vec![answer(0, tick, Err("no".to_owned()))];
        let (found, _) = with_probes(&[probe("a", rule)], wrong);
        assert_eq!(found, Some(Mono(500_000)));
    }
}
