//! The checks that need the ledger and the final read; everything else is checked by the shards while it happens.
//!
//! ```text
//! lost         acknowledged, eligible, absent at the end
//! vanished     seen by some client, then gone
//! phantom      never invoked, or definitely failed
//! divergence   one (stream, seq), two contents
//! ```
//!
//! Events are known by their index. A check that panics is named and makes the trial inconclusive; it takes no other
//! check with it.

mod divergence;
mod lost;
mod phantom;
mod vanished;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use model::anomaly::{Anomaly, Findings};
use model::ids::{ClientId, StreamId};
use model::intervals::IntervalSet;
use model::shard::{FinalRead, Ledger, SeqRuns, ShardReport, StreamLedger, StreamRead};

pub(crate) use lost::deliveries;

/// What the checks look at.
pub(crate) struct Evidence<'a> {
    pub(crate) shards: &'a [ShardReport],
    /// By stream.
    pub(crate) streams: BTreeMap<StreamId, Stream<'a>>,
    /// Clients that are known not to be whole: what they have not reached yet is not lost, they are `not_recovered`.
    pub(crate) unfinished: Unfinished,
}

/// One stream's evidence.
pub(crate) struct Stream<'a> {
    pub(crate) ledger: Option<&'a StreamLedger>,
    pub(crate) read: Option<&'a StreamRead>,
    /// Indexes acknowledged: by the lane's word, or because a client has seen an event of unknown outcome.
    pub(crate) acknowledged: IntervalSet,
    /// Indexes that some client has seen.
    pub(crate) seen: IntervalSet,
    /// Where each was put, by the ledger first, then by the shards.
    pub(crate) places: SeqRuns,
}

/// Clients that were not whole when the trial ended.
pub(crate) enum Unfinished {
    /// These.
    Known(BTreeSet<ClientId>),
    /// The trial was cut off, or the shards counted more than they named.
    Any,
}

impl Unfinished {
    pub(crate) fn contains(&self, client: ClientId) -> bool {
        match self {
            Self::Known(clients) => clients.contains(&client),
            Self::Any => true,
        }
    }
}

impl<'a> Evidence<'a> {
    pub(crate) fn new(
        ledger: &'a Ledger,
        final_read: Option<&'a FinalRead>,
        shards: &'a [ShardReport],
        unfinished: Unfinished,
    ) -> Self {
        let names: BTreeSet<&StreamId> = ledger
            .streams
            .keys()
            .chain(shards.iter().flat_map(|shard| shard.seen.keys()))
            .collect();
        let streams = names
            .into_iter()
            .map(|name| {
                let own = ledger.streams.get(name);
                let reports: Vec<&SeqRuns> = shards
                    .iter()
                    .filter_map(|shard| shard.seen.get(name))
                    .collect();
                let mut seen = IntervalSet::default();
                for runs in &reports {
                    seen.union(&crate::runs::indexes(runs));
                }
                let mut acknowledged = own
                    .map(|own| crate::runs::indexes(&own.acknowledged))
                    .unwrap_or_default();
                if let Some(own) = own {
                    let unseen = own.unknown.difference(&seen);
                    acknowledged.union(&own.unknown.difference(&unseen));
                }
                let places = own
                    .map(|own| &own.acknowledged)
                    .into_iter()
                    .chain(reports)
                    .flatten()
                    .copied()
                    .collect();
                let read = final_read.and_then(|read| read.streams.get(name));
                let stream = Stream {
                    ledger: own,
                    read,
                    acknowledged,
                    seen,
                    places,
                };
                (name.clone(), stream)
            })
            .collect();
        Self {
            shards,
            streams,
            unfinished,
        }
    }
}

type Check = (Anomaly, fn(&Evidence<'_>) -> Findings);

/// Every check that needs the ledger.
pub(crate) const CHECKS: [Check; 4] = [
    (Anomaly::Lost, lost::check),
    (Anomaly::Vanished, vanished::check),
    (Anomaly::Phantom, phantom::check),
    (Anomaly::Divergence, divergence::check),
];

/// Runs checks; what they found, and what those that panicked said.
pub(crate) fn run(checks: &[Check], evidence: &Evidence<'_>) -> (Findings, Vec<String>) {
    let (mut findings, mut broken) = (Findings::default(), Vec::new());
    for (anomaly, check) in checks {
        match guarded(|| check(evidence)) {
            Ok(found) => findings.merge(&found),
            Err(message) => broken.push(format!("{anomaly}: {message}")),
        }
    }
    (findings, broken)
}

/// Runs something that must not take the trial with it; a panic becomes its message.
pub(crate) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| message(payload.as_ref()))
}

fn message(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panicked without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_panics_is_named_and_the_others_go_on() {
        fn breaks(_: &Evidence<'_>) -> Findings {
            panic!("index out of bounds")
        }
        let ledger = Ledger::default();
        let evidence = Evidence::new(&ledger, None, &[], Unfinished::Any);
        let (findings, broken) = run(
            &[
                (Anomaly::Lost, breaks),
                (Anomaly::Phantom, |_| {
                    let mut findings = Findings::default();
                    findings.note_many(Anomaly::Phantom, 2, []);
                    findings
                }),
            ],
            &evidence,
        );
        assert_eq!(broken, ["lost: index out of bounds"]);
        assert_eq!(findings.count(Anomaly::Phantom), 2);
    }
}
