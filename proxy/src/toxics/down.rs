//! Down: no byte passes, either way; new connections are accepted and hang. Nothing is lost: what waits goes on when the
//! toxic is gone. It is the drill's [hold](crate::faults), and takes both directions whatever its stream is.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Behaviour, On, Slots};
use crate::faults::Effects;

/// Holds the connection. It has no settings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct Down {}

impl Behaviour for Down {
    fn draws(&self) -> bool {
        false
    }

    fn take_hold(&self, on: &On<'_>, _: &mut Slots, effects: &mut Effects) {
        effects.hold.push(Arc::clone(on.rule));
    }
}
