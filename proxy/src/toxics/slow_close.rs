//! Slow close: the end of a direction is passed on late; what comes before it is not.

use model::quantity::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Behaviour, On, Slots};
use crate::faults::Effects;

/// Delays the end only.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct SlowClose {
    /// Milli-seconds.
    delay: u64,
}

impl Behaviour for SlowClose {
    fn draws(&self) -> bool {
        false
    }

    fn take_hold(&self, on: &On<'_>, _: &mut Slots, effects: &mut Effects) {
        for way in on.ways() {
            let twists = effects.shape(way).twist();
            twists.close_after = twists.close_after.plus(Span::from_millis(self.delay));
        }
    }
}
