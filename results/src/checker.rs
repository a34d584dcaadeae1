//! The checks that need the ledger and the final read; everything else is checked by the shards while it happens.
//!
//! ```text
//! lost         acknowledged, eligible, absent at the end
//! vanished     seen by some client, then gone
//! phantom      never invoked, or definitely failed
//! divergence   one (stream, seq), two contents
//! regressed    a head that went back behind a client's cursor: a lane that said nothing of it, or nobody noticed
//! ```
//!
//! `cover` tells what a client holds that began anew from a snapshot.
//!
//! Where a target promises to keep events only some time after it acknowledged them, what it loses before that is found
//! all the same, and told apart: it is no breach, and nothing that a client would not suffer from.
//!
//! Events are known by their index. A check that panics is named and makes the trial inconclusive; it takes no other
//! check with it.

mod cover;
mod divergence;
mod lost;
mod phantom;
mod regressed;
mod vanished;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use model::anomaly::{Anomaly, EXAMPLES_KEPT, Example, Findings};
use model::ids::{ClientId, Seq, StreamId};
use model::instant::Mono;
use model::intervals::IntervalSet;
use model::quantity::Span;
use model::shard::{Applied, FinalRead, Ledger, SeqRuns, ShardReport, StreamLedger, StreamRead};
use model::target::World;

use self::cover::{Covers, Verified};
use crate::runs;

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
    /// The ends of nodes that may take with them what they had acknowledged.
    ended: &'a [NodeEnd],
    /// What the clients' snapshots stand for.
    covers: Covers,
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
    /// Indexes that were acknowledged and that the lane no longer has. What lies at or below its floor it may have let
    /// go of.
    pub(crate) gone: IntervalSet,
    /// Indexes of which the target does not promise that they survived.
    pub(crate) unpromised: IntervalSet,
    /// Indexes that it may have had, unacknowledged, before a node ended, and that were submitted again.
    repeated: IntervalSet,
}

impl Stream<'_> {
    /// Whether the target may have let an event go from that seq: all of it, or as what it had not acknowledged yet and
    /// holds elsewhere now.
    pub(crate) fn may_be_gone_from(&self, index: u64, seq: u64) -> bool {
        let elsewhere = || {
            self.read
                .and_then(|read| runs::seq_of(&read.events, index))
                .is_some_and(|held| held != seq)
        };
        self.unpromised.contains(index) || (self.repeated.contains(index) && elsewhere())
    }
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
    /// All of a kind, on both sides.
    pub(crate) fn count(&self, anomaly: Anomaly) -> u64 {
        self.broken.count(anomaly) + self.unpromised.count(anomaly)
    }

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

/// The end of a node of a target that promises to keep events only some time after their acknowledgement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NodeEnd {
    /// What it acknowledged from here on may be gone.
    pub(crate) from: Mono,
    /// It was seen to be over.
    pub(crate) seen: Mono,
    /// The next was begun. What is read as acknowledged between the two had been answered before the end.
    pub(crate) until: Mono,
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
        ended: &'a [NodeEnd],
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
                for report in &reports {
                    seen.union(&runs::indexes(report));
                }
                let mut acknowledged = own
                    .map(|own| runs::indexes(&own.acknowledged))
                    .unwrap_or_default();
                if let Some(own) = own {
                    let unseen = own.unknown.difference(&seen);
                    acknowledged.union(&own.unknown.difference(&unseen));
                }
                let places: SeqRuns = own
                    .map(|own| &own.acknowledged)
                    .into_iter()
                    .chain(reports)
                    .flatten()
                    .copied()
                    .collect();
                let unpromised = own.map(|own| unpromised(own, ended)).unwrap_or_default();
                let repeated = own.filter(|_| !ended.is_empty());
                let read = final_read.and_then(|read| read.streams.get(name));
                let gone = read.map(|read| gone(&acknowledged, read, &places));
                let stream = Stream {
                    ledger: own,
                    read,
                    acknowledged,
                    seen,
                    places,
                    gone: gone.unwrap_or_default(),
                    unpromised,
                    repeated: repeated.map(|own| own.repeated.clone()).unwrap_or_default(),
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
            ended,
            covers: Covers::of(ledger, shards),
        }
    }

    /// The events that a client has in the end: those that it applied, and those of the snapshot that it began from.
    pub(crate) fn held(&self, applied: &Applied) -> IntervalSet {
        let mut held = applied.indexes.clone();
        if let Some(Verified::Holds(indexes)) = self.covered(applied) {
            held.union(indexes);
        }
        held
    }

    /// The cursor above which a client is judged: that with which it began, or the watermark of a snapshot of which nobody
    /// here can tell what it holds.
    pub(crate) fn judged_above(&self, applied: &Applied) -> Seq {
        match &applied.snapshot {
            Some(cover) if self.holds_what_is_unknown(applied) => {
                applied.initial.max(cover.watermark)
            }
            _ => applied.initial,
        }
    }

    /// How many clients began anew from a snapshot of which nobody here can tell what it holds.
    pub(crate) fn unverified_snapshots(&self) -> u64 {
        let applied = self.shards.iter().flat_map(|shard| &shard.applied);
        applied
            .filter(|applied| self.holds_what_is_unknown(applied))
            .map(|applied| applied.clients.len() as u64)
            .sum()
    }

    /// Others' events, or history from before the run, are in no ledger.
    fn holds_what_is_unknown(&self, applied: &Applied) -> bool {
        let among_others = self.world == World::Open || applied.initial > 0;
        among_others && self.covered(applied) == Some(&Verified::Unknown)
    }

    /// How long after its acknowledgement a node's end was seen; zero where the acknowledgement was read after it.
    fn outlived(&self, stream: &Stream<'_>, index: u64) -> Option<Span> {
        let mut acknowledged = stream.ledger?.acknowledged_at.iter();
        let (_, at) = acknowledged.find(|(known, _)| *known == index)?;
        let next = self.ended.iter().find(|end| end.until >= *at)?;
        Some(next.seen.since(*at))
    }

    fn covered(&self, applied: &Applied) -> Option<&Verified> {
        let cover = applied.snapshot.as_ref()?;
        Some(self.covers.of_stream(&applied.stream, cover))
    }
}

fn gone(acknowledged: &IntervalSet, read: &StreamRead, places: &SeqRuns) -> IntervalSet {
    acknowledged
        .difference(&runs::indexes(&read.events))
        .iter()
        .filter(|index| runs::seq_of(places, *index).is_some_and(|seq| seq > read.floor))
        .collect()
}

/// Events acknowledged so shortly before the end of a node, or of unknown outcome.
fn unpromised(ledger: &StreamLedger, ended: &[NodeEnd]) -> IntervalSet {
    let mut indexes = IntervalSet::default();
    if ended.is_empty() {
        return indexes;
    }
    for (index, at) in &ledger.acknowledged_at {
        if ended.iter().any(|end| (end.from..=end.until).contains(at)) {
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
