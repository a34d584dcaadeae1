//! Refuse: connections that come while it is there are closed with RST, and the upstream hears nothing of them.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Behaviour, On, Slots};
use crate::faults::Effects;

/// Resets new connections. It has no settings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct Refuse {}

impl Behaviour for Refuse {
    fn draws(&self) -> bool {
        false
    }

    fn take_hold(&self, on: &On<'_>, _: &mut Slots, effects: &mut Effects) {
        if on.is_new() {
            effects.refuse = Some(Arc::clone(on.rule));
        }
    }
}
