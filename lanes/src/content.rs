//! What was delivered, checked against what was published: once for each distinct content, however many clients got
//! it, and byte for byte for every further client.

use std::collections::{BTreeMap, HashMap};

use model::event::{Content, Origin};
use model::ids::{Seq, StreamId};
use model::instant::Mono;
use model::shard::SeqRuns;

/// A delivered row, whatever the lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its stream.
    pub stream: StreamId,
    /// Its place in it.
    pub seq: Seq,
    /// The idempotency key, on lanes that deliver it.
    pub key: Option<String>,
    /// The payload as canonical JSON.
    pub payload: String,
    /// The payload's hash, as delivered.
    pub hash: String,
}

/// What a row turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The run's own, unaltered.
    Ours {
        /// Its ordinal among the run's events of the stream.
        index: u64,
        /// When it was meant to be sent.
        intended: Mono,
    },
    /// The run's own, altered.
    Altered,
    /// Not the run's.
    Foreign,
}

/// A judged row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// What it is.
    pub verdict: Verdict,
    /// What contradicts: the payload itself, or what was delivered before as the same (stream, seq).
    pub divergence: Option<String>,
}

#[derive(Debug)]
struct Known {
    key: Option<Box<str>>,
    payload: Box<str>,
    hash: Box<str>,
    verdict: Verdict,
    divergence: Option<String>,
}

/// Every distinct content delivered to a shard.
#[derive(Debug)]
pub struct Contents {
    origin: Origin,
    streams: HashMap<StreamId, BTreeMap<Seq, Vec<Known>>>,
}

impl Contents {
    /// None yet.
    #[must_use]
    pub fn new(origin: Origin) -> Self {
        Self {
            origin,
            streams: HashMap::new(),
        }
    }

    /// Judges a row.
    pub fn judge(&mut self, row: &Row) -> Judged {
        if !self.streams.contains_key(&row.stream) {
            self.streams.insert(row.stream.clone(), BTreeMap::new());
        }
        let variants = self
            .streams
            .get_mut(&row.stream)
            .expect("it was just inserted")
            .entry(row.seq)
            .or_default();
        let same = |known: &&Known| {
            *known.payload == *row.payload
                && *known.hash == *row.hash
                && known.key.as_deref() == row.key.as_deref()
        };
        if let Some(known) = variants.iter().find(same) {
            return Judged {
                verdict: known.verdict,
                divergence: known.divergence.clone(),
            };
        }
        let checked = self
            .origin
            .check(&row.stream, row.key.as_deref(), &row.payload, &row.hash);
        let (verdict, altered) = match checked {
            Content::Ours { index, intended } => (Verdict::Ours { index, intended }, None),
            Content::Altered(why) => (Verdict::Altered, Some(why)),
            Content::Foreign => (Verdict::Foreign, None),
        };
        // Two of the run's own events at one seq are for results to judge: it knows what became of either.
        let ours = |verdict: &Verdict| matches!(verdict, Verdict::Ours { .. });
        let other = variants
            .first()
            .filter(|first| !(ours(&first.verdict) && ours(&verdict)))
            .map(|first| {
                format!(
                    "delivered before as {:?}, now as {verdict:?}",
                    first.verdict
                )
            });
        let divergence = altered.or(other);
        variants.push(Known {
            key: row.key.as_deref().map(Into::into),
            payload: row.payload.as_str().into(),
            hash: row.hash.as_str().into(),
            verdict,
            divergence: divergence.clone(),
        });
        Judged {
            verdict,
            divergence,
        }
    }

    /// Which seq held which of the run's events, by stream. A seq that held several is in several runs.
    #[must_use]
    pub fn seen(&self) -> BTreeMap<StreamId, SeqRuns> {
        self.streams
            .iter()
            .map(|(stream, seqs)| {
                let pairs = seqs.iter().flat_map(|(seq, variants)| {
                    variants.iter().filter_map(|known| match known.verdict {
                        Verdict::Ours { index, .. } => Some((*seq, index)),
                        Verdict::Altered | Verdict::Foreign => None,
                    })
                });
                (stream.clone(), runs(pairs))
            })
            .collect()
    }
}

/// Pairs of (seq, index), ascending by seq, as runs.
pub fn runs(pairs: impl IntoIterator<Item = (Seq, u64)>) -> SeqRuns {
    let mut runs: SeqRuns = Vec::new();
    for (seq, index) in pairs {
        match runs.last_mut() {
            Some((first_seq, first_index, length))
                if *first_seq + *length == seq && *first_index + *length == index =>
            {
                *length += 1;
            }
            _ => runs.push((seq, index, 1)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::event::payload_hash;

    const STREAM: &str = "runtime.run.1.events";

    fn contents() -> Contents {
        Contents::new(Origin {
            run: "r1".to_owned(),
            seed: 7,
            padding: 8,
        })
    }

    fn row(contents: &Contents, seq: Seq, index: u64) -> Row {
        let event = contents.origin.event(STREAM, index, Mono(5));
        Row {
            stream: event.stream,
            seq,
            key: None,
            payload: event.payload_json,
            hash: event.payload_hash,
        }
    }

    #[test]
    fn the_same_content_is_fine_for_every_client_and_another_is_a_divergence() {
        let mut contents = contents();
        let good = row(&contents, 1, 0);
        for _ in 0..3 {
            let judged = contents.judge(&good);
            assert_eq!(judged.divergence, None);
            assert!(matches!(judged.verdict, Verdict::Ours { index: 0, .. }));
        }
        let mut altered = good.clone();
        altered.payload = altered.payload.replace("\"index\":0", "\"index\":9");
        altered.hash = payload_hash(&altered.payload);
        for _ in 0..2 {
            assert!(contents.judge(&altered).divergence.is_some());
        }
        assert_eq!(contents.judge(&good).divergence, None);
    }

    #[test]
    fn a_seq_that_is_used_again_is_seen_with_both_of_its_events() {
        let mut contents = contents();
        let (first, second) = (row(&contents, 1, 0), row(&contents, 1, 4));
        for row in [&first, &second] {
            assert_eq!(contents.judge(row).divergence, None);
        }
        assert_eq!(contents.seen()[STREAM], [(1, 0, 1), (1, 4, 1)]);
    }

    #[test]
    fn runs_join_what_advances_together() {
        assert_eq!(
            runs([(1, 0), (2, 1), (3, 5), (5, 6), (6, 7)]),
            [(1, 0, 2), (3, 5, 1), (5, 6, 2)]
        );
    }
}
