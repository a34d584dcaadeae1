//! Latency: each chunk is passed on so much later than it was read, give or take the jitter. The order is kept.

use model::quantity::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Behaviour, On, Slots};
use crate::faults::{Delay, Effects};

/// Delays what passes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct Latency {
    /// Milli-seconds.
    latency: u64,
    /// Milli-seconds by which the latency varies uniformly either way.
    jitter: u64,
}

impl Behaviour for Latency {
    fn draws(&self) -> bool {
        self.jitter > 0
    }

    fn take_hold(&self, on: &On<'_>, _: &mut Slots, effects: &mut Effects) {
        let base = Span::from_millis(self.latency);
        let jitter = Span::from_millis(self.jitter);
        for way in on.ways() {
            let delay = Delay::drawn(on.rule, base, jitter, on.draws(way));
            effects.shape(way).delays.push(delay);
        }
    }
}
