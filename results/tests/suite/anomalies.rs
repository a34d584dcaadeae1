//! Every anomaly, planted in an otherwise clean trial, is found and named; a clean trial has none.

use std::collections::BTreeSet;

use model::anomaly::{Anomaly, Example};
use model::ids::ClientId;
use model::intervals::IntervalSet;
use model::shard::{Applied, CensoredClient};
use model::snapshot::{Cover, Snapshot};
use model::trial::Trial;
use results::{Row, Status};

use crate::builder::{
    CLIENTS, EVENTS, STREAM, clean_row, cover, example, found, kinds, ledger, read, row,
};

fn only(anomaly: Anomaly) -> BTreeSet<Anomaly> {
    BTreeSet::from([anomaly])
}

fn first_example(row: &Row, anomaly: Anomaly) -> String {
    let example = &row.anomalies[&anomaly].examples[0];
    format!(
        "{:?} {:?} {:?} {}",
        example.client.map(|client| client.0),
        example.stream,
        example.seq,
        example.detail
    )
}

/// Takes one client of shard 1 out of its group, with other content.
fn apart(trial: &mut Trial, change: impl FnOnce(&mut Applied)) {
    let shard = &mut trial.shards[1];
    let group = &mut shard.applied[0];
    group.clients.retain(|client| *client != ClientId(7));
    let mut own = Applied {
        clients: vec![ClientId(7)],
        ..group.clone()
    };
    change(&mut own);
    shard.applied.push(own);
}

#[test]
fn a_clean_trial_has_no_anomaly_and_passes() {
    let row = clean_row();
    assert_eq!(found(&row).len(), 0, "{:?}", found(&row));
    assert_eq!(row.verdict.reasons, Vec::<String>::new());
    assert_eq!(row.status, Status::Passed);
    assert_eq!(row.anomalies.len(), Anomaly::ALL.len());
    assert!(
        row.anomalies
            .values()
            .all(|tally| tally.within == Some(true))
    );
    let all = u64::from(CLIENTS) * 2 * EVENTS;
    assert_eq!(
        (row.expected_deliveries, row.delivered),
        (Some(all), Some(all))
    );
}

#[test]
fn what_the_shards_found_is_counted_over_all_of_them() {
    for anomaly in Anomaly::ALL {
        let row = row(|_, trial| {
            for shard in &mut trial.shards[1..] {
                shard.findings.note_many(anomaly, 400, [example("planted")]);
            }
        });
        assert_eq!(found(&row).get(&anomaly), Some(&800), "{anomaly}");
        assert_eq!(row.status, Status::Failed, "{anomaly}");
        assert!(
            row.verdict.reason.starts_with(anomaly.name())
                && row.verdict.reason.contains("planted"),
            "{}",
            row.verdict.reason
        );
    }
}

#[test]
fn an_acknowledged_event_that_a_client_never_applied_is_lost() {
    let row = row(|_, trial| {
        apart(trial, |own| {
            own.seqs = own.seqs.difference(&IntervalSet::range(41, 42));
            own.indexes = own.indexes.difference(&IntervalSet::range(40, 41));
        });
    });
    assert_eq!(kinds(&row), only(Anomaly::Lost));
    assert_eq!(found(&row)[&Anomaly::Lost], 2);
    let example = first_example(&row, Anomaly::Lost);
    assert!(
        example.starts_with("Some(7) Some(\"runtime.run.1.events\") Some(41) index 40"),
        "{example}"
    );
    assert_eq!(row.delivered, row.expected_deliveries.map(|all| all - 2));
}

#[test]
fn what_lies_at_or_below_the_initial_cursor_is_not_owed() {
    let row = row(|_, trial| {
        apart(trial, |own| {
            own.initial = 10;
            own.seqs = IntervalSet::range(11, EVENTS);
            own.indexes = IntervalSet::range(10, EVENTS - 1);
        });
    });
    assert_eq!(row.status, Status::Passed, "{:?}", row.verdict);
}

#[test]
fn an_acknowledged_event_that_the_lane_forgot_is_lost_once_and_vanished_for_those_who_saw_it() {
    let row = row(|_, trial| read(trial).events = vec![(1, 0, 90), (94, 93, 7)]);
    assert_eq!(
        kinds(&row),
        BTreeSet::from([Anomaly::Lost, Anomaly::Vanished])
    );
    assert_eq!(found(&row)[&Anomaly::Lost], 3, "per event, not per client");
    assert_eq!(found(&row)[&Anomaly::Vanished], 3);
    assert!(
        first_example(&row, Anomaly::Lost)
            .contains("acknowledged, absent from the lane at the end")
    );
}

#[test]
fn what_is_below_the_lane_s_floor_was_let_go_of() {
    let row = row(|_, trial| {
        let read = read(trial);
        read.floor = 50;
        read.events = vec![(51, 50, 50)];
    });
    assert_eq!(row.status, Status::Passed, "{:?}", row.verdict);
}

