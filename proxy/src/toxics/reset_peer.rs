//! Reset peer: the first data, or the end, light a fuse, and when it has burnt down both sides are closed with RST.
//! Meanwhile nothing passes in that direction; if the toxic goes before that, what waited goes on.

use model::instant::Mono;
use model::quantity::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Acts, Behaviour, On, Slots};
use crate::faults::Effects;
use crate::twists::Lasting;

/// Resets the connection.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct ResetPeer {
    /// Milli-seconds from the first data to the reset.
    timeout: u64,
}

impl Behaviour for ResetPeer {
    fn draws(&self) -> bool {
        false
    }

    fn take_hold(&self, on: &On<'_>, _: &mut Slots, effects: &mut Effects) {
        for way in on.ways() {
            effects.shape(way).twist().fuses.push(Fuse {
                uid: on.toxic.uid,
                acts: on.acts(),
                burns: Span::from_millis(self.timeout),
                lit: None,
            });
        }
    }
}

/// Waits for something to come, and then for its time.
#[derive(Debug)]
pub(crate) struct Fuse {
    uid: u64,
    acts: Acts,
    burns: Span,
    lit: Option<Mono>,
}

impl Fuse {
    /// Something is there.
    pub(crate) fn light(&mut self, now: Mono) {
        if self.lit.is_none() {
            self.lit = Some(now);
            self.acts.act(1);
        }
    }

    /// When the connection is to be reset.
    pub(crate) fn resets_at(&self) -> Option<Mono> {
        self.lit.map(|lit| lit + self.burns)
    }
}

impl Lasting for Fuse {
    fn uid(&self) -> u64 {
        self.uid
    }

    fn resume(&mut self, before: Self) {
        self.lit = before.lit;
    }
}
