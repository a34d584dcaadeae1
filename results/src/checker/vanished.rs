//! Vanished: seen by some client, then gone from the lane, or replaced at its seq by another event.

use std::collections::BTreeSet;

use model::anomaly::{Anomaly, Example};

use super::{Evidence, Found, Stream};
use crate::runs;

/// The place of the final read among the sources.
const HELD: usize = 0;

pub(super) fn check(evidence: &Evidence<'_>) -> Found {
    let mut found = Found::default();
    for (name, stream) in &evidence.streams {
        for_stream(name, stream, &mut found);
    }
    found
}

fn for_stream(name: &str, stream: &Stream<'_>, found: &mut Found) {
    let Some(read) = stream.read else {
        return;
    };
    let seen = runs::only(&stream.places, &stream.seen);
    let gone = stream.seen.difference(&runs::indexes(&read.events));
    let mut vanished: BTreeSet<(u64, u64)> = runs::only(&seen, &gone)
        .into_iter()
        .flat_map(|(seq, index, length)| (0..length).map(move |n| (index + n, seq + n)))
        .filter(|(_, seq)| *seq > read.floor)
        .collect();
    for conflict in runs::conflicts(&[&read.events, &seen]) {
        for step in 0..conflict.length {
            let seq = conflict.seq + step;
            vanished.extend(
                conflict
                    .claims
                    .iter()
                    .filter(|(_, sources)| !sources.contains(&HELD))
                    .map(|(index, _)| (index + step, seq)),
            );
        }
    }
    // An event that was seen at several seqs is one event.
    let mut counted = BTreeSet::new();
    vanished.retain(|(index, _)| counted.insert(*index));
    found.note(
        Anomaly::Vanished,
        vanished,
        |(index, seq)| stream.may_be_gone_from(*index, *seq),
        |(index, seq)| Example {
            client: None,
            stream: Some(name.to_owned()),
            seq: Some(*seq),
            detail: match runs::index_at(&read.events, *seq) {
                Some(other) => format!(
                    "index {index} was seen by clients at this seq, where the lane now holds index {other}"
                ),
                None => format!(
                    "index {index} was seen by clients and is gone from the lane (head {}, floor {})",
                    read.head, read.floor
                ),
            },
            at: None,
        },
    );
}
