//! What a client's snapshot stands for. A lane names a watermark and a digest in place of the events below it; they
//! count as applied only where the ledger comes to the same digest.
//!
//! The lane's log is played back from the acknowledgements, in their order: one writer a stream, so a seq at or below
//! the last one says that the head had gone back, and what lay there was cut off. A snapshot is right if it is that of
//! any of the logs that this comes to.

use std::collections::{BTreeMap, HashMap};

use model::event::Origin;
use model::ids::StreamId;
use model::intervals::IntervalSet;
use model::shard::{Ledger, ShardReport, StreamLedger};
use model::snapshot::{Cover, Snapshot};

/// What became of a snapshot's claim.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verified {
    /// It stands for these events.
    Holds(IntervalSet),
    /// It stands for something else than what was acknowledged.
    Differs,
    /// The ledger does not know of every seq up to its watermark, so it may be right.
    Unknown,
}

/// Every snapshot that a client ended with, and what it stands for.
#[derive(Debug, Default)]
pub(crate) struct Covers {
    streams: HashMap<StreamId, HashMap<Cover, Verified>>,
}

impl Covers {
    pub(crate) fn of(ledger: &Ledger, shards: &[ShardReport]) -> Self {
        let mut covers = Self::default();
        let mut books: HashMap<&str, Book<'_>> = HashMap::new();
        for applied in shards.iter().flat_map(|shard| &shard.applied) {
            let Some(cover) = &applied.snapshot else {
                continue;
            };
            let known = covers.streams.entry(applied.stream.clone()).or_default();
            if known.contains_key(cover) {
                continue;
            }
            let stream = ledger.streams.get(&applied.stream);
            let verified = match (&ledger.origin, stream) {
                (Some(origin), Some(own)) => books
                    .entry(&applied.stream)
                    .or_insert_with(|| Book::new(origin, &applied.stream, own))
                    .verify(cover),
                _ => Verified::Unknown,
            };
            known.insert(cover.clone(), verified);
        }
        covers
    }

    /// What a snapshot of a stream stands for.
    pub(crate) fn of_stream(&self, stream: &str, cover: &Cover) -> &Verified {
        self.streams
            .get(stream)
            .and_then(|known| known.get(cover))
            .unwrap_or(&Verified::Unknown)
    }
}

/// A digest, and the events that it is of.
type Content = (Snapshot, IntervalSet);

/// A stream's logs, oldest first, as index by seq; and the payload hashes computed so far.
struct Book<'a> {
    origin: &'a Origin,
    stream: &'a str,
    ledger: &'a StreamLedger,
    logs: Vec<Vec<Option<u64>>>,
    hashes: BTreeMap<u64, Option<String>>,
}

impl<'a> Book<'a> {
    fn new(origin: &'a Origin, stream: &'a str, ledger: &'a StreamLedger) -> Self {
        Self {
            origin,
            stream,
            ledger,
            logs: logs(ledger),
            hashes: BTreeMap::new(),
        }
    }

    fn verify(&mut self, cover: &Cover) -> Verified {
        let Some(stated) = &cover.snapshot else {
            return Verified::Unknown;
        };
        let logs = std::mem::take(&mut self.logs);
        let contents: Vec<Option<Content>> = logs
            .iter()
            .map(|log| self.content(log, cover.watermark))
            .collect();
        // A log that had been cut off before it came so far is none that it can be of; the last may yet have.
        let unknown = logs
            .iter()
            .zip(&contents)
            .enumerate()
            .any(|(place, (log, content))| {
                let so_far = log.len() as u64 >= cover.watermark || place + 1 == logs.len();
                so_far && content.is_none()
            });
        self.logs = logs;
        let mut right = contents.into_iter().flatten();
        match right.find(|(snapshot, _)| snapshot == stated) {
            Some((_, indexes)) => Verified::Holds(indexes),
            None if unknown => Verified::Unknown,
            None => Verified::Differs,
        }
    }

    /// What a log held up to a seq; `None` where not all of it is known.
    fn content(&mut self, log: &[Option<u64>], watermark: u64) -> Option<Content> {
        let below = log.get(..usize::try_from(watermark).ok()?)?;
        let (mut snapshot, mut indexes) = (Snapshot::default(), IntervalSet::default());
        for index in below {
            let index = (*index)?;
            snapshot.push(self.hash(index)?);
            indexes.insert(index);
        }
        Some((snapshot, indexes))
    }

