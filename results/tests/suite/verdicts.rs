//! Every ground of the verdict, and their order.

use model::anomaly::Anomaly;
use model::criteria::{Bounds, Phase};
use model::quantity::{Rate, Share, Span};
use model::shard::DeliveryPart;
use model::trial::{Abort, Residue, Trial};
use results::{Quantile, Row, Status, verdict};
use scenarios::plan::Plan;

use crate::builder::{clean_row, example, histogram, row};

#[track_caller]
fn expect(row: &Row, status: Status, reason: &str) {
    assert_eq!(row.status, status, "{:?}", row.verdict);
    assert!(row.verdict.reason.contains(reason), "{:?}", row.verdict);
    assert_eq!(verdict(row), row.verdict, "the row's evidence suffices");
}

type Spoil = fn(&mut Plan, &mut Trial);

#[test]
fn what_makes_a_trial_invalid_is_inconclusive() {
    let cases: [(Spoil, &str); 19] = [
        (
            |_, trial| trial.shards[1].harness.receive_lag = histogram(100, |_| Span::from_secs(1)),
            "harness lag: receive p99 1.00 s, limit 250 ms",
        ),
        (
            |_, trial| {
                let proxy = trial.proxy.as_mut().unwrap();
                proxy.harness.receive_lag = histogram(100, |_| Span::from_secs(1));
            },
            "harness lag: receive p99 1.00 s, limit 250 ms",
        ),
        (
            |_, trial| trial.shards[0].harness.send_lag = histogram(100, |_| Span::from_secs(1)),
            "harness lag: send p99",
        ),
        (
            |_, trial| trial.shards[2].harness.busiest = 0.93,
            "a shard or the proxy used 93 % of a core, limit 80 %",
        ),
        (
            |_, trial| trial.shards[0].harness.send_lag = histogram(0, |_| Span::ZERO),
            "the send side was not measured",
        ),
        (
            |_, trial| trial.faults[0].view.as_mut().unwrap().observation.bitten = 0,
            "f1-hold was not seen to bite",
        ),
        (
            |_, trial| trial.faults[0].view.as_mut().unwrap().lapsed = true,
            "lease lapsed",
        ),
        (
            |plan, trial| {
                plan.criteria.affected = Share::ALL;
                trial.shards[1].affected -= 1;
            },
            "affected 119 of 120 clients, fewer than 100%",
        ),
        (
            |_, trial| trial.abort = Some(Abort::Operator("SIGINT".to_owned())),
            "stopped by the operator: SIGINT",
        ),
        (
            |_, trial| trial.abort = Some(Abort::NotSteady("3 of 120 live".to_owned())),
            "3 of 120 live",
        ),
        (
            |_, trial| trial.steady = None,
            "steady state was not reached",
        ),
        (
            |_, trial| {
                trial.shards.remove(1);
            },
            "missing: the report of shard 1",
        ),
        (
            |_, trial| trial.ledger = None,
            "missing: the publisher's ledger",
        ),
        (
            |_, trial| trial.final_read = None,
            "missing: the final read",
        ),
        (
            |_, trial| trial.residue = None,
            "missing: the look for residue",
        ),
        (
            |_, trial| {
                trial.shards[1].applied.pop();
            },
            "what shard 1 applied of 60 of 120 subscriptions",
        ),
        (
            |_, trial| trial.shards[0].probes.clear(),
            "answers to the probes",
        ),
        (
            |_, trial| {
                trial.shards[1].phases.remove(&Phase::Recovery);
            },
            "recovery is known of 60 of 120",
        ),
        (
            |_, trial| {
                for shard in &mut trial.shards {
                    shard.phases.remove(&Phase::Detect);
                }
            },
            "detect has a bound, and no client went through it",
        ),
    ];
    for (spoil, reason) in cases {
        expect(&row(spoil), Status::Inconclusive, reason);
    }
}

