//! Sets of seqs as sorted, disjoint, non-adjacent runs: a client that missed nothing costs one run.

use serde::{Deserialize, Serialize};

/// A set of integers. Serialised as `[[first, last], …]`, both included.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IntervalSet {
    runs: Vec<(u64, u64)>,
}

impl IntervalSet {
    /// The set of `first..=last`; empty when `first > last`.
    #[must_use]
    pub fn range(first: u64, last: u64) -> Self {
        Self {
            runs: if first <= last {
                vec![(first, last)]
            } else {
                Vec::new()
            },
        }
    }

    /// Adds a value; `false` when it was in the set.
    pub fn insert(&mut self, value: u64) -> bool {
        let new = !self.contains(value);
        if new {
            self.insert_range(value, value);
        }
        new
    }

    /// Adds `first..=last`.
    pub fn insert_range(&mut self, first: u64, last: u64) {
        if first > last {
            return;
        }
        // The runs that overlap or touch the new one become one with it.
        let from = self
            .runs
            .partition_point(|run| run.1.saturating_add(1) < first);
        let to = self
            .runs
            .partition_point(|run| run.0 <= last.saturating_add(1));
        let touched = &self.runs[from..to];
        let merged = match (touched.first(), touched.last()) {
            (Some(head), Some(tail)) => (head.0.min(first), tail.1.max(last)),
            _ => (first, last),
        };
        self.runs.splice(from..to, [merged]);
    }

    /// Adds all of another set.
    pub fn union(&mut self, other: &Self) {
        for (first, last) in &other.runs {
            self.insert_range(*first, *last);
        }
    }

    /// Whether the value is in the set.
    #[must_use]
    pub fn contains(&self, value: u64) -> bool {
        let at = self.runs.partition_point(|run| run.1 < value);
        self.runs.get(at).is_some_and(|run| run.0 <= value)
    }

    /// What of `first..=last` is not in the set.
    #[must_use]
    pub fn missing(&self, first: u64, last: u64) -> Self {
        let mut gaps = Self::default();
        let mut next = first;
        for (head, tail) in self.runs.iter().skip_while(|run| run.1 < first) {
            if *head > last || next > last {
                break;
            }
            if *head > next {
                gaps.runs.push((next, *head - 1));
            }
            next = tail.saturating_add(1);
        }
        if next <= last {
            gaps.runs.push((next, last));
        }
        gaps
    }

    /// What is in this set and not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        Self {
            runs: self
                .runs
                .iter()
                .flat_map(|(first, last)| other.missing(*first, *last).runs)
                .collect(),
        }
    }

    /// How many values it holds.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.runs.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// Whether it holds none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The largest value.
    #[must_use]
    pub fn max(&self) -> Option<u64> {
        self.runs.last().map(|run| run.1)
    }

    /// The values in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.runs.iter().flat_map(|(first, last)| *first..=*last)
    }

    /// The runs, both ends included, in ascending order.
    #[must_use]
    pub fn runs(&self) -> &[(u64, u64)] {
        &self.runs
    }
}

impl FromIterator<u64> for IntervalSet {
    fn from_iter<T: IntoIterator<Item = u64>>(values: T) -> Self {
        let mut set = Self::default();
        for value in values {
            set.insert(value);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn behaves_as_a_set_of_integers(
            values in prop::collection::vec((0_u64..60, 0_u64..6), 0..40),
            others in prop::collection::vec(0_u64..60, 0..40),
            first in 0_u64..60, length in 0_u64..60,
        ) {
            let (mut set, mut model) = (IntervalSet::default(), BTreeSet::new());
            for (start, more) in values {
                set.insert_range(start, start + more);
                model.extend(start..=start + more);
            }
            let other: IntervalSet = others.iter().copied().collect();
            let other_model: BTreeSet<_> = others.into_iter().collect();
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(set.len(), model.len() as u64);
            prop_assert!(set.runs().windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "{:?}", set);
            prop_assert_eq!(
                set.missing(first, first + length).iter().collect::<Vec<_>>(),
                (first..=first + length).filter(|n| !model.contains(n)).collect::<Vec<_>>()
            );
            prop_assert_eq!(
                set.difference(&other).iter().collect::<BTreeSet<_>>(),
                model.difference(&other_model).copied().collect::<BTreeSet<_>>()
            );
            let mut union = set.clone();
            union.union(&other);
            prop_assert_eq!(union.iter().collect::<BTreeSet<_>>(), model.union(&other_model).copied().collect());
        }
    }

    #[test]
    fn insert_tells_a_new_value_from_an_old_one() {
        let mut set = IntervalSet::range(1, 3);
        assert!(set.insert(5) && set.insert(4) && !set.insert(2));
        assert_eq!(set, IntervalSet::range(1, 5));
    }
}
