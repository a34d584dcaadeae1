//! Divergence: one (stream, seq), two contents, between any two of the ledger, the shards and the final read; or a
//! snapshot that stands for something else than the ledger has. What one client sees is checked by its shard. So is
//! content that is not what was published, but for what only the final read finds. Where others publish too, one of their
//! events at a seq that one of the run's has is as much a divergence: a client discards whatever comes as a seq that it has
//! applied, so one of the two reaches nobody who had the other. Two of theirs are not judged.

use std::collections::BTreeSet;

use model::anomaly::{Anomaly, Example};
use model::shard::{Applied, SeqRuns};
use model::snapshot::Cover;
use model::target::World;

use super::{Evidence, Found, Stream, Verified};
use crate::runs;

pub(super) fn check(evidence: &Evidence<'_>) -> Found {
    let mut found = Found::default();
    for applied in evidence.shards.iter().flat_map(|shard| &shard.applied) {
        if let Some(cover) = &applied.snapshot
            && evidence.covered(applied) == Some(&Verified::Differs)
        {
            wrong_snapshot(applied, cover, &mut found);
        }
    }
    for (name, stream) in &evidence.streams {
        for_stream(evidence, name, stream, &mut found);
        altered(name, stream, &mut found);
        if evidence.world == World::Open {
            with_others(evidence, name, stream, &mut found);
        }
    }
    found
}

/// One of the run's events and somebody else's at one seq.
fn with_others(evidence: &Evidence<'_>, name: &str, stream: &Stream<'_>, found: &mut Found) {
    let mut foreign = stream
        .read
        .map(|read| read.foreign_at.clone())
        .unwrap_or_default();
    for shard in evidence.shards {
        if let Some(seen) = shard.foreign.get(name) {
            foreign.union(seen);
        }
    }
    let held = stream.read.iter().flat_map(|read| &read.events);
    let own: BTreeSet<(u64, u64)> = stream
        .places
        .iter()
        .chain(held)
        .flat_map(|(seq, index, length)| (0..*length).map(move |n| (seq + n, index + n)))
        .filter(|(seq, _)| foreign.contains(*seq))
        .collect();
    found.note(
        Anomaly::Divergence,
        own,
        |(_, index)| stream.unpromised.contains(*index),
        |(seq, index)| Example {
            client: None,
            stream: Some(name.to_owned()),
            seq: Some(*seq),
            detail: format!("index {index} of this run, and an event of somebody else"),
            at: None,
        },
    );
}

fn altered(name: &str, stream: &Stream<'_>, found: &mut Found) {
    let altered = stream.read.map_or(0, |read| read.altered);
    found.note(
        Anomaly::Divergence,
        0..altered,
        |_| false,
        |_| Example {
            client: None,
            stream: Some(name.to_owned()),
            seq: None,
            detail: "the lane holds an event of this run whose content was altered".to_owned(),
            at: None,
        },
    );
}

fn wrong_snapshot(applied: &Applied, cover: &Cover, found: &mut Found) {
    let Cover {
        watermark,
        snapshot: Some(snapshot),
    } = cover
    else {
        return;
    };
    found.note(
        Anomaly::Divergence,
        &applied.clients,
        |_| false,
        |client| Example {
            client: Some(**client),
            stream: Some(applied.stream.clone()),
            seq: Some(*watermark),
            detail: format!(
                "the snapshot of {} events up to {watermark} is not what was acknowledged: its digest is {}",
                snapshot.count, snapshot.digest
            ),
            at: None,
        },
    );
}

fn for_stream(evidence: &Evidence<'_>, name: &str, stream: &Stream<'_>, found: &mut Found) {
    let mut sources: Vec<(String, &SeqRuns)> = Vec::new();
    if let Some(ledger) = stream.ledger {
        sources.push(("the ledger".to_owned(), &ledger.acknowledged));
    }
    if let Some(read) = stream.read {
        sources.push(("the final read".to_owned(), &read.events));
    }
    for shard in evidence.shards {
        if let Some(runs) = shard.seen.get(name) {
            sources.push((format!("shard {}", shard.shard), runs));
        }
    }
    let runs: Vec<&SeqRuns> = sources.iter().map(|(_, runs)| *runs).collect();
    for conflict in runs::conflicts(&runs) {
        let example = |step: u64| {
            let claims: Vec<String> = conflict
                .claims
                .iter()
                .map(|(index, holders)| {
                    let names: Vec<&str> =
                        holders.iter().map(|at| sources[*at].0.as_str()).collect();
                    format!(
                        "index {} according to {}",
                        index + step,
                        names.join(" and ")
                    )
                })
                .collect();
            Example {
                client: None,
                stream: Some(name.to_owned()),
                seq: Some(conflict.seq + step),
                detail: claims.join(", "),
                at: None,
            }
        };
        // Seqs of events that a node need not have kept are used again.
        let all_but_one = |step: u64| {
            let kept = |(index, _): &&(u64, Vec<usize>)| {
                !stream.may_be_gone_from(index + step, conflict.seq + step)
            };
            conflict.claims.iter().filter(kept).count() <= 1
        };
        found.note(
            Anomaly::Divergence,
            0..conflict.length,
            |step| all_but_one(*step),
            |step| example(*step),
        );
    }
}
