//! What a target does not promise is found, told apart, and not held against it; what it does promise is.

use std::collections::BTreeSet;

use model::anomaly::Anomaly;
use model::fault::{Fault, Kill};
use model::ids::ClientId;
use model::instant::Mono;
use model::intervals::IntervalSet;
use model::quantity::Span;
use model::shard::{Regression, StreamRead};
use model::target::Durability;
use model::trial::Trial;
use results::{Row, Status};

use crate::builder::{EVENTS, STREAM, found, kinds, ledger, read, row};

const WINDOW: Span = Span::from_millis(500);

/// The lane is killed, and the newest `lost` events are gone with it; each was acknowledged `apart` before the next, the
/// newest just before the kill.
fn killed(promise: Durability, lost: u64, apart: Span) -> Row {
    row(|plan, trial| {
        plan.target.promise.acknowledged = promise;
        plan.steps[0].fault = Fault::Kill(Kill {});
        let fault = &mut trial.faults[0];
        fault.fault = Fault::Kill(Kill {});
        let kill = fault.view.as_ref().unwrap().injected.asked;
        lose(trial, lost, |back| kill - apart.scale(back as f64));
    })
}

fn lose(trial: &mut Trial, lost: u64, acknowledged: impl Fn(u64) -> Mono) {
    let left = EVENTS - lost;
    ledger(trial).acknowledged_at = (0..EVENTS)
        .map(|index| (index, acknowledged(EVENTS - index)))
        .collect();
    *read(trial) = StreamRead {
        floor: 0,
        head: left,
        events: vec![(1, 0, left)],
        ..StreamRead::default()
    };
    // Clients that noticed began anew and hold what the lane holds.
    for shard in &mut trial.shards[1..] {
        shard.applied[0].seqs = IntervalSet::range(1, left);
        shard.applied[0].indexes = IntervalSet::range(0, left - 1);
        shard.regressions = vec![Regression {
            client: ClientId(3),
            stream: STREAM.to_owned(),
            cursor: EVENTS,
            head: left,
            at: Mono(1),
        }];
    }
}

fn unpromised(row: &Row) -> BTreeSet<Anomaly> {
    row.anomalies
        .iter()
        .filter(|(_, tally)| tally.unpromised.is_some())
        .map(|(anomaly, _)| *anomaly)
        .collect()
}

#[test]
fn what_is_lost_within_the_window_is_reported_and_not_held_against_the_target() {
    let row = killed(Durability::Within(WINDOW), 4, Span::from_millis(100));
    assert_eq!(found(&row).len(), 0, "{:?}", found(&row));
    let all = [Anomaly::Lost, Anomaly::Vanished, Anomaly::StaleCursor];
    assert_eq!(unpromised(&row), BTreeSet::from(all));
    let lost = row.anomalies[&Anomaly::Lost].unpromised.as_ref().unwrap();
    assert_eq!(lost.count, 4, "each once, whoever saw it");
    assert_eq!((row.census.lost, row.census.missed), (4, 0));
    assert!(lost.examples[0].detail.contains("acknowledged"));
    assert_eq!(row.status, Status::Passed, "{:?}", row.verdict);
}

#[test]
fn what_is_older_than_the_window_is_lost_in_earnest() {
    let row = killed(Durability::Within(WINDOW), 8, Span::from_millis(100));
    assert_eq!(found(&row)[&Anomaly::Lost], 3);
    let oldest = &row.anomalies[&Anomaly::Lost].examples[0].detail;
    assert!(
        oldest.contains("the node's end was seen 801 ms later"),
        "{oldest}"
    );
    assert_eq!(found(&row)[&Anomaly::Vanished], 3);
    assert_eq!(found(&row)[&Anomaly::StaleCursor], 2, "it spans both kinds");
    assert_eq!(row.status, Status::Failed);
}

#[test]
fn a_target_that_promises_durability_has_no_window() {
    let row = killed(Durability::Durable, 1, Span::from_millis(1));
    let all = [Anomaly::Lost, Anomaly::Vanished, Anomaly::StaleCursor];
    assert_eq!(kinds(&row), BTreeSet::from(all));
    assert_eq!(unpromised(&row), BTreeSet::new());
}

