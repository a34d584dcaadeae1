//! One way: one direction is dead, its end too, while the other lives. Nothing is lost: what waits goes on when the toxic
//! is gone.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Behaviour, On, Slots};
use crate::faults::Effects;

/// Stops the direction of its stream. It has no settings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct OneWay {}

impl Behaviour for OneWay {
    fn draws(&self) -> bool {
        false
    }

    fn take_hold(&self, on: &On<'_>, _: &mut Slots, effects: &mut Effects) {
        for way in on.ways() {
            effects.shape(way).twist().is_dead = true;
            effects.stopped.push(Arc::clone(on.rule));
        }
    }
}
