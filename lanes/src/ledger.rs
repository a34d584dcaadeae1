//! The publisher's ledger: what was invoked, acknowledged as which seq, failed, or left unknown.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use host::clock;
use model::ids::{Seq, StreamId};
use model::instant::Mono;
use model::intervals::IntervalSet;
use model::schedule::Schedule;
use model::shard::{Mark, StreamLedger};

use crate::content::runs;

/// How an event ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged as that seq.
    Acknowledged(Seq),
    /// Definitely not appended.
    Failed,
    /// The connection broke, and it could not be settled.
    Unknown,
}

/// The ledger while it is being written.
#[derive(Debug, Default)]
pub struct Book {
    pages: Mutex<Pages>,
}

#[derive(Debug, Default)]
struct Pages {
    streams: BTreeMap<StreamId, Page>,
    news: BTreeMap<StreamId, Vec<Mark>>,
    counts: (u64, u64),
}

#[derive(Debug, Default)]
struct Page {
    schedule: Option<Schedule>,
    invoked: IntervalSet,
    acknowledged: Vec<(Seq, u64)>,
    acknowledged_at: Vec<(u64, Mono)>,
    repeated: IntervalSet,
    failed: IntervalSet,
    unknown: IntervalSet,
}

impl Book {
    /// A stream is going to be published to.
    pub fn open(&self, stream: &str, schedule: Schedule) {
        self.pages().page(stream).schedule = Some(schedule);
    }

    /// An event's publish begins.
    pub fn invoke(&self, stream: &str, index: u64) {
        let mut pages = self.pages();
        pages.counts.0 += 1;
        pages.page(stream).invoked.insert(index);
    }

    /// An event's publish is over.
    pub fn settle(&self, stream: &str, index: u64, outcome: Outcome) {
        let mut pages = self.pages();
        match outcome {
            Outcome::Acknowledged(seq) => {
                pages.counts.1 += 1;
                // Taken under the lock, so that the news are complete up to the instant at which they are fetched.
                let acked = clock::now();
                let page = pages.page(stream);
                page.acknowledged.push((seq, index));
                page.acknowledged_at.push((index, acked));
                let news = pages.news.entry(stream.to_owned()).or_default();
                news.push(Mark { acked, seq });
            }
            Outcome::Failed => drop(pages.page(stream).failed.insert(index)),
            Outcome::Unknown => drop(pages.page(stream).unknown.insert(index)),
        }
    }

    /// An event that is about to be settled was submitted again after an attempt of unknown outcome.
    pub fn repeated(&self, stream: &str, index: u64) {
        self.pages().page(stream).repeated.insert(index);
    }

    /// Events invoked, and acknowledged.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        self.pages().counts
    }

    /// What was acknowledged since the last call, and up to when that is complete.
    pub fn news(&self) -> (BTreeMap<StreamId, Vec<Mark>>, Mono) {
        let mut pages = self.pages();
        (std::mem::take(&mut pages.news), clock::now())
    }

    /// Everything, by stream.
    #[must_use]
    pub fn streams(&self) -> BTreeMap<StreamId, StreamLedger> {
        let pages = self.pages();
        let streams = pages.streams.iter().map(|(stream, page)| {
            let ledger = StreamLedger {
                schedule: page.schedule,
                invoked: page.invoked.clone(),
                acknowledged: runs(page.acknowledged.iter().copied()),
                acknowledged_at: page.acknowledged_at.clone(),
                repeated: page.repeated.clone(),
                failed: page.failed.clone(),
                unknown: page.unknown.clone(),
            };
            (stream.clone(), ledger)
        });
        streams.collect()
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pages {
    fn page(&mut self, stream: &str) -> &mut Page {
        self.streams.entry(stream.to_owned()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger_holds_every_outcome_and_its_news_are_told_once() {
        let book = Book::default();
        for index in 0..4 {
            book.invoke("s", index);
        }
        book.settle("s", 0, Outcome::Acknowledged(1));
        book.settle("s", 1, Outcome::Acknowledged(2));
        book.settle("s", 2, Outcome::Unknown);
        book.settle("s", 3, Outcome::Failed);
        let (news, until) = book.news();
        assert_eq!(
            news["s"].iter().map(|mark| mark.seq).collect::<Vec<_>>(),
            [1, 2]
        );
        assert!(news["s"].iter().all(|mark| mark.acked <= until));
        assert!(book.news().0.is_empty());
        let ledger = &book.streams()["s"];
        assert_eq!(ledger.invoked, IntervalSet::range(0, 3));
        assert_eq!(ledger.acknowledged, [(1, 0, 2)]);
        assert_eq!((ledger.unknown.len(), ledger.failed.len()), (1, 1));
        assert_eq!(book.counts(), (4, 2));
    }
}
