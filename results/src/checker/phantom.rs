//! Phantom: an event that was never invoked, or whose publish definitely failed, and yet was seen by a client or is
//! held by the lane. In a closed world what the lane holds in this run's streams and this run did not publish is a phantom
//! too; in an open one it is somebody else's.

use model::anomaly::{Anomaly, EXAMPLES_KEPT, Example, Findings};
use model::intervals::IntervalSet;
use model::target::World;

use super::{Evidence, Found, Stream};
use crate::runs;

pub(super) fn check(evidence: &Evidence<'_>) -> Found {
    let mut findings = Findings::default();
    for (name, stream) in &evidence.streams {
        for_stream(evidence.world, name, stream, &mut findings);
    }
    findings.into()
}

fn for_stream(world: World, name: &str, stream: &Stream<'_>, findings: &mut Findings) {
    let nothing = IntervalSet::default();
    let (invoked, failed) = stream.ledger.map_or((&nothing, &nothing), |ledger| {
        (&ledger.invoked, &ledger.failed)
    });
    // A repeat with the same key may succeed after an attempt that failed.
    let failed = failed.difference(&stream.acknowledged);
    let mut there = stream.seen.clone();
    if let Some(read) = stream.read {
        there.union(&runs::indexes(&read.events));
    }
    let mut phantoms = there.difference(invoked);
    phantoms.union(&there.difference(&there.difference(&failed)));

    let seq = |index| {
        runs::seq_of(&stream.places, index).or_else(|| {
            stream
                .read
                .and_then(|read| runs::seq_of(&read.events, index))
        })
    };
    let examples = phantoms.iter().take(EXAMPLES_KEPT).map(|index| {
        let what = if invoked.contains(index) {
            "its publish had definitely failed"
        } else {
            "it was never published"
        };
        let by_whom = if stream.seen.contains(index) {
            "a client received it"
        } else {
            "the lane holds it at the end"
        };
        Example {
            client: None,
            stream: Some(name.to_owned()),
            seq: seq(index),
            detail: format!("index {index}: {by_whom}, and {what}"),
            at: None,
        }
    });
    findings.note_many(Anomaly::Phantom, phantoms.len(), examples);

    if world == World::Closed
        && let Some(read) = stream.read
    {
        let detail = format!(
            "the lane holds {} rows that are not this run's",
            read.foreign
        );
        let example = Example {
            client: None,
            stream: Some(name.to_owned()),
            seq: None,
            detail,
            at: None,
        };
        findings.note_many(Anomaly::Phantom, read.foreign, [example]);
    }
}