#[test]
fn a_log_that_began_anew_is_lost_vanished_and_divergent() {
    // After the restart the stream was empty, and the publisher went on from seq 1.
    let row = row(|_, trial| {
        ledger(trial).acknowledged = vec![(1, 0, 60), (1, 60, 40)];
        *read(trial) = model::shard::StreamRead {
            floor: 0,
            head: 40,
            events: vec![(1, 60, 40)],
            ..model::shard::StreamRead::default()
        };
        for shard in &mut trial.shards[1..] {
            shard
                .seen
                .insert(STREAM.to_owned(), vec![(1, 0, 60), (1, 60, 40)]);
        }
    });
    assert_eq!(
        kinds(&row),
        BTreeSet::from([Anomaly::Lost, Anomaly::Vanished, Anomaly::Divergence])
    );
    assert_eq!(found(&row)[&Anomaly::Vanished], 60);
    assert_eq!(found(&row)[&Anomaly::Divergence], 40);
}

#[test]
fn an_event_of_unknown_outcome_counts_as_acknowledged_once_anybody_saw_it() {
    let unknown = |trial: &mut Trial| {
        let ledger = ledger(trial);
        ledger.acknowledged = vec![(1, 0, 50), (52, 51, 49)];
        ledger.unknown = IntervalSet::range(50, 50);
    };
    let missed = |trial: &mut Trial| {
        apart(trial, |own| {
            own.seqs = own.seqs.difference(&IntervalSet::range(51, 51));
            own.indexes = own.indexes.difference(&IntervalSet::range(50, 50));
        });
    };
    let seen = row(|_, trial| {
        unknown(trial);
        missed(trial);
    });
    assert_eq!(found(&seen).get(&Anomaly::Lost), Some(&1));

    let nobody_saw = row(|_, trial| {
        unknown(trial);
        for shard in &mut trial.shards[1..] {
            shard
                .seen
                .insert(STREAM.to_owned(), vec![(1, 0, 50), (52, 51, 49)]);
            let group = &mut shard.applied[0];
            group.indexes = group.indexes.difference(&IntervalSet::range(50, 50));
        }
        read(trial).events = vec![(1, 0, 50), (52, 51, 49)];
    });
    assert_eq!(
        nobody_saw.status,
        Status::Passed,
        "{:?}",
        nobody_saw.verdict
    );
}

#[test]
fn an_event_that_was_never_published_or_had_failed_is_a_phantom() {
    let never = row(|_, trial| ledger(trial).invoked = IntervalSet::range(0, EVENTS - 2));
    assert_eq!(found(&never), [(Anomaly::Phantom, 1)].into());
    assert!(first_example(&never, Anomaly::Phantom).contains("never published"));

    let failed = row(|_, trial| {
        let ledger = ledger(trial);
        ledger.acknowledged = vec![(1, 0, EVENTS - 1)];
        ledger.failed = IntervalSet::range(EVENTS - 1, EVENTS - 1);
    });
    assert_eq!(found(&failed), [(Anomaly::Phantom, 1)].into());
    assert!(first_example(&failed, Anomaly::Phantom).contains("definitely failed"));

    let foreign = row(|_, trial| read(trial).foreign = 2);
    assert_eq!(found(&foreign), [(Anomaly::Phantom, 2)].into());
}

#[test]
fn an_attempt_that_failed_before_a_repeat_was_acknowledged_is_no_phantom() {
    let row = row(|_, trial| ledger(trial).failed = IntervalSet::range(3, 5));
    assert_eq!(row.status, Status::Passed, "{:?}", row.verdict);
}

#[test]
fn two_shards_that_saw_different_events_at_one_seq_diverge() {
    let row = row(|_, trial| {
        trial.shards[2].seen.insert(
            STREAM.to_owned(),
            vec![(1, 0, 10), (11, 11, 1), (12, 10, 1), (13, 12, 88)],
        );
    });
    assert_eq!(found(&row).get(&Anomaly::Divergence), Some(&2));
    assert!(first_example(&row, Anomaly::Divergence).contains("shard 2"));
}

#[test]
fn a_client_that_was_not_whole_is_censored_and_its_missing_tail_is_not_lost() {
    let spoil = |trial: &mut Trial, reached: u64| {
        apart(trial, |own| {
            own.seqs = IntervalSet::range(1, reached);
            own.indexes = IntervalSet::range(0, reached - 1);
        });
    };
    let row = row(|_, trial| {
        spoil(trial, 60);
        let shard = &mut trial.shards[1];
        for phase in shard.phases.values_mut() {
            phase.censored = 1;
        }
        shard.affected += 1;
        shard.censored.push(CensoredClient {
            client: ClientId(7),
            detail: "backoff, last error: refused".to_owned(),
        });
    });
    assert_eq!(kinds(&row), only(Anomaly::NotRecovered));
    assert!(first_example(&row, Anomaly::NotRecovered).contains("Some(7)"));
    assert_eq!(row.status, Status::Failed);

    let silent = crate::builder::row(|_, trial| spoil(trial, 60));
    assert_eq!(
        found(&silent).get(&Anomaly::Lost),
        Some(&40),
        "it claims to be whole"
    );
}

