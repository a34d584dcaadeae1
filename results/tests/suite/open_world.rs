//! Streams to which others publish too: their events are counted and not judged, the run's are judged as ever, and what
//! the run leaves behind fails it.

use std::collections::BTreeMap;

use model::anomaly::Anomaly;
use model::fault::{Fault, Kill};
use model::ids::Seq;
use model::intervals::IntervalSet;
use model::quantity::Span;
use model::shard::CleanUp;
use model::snapshot::{Cover, Snapshot};
use model::target::{Durability, World};
use model::trial::{Abort, Trial};
use results::{Outcome, Row, RunFolder, RunRecord, Status, gate, verdict};
use scenarios::plan::Plan;

use crate::builder::{EVENTS, STREAM, found, ledger, plan, read, record, row};

/// The head before the trial.
const BEGUN: Seq = 500;

/// A trial after others' history, with an event of theirs before each of the run's.
fn among_others(spoil: impl FnOnce(&mut Plan, &mut Trial)) -> Row {
    row(|plan, trial| {
        plan.target.promise.world = World::Open;
        trial.cursors = [(STREAM.to_owned(), BEGUN)].into();
        let places: Vec<(Seq, u64, u64)> = (0..EVENTS)
            .map(|index| (BEGUN + 2 * index + 2, index, 1))
            .collect();
        ledger(trial).acknowledged.clone_from(&places);
        let mut foreign_at = IntervalSet::default();
        for index in 0..EVENTS {
            foreign_at.insert(BEGUN + 2 * index + 1);
        }
        let read = read(trial);
        read.floor = BEGUN;
        read.head = BEGUN + 2 * EVENTS;
        read.events.clone_from(&places);
        read.foreign = EVENTS;
        read.foreign_at = foreign_at.clone();
        for shard in &mut trial.shards[1..] {
            shard.seen.insert(STREAM.to_owned(), places.clone());
            shard.foreign.insert(STREAM.to_owned(), foreign_at.clone());
            shard.foreign_rows = EVENTS * 60;
            let applied = &mut shard.applied[0];
            assert_eq!(applied.stream, STREAM);
            applied.initial = BEGUN;
            applied.seqs = IntervalSet::range(BEGUN + 1, BEGUN + 2 * EVENTS);
        }
        trial.clean_up = Some(CleanUp {
            removed: 2 * EVENTS,
            ..CleanUp::default()
        });
        spoil(plan, trial);
        plan.digest = plan.computed_digest();
    })
}

#[test]
fn what_others_publish_is_counted_and_fails_nothing() {
    let row = among_others(|_, _| {});
    assert_eq!(row.status, Status::Passed, "{:?}", row.verdict);
    assert_eq!(found(&row), BTreeMap::new());
    let world = row.open_world.as_ref().unwrap();
    assert_eq!(world.foreign_held, Some(EVENTS));
    assert_eq!(world.foreign_received, 2 * EVENTS * 60);
    assert_eq!(world.cursors[STREAM], BEGUN);

    let closed = among_others(|plan, _| plan.target.promise.world = World::Closed);
    assert_eq!(found(&closed)[&Anomaly::Phantom], EVENTS);
    assert_eq!(closed.open_world, None);
}

#[test]
fn an_event_of_the_run_that_was_never_invoked_is_a_phantom_all_the_same() {
    let row = among_others(|_, trial| {
        let never = (BEGUN + 2 * EVENTS + 1, EVENTS, 1);
        read(trial).events.push(never);
    });
    assert_eq!(found(&row), [(Anomaly::Phantom, 1)].into());
}

#[test]
fn an_event_of_the_run_that_is_gone_is_lost_among_others_too() {
    let row = among_others(|_, trial| {
        read(trial).events.remove(7);
        for shard in &mut trial.shards[1..] {
            shard.applied[0].indexes = shard.applied[0]
                .indexes
                .difference(&IntervalSet::range(7, 7));
        }
    });
    assert_eq!(
        found(&row)[&Anomaly::Lost],
        1,
        "by the lane, whoever saw it meanwhile"
    );
    assert_eq!(found(&row)[&Anomaly::Vanished], 1);
}

