//! Lost: acknowledged, and no longer held by the lane, whoever saw it meanwhile: once for each event; or held by it,
//! eligible for a client, and absent from what that client had in the end: once for each such client.
//!
//! The end of a client that was not whole when the deadline passed is not known: what lies above the highest seq that
//! it applied may still have been on its way. That client is `not_recovered`, which fails the trial too, but not a
//! trial that is invalid for another reason. A hole below the highest seq that it applied is lost all the same.

use model::anomaly::{Anomaly, Example};
use model::shard::{Applied, SeqRuns};

use super::{Evidence, Found, Stream};
use crate::{runs, text};

pub(super) fn check(evidence: &Evidence<'_>) -> Found {
    let mut found = Found::default();
    for applied in evidence.shards.iter().flat_map(|shard| &shard.applied) {
        if let Some(stream) = evidence.streams.get(&applied.stream) {
            lost_by_clients(evidence, stream, applied, &mut found);
        }
    }
    for (name, stream) in &evidence.streams {
        lost_by_lane(evidence, name, stream, &mut found);
    }
    found
}

/// (client, event) pairs that had to be delivered, and how many of them were. What the lane itself has lost nobody can
/// be brought any more.
pub(crate) fn deliveries(evidence: &Evidence<'_>) -> (u64, u64) {
    let (mut expected, mut delivered) = (0, 0);
    for applied in evidence.shards.iter().flat_map(|shard| &shard.applied) {
        if let Some(stream) = evidence.streams.get(&applied.stream) {
            let clients = applied.clients.len() as u64;
            let eligible = runs::indexes(&eligible(stream, evidence.judged_above(applied)));
            let absent = eligible.difference(&evidence.held(applied));
            expected += eligible.len() * clients;
            delivered += (eligible.len() - absent.len()) * clients;
        }
    }
    (expected, delivered)
}

/// What a client that began at a cursor had to get: acknowledged events that are not gone, above it, up to the highest
/// seq that the lane had acknowledged.
pub(super) fn eligible(stream: &Stream<'_>, initial: u64) -> SeqRuns {
    let highest = stream
        .ledger
        .and_then(|ledger| runs::highest(&ledger.acknowledged))
        .unwrap_or(0);
    let there = stream.acknowledged.difference(&stream.gone);
    runs::clip(
        &runs::only(&stream.places, &there),
        initial.saturating_add(1),
        highest,
    )
}

fn lost_by_clients(
    evidence: &Evidence<'_>,
    stream: &Stream<'_>,
    applied: &Applied,
    found: &mut Found,
) {
    let eligible = eligible(stream, evidence.judged_above(applied));
    let absent = runs::indexes(&eligible).difference(&evidence.held(applied));
    if absent.is_empty() {
        return;
    }
    let watermark = applied.snapshot.as_ref().map(|cover| cover.watermark);
    let reached = applied.seqs.max().max(watermark).unwrap_or(applied.initial);
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

fn lost_by_lane(evidence: &Evidence<'_>, name: &str, stream: &Stream<'_>, found: &mut Found) {
    let Some(read) = stream.read else {
        return;
    };
    found.note(
        Anomaly::Lost,
        stream.gone.iter(),
        |index| stream.unpromised.contains(*index),
        |index| Example {
            client: None,
            stream: Some(name.to_owned()),
            seq: runs::seq_of(&stream.places, *index),
            detail: {
                let ended = evidence.outlived(stream, *index);
                let ended = ended.map_or(String::new(), |age| {
                    format!("; the node's end was seen {} later", text::span(age))
                });
                format!(
                    "index {index} was acknowledged, absent from the lane at the end (head {}, floor {}){ended}",
                    read.head, read.floor
                )
            },
            at: None,
        },
    );
}
