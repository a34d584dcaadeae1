//! A head that went back behind what a client had already applied, on a lane that says nothing of it.
//!
//! The clients of a drill compare, and begin anew; a client that does not never sees what is put at the seqs that are
//! used again. Where the head has come past the cursor again before the client resumes, there is nothing left to
//! compare: the cursor is of another history, and nobody notices. That shows in the end, by a client that has come
//! past seqs at which the lane now holds events that it never got.

use model::anomaly::{Anomaly, Example};
use model::intervals::IntervalSet;
use model::shard::Applied;
use model::target::World;

use super::{Evidence, Found, Stream, lost};
use crate::runs;

pub(super) fn check(evidence: &Evidence<'_>) -> Found {
    let mut found = Found::default();
    noticed(evidence, &mut found);
    for applied in evidence.shards.iter().flat_map(|shard| &shard.applied) {
        if let Some(stream) = evidence.streams.get(&applied.stream) {
            overtaken(evidence, stream, applied, &mut found);
        }
    }
    found
}

fn noticed(evidence: &Evidence<'_>, found: &mut Found) {
    for regression in evidence.shards.iter().flat_map(|shard| &shard.regressions) {
        let stream = evidence.streams.get(&regression.stream);
        // What lay between the head and the cursor was all of it such as the node need not have kept.
        let excused = stream.is_some_and(|stream| {
            let gone = runs::clip(
                &stream.places,
                regression.head.saturating_add(1),
                regression.cursor,
            );
            let gone = runs::indexes(&gone).difference(&stream.unpromised);
            // Where others publish too, all that is gone may be theirs.
            let may_lose = match evidence.world {
                World::Closed => !stream.unpromised.is_empty(),
                World::Open => evidence.may_lose,
            };
            may_lose
                && gone.iter().all(|index| {
                    // A later event that took one of those seqs is none that is gone.
                    stream
                        .read
                        .is_some_and(|read| runs::indexes(&read.events).contains(index))
                })
        });
        found.note(
            Anomaly::StaleCursor,
            [regression],
            |_| excused,
            |regression| Example {
                client: Some(regression.client),
                stream: Some(regression.stream.clone()),
                seq: Some(regression.cursor),
                detail: format!(
                    "resumed after {}, the lane's head was {}, and it said nothing: the client began anew",
                    regression.cursor, regression.head
                ),
                at: Some(regression.at),
            },
        );
    }
}

fn overtaken(evidence: &Evidence<'_>, stream: &Stream<'_>, applied: &Applied, found: &mut Found) {
    let Some(read) = stream.read else {
        return;
    };
    let eligible = runs::indexes(&lost::eligible(stream, evidence.judged_above(applied)));
    let missed = eligible.difference(&evidence.held(applied));
    if missed.is_empty() {
        return;
    }
    let mut used_again = IntervalSet::default();
    for conflict in runs::conflicts(&[&stream.places]) {
        used_again.insert_range(conflict.seq, conflict.seq + (conflict.length - 1));
    }
    let passed = |seq: &u64| applied.seqs.contains(*seq) && used_again.contains(*seq);
    let seqs: Vec<u64> = runs::only(&read.events, &missed)
        .iter()
        .flat_map(|(seq, _, length)| *seq..seq + length)
        .filter(passed)
        .collect();
    let (Some(first), Some(last)) = (seqs.first(), seqs.last()) else {
        return;
    };
    found.note(
        Anomaly::StaleCursor,
        &applied.clients,
        |_| false,
        |client| Example {
            client: Some(**client),
            stream: Some(applied.stream.clone()),
            seq: Some(*first),
            detail: format!(
                "the head went back and came past the cursor again: of seqs {first} to {last} the lane holds {} \
                 events that never came, because the cursor had passed them, and neither side noticed",
                seqs.len()
            ),
            at: None,
        },
    );
}
