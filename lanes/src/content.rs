//! What was delivered, checked against what was published: once for each distinct content, however many clients got
//! it, and byte for byte for every further client.

use std::collections::{BTreeMap, HashMap};

use model::event::{Content, Origin};
use model::ids::{Seq, StreamId};
use model::instant::Mono;
use model::intervals::IntervalSet;
use model::shard::SeqRuns;
use model::target::World;

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
    world: World,
    streams: HashMap<StreamId, BTreeMap<Seq, Vec<Known>>>,
}

impl Contents {
    /// None yet.
    #[must_use]
    pub fn new(origin: Origin, world: World) -> Self {
        Self {
            origin,
            world,
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
        let other = variants
            .first()
            .filter(|first| !left_to_results(self.world, first.verdict, verdict))
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

    /// Which seqs held what this run did not publish, by stream.
    #[must_use]
    pub fn foreign(&self) -> BTreeMap<StreamId, IntervalSet> {
        let seqs_of = |seqs: &BTreeMap<Seq, Vec<Known>>| {
            let mut foreign = IntervalSet::default();
            for (seq, variants) in seqs {
                if variants
                    .iter()
                    .any(|known| known.verdict == Verdict::Foreign)
                {
                    foreign.insert(*seq);
                }
            }
            foreign
        };
        let streams = self.streams.iter();
        streams
            .map(|(stream, seqs)| (stream.clone(), seqs_of(seqs)))
            .filter(|(_, seqs)| !seqs.is_empty())
            .collect()
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

/// Whether two contents at one seq are none of a shard's business. Two of the run's own events are for results to judge:
/// it knows what became of either. So are one of its own and somebody else's in a world that is open: results knows
/// whether the target had to keep the run's. Of what others publish there nothing is judged at all.
fn left_to_results(world: World, one: Verdict, other: Verdict) -> bool {
    let ours = |verdict| matches!(verdict, Verdict::Ours { .. });
    match world {
        World::Closed => ours(one) && ours(other),
        World::Open => (ours(one) && ours(other)) || [one, other].contains(&Verdict::Foreign),
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
        contents_in(World::Closed)
    }

    fn contents_in(world: World) -> Contents {
        let origin = Origin {
            run: "r1".to_owned(),
            seed: 7,
            padding: 8,
        };
        Contents::new(origin, world)
    }

    fn foreign(seq: Seq, payload: &str) -> Row {
        Row {
            stream: STREAM.to_owned(),
            seq,
            key: Some(format!("theirs:{payload}")),
            payload: payload.to_owned(),
            hash: "a hash of their own".to_owned(),
        }
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
    fn what_others_publish_in_an_open_world_is_counted_and_never_a_divergence() {
        let mut open = contents_in(World::Open);
        for payload in [
            "not JSON",
            "null",
            "[\"run\"]",
            "{\"run\":\"r2\"}",
            "{\"run\":7}",
            "",
        ] {
            let judged = open.judge(&foreign(4, payload));
            assert_eq!(
                (judged.verdict, judged.divergence),
                (Verdict::Foreign, None)
            );
        }
        open.judge(&foreign(6, "null"));
        let mut at = IntervalSet::range(4, 4);
        at.insert(6);
        assert_eq!(open.foreign(), [(STREAM.to_owned(), at)].into());
        assert!(open.seen()[STREAM].is_empty());

        let mut closed = contents();
        closed.judge(&foreign(4, "null"));
        assert!(closed.judge(&foreign(4, "[]")).divergence.is_some());
    }

    #[test]
    fn somebody_elses_row_in_place_of_ours_is_seen_as_both_and_left_to_results() {
        let mut open = contents_in(World::Open);
        let ours = row(&open, 4, 0);
        for row in [&ours, &foreign(4, "{}")] {
            assert_eq!(open.judge(row).divergence, None);
        }
        assert_eq!(open.seen()[STREAM], [(4, 0, 1)]);
        assert!(open.foreign()[STREAM].contains(4));
    }

    #[test]
    fn an_altered_row_of_ours_diverges_in_an_open_world_too() {
        let mut open = contents_in(World::Open);
        let mut altered = row(&open, 1, 0);
        altered.hash = "sha256:00".to_owned();
        let judged = open.judge(&altered);
        assert_eq!(judged.verdict, Verdict::Altered);
        assert!(judged.divergence.is_some());

        let mut unmarked = foreign(2, "not JSON");
        unmarked.key = Some(open.origin.key(STREAM, 1));
        assert!(
            open.judge(&unmarked).divergence.is_some(),
            "its key is ours"
        );
    }

    #[test]
    fn runs_join_what_advances_together() {
        assert_eq!(
            runs([(1, 0), (2, 1), (3, 5), (5, 6), (6, 7)]),
            [(1, 0, 2), (3, 5, 1), (5, 6, 2)]
        );
    }
}
