//! What the ledger holds as acknowledged, and since when: what clients are measured against, instead of the server's
//! own idea of its head.

use std::collections::HashMap;

use model::ids::{Seq, StreamId};
use model::instant::Mono;
use model::shard::Tick;

/// The highest acknowledged seq of each stream over time.
#[derive(Debug, Default)]
pub struct Marks {
    streams: HashMap<StreamId, Vec<(Mono, Seq)>>,
    complete_until: Mono,
}

impl Marks {
    /// Takes in the news of a tick.
    pub fn take(&mut self, tick: Tick) {
        for (stream, news) in tick.acknowledged {
            let known = self.streams.entry(stream).or_default();
            for mark in news {
                // A lane that lost its tail acknowledges a lower seq later: what was acknowledged once stays owed.
                let highest = known.last().map_or(0, |(_, seq)| *seq);
                known.push((mark.acked, mark.seq.max(highest)));
            }
        }
        self.complete_until = self.complete_until.max(tick.complete_until);
    }

    /// Up to which instant nothing can be added any more.
    #[must_use]
    pub const fn complete_until(&self) -> Mono {
        self.complete_until
    }

    /// The highest seq of `stream` that had been acknowledged at `at`; 0 for none.
    #[must_use]
    pub fn highest_at(&self, stream: &str, at: Mono) -> Seq {
        let Some(known) = self.streams.get(stream) else {
            return 0;
        };
        let later = known.partition_point(|(acked, _)| *acked <= at);
        later.checked_sub(1).map_or(0, |last| known[last].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::shard::Mark;

    #[test]
    fn a_mark_counts_from_its_acknowledgement_and_never_falls() {
        let mut marks = Marks::default();
        let mark = |acked, seq| Mark {
            acked: Mono(acked),
            seq,
        };
        marks.take(Tick {
            acknowledged: [("s".to_owned(), vec![mark(10, 1), mark(20, 2), mark(30, 1)])].into(),
            complete_until: Mono(35),
        });
        let at = |at| marks.highest_at("s", Mono(at));
        assert_eq!([at(9), at(10), at(29), at(40)], [0, 1, 2, 2]);
        assert_eq!(marks.highest_at("other", Mono(99)), 0);
        assert_eq!(marks.complete_until(), Mono(35));
    }
}
