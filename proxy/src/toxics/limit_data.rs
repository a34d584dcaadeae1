//! Limit data: the connection is closed when exactly so many bytes have passed since the toxic took it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Acts, Behaviour, On, Slots};
use crate::faults::Effects;
use crate::twists::Lasting;

/// Closes after so many bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct LimitData {
    /// Bytes, of each connection and direction.
    bytes: u64,
}

impl Behaviour for LimitData {
    fn draws(&self) -> bool {
        false
    }

    fn take_hold(&self, on: &On<'_>, _: &mut Slots, effects: &mut Effects) {
        for way in on.ways() {
            effects.shape(way).twist().limits.push(Limit {
                uid: on.toxic.uid,
                acts: on.acts(),
                bytes: self.bytes,
                passed: 0,
            });
        }
    }
}

/// Counts one direction.
#[derive(Debug)]
pub(crate) struct Limit {
    uid: u64,
    acts: Acts,
    bytes: u64,
    passed: u64,
}

impl Limit {
    /// How many bytes may still go.
    pub(crate) fn left(&self) -> usize {
        usize::try_from(self.bytes.saturating_sub(self.passed)).unwrap_or(usize::MAX)
    }

    /// So many bytes went.
    pub(crate) const fn spend(&mut self, bytes: usize) {
        self.passed += bytes as u64;
    }

    /// Whether the connection is to be closed: when its bytes are used up, by what went or by what `waits` and cannot.
    pub(crate) fn is_reached(&mut self, waits: bool) -> bool {
        let reached = self.passed >= self.bytes && (self.passed > 0 || waits);
        self.acts.act(u64::from(reached));
        reached
    }
}

impl Lasting for Limit {
    fn uid(&self) -> u64 {
        self.uid
    }

    fn resume(&mut self, before: Self) {
        self.passed = before.passed;
    }
}
