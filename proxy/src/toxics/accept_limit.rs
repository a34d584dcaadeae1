//! Accept limit: so many connections a second get through, a second's worth of them at once. Those beyond are closed with
//! RST, or wait for their turn to be dialled for.

use std::sync::{Arc, Mutex, PoisonError};

use model::instant::Mono;
use model::quantity::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Behaviour, On, Slots};
use crate::faults::Effects;

const SECOND: Span = Span::from_secs(1);

/// Limits connections.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct AcceptLimit {
    /// Connections per second.
    rate: u64,
    /// What happens to those beyond.
    overflow: Overflow,
}

/// What happens to a connection that is one too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Overflow {
    /// It is closed with RST.
    #[default]
    Refuse,
    /// It is accepted and waits.
    Queue,
}

impl Behaviour for AcceptLimit {
    fn check(&self) -> Result<(), String> {
        if self.rate == 0 {
            return Err(
                "rate 0 lets nobody in; use the type `refuse` or `half_open` for that".to_owned(),
            );
        }
        Ok(())
    }

    fn draws(&self) -> bool {
        false
    }

    fn take_hold(&self, on: &On<'_>, slots: &mut Slots, effects: &mut Effects) {
        if !on.is_new() {
            return;
        }
        let slot = slots.turn(on, || on.toxic.gate.pass(self, on.stage.accepted));
        match slot {
            Slot::At(at) => {
                if at > on.stage.accepted {
                    effects.late_for.push(Arc::clone(on.rule));
                }
                effects.dial_at = effects.dial_at.max(at);
            }
            Slot::None => effects.refuse = Some(Arc::clone(on.rule)),
        }
    }
}

/// A connection's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    /// It is dialled for then.
    At(Mono),
    /// It has none.
    None,
}

/// Where all connections of a proxy queue up for one toxic. It outlives changes of the toxic.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// When as many would have come, one after the other at the rate, as have come.
    level: Mutex<Mono>,
}

impl Gate {
    fn pass(&self, limit: &AcceptLimit, now: Mono) -> Slot {
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        let each = Span::from_micros(SECOND.as_micros() / limit.rate);
        let after = (*level).max(now) + each;
        let at = after - SECOND;
        if at > now && limit.overflow == Overflow::Refuse {
            return Slot::None;
        }
        *level = after;
        Slot::At(at.max(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seconds_worth_gets_through_at_once_and_the_rest_at_the_rate() {
        let now = Mono(60_000_000);
        let limit = |overflow| AcceptLimit { rate: 10, overflow };
        let gate = Gate::default();
        let refused = (0..25)
            .filter(|_| gate.pass(&limit(Overflow::Refuse), now) == Slot::None)
            .count();
        assert_eq!(refused, 15);
        let later = gate.pass(&limit(Overflow::Refuse), now + Span::from_millis(100));
        assert_eq!(later, Slot::At(Mono(60_100_000)));

        let gate = Gate::default();
        let slots: Vec<_> = (0..12).map(|_| gate.pass(&limit(Overflow::Queue), now)).collect();
        assert_eq!(slots[9], Slot::At(now));
        assert_eq!(slots[10], Slot::At(Mono(60_100_000)));
        assert_eq!(slots[11], Slot::At(Mono(60_200_000)));
    }
}