#[test]
fn without_a_ledger_what_needs_it_is_not_judged() {
    let row = row(|_, trial| trial.ledger = None);
    for anomaly in [Anomaly::Lost, Anomaly::Vanished, Anomaly::Phantom] {
        assert_eq!(row.anomalies[&anomaly].count, None);
        assert_eq!(row.anomalies[&anomaly].within, None);
    }
    assert_eq!(row.status, Status::Inconclusive);
}

/// The lane was restored to what it had been ten events before, and went on from there; the clients were told that their
/// cursors were stale, and began anew from a snapshot.
fn restored(taken: impl Fn() -> Cover) -> Row {
    row(|_, trial| {
        let ledger = ledger(trial);
        ledger.invoked = IntervalSet::range(0, EVENTS + 19);
        ledger.acknowledged = vec![(1, 0, EVENTS), (EVENTS - 9, EVENTS, 20)];
        read(trial).events = vec![(1, 0, EVENTS - 10), (EVENTS - 9, EVENTS, 20)];
        for shard in &mut trial.shards[1..] {
            let applied = &mut shard.applied[0];
            let cover = taken();
            // What came after it, in rows.
            applied.seqs = IntervalSet::range(cover.watermark + 1, EVENTS + 10);
            applied.indexes = IntervalSet::range(cover.watermark + 10, EVENTS + 19);
            applied.snapshot = Some(cover);
        }
    })
}

#[test]
fn a_snapshot_covers_what_it_holds_of_the_seqs_that_are_used_again() {
    let row = restored(|| cover((0..EVENTS - 10).chain(EVENTS..EVENTS + 3)));
    let tally = &row.anomalies[&Anomaly::Lost];
    assert_eq!(
        tally.count,
        Some(10),
        "what the lane no longer has: {tally:?}"
    );
    assert_eq!((row.census.lost, row.census.missed), (10, 0));
    assert_eq!(found(&row)[&Anomaly::Divergence], 10, "the seqs themselves");
    assert_eq!(row.delivered, row.expected_deliveries);
}

#[test]
fn a_snapshot_whose_digest_is_not_the_ledger_s_covers_nothing() {
    // It leaves out the first of the events that were published after the head had gone back.
    let row = restored(|| cover((0..EVENTS - 10).chain(EVENTS + 1..EVENTS + 4)));
    let clients = u64::from(CLIENTS);
    assert_eq!(found(&row)[&Anomaly::Divergence], 10 + clients);
    let tally = &row.anomalies[&Anomaly::Divergence];
    let named = |example: &&Example| example.detail.contains("snapshot of 93 events up to 93");
    assert!(
        tally.examples.iter().any(|example| named(&example)),
        "{tally:?}"
    );
    assert_eq!(row.census.missed, 93 * clients);
    assert_eq!(found(&row)[&Anomaly::Lost], 10 + 93 * clients);
}

#[test]
fn the_oldest_events_are_as_lost_as_any_other_that_the_lane_no_longer_has() {
    let row = row(|_, trial| {
        let read = read(trial);
        assert_eq!(read.floor, 0);
        read.events = vec![(6, 5, EVENTS - 5)];
    });
    assert_eq!(found(&row)[&Anomaly::Lost], 5);
    assert_eq!(row.status, Status::Failed);
}

#[test]
fn a_probe_that_is_left_hanging_throughout_proves_no_refusal() {
    for (unreachable, expected) in [(2, Status::Passed), (3, Status::Inconclusive)] {
        let row = row(|_, trial| {
            let mut hanging = trial.shards[0].probes[0].clone();
            hanging.probe = "alg-none/connect".to_owned();
            hanging.answers.clear();
            (hanging.met, hanging.unreachable) = (0, unreachable);
            trial.shards[0].probes.push(hanging);
        });
        assert_eq!(row.status, expected, "{:?}", row.verdict);
        if expected == Status::Inconclusive {
            let reason = &row.verdict.reason;
            assert!(
                reason.contains("alg-none/connect") && reason.contains("connection refused"),
                "{reason}"
            );
        }
    }
}

#[test]
fn a_snapshot_over_history_that_nobody_knows_proves_nothing_where_nobody_else_publishes() {
    let row = row(|_, trial| {
        let applied = &mut trial.shards[1].applied[0];
        applied.initial = 1;
        applied.snapshot = Some(Cover {
            watermark: EVENTS + 50,
            snapshot: Some(Snapshot {
                count: EVENTS + 50,
                digest: "over what is in no ledger".to_owned(),
            }),
        });
    });
    assert_eq!(row.status, Status::Inconclusive, "{:?}", row.verdict);
    assert!(
        row.verdict.reason.contains("snapshots hold"),
        "{:?}",
        row.verdict
    );
}