    /// The hash of an event's payload, which is a function of its index and of when it was due.
    fn hash(&mut self, index: u64) -> Option<&str> {
        let Self {
            origin,
            stream,
            ledger,
            hashes,
            ..
        } = self;
        let hash = hashes.entry(index).or_insert_with(|| {
            let due = ledger.schedule?.due(index)?;
            Some(origin.event(stream, index, due).payload_hash)
        });
        hash.as_deref()
    }
}

fn logs(ledger: &StreamLedger) -> Vec<Vec<Option<u64>>> {
    let mut ended = Vec::new();
    let mut log: Vec<Option<u64>> = Vec::new();
    let events = ledger
        .acknowledged
        .iter()
        .flat_map(|(seq, index, length)| (0..*length).map(move |n| (seq + n, index + n)));
    for (seq, index) in events {
        let Ok(place) = usize::try_from(seq.saturating_sub(1)) else {
            continue;
        };
        if place < log.len() {
            ended.push(log.clone());
            log.truncate(place);
        }
        // Events of unknown outcome leave holes.
        log.resize(place, None);
        log.push(Some(index));
    }
    ended.push(log);
    ended
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::instant::Mono;
    use model::quantity::Rate;
    use model::schedule::Schedule;

    const STREAM: &str = "runtime.run.1.events";

    fn origin() -> Origin {
        Origin {
            run: "r1".to_owned(),
            seed: 7,
            padding: 8,
        }
    }

    fn ledger(acknowledged: &[(u64, u64, u64)]) -> StreamLedger {
        StreamLedger {
            schedule: Some(Schedule {
                first: Mono(5),
                rate: Rate::per_second(10.0),
                burst: None,
            }),
            acknowledged: acknowledged.to_vec(),
            ..StreamLedger::default()
        }
    }

    fn cover(ledger: &StreamLedger, indexes: impl IntoIterator<Item = u64>) -> Cover {
        let mut snapshot = Snapshot::default();
        for index in indexes {
            let due = ledger.schedule.unwrap().due(index).unwrap();
            snapshot.push(&origin().event(STREAM, index, due).payload_hash);
        }
        Cover {
            watermark: snapshot.count,
            snapshot: Some(snapshot),
        }
    }

    fn verify(ledger: &StreamLedger, cover: &Cover) -> Verified {
        Book::new(&origin(), STREAM, ledger).verify(cover)
    }

    #[test]
    fn a_snapshot_stands_for_what_was_acknowledged_before_and_after_the_head_went_back() {
        // Ten events; the head goes back to 6; three more.
        let ledger = ledger(&[(1, 0, 10), (7, 10, 3)]);
        let mut now = IntervalSet::range(0, 5);
        now.insert_range(10, 12);
        let taken = cover(&ledger, (0..6).chain(10..13));
        assert_eq!(verify(&ledger, &taken), Verified::Holds(now));
        let before = cover(&ledger, 0..8);
        assert_eq!(
            verify(&ledger, &before),
            Verified::Holds(IntervalSet::range(0, 7))
        );
        let nothing = cover(&ledger, []);
        assert_eq!(
            verify(&ledger, &nothing),
            Verified::Holds(IntervalSet::default())
        );
    }

    #[test]
    fn a_snapshot_of_anything_else_does_not() {
        let ledger = ledger(&[(1, 0, 10), (7, 10, 3)]);
        let swapped = cover(&ledger, [1, 0, 2]);
        assert_eq!(verify(&ledger, &swapped), Verified::Differs);
        let mut short = cover(&ledger, 0..6);
        short.watermark = 7;
        assert_eq!(verify(&ledger, &short), Verified::Differs);
    }

    #[test]
    fn what_the_ledger_does_not_know_it_cannot_vouch_for() {
        let whole = ledger(&[(1, 0, 10)]);
        let taken = cover(&whole, 0..8);
        assert_eq!(
            verify(&ledger(&[(1, 0, 4), (6, 5, 5)]), &taken),
            Verified::Unknown,
            "a hole"
        );
        assert_eq!(
            verify(&ledger(&[(1, 0, 7)]), &taken),
            Verified::Unknown,
            "beyond what was acknowledged"
        );
        let unscheduled = StreamLedger {
            schedule: None,
            ..whole
        };
        assert_eq!(verify(&unscheduled, &taken), Verified::Unknown);
        let in_another_form = Cover {
            snapshot: None,
            ..taken
        };
        assert_eq!(verify(&unscheduled, &in_another_form), Verified::Unknown);
    }
}
