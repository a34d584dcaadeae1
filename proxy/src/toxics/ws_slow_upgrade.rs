//! Slow upgrade: the request for a WebSocket, or the answer to it, is passed on so much later than it was there.

use model::quantity::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Behaviour, On, Slots};
use crate::faults::{Delay, Effects};

/// Delays upgrades.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct WsSlowUpgrade {
    /// Milli-seconds.
    delay: u64,
    /// Milli-seconds by which the delay varies uniformly either way.
    jitter: u64,
}

impl Behaviour for WsSlowUpgrade {
    fn draws(&self) -> bool {
        self.jitter > 0
    }

    fn take_hold(&self, on: &On<'_>, _: &mut Slots, effects: &mut Effects) {
        on.needs_request(effects);
        let base = Span::from_millis(self.delay);
        let jitter = Span::from_millis(self.jitter);
        for way in on.ways() {
            let delay = Delay::drawn(on.rule, base, jitter, on.draws(way));
            effects.upgrade().head(way).delays.push(delay);
        }
    }
}
