//! Lost: acknowledged, eligible for a client, and absent from what it had applied at the end; or acknowledged and no
//! longer held by the lane, whoever saw it meanwhile.
//!
//! The end of a client that was not whole when the deadline passed is not known: what lies above the highest seq that
//! it applied may still have been on its way. That client is `not_recovered`, which fails the trial too, but not a
//! trial that is invalid for another reason. A hole below the highest seq that it applied is lost all the same.

use model::anomaly::{Anomaly, Example};
use model::intervals::IntervalSet;
use model::shard::{Applied, SeqRuns};

use super::{Evidence, Found, Stream};
use crate::runs;

pub(super) fn check(evidence: &Evidence<'_>) -> Found {
    let mut found = Found::default();
    for applied in evidence.shards.iter().flat_map(|shard| &shard.applied) {
        if let Some(stream) = evidence.streams.get(&applied.stream) {
            lost_by_clients(evidence, stream, applied, &mut found);
        }
    }
    for (name, stream) in &evidence.streams {
        lost_by_lane(name, stream, &mut found);
    }
    found
}

/// (client, event) pairs that had to be delivered, and how many of them were.
pub(crate) fn deliveries(evidence: &Evidence<'_>) -> (u64, u64) {
    let (mut expected, mut delivered) = (0, 0);
    for applied in evidence.shards.iter().flat_map(|shard| &shard.applied) {
        if let Some(stream) = evidence.streams.get(&applied.stream) {
            let clients = applied.clients.len() as u64;
            let eligible = runs::indexes(&eligible(stream, applied.initial));
            let absent = eligible.difference(&applied.indexes);
            expected += eligible.len() * clients;
            delivered += (eligible.len() - absent.len()) * clients;
        }
    }
    (expected, delivered)
}

/// What a client that began at a cursor had to get: acknowledged events above it, up to the highest seq that the
/// lane had acknowledged.
fn eligible(stream: &Stream<'_>, initial: u64) -> SeqRuns {
    let highest = stream
        .ledger
        .and_then(|ledger| runs::highest(&ledger.acknowledged))
        .unwrap_or(0);
    let acknowledged = runs::only(&stream.places, &stream.acknowledged);
    runs::clip(&acknowledged, initial.saturating_add(1), highest)
}

fn lost_by_clients(
    evidence: &Evidence<'_>,
    stream: &Stream<'_>,
    applied: &Applied,
    found: &mut Found,
) {
    let eligible = eligible(stream, applied.initial);
    let absent = runs::indexes(&eligible).difference(&applied.indexes);
    if absent.is_empty() {
        return;
    }
    let reached = applied.seqs.max().unwrap_or(applied.initial);
    let (ahead, holes): (Vec<u64>, Vec<u64>) = absent
        .iter()
        .partition(|index| runs::seq_of(&eligible, *index).is_some_and(|seq| seq > reached));
    for client in &applied.clients {
        let excused = evidence.unfinished.contains(*client);
        let ahead = (!excused).then_some(&ahead);
        found.note(
            Anomaly::Lost,
            holes.iter().chain(ahead.into_iter().flatten()),
            |index| stream.unpromised.contains(**index),
            |index| Example {
                client: Some(*client),
                stream: Some(applied.stream.clone()),
                seq: runs::seq_of(&eligible, **index),
                detail: format!(
                    "index {index} was acknowledged and never applied; applied up to seq {reached}"
                ),
                at: None,
            },
        );
    }
}

fn lost_by_lane(name: &str, stream: &Stream<'_>, found: &mut Found) {
    let Some(read) = stream.read else {
        return;
    };
    let absent: IntervalSet = stream.acknowledged.difference(&runs::indexes(&read.events));
    // At or below the floor the lane may have let go of it.
    let kept: Vec<(u64, u64)> = absent
        .iter()
        .filter_map(|index| Some((index, runs::seq_of(&stream.places, index)?)))
        .filter(|(_, seq)| *seq > read.floor)
        .collect();
    found.note(
        Anomaly::Lost,
        kept,
        |(index, _)| stream.unpromised.contains(*index),
        |(index, seq)| Example {
            client: None,
            stream: Some(name.to_owned()),
            seq: Some(*seq),
            detail: format!(
                "index {index} was acknowledged, absent from the lane at the end (head {}, floor {})",
                read.head, read.floor
            ),
            at: None,
        },
    );
}
