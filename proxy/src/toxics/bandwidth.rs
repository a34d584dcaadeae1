//! Bandwidth: a direction passes on no more than a rate. What does not fit waits with the sender, who feels it as
//! back-pressure. Of several the slowest counts.

use model::fault;
use model::quantity::ByteSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Behaviour, On, Slots};
use crate::faults::{Effects, Pace};

/// Paces what passes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct Bandwidth {
    /// Kilobytes, of 1,000 bytes, per second. At 0 nothing passes.
    rate: u64,
}

impl Behaviour for Bandwidth {
    fn draws(&self) -> bool {
        false
    }

    fn take_hold(&self, on: &On<'_>, _: &mut Slots, effects: &mut Effects) {
        let settings = fault::Bandwidth {
            per_second: ByteSize::new(self.rate.saturating_mul(1_000)),
            direction: on.toxic.direction,
        };
        for way in on.ways() {
            let pace = Pace::new(on.rule, &settings);
            effects.shape(way).paces.push(pace);
        }
    }
}
