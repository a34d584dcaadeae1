//! Runs of seqs that held runs of indexes. An event is its index (its idempotency key); a seq is only where it was put,
//! and may be used again after a crash.

use std::collections::{BTreeMap, BTreeSet};

use model::ids::Seq;
use model::intervals::IntervalSet;
use model::shard::SeqRuns;

/// The indexes in some runs.
pub(crate) fn indexes(runs: &SeqRuns) -> IntervalSet {
    let mut set = IntervalSet::default();
    for (_, index, length) in runs {
        if *length > 0 {
            set.insert_range(*index, index + (length - 1));
        }
    }
    set
}

/// The largest seq in some runs.
pub(crate) fn highest(runs: &SeqRuns) -> Option<Seq> {
    runs.iter()
        .filter(|(_, _, length)| *length > 0)
        .map(|(seq, _, length)| seq + (length - 1))
        .max()
}

/// Those parts of the runs whose seqs are in `first..=last`.
pub(crate) fn clip(runs: &SeqRuns, first: Seq, last: Seq) -> SeqRuns {
    runs.iter()
        .filter_map(|(seq, index, length)| {
            let skip = first.saturating_sub(*seq);
            let end = (seq + length).min(last.saturating_add(1));
            let start = seq + skip;
            (start < end).then(|| (start, index + skip, end - start))
        })
        .collect()
}

/// Those parts of the runs whose indexes are in the set.
pub(crate) fn only(runs: &SeqRuns, set: &IntervalSet) -> SeqRuns {
    runs.iter()
        .filter(|(_, _, length)| *length > 0)
        .flat_map(|(seq, index, length)| {
            let within = IntervalSet::range(*index, index + (length - 1));
            let outside = within.difference(set);
            within
                .difference(&outside)
                .runs()
                .iter()
                .map(|(from, to)| (seq + (from - index), *from, to - from + 1))
                .collect::<SeqRuns>()
        })
        .collect()
}

/// Where an index was put; the first place, if there are several.
pub(crate) fn seq_of(runs: &SeqRuns, wanted: u64) -> Option<Seq> {
    runs.iter().find_map(|(seq, index, length)| {
        (*index..index + length)
            .contains(&wanted)
            .then(|| seq + (wanted - index))
    })
}

/// The index at a seq; the first, if there are several.
pub(crate) fn index_at(runs: &SeqRuns, wanted: Seq) -> Option<u64> {
    runs.iter().find_map(|(seq, index, length)| {
        (*seq..seq + length)
            .contains(&wanted)
            .then(|| index + (wanted - seq))
    })
}

/// A stretch of seqs for which sources disagree about the indexes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conflict {
    /// The first seq.
    pub(crate) seq: Seq,
    /// How many seqs.
    pub(crate) length: u64,
    /// What the first seq holds according to whom: (index, sources).
    pub(crate) claims: Vec<(u64, Vec<usize>)>,
}

/// The stretches of seqs to which two runs, of different sources or of one, assign different indexes.
pub(crate) fn conflicts(sources: &[&SeqRuns]) -> Vec<Conflict> {
    // A run is a line index = seq + offset: where runs overlap they agree if and only if their offsets are equal. So
    // sweep over the ends of all runs and look at the offsets in force between them.
    let mut ends: BTreeMap<Seq, Vec<(bool, i128, usize)>> = BTreeMap::new();
    for (source, runs) in sources.iter().enumerate() {
        for (seq, index, length) in *runs {
            if *length > 0 {
                let offset = i128::from(*index) - i128::from(*seq);
                ends.entry(*seq).or_default().push((true, offset, source));
                ends.entry(seq + length)
                    .or_default()
                    .push((false, offset, source));
            }
        }
    }
    let mut active: BTreeMap<i128, Vec<usize>> = BTreeMap::new();
    let mut found = Vec::new();
    let mut edges = ends.iter().peekable();
    while let Some((seq, changes)) = edges.next() {
        for (begins, offset, source) in changes {
            let holders = active.entry(*offset).or_default();
            if *begins {
                holders.push(*source);
            } else if let Some(at) = holders.iter().position(|holder| holder == source) {
                holders.swap_remove(at);
            }
            if holders.is_empty() {
                active.remove(offset);
            }
        }
        if active.len() < 2 {
            continue;
        }
        let until = edges.peek().map_or(*seq, |(next, _)| **next);
        let claims = active
            .iter()
            .filter_map(|(offset, holders)| {
                let index = u64::try_from(i128::from(*seq) + offset).ok()?;
                let sources: BTreeSet<usize> = holders.iter().copied().collect();
                Some((index, sources.into_iter().collect()))
            })
            .collect();
        found.push(Conflict {
            seq: *seq,
            length: until - seq,
            claims,
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn runs() -> impl Strategy<Value = SeqRuns> {
        prop::collection::vec((1_u64..40, 0_u64..40, 0_u64..12), 0..6)
    }

    fn pairs(runs: &SeqRuns) -> Vec<(u64, u64)> {
        runs.iter()
            .flat_map(|(seq, index, length)| (0..*length).map(move |n| (seq + n, index + n)))
            .collect()
    }

    proptest! {
        #[test]
        fn conflicts_are_the_seqs_with_two_indexes(a in runs(), b in runs(), c in runs()) {
            let mut held: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
            for (seq, index) in [&a, &b, &c].into_iter().flat_map(pairs) {
                held.entry(seq).or_default().insert(index);
            }
            let expected: BTreeSet<u64> =
                held.into_iter().filter(|(_, indexes)| indexes.len() > 1).map(|(seq, _)| seq).collect();
            let found: Vec<u64> = conflicts(&[&a, &b, &c])
                .iter()
                .flat_map(|conflict| conflict.seq..conflict.seq + conflict.length)
                .collect();
            prop_assert_eq!(found.len(), expected.len(), "each seq once");
            prop_assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
        }

        #[test]
        fn parts_of_runs_are_the_pairs_that_match(runs in runs(), first in 0_u64..50, last in 0_u64..50,
                                                  set in prop::collection::btree_set(0_u64..50, 0..30)) {
            let wanted: IntervalSet = set.iter().copied().collect();
            let expected: Vec<_> = pairs(&runs).into_iter().filter(|(seq, _)| (first..=last).contains(seq)).collect();
            prop_assert_eq!(pairs(&clip(&runs, first, last)), expected);
            let expected: Vec<_> = pairs(&runs).into_iter().filter(|(_, index)| set.contains(index)).collect();
            prop_assert_eq!(pairs(&only(&runs, &wanted)), expected);
            let all: BTreeSet<_> = pairs(&runs).into_iter().map(|(_, index)| index).collect();
            prop_assert_eq!(indexes(&runs).iter().collect::<BTreeSet<_>>(), all);
            prop_assert_eq!(highest(&runs), pairs(&runs).into_iter().map(|(seq, _)| seq).max());
        }
    }
}
