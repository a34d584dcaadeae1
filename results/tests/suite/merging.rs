//! However the fleet is divided into shards, the row is the same.

use model::histogram::Micros;
use model::quantity::Span;
use model::shard::PhaseReport;
use model::trial::Trial;
use proptest::prelude::*;
use results::judge;

use crate::builder::{plan, trial};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn two_shards_count_as_one_would(values in prop::collection::vec((1_u64..9_000_000, any::<bool>()), 1..120)) {
        let (plan, mut divided) = (plan(), trial());
        let mut whole = divided.clone();
        let mut one = Micros::default();
        let mut two = [Micros::default(), Micros::default()];
        for (micros, second) in values {
            one.record(Span::from_micros(micros));
            two[usize::from(second)].record(Span::from_micros(micros));
        }
        let report = |histogram| PhaseReport { histogram, censored: 0 };
        for phase in model::criteria::Phase::ALL {
            let [first, second] = two.clone();
            divided.shards[1].phases.insert(phase, report(first));
            divided.shards[2].phases.insert(phase, report(second));
            whole.shards[1].phases.insert(phase, report(one.clone()));
            whole.shards[2].phases.insert(phase, report(Micros::default()));
        }
        let judged = |trial: &Trial| judge(&plan, trial, 1, "logs/a/b.log", None);
        prop_assert_eq!(judged(&divided), judged(&whole));
        divided.shards.reverse();
        prop_assert_eq!(judged(&divided).phases, judged(&whole).phases);
    }
}
