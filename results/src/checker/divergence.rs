//! Divergence: one (stream, seq), two contents, between any two of the ledger, the shards and the final read; or a
//! snapshot that stands for something else than the ledger has. What one client sees is checked by its shard.

use model::anomaly::{Anomaly, Example};
use model::shard::{Applied, SeqRuns};
use model::snapshot::Cover;

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
    }
    found
}

fn wrong_snapshot(applied: &Applied, cover: &Cover, found: &mut Found) {
    found.note(
        Anomaly::Divergence,
        &applied.clients,
        |_| false,
        |client| Example {
            client: Some(**client),
            stream: Some(applied.stream.clone()),
            seq: Some(cover.watermark),
            detail: format!(
                "the snapshot of {} events up to {} is not what was acknowledged: its digest is {}",
                cover.snapshot.count, cover.watermark, cover.snapshot.digest
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
