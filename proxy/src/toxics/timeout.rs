//! Timeout: what comes is dropped, its end too, and after so long without anything the connection is closed. Data were
//! lost, so the connection cannot go on when the toxic is gone: it is closed then.

use host::clock;
use model::instant::Mono;
use model::quantity::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Acts, Behaviour, On, Slots};
use crate::faults::Effects;
use crate::twists::Lasting;

/// Drops everything, and closes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct Timeout {
    /// Milli-seconds without data until the connection is closed; 0 for never.
    timeout: u64,
}

impl Behaviour for Timeout {
    fn draws(&self) -> bool {
        false
    }

    fn take_hold(&self, on: &On<'_>, _: &mut Slots, effects: &mut Effects) {
        let idle = (self.timeout > 0).then(|| Span::from_millis(self.timeout));
        for way in on.ways() {
            let hole = Blackhole::new(on, idle);
            effects.shape(way).twist().blackholes.push(hole);
        }
    }
}

/// Swallows a direction.
#[derive(Debug)]
pub(crate) struct Blackhole {
    uid: u64,
    acts: Acts,
    idle: Option<Span>,
    /// When something came last, or the hole did.
    since: Mono,
}

impl Blackhole {
    pub(super) fn new(on: &On<'_>, idle: Option<Span>) -> Self {
        Self {
            uid: on.toxic.uid,
            acts: on.acts(),
            idle,
            since: clock::now(),
        }
    }

    /// Something came.
    pub(crate) fn swallow(&mut self, now: Mono) {
        self.acts.act(1);
        self.since = now;
    }

    /// When the connection is to be closed, if nothing comes before that.
    pub(crate) fn closes_at(&self) -> Option<Mono> {
        self.idle.map(|idle| self.since + idle)
    }
}

impl Lasting for Blackhole {
    fn uid(&self) -> u64 {
        self.uid
    }

    fn resume(&mut self, before: Self) {
        self.since = before.since;
    }
}
