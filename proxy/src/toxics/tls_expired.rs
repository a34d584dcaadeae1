//! Expired certificate: connections that come while it is there are shown one that was valid until yesterday.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Behaviour, On, Slots};
use crate::faults::Effects;

/// Shows an expired certificate. It has no settings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct TlsExpired {}

impl Behaviour for TlsExpired {
    fn draws(&self) -> bool {
        false
    }

    fn is_of_the_handshake(&self) -> bool {
        true
    }

    fn take_hold(&self, on: &On<'_>, _: &mut Slots, effects: &mut Effects) {
        if on.is_new() {
            effects.handshake.flaws.expired = true;
            effects.greeted_by.push(Arc::clone(on.rule));
        }
    }
}
