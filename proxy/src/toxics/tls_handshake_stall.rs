//! Stalled handshake: of connections that come while it is there the `ClientHello` is read, and then there is silence. It
//! goes on when the toxic is gone.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Behaviour, On, Slots};
use crate::faults::Effects;

/// Does not answer the beginning of TLS. It has no settings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct TlsHandshakeStall {}

impl Behaviour for TlsHandshakeStall {
    fn draws(&self) -> bool {
        false
    }

    fn is_of_the_handshake(&self) -> bool {
        true
    }

    fn take_hold(&self, on: &On<'_>, _: &mut Slots, effects: &mut Effects) {
        if on.is_new() {
            effects.handshake.stalls = true;
            effects.greeted_by.push(Arc::clone(on.rule));
        }
    }
}
