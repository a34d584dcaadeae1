//! Slow close: the end of a direction is passed on late; what comes before it is not.

use model::quantity::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Behaviour, On, Slots};
use crate::faults::Effects;
use crate::toxics::Acts;
use crate::twists::Lasting;

/// Delays the end only.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct SlowClose {
    /// Milli-seconds.
    delay: u64,
}

impl Behaviour for SlowClose {
    fn draws(&self) -> bool {
        false
    }

    fn take_hold(&self, on: &On<'_>, _: &mut Slots, effects: &mut Effects) {
        for way in on.ways() {
            effects.shape(way).twist().late_ends.push(LateEnd {
                uid: on.toxic.uid,
                acts: on.acts(),
                delay: Span::from_millis(self.delay),
                is_seen: false,
            });
        }
    }
}

/// Holds up the end of one direction.
#[derive(Debug)]
pub(crate) struct LateEnd {
    uid: u64,
    acts: Acts,
    /// How late the end is.
    pub(crate) delay: Span,
    is_seen: bool,
}

impl LateEnd {
    /// The end has come and waits.
    pub(crate) fn see(&mut self) {
        let first = !std::mem::replace(&mut self.is_seen, true);
        self.acts.act(u64::from(first));
    }
}

impl Lasting for LateEnd {
    fn uid(&self) -> u64 {
        self.uid
    }

    fn resume(&mut self, before: Self) {
        self.is_seen = before.is_seen;
    }
}
