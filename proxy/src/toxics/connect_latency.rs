//! Connect latency: the upstream is dialled so much later than the client was accepted. Several add up.

use std::sync::Arc;

use model::quantity::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Behaviour, On, Slots};
use crate::faults::Effects;

/// Delays connecting.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct ConnectLatency {
    /// Milli-seconds.
    latency: u64,
}

impl Behaviour for ConnectLatency {
    fn draws(&self) -> bool {
        false
    }

    fn take_hold(&self, on: &On<'_>, _: &mut Slots, effects: &mut Effects) {
        if on.is_new() {
            effects.late_for.push(Arc::clone(on.rule));
        }
        let start = effects.dial_at.max(on.stage.accepted);
        effects.dial_at = start + Span::from_millis(self.latency);
    }
}
