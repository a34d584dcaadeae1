//! Divergence: one (stream, seq), two contents, between any two of the ledger, the shards and the final read. What one
//! client sees is checked by its shard.

use model::anomaly::{Anomaly, Example};
use model::shard::SeqRuns;

use super::{Evidence, Found, Stream};
use crate::runs;

pub(super) fn check(evidence: &Evidence<'_>) -> Found {
    let mut found = Found::default();
    for (name, stream) in &evidence.streams {
        for_stream(evidence, name, stream, &mut found);
    }
    found
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
        let claims: Vec<String> = conflict
            .claims
            .iter()
            .map(|(index, holders)| {
                let names: Vec<&str> = holders.iter().map(|at| sources[*at].0.as_str()).collect();
                format!("index {index} according to {}", names.join(" and "))
            })
            .collect();
        let example = Example {
            client: None,
            stream: Some(name.to_owned()),
            seq: Some(conflict.seq),
            detail: claims.join(", "),
            at: None,
        };
        // Seqs of events that a node need not have kept are used again.
        let all_but_one = |step: u64| {
            let kept = |(index, _): &&(u64, Vec<usize>)| !stream.unpromised.contains(index + step);
            conflict.claims.iter().filter(kept).count() <= 1
        };
        found.note(
            Anomaly::Divergence,
            0..conflict.length,
            |step| all_but_one(*step),
            |_| example.clone(),
        );
    }
}