#[test]
fn a_seq_that_is_used_again_diverges_only_where_its_first_event_had_to_be_kept() {
    for (age, divergent) in [(Span::from_millis(100), false), (Span::from_secs(2), true)] {
        let row = row(|plan, trial| {
            plan.target.promise.acknowledged = Durability::Within(WINDOW);
            plan.steps[0].fault = Fault::Kill(Kill {});
            trial.faults[0].fault = Fault::Kill(Kill {});
            let kill = trial.faults[0].view.as_ref().unwrap().injected.asked;
            // The last event went with the kill; one that was published later took its seq.
            let ledger = ledger(trial);
            ledger.invoked = IntervalSet::range(0, EVENTS);
            ledger.acknowledged = vec![(1, 0, EVENTS), (EVENTS, EVENTS, 1)];
            ledger.acknowledged_at = vec![
                (EVENTS - 1, kill - age),
                (EVENTS, kill + Span::from_secs(6)),
            ];
            read(trial).events = vec![(1, 0, EVENTS - 1), (EVENTS, EVENTS, 1)];
            for shard in &mut trial.shards[1..] {
                let both = vec![(1, 0, EVENTS), (EVENTS, EVENTS, 1)];
                shard.seen.insert(STREAM.to_owned(), both);
                shard.applied[0].indexes = IntervalSet::range(0, EVENTS);
            }
        });
        assert_eq!(
            kinds(&row).contains(&Anomaly::Divergence),
            divergent,
            "{:?}",
            row.verdict
        );
        assert_eq!(unpromised(&row).contains(&Anomaly::Divergence), !divergent);
    }
}

#[test]
fn a_final_read_that_the_lane_s_own_count_contradicts_proves_nothing() {
    for (count, status) in [(EVENTS, Status::Passed), (EVENTS + 1, Status::Inconclusive)] {
        let row = row(|_, trial| {
            let lane = trial.lane.as_mut().unwrap();
            lane.held.insert(STREAM.to_owned(), count);
        });
        assert_eq!(row.status, status, "{:?}", row.verdict);
        assert_eq!(row.census.counted, Some(count));
        assert_eq!(
            (row.census.acknowledged, row.census.read),
            (2 * EVENTS, 2 * EVENTS)
        );
    }
}

#[test]
fn a_fault_that_ends_no_node_excuses_nothing() {
    let row = row(|plan, trial| {
        plan.target.promise.acknowledged = Durability::Within(WINDOW);
        let hold = trial.faults[0].view.as_ref().unwrap().injected.asked;
        lose(trial, 1, |_| hold);
    });
    assert!(kinds(&row).contains(&Anomaly::Lost));
    assert_eq!(unpromised(&row), BTreeSet::new());
}

/// What was committed and seen, but not acknowledged before the kill took it, and was acknowledged at another seq when
/// it was submitted again, was never promised at the first.
#[test]
fn an_event_that_was_submitted_again_need_not_stay_where_it_was_first_seen() {
    for (promise, excused) in [
        (Durability::Within(WINDOW), true),
        (Durability::Durable, false),
    ] {
        let row = row(|plan, trial| {
            plan.target.promise.acknowledged = promise;
            plan.steps[0].fault = Fault::Kill(Kill {});
            trial.faults[0].fault = Fault::Kill(Kill {});
            // The last was seen at seq 100; after the kill another took that seq, and the last came after it.
            let ledger = ledger(trial);
            ledger.invoked = IntervalSet::range(0, EVENTS);
            ledger.acknowledged = vec![(1, 0, EVENTS - 1), (EVENTS, EVENTS, 1)];
            ledger.acknowledged.push((EVENTS + 1, EVENTS - 1, 1));
            ledger.repeated = IntervalSet::range(EVENTS - 1, EVENTS - 1);
            let held = ledger.acknowledged.clone();
            read(trial).events.clone_from(&held);
            for shard in &mut trial.shards[1..] {
                let mut seen = held.clone();
                seen.push((EVENTS, EVENTS - 1, 1));
                shard.seen.insert(STREAM.to_owned(), seen);
                shard.applied[0].seqs = IntervalSet::range(1, EVENTS + 1);
                shard.applied[0].indexes = IntervalSet::range(0, EVENTS);
            }
        });
        let both = BTreeSet::from([Anomaly::Vanished, Anomaly::Divergence]);
        let nothing = BTreeSet::new();
        let (earnest, spared) = if excused {
            (nothing, both)
        } else {
            (both, nothing)
        };
        assert_eq!(kinds(&row), earnest, "{:?}", row.verdict);
        assert_eq!(unpromised(&row), spared);
    }
}