#[test]
fn a_stream_that_could_not_be_read_is_missing() {
    let row = row(|_, trial| {
        let read = trial.final_read.as_mut().unwrap();
        read.streams.clear();
        read.failed
            .insert(crate::builder::STREAM.to_owned(), "refused".to_owned());
    });
    expect(
        &row,
        Status::Inconclusive,
        "the final read of runtime.run.1.events: refused",
    );
    assert_eq!(row.verdict.reasons.len(), 2, "{:?}", row.verdict);
}

#[test]
fn a_fault_that_could_not_be_applied_or_undone_is_an_error() {
    let cases: [(Spoil, &str); 4] = [
        (
            |_, trial| trial.faults[0].error = Some("the proxy answered 500".to_owned()),
            "the proxy answered 500",
        ),
        (|_, trial| trial.faults[0].view = None, "never applied"),
        (
            |_, trial| {
                let view = trial.faults[0].view.as_mut().unwrap();
                (view.active, view.healed) = (true, None);
            },
            "not undone",
        ),
        (
            |_, trial| trial.abort = Some(Abort::Harness("shard 2 died".to_owned())),
            "shard 2 died",
        ),
    ];
    for (spoil, reason) in cases {
        expect(&row(spoil), Status::Error, reason);
    }
}

#[test]
fn bounds_and_limits_that_are_exceeded_are_named_with_figure_and_bound() {
    let cases: [(Spoil, &str); 9] = [
        (
            |plan, _| {
                let p99 = Some(Span::from_micros(1));
                plan.criteria.bounds.insert(
                    Phase::Recovery,
                    Bounds {
                        p99,
                        ..Bounds::default()
                    },
                );
            },
            "recovery p99 1.59 s, bound 1us",
        ),
        (
            |plan, _| plan.criteria.steady = Some(Span::from_secs(1)),
            "time to steady 2.50 s, bound 1s",
        ),
        (|_, trial| trial.time_to_steady = None, "never steady again"),
        (
            |plan, _| plan.criteria.limits.attempts_per_client = Some(1.0),
            "attempts per client 1.17, limit 1",
        ),
        (
            |plan, _| plan.criteria.limits.peak_arrivals = Some(Rate::per_second(50.0)),
            "peak arrivals 60/s, limit 50/s",
        ),
        (
            |plan, _| plan.criteria.limits.delivery_p95 = Some(Span::from_millis(1)),
            "delivery before the fault p95",
        ),
        (
            |_, trial| {
                trial.shards[1].findings.note_many(
                    Anomaly::DuplicateDelivery,
                    481,
                    [example("twice")],
                );
            },
            "duplicate_delivery: 481 of 48000 rows (1.00 %), limit 1%",
        ),
        (
            |_, trial| {
                trial.shards[1]
                    .findings
                    .note_many(Anomaly::OverReplay, 6, [example("seq 3")]);
            },
            "over_replay: 6, limit 5",
        ),
        (
            |_, trial| {
                trial.shards[1]
                    .phases
                    .get_mut(&Phase::Recovery)
                    .unwrap()
                    .censored = 2;
            },
            "not_recovered: 2, limit 0",
        ),
    ];
    for (spoil, reason) in cases {
        expect(&row(spoil), Status::Failed, reason);
    }
}

#[test]
fn counts_within_their_limits_pass() {
    let row = row(|_, trial| {
        let findings = &mut trial.shards[1].findings;
        findings.note_many(Anomaly::DuplicateDelivery, 480, [example("twice")]);
        findings.note_many(Anomaly::OverReplay, 5, [example("seq 3")]);
    });
    assert_eq!(row.status, Status::Passed, "{:?}", row.verdict);
}

