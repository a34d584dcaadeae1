//! What came of one probe so far. Pure: it is fed answers.

use model::external::ExternalProbe;
use model::instant::Mono;
use model::quantity::Span;
use scenarios::plan::{self, Rule};

use super::{Answer, named};

/// Failures in a row.
#[derive(Debug, Clone, Copy)]
struct Failing {
    /// When the first of them was asked.
    since: Mono,
    /// When the last of them had answered.
    until: Mono,
}

/// A probe's record, and whether it is failing.
#[derive(Debug)]
pub(super) struct Tally {
    named: String,
    rule: Rule,
    record: ExternalProbe,
    failing: Option<Failing>,
}

impl Tally {
    /// Nothing came of it yet.
    pub(super) fn new(probe: &plan::Probe) -> Self {
        Self {
            named: named(probe),
            rule: probe.rule,
            record: ExternalProbe {
                name: probe.name.clone(),
                rule: probe.rule.kind(),
                ask: probe.ask.to_string(),
                wanted: probe.ask.wanted(),
                asked: 0,
                good: 0,
                failed: 0,
                last_failure: None,
                longest_failing_us: 0,
                breached: false,
            },
            failing: None,
        }
    }

    /// It was asked.
    pub(super) fn asked(&mut self) {
        self.record.asked += 1;
    }

    /// It has answered. A line where that changes something.
    pub(super) fn note(&mut self, answer: &Answer) -> Option<String> {
        let name = &self.named;
        let Err(why) = &answer.outcome else {
            self.record.good += 1;
            let failing = self.failing.take()?;
            let lasted = failing.until.since(failing.since);
            return Some(format!("{name} is good again, after {lasted}"));
        };
        let news = if let Some(failing) = &mut self.failing {
            failing.until = answer.at;
            None
        } else {
            self.failing = Some(Failing {
                since: answer.asked,
                until: answer.at,
            });
            Some(format!("{name} fails: {why}"))
        };
        self.record.failed += 1;
        self.record.last_failure = Some(why.clone());
        let lasts = self.failing_since(Mono(0)).map_or(0, Span::as_micros);
        self.record.longest_failing_us = self.record.longest_failing_us.max(lasts);
        news
    }

    /// Over which time it was seen to fail, counted from an instant on.
    fn failing_since(&self, from: Mono) -> Option<Span> {
        let failing = self.failing?;
        Some(failing.until.since(failing.since.max(from)))
    }

    /// Why the trial has to end, where it has to.
    pub(super) fn breach(&mut self, healed: Option<Mono>) -> Option<String> {
        let Rule::Abort { lasting, always } = self.rule else {
            return None;
        };
        let (from, when) = if always {
            (Mono(0), "")
        } else {
            (healed?, " after the last heal")
        };
        if self.failing_since(from)? < lasting {
            return None;
        }
        self.record.breached = true;
        let name = &self.named;
        let why = self.record.last_failure.as_deref().unwrap_or_default();
        Some(format!("{name} failed for {lasting}{when}: {why}"))
    }

    /// What came of it.
    pub(super) fn record(self) -> ExternalProbe {
        self.record
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scenarios::plan::{Ask, CommandAsk};

    const SECOND: u64 = 1_000_000;

    fn tally(rule: Rule) -> Tally {
        Tally::new(&plan::Probe {
            name: "queue".to_owned(),
            ask: Ask::Command(CommandAsk {
                run: "queue-depth".to_owned(),
                contains: None,
            }),
            every: Span::from_secs(1),
            within: Span::from_secs(1),
            rule,
        })
    }

    fn rule(always: bool) -> Rule {
        Rule::Abort {
            lasting: Span::from_secs(3),
            always,
        }
    }

    /// Asked at that second, answered 0.1 s later.
    fn answer(second: u64, good: bool) -> Answer {
        Answer {
            place: 0,
            asked: Mono(second * SECOND),
            at: Mono(second * SECOND + SECOND / 10),
            outcome: if good {
                Ok(())
            } else {
                Err(format!("said no {second}"))
            },
        }
    }

    /// The seconds from `from` on at which the rule fires.
    fn fires(mut tally: Tally, good: &[bool], healed: impl Fn(u64) -> Option<Mono>) -> Vec<u64> {
        let seconds = (0_u64..).zip(good);
        let fires = |(second, good): (u64, &bool)| {
            tally.note(&answer(second, *good));
            tally.breach(healed(second)).map(|_| second)
        };
        seconds.filter_map(fires).collect()
    }

    #[test]
    fn failures_in_a_row_that_last_so_long_end_the_trial_and_a_good_answer_starts_anew() {
        let always = || tally(rule(true));
        let never = |_| None;
        assert_eq!(fires(always(), &[false; 5], never), [3, 4]);
        let once_good = [false, false, false, true, false, false, false, true];
        assert!(fires(always(), &once_good, never).is_empty());
    }

    #[test]
    fn one_failure_alone_is_no_stretch_however_long_ago() {
        let mut tally = tally(rule(true));
        tally.note(&answer(0, false));
        assert_eq!(tally.breach(Some(Mono(100 * SECOND))), None);
    }

    #[test]
    fn what_failed_under_the_fault_does_not_count_unless_it_is_said_so() {
        let healed = |second| (second >= 5).then_some(Mono(5 * SECOND));
        assert_eq!(fires(tally(rule(false)), &[false; 10], healed), [8, 9]);
        assert!(fires(tally(rule(false)), &[false; 10], |_| None).is_empty());
        assert_eq!(fires(tally(rule(true)), &[false; 5], healed), [3, 4]);
    }

    #[test]
    fn a_probe_of_steady_ends_nothing() {
        let healed = |_| Some(Mono(0));
        assert!(fires(tally(Rule::Steady), &[false; 20], healed).is_empty());
    }

    #[test]
    fn the_record_counts_and_keeps_the_longest_stretch_and_the_last_words() {
        let mut tally = tally(rule(true));
        let mut news = Vec::new();
        for (second, good) in (0..).zip([true, false, false, false, true, false, true]) {
            tally.asked();
            news.extend(tally.note(&answer(second, good)));
        }
        tally.asked();
        assert_eq!(news.len(), 4, "{news:?}");
        assert!(news[0].contains("`queue` (command queue-depth) fails: said no 1"));
        let record = tally.record();
        assert_eq!((record.asked, record.good, record.failed), (8, 3, 4));
        assert_eq!(record.longest_failing_us, 2_100_000);
        assert_eq!(record.last_failure.as_deref(), Some("said no 5"));
        assert!(!record.breached);
    }

    #[test]
    fn a_breach_says_which_probe_for_how_long_and_what_it_was_told() {
        let mut tally = tally(rule(false));
        for second in 0..6 {
            tally.note(&answer(second, false));
        }
        let why = tally.breach(Some(Mono(SECOND))).unwrap();
        assert_eq!(
            why,
            "probe `queue` (command queue-depth) failed for 3s after the last heal: said no 5"
        );
        assert!(tally.record().breached);
    }
}