#[test]
fn an_altered_event_of_the_run_that_only_the_final_read_finds_diverges() {
    let altered = |row: &Row| found(row).get(&Anomaly::Divergence).copied();
    assert_eq!(
        altered(&among_others(|_, trial| read(trial).altered = 2)),
        Some(2)
    );
    let closed = row(|_, trial| read(trial).altered = 2);
    assert_eq!(altered(&closed), Some(2));
}

#[test]
fn somebody_elses_event_in_the_place_of_the_runs_diverges_unless_the_run_s_need_not_have_been_kept()
{
    for (age, divergent) in [(Span::from_millis(100), false), (Span::from_secs(2), true)] {
        let row = among_others(|plan, trial| {
            plan.target.promise.acknowledged = Durability::Within(Span::from_millis(500));
            plan.steps[0].fault = Fault::Kill(Kill {});
            trial.faults[0].fault = Fault::Kill(Kill {});
            let kill = trial.faults[0].view.as_ref().unwrap().injected.asked;
            let last = EVENTS - 1;
            ledger(trial).acknowledged_at = vec![(last, kill - age)];
            // One shard saw the run's before the kill, the other what somebody put there later.
            let taken = IntervalSet::range(BEGUN + 2 * EVENTS, BEGUN + 2 * EVENTS);
            let foreign = trial.shards[2].foreign.get_mut(STREAM).unwrap();
            foreign.union(&taken);
        });
        let unpromised = row.anomalies[&Anomaly::Divergence].unpromised.is_some();
        assert_eq!(found(&row).contains_key(&Anomaly::Divergence), divergent);
        assert_eq!(unpromised, !divergent);
    }
}

#[test]
fn what_lies_below_a_snapshot_that_nobody_can_verify_is_not_judged_and_that_is_said() {
    let half = EVENTS / 2;
    let of_others = Snapshot {
        count: BEGUN + 2 * half,
        digest: "over others' history too".to_owned(),
    };
    for snapshot in [Some(of_others), None] {
        let row = among_others(|_, trial| {
            let shard = &mut trial.shards[1];
            let applied = &mut shard.applied[0];
            applied.snapshot = Some(Cover {
                watermark: BEGUN + 2 * half,
                snapshot,
            });
            applied.seqs = IntervalSet::range(BEGUN + 2 * half + 1, BEGUN + 2 * EVENTS);
            applied.indexes = IntervalSet::range(half, EVENTS - 1);
        });
        assert_eq!(row.status, Status::Passed, "{:?}", row.verdict);
        assert!(summary(&row).contains(" snapshots held what this run cannot know"));
    }
}

/// What the summary says of a row.
fn summary(row: &Row) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut run = RunFolder::create(folder.path(), &open_record()).unwrap();
    run.keep_plan(&open_plan(), row.trial).unwrap();
    run.append(row).unwrap();
    run.finish().unwrap();
    std::fs::read_to_string(folder.path().join("SUMMARY.md")).unwrap()
}

fn open_plan() -> Plan {
    let mut plan = plan();
    plan.target.promise.world = World::Open;
    plan.digest = plan.computed_digest();
    plan
}

fn open_record() -> RunRecord {
    let mut record = record(1);
    record.rows[0].plan_digest = open_plan().digest;
    record
}