#[test]
fn a_percentile_among_the_censored_is_null_and_fails_its_bound() {
    let row = row(|_, trial| {
        let shard = &mut trial.shards[1];
        shard.affected += 5;
        for phase in shard.phases.values_mut() {
            phase.censored = 5;
        }
    });
    let recovery = &row.phases[&Phase::Recovery];
    assert_eq!(recovery.p99_us, Quantile::Censored);
    assert!(matches!(recovery.p50_us, Quantile::Us(_)));
    assert_eq!(recovery.p999_us, Quantile::NotEstimable);
    assert_eq!(recovery.within_bound, Some(false));
    let json = serde_json::to_value(&row).unwrap();
    assert!(json["phases"]["recovery"]["p99_us"].is_null());
    assert_eq!(json["phases"]["recovery"]["p999_us"], "not estimable");
    let reasons = row.verdict.reasons.join("\n");
    assert!(
        reasons.contains("recovery p99 among the 5 not recovered, bound 8s"),
        "{reasons}"
    );
    assert!(
        reasons.contains("recovery max among the 5 not recovered, bound 10s"),
        "{reasons}"
    );
}

#[test]
fn what_a_silent_shard_may_have_seen_is_not_called_clean() {
    let row = row(|_, trial| trial.shards.clear());
    assert!(
        row.anomalies
            .values()
            .all(|tally| tally.count != Some(0) && tally.within != Some(true)),
        "{:?}",
        row.anomalies
    );
    assert!(results::table(&[row]).contains("not judged"));
    assert!(results::table(&[clean_row()]).contains("none"));
}

#[test]
fn a_bound_on_a_quantile_with_too_few_samples_is_held_against_the_largest() {
    let row = row(|plan, trial| {
        plan.workload.clients = 60;
        trial.shards.pop();
        trial.shards_planned = 2;
        plan.criteria.bounds.get_mut(&Phase::Recovery).unwrap().p99 =
            Some(Span::from_millis(1_580));
    });
    assert_eq!(row.phases[&Phase::Recovery].p99_us, Quantile::NotEstimable);
    expect(
        &row,
        Status::Failed,
        "recovery p99 1.59 s (the largest of 60), bound 1580ms",
    );
}

#[test]
fn safety_comes_first_then_residue_then_validity_then_limits_then_bounds() {
    let grounds: [(Spoil, Status, &str); 6] = [
        (
            |_, trial| {
                trial.shards[1]
                    .findings
                    .note(Anomaly::Leak, example("another tenant's"));
            },
            Status::Failed,
            "leak: 1, such as c0007",
        ),
        (
            |_, trial| {
                trial
                    .residue
                    .as_mut()
                    .unwrap()
                    .owned
                    .push("f1-hold at the proxy".to_owned());
            },
            Status::Failed,
            "left behind: f1-hold",
        ),
        (
            |_, trial| trial.faults[0].error = Some("refused".to_owned()),
            Status::Error,
            "refused",
        ),
        (
            |_, trial| trial.shards[1].harness.busiest = 1.0,
            Status::Inconclusive,
            "harness lag",
        ),
        (
            |_, trial| trial.abort = Some(Abort::Limit("fewer than 10% live".to_owned())),
            Status::Failed,
            "aborted: fewer than 10% live",
        ),
        (
            |plan, _| plan.criteria.limits.attempts_per_client = Some(0.5),
            Status::Failed,
            "attempts per client",
        ),
    ];
    for first in 0..grounds.len() {
        let row = row(|plan, trial| {
            for (spoil, _, _) in &grounds[first..] {
                spoil(plan, trial);
            }
        });
        expect(&row, grounds[first].1, grounds[first].2);
    }
}

#[test]
fn a_target_too_far_gone_to_be_read_after_a_breach_has_failed() {
    let row = row(|_, trial| {
        trial.abort = Some(Abort::Limit("nobody live for 30s".to_owned()));
        trial.final_read = None;
        trial.time_to_steady = None;
    });
    expect(&row, Status::Failed, "nobody live for 30s");
}

#[test]
fn a_change_by_somebody_else_is_reported_and_not_failed() {
    let row = row(|_, trial| {
        trial
            .residue
            .as_mut()
            .unwrap()
            .foreign
            .push("a new file".to_owned());
    });
    assert_eq!(row.status, Status::Passed);
}

