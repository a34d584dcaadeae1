//! Certificate of an unknown issuer: connections that come while it is there are shown one of an authority whose own
//! certificate nobody can get, and so nobody can trust.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Behaviour, On, Slots};
use crate::faults::Effects;

/// Shows a certificate that nobody can trust. It has no settings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct TlsUnknownIssuer {}

impl Behaviour for TlsUnknownIssuer {
    fn draws(&self) -> bool {
        false
    }

    fn is_of_the_handshake(&self) -> bool {
        true
    }

    fn take_hold(&self, on: &On<'_>, _: &mut Slots, effects: &mut Effects) {
        if on.is_new() {
            effects.handshake.flaws.unknown_issuer = true;
            effects.greeted_by.push(Arc::clone(on.rule));
        }
    }
}