#[test]
fn the_summary_says_whose_rows_were_met_and_what_became_of_the_run_s() {
    let text = summary(&among_others(|_, _| {}));
    for expected in [
        "others publish to the same streams: the lane held 100 rows of theirs",
        "200 rows of this run were removed, and none was found afterwards",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
    let kept = among_others(|_, trial| {
        trial.clean_up = Some(CleanUp {
            declined: true,
            left: [(STREAM.to_owned(), 9)].into(),
            ..CleanUp::default()
        });
    });
    assert_eq!(
        kept.status,
        Status::Passed,
        "it was said so: {:?}",
        kept.verdict
    );
    let text = summary(&kept);
    assert!(
        text.contains(
            "9 rows of this run stay in 1 streams: the target file says `clean_up: none`"
        )
    );
}

#[test]
fn what_a_clean_up_leaves_behind_fails_the_trial_whatever_else_it_is() {
    let failed = |stream: &str, why: &str| BTreeMap::from([(stream.to_owned(), why.to_owned())]);
    let streams = || (1..=12).map(|n| format!("stream-{n:02}"));
    let unread = "it could not be read";
    let cases = [
        (
            CleanUp {
                left: [(STREAM.to_owned(), 9)].into(),
                failed: failed(STREAM, "400 Only owners are authorized"),
                ..CleanUp::default()
            },
            format!("left behind: 9 rows of this run in {STREAM}: 400 Only owners are authorized"),
        ),
        (
            CleanUp {
                failed: failed(STREAM, unread),
                ..CleanUp::default()
            },
            format!("left behind: what this run published to {STREAM}: it could not be read"),
        ),
        (
            CleanUp {
                failed: streams().map(|stream| (stream, unread.to_owned())).collect(),
                ..CleanUp::default()
            },
            "left behind: what this run published to 12 streams, such as stream-01: it could not be read".to_owned(),
        ),
        (
            CleanUp {
                left: streams().map(|stream| (stream, 2)).collect(),
                ..CleanUp::default()
            },
            "left behind: 24 rows of this run in 12 streams, such as 2 in stream-01".to_owned(),
        ),
    ];
    for (done, expected) in cases {
        for abort in [None, Some(Abort::Operator("interrupted".to_owned()))] {
            let cut_off = abort.is_some();
            let row = among_others(|_, trial| {
                trial.clean_up = Some(done.clone());
                trial.abort = abort;
            });
            assert_eq!(row.status, Status::Failed, "{expected}");
            let told: Vec<&String> = row
                .verdict
                .reasons
                .iter()
                .filter(|reason| reason.starts_with("left behind"))
                .collect();
            assert_eq!(told.len(), 1, "{told:?}");
            let command = format!(
                "; `faultlane clean-up FILE --run {}` removes what is left",
                row.run
            );
            assert_eq!(*told[0], format!("{expected}{command}"));
            if cut_off {
                assert_eq!(row.verdict.reason, "stopped by the operator: interrupted");
            } else {
                assert_eq!(row.verdict.reason, *told[0]);
            }
        }
    }
}

#[test]
fn a_clean_up_that_the_harness_could_not_ask_for_is_not_the_targets_failure() {
    let row = among_others(|_, trial| {
        trial.clean_up = Some(CleanUp::unasked("connection refused".to_owned()));
    });
    assert_eq!(row.status, Status::Error);
    let expected = format!(
        "the clean-up could not be asked for: connection refused; `faultlane clean-up FILE --run {}` removes what is left",
        row.run
    );
    assert_eq!(row.verdict.reason, expected);
}

#[test]
fn a_trial_that_does_not_say_what_became_of_its_events_proves_nothing() {
    let row = among_others(|_, trial| trial.clean_up = None);
    assert_eq!(row.status, Status::Inconclusive);
    assert!(
        row.verdict.reason.contains("what became of the events"),
        "{:?}",
        row.verdict
    );
}

#[test]
fn a_row_that_hides_that_the_world_was_open_is_tampered() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = RunFolder::create(folder.path(), &open_record()).unwrap();
    run.keep_plan(&open_plan(), 1).unwrap();
    let mut row =
        among_others(|_, trial| trial.clean_up = Some(CleanUp::unasked("gone".to_owned())));
    assert_eq!(verdict(&row).status, Status::Error);
    row.open_world = None;
    row.verdict = verdict(&row);
    row.status = row.verdict.status;
    assert_eq!(row.status, Status::Passed);
    run.append(&row).unwrap();
    run.finish().unwrap();
    let decision = gate(folder.path()).unwrap();
    assert_eq!(decision.decision, Outcome::NoGo, "{:?}", decision.rows[0]);
    assert!(decision.rows[0].reason.contains("whether others publish"));
}