#[test]
fn only_harness_lag_alone_invites_a_repetition() {
    let lag: Spoil = |_, trial| trial.shards[1].harness.busiest = 1.0;
    assert!(row(lag).invalid_by_lag().is_some());
    assert!(clean_row().invalid_by_lag().is_none());
    let more = row(|plan, trial| {
        lag(plan, trial);
        trial.residue = None;
    });
    assert_eq!(
        (more.status, more.invalid_by_lag()),
        (Status::Inconclusive, None)
    );
}

#[test]
fn storm_figures_count_from_the_fault() {
    let storm = clean_row().storm;
    assert_eq!(
        storm.arrivals,
        [(40, 40), (41, 20), (80, 30)],
        "the ramp is left out"
    );
    assert_eq!(
        (storm.peak_100ms, storm.peak_1s, storm.second_peak_1s),
        (40, 60, 30)
    );
    assert_eq!(storm.peak_1s_over_capacity, Some(1.2));
    assert_eq!(storm.replayed_over_missed, Some(1.5));
    let shards = row(|_, trial| trial.proxy = None).storm;
    assert_eq!(
        (shards.counted_by.as_str(), shards.peak_1s),
        ("shards", 120)
    );
}

#[test]
fn secrets_never_enter_a_row() {
    let secret = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1MSJ9.c2ln";
    let row = row(|_, trial| {
        let text = format!("refused Bearer {secret} at /x?token={secret}");
        trial.shards[1].findings.note(Anomaly::Leak, example(&text));
        trial.shards[0].probes[0].answers.insert(text.clone(), 1);
        trial.faults[0].error = Some(text.clone());
        trial.abort = Some(Abort::Harness(text.clone()));
        trial.residue.as_mut().unwrap().owned.push(text);
    });
    let line = serde_json::to_string(&row).unwrap();
    assert!(!line.contains("eyJ"), "{line}");
    assert!(line.contains("[redacted]"));
    assert_eq!(row.status, Status::Failed, "the row itself is as it was");
}

#[test]
fn delivery_parts_are_all_there() {
    let parts: Vec<_> = clean_row().delivery.into_keys().collect();
    assert_eq!(
        parts,
        [
            DeliveryPart::Before,
            DeliveryPart::During,
            DeliveryPart::After
        ]
    );
}

#[test]
fn a_part_of_the_target_that_ended_by_itself_is_the_target_s_failure_and_no_residue() {
    let why = "`lane` ended by itself (signal: 9 (SIGKILL))";
    let reason = format!("the target's {why}");
    let residue = Residue {
        crashed: vec![why.to_owned()],
        ..Residue::default()
    };
    // Noticed at once, with nothing left to read; or only in the end.
    let at_once = row(|_, trial| {
        trial.abort = Some(Abort::Target(why.to_owned()));
        trial.residue = Some(residue.clone());
        trial.final_read = None;
        trial.lane = None;
        trial.shards.iter_mut().for_each(|shard| shard.affected = 0);
    });
    let in_the_end = row(|_, trial| trial.residue = Some(residue.clone()));
    for row in [at_once, in_the_end] {
        assert_eq!(row.status, Status::Failed);
        assert_eq!(row.verdict.reasons, [reason.as_str()]);
    }
}

#[test]
fn an_agent_on_which_a_fault_did_not_bite_or_whose_clocks_nobody_knows_makes_a_trial_inconclusive()
{
    let cases: [(Spoil, &str); 2] = [
        (
            |_, trial| trial.faults[0].toothless = vec!["n3".to_owned()],
            "f1-hold was not seen to bite on `n3`",
        ),
        (
            |plan, _| plan.layout.clients = vec!["n3".to_owned()],
            "missing: the clocks of agent `n3`",
        ),
    ];
    for (spoil, reason) in cases {
        let row = row(spoil);
        assert_eq!(row.status, Status::Inconclusive, "{reason}");
        assert!(row.verdict.reason.contains(reason), "{:?}", row.verdict);
    }
}