#[test]
fn a_client_whose_cursor_was_overtaken_unnoticed_lacks_what_took_the_seqs_and_has_a_stale_cursor() {
    let row = row(|plan, trial| {
        plan.target.promise.acknowledged = Durability::Within(WINDOW);
        plan.steps[0].fault = Fault::Kill(Kill {});
        trial.faults[0].fault = Fault::Kill(Kill {});
        let kill = trial.faults[0].view.as_ref().unwrap().injected.asked;
        // The last ten went with the kill, when clients had them; the next fifteen took their seqs and went on.
        let ledger = ledger(trial);
        ledger.invoked = IntervalSet::range(0, EVENTS + 14);
        ledger.acknowledged = vec![(1, 0, EVENTS), (EVENTS - 9, EVENTS, 15)];
        let at = |index| {
            if index < EVENTS {
                kill
            } else {
                kill + Span::from_secs(6)
            }
        };
        ledger.acknowledged_at = (EVENTS - 10..EVENTS + 15)
            .map(|index| (index, at(index)))
            .collect();
        let seen = ledger.acknowledged.clone();
        read(trial).events = vec![(1, 0, EVENTS - 10), (EVENTS - 9, EVENTS, 15)];
        for shard in &mut trial.shards[1..] {
            shard.seen.insert(STREAM.to_owned(), seen.clone());
            shard.applied[0].seqs = IntervalSet::range(1, EVENTS + 5);
            shard.applied[0].indexes = IntervalSet::range(0, EVENTS - 11);
            shard.applied[0].indexes.insert_range(EVENTS, EVENTS + 14);
        }
        // Two of them did not begin anew.
        let group = &mut trial.shards[1].applied[0];
        let mut overtaken = group.clone();
        overtaken.clients = group.clients.split_off(58);
        overtaken.indexes = IntervalSet::range(0, EVENTS - 1);
        overtaken.indexes.insert_range(EVENTS + 10, EVENTS + 14);
        trial.shards[1].applied.push(overtaken);
    });
    let counts = found(&row);
    assert_eq!(
        counts.get(&Anomaly::StaleCursor),
        Some(&2),
        "{:?}",
        row.verdict
    );
    assert_eq!(
        counts.get(&Anomaly::Lost),
        Some(&20),
        "ten for each, held by the lane"
    );
    let lost = row.anomalies[&Anomaly::Lost].unpromised.as_ref().unwrap();
    assert_eq!(lost.count, 10, "gone from the lane");
    assert_eq!((row.census.lost, row.census.missed), (10, 20));
    assert_eq!(row.census.acknowledged - row.census.read, 10);
    let example = &row.anomalies[&Anomaly::StaleCursor].examples[0];
    assert!(
        example
            .detail
            .contains("of seqs 91 to 100 the lane holds 10"),
        "{}",
        example.detail
    );
}

#[test]
fn an_acknowledgement_that_is_read_after_the_end_was_given_before_it() {
    for (from_heal, excused) in [(-1, true), (1, false)] {
        let row = row(|plan, trial| {
            plan.target.promise.acknowledged = Durability::Within(WINDOW);
            plan.steps[0].fault = Fault::Kill(Kill {});
            let fault = &mut trial.faults[0];
            fault.fault = Fault::Kill(Kill {});
            let started = fault.view.as_ref().unwrap().healed.unwrap().asked;
            let read = Mono(started.0.checked_add_signed(from_heal).unwrap());
            lose(trial, 1, |_| read);
        });
        assert_eq!(
            found(&row).contains_key(&Anomaly::Lost),
            !excused,
            "{:?}",
            row.verdict
        );
        assert_eq!(unpromised(&row).contains(&Anomaly::Lost), excused);
    }
}
