//! The checks that need the ledger and the final read; everything else is checked by the shards while it happens.
//!
//! ```text
//! lost         acknowledged, eligible, absent at the end
//! vanished     seen by some client, then gone
//! phantom      never invoked, or definitely failed
//! divergence   one (stream, seq), two contents
//! regressed    a head that went back behind a client's cursor, and a lane that said nothing of it
//! ```
//!
//! Where a target promises to keep events only some time after it acknowledged them, what it loses before that is found
//! all the same, and told apart: it is no breach, and nothing that a client would not suffer from.
//!
//! Events are known by their index. A check that panics is named and makes the trial inconclusive; it takes no other
//! check with it.

mod divergence;
mod lost;
mod phantom;
mod regressed;
mod vanished;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use model::anomaly::{Anomaly, EXAMPLES_KEPT, Example, Findings};
use model::ids::{ClientId, StreamId};
use model::instant::Mono;
use model::intervals::IntervalSet;
use model::shard::{FinalRead, Ledger, SeqRuns, ShardReport, StreamLedger, StreamRead};
use model::target::World;

pub(crate) use lost::deliveries;

/// What the checks look at.
pub(crate) struct Evidence<'a> {
    pub(crate) shards: &'a [ShardReport],
    /// By stream.
    pub(crate) streams: BTreeMap<StreamId, Stream<'a>>,
    /// Clients that are known not to be whole: what they have not reached yet is not lost, they are `not_recovered`.
    pub(crate) unfinished: Unfinished,
    /// Whether others publish to the streams.
    pub(crate) world: World,
    /// Whether a node was ended whose last acknowledgements the target need not have kept.
    pub(crate) may_lose: bool,
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
    /// Indexes of which the target does not promise that they survived.
    pub(crate) unpromised: IntervalSet,
}

/// What the checks found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Against what the target promises, or what any target has to keep.
    pub(crate) broken: Findings,
    /// Within what it does not promise.
    pub(crate) unpromised: Findings,
}

impl Found {
    fn merge(&mut self, other: &Self) {
        self.broken.merge(&other.broken);
        self.unpromised.merge(&other.unpromised);
    }

    /// Counts items, each on its side; `examples` shows one of them.
    fn note<T>(
        &mut self,
        anomaly: Anomaly,
        items: impl IntoIterator<Item = T>,
        is_unpromised: impl Fn(&T) -> bool,
        example: impl Fn(&T) -> Example,
    ) {
        let (excused, counted): (Vec<T>, Vec<T>) = items.into_iter().partition(is_unpromised);
        for (side, items) in [(&mut self.broken, counted), (&mut self.unpromised, excused)] {
            let examples = items.iter().take(EXAMPLES_KEPT).map(&example);
            side.note_many(anomaly, items.len() as u64, examples);
        }
    }
}

impl From<Findings> for Found {
    fn from(broken: Findings) -> Self {
        Self {
            broken,
            unpromised: Findings::default(),
        }
    }
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
        world: World,
        ended: &[(Mono, Mono)],
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
                let unpromised = own.map(|own| unpromised(own, ended)).unwrap_or_default();
                let read = final_read.and_then(|read| read.streams.get(name));
                let stream = Stream {
                    ledger: own,
                    read,
                    acknowledged,
                    seen,
                    places,
                    unpromised,
                };
                (name.clone(), stream)
            })
            .collect();
        Self {
            shards,
            streams,
            unfinished,
            world,
            may_lose: !ended.is_empty(),
        }
    }
}

/// Events acknowledged in one of these stretches of time, or of unknown outcome: each ended with the end of a node.
fn unpromised(ledger: &StreamLedger, ended: &[(Mono, Mono)]) -> IntervalSet {
    let mut indexes = IntervalSet::default();
    if ended.is_empty() {
        return indexes;
    }
    for (index, at) in &ledger.acknowledged_at {
        if ended
            .iter()
            .any(|(from, until)| (*from..=*until).contains(at))
        {
            indexes.insert(*index);
        }
    }
    indexes.union(&ledger.unknown);
    indexes
}

type Check = (Anomaly, fn(&Evidence<'_>) -> Found);

/// Every check that needs the ledger.
pub(crate) const CHECKS: [Check; 5] = [
    (Anomaly::Lost, lost::check),
    (Anomaly::Vanished, vanished::check),
    (Anomaly::Phantom, phantom::check),
    (Anomaly::Divergence, divergence::check),
    (Anomaly::StaleCursor, regressed::check),
];

/// Runs checks; what they found, and what those that panicked said.
pub(crate) fn run(checks: &[Check], evidence: &Evidence<'_>) -> (Found, Vec<String>) {
    let (mut findings, mut broken) = (Found::default(), Vec::new());
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
        fn breaks(_: &Evidence<'_>) -> Found {
            panic!("index out of bounds")
        }
        let ledger = Ledger::default();
        let evidence = Evidence::new(&ledger, None, &[], Unfinished::Any, World::Closed, &[]);
        let (findings, broken) = run(
            &[
                (Anomaly::Lost, breaks),
                (Anomaly::Phantom, |_| {
                    let mut findings = Findings::default();
                    findings.note_many(Anomaly::Phantom, 2, []);
                    findings.into()
                }),
            ],
            &evidence,
        );
        assert_eq!(broken, ["lost: index out of bounds"]);
        assert_eq!(findings.broken.count(Anomaly::Phantom), 2);
    }
}
