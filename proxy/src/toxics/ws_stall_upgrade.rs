//! Stall after an upgrade: the answer 101 passes, and then nothing more either way, whatever the toxic's stream is. Nothing
//! is lost: it goes on when the toxic is gone.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Behaviour, On, Slots};
use crate::faults::Effects;

/// Stalls what was upgraded. It has no settings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct WsStallUpgrade {}

impl Behaviour for WsStallUpgrade {
    fn draws(&self) -> bool {
        false
    }

    fn take_hold(&self, on: &On<'_>, _: &mut Slots, effects: &mut Effects) {
        effects.upgrade().stalls.push((on.toxic.uid, on.acts()));
    }
}
