//! Half open: connections that come while it is there are accepted, and then there is silence: what the client says is
//! read and forgotten, and the upstream is never dialled. When the toxic is gone they are reset, as by a host that has
//! come back and knows nothing of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::timeout::Blackhole;
use super::{Behaviour, On, Slots};
use crate::faults::Effects;
use crate::tap::Way;

/// Accepts new connections, and that is all. It has no settings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct HalfOpen {}

impl Behaviour for HalfOpen {
    fn draws(&self) -> bool {
        false
    }

    fn take_hold(&self, on: &On<'_>, _: &mut Slots, effects: &mut Effects) {
        if on.is_new() {
            effects.silent = Some(on.toxic.uid);
            let hole = Blackhole::new(on, None);
            effects.shape(Way::Upstream).twist().blackholes.push(hole);
        }
    }
}
