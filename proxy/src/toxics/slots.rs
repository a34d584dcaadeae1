//! What a connection remembers of the toxics that were asked about it.

use super::accept_limit::Slot;
use super::{On, Toxic};
use crate::faults::Rule;
use crate::plane::Handle;

/// A connection's memory of decisions that are made once. Toxics that are no longer there are forgotten when one asks
/// again.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    /// The turns that it was given by limits on connecting, by the toxic's number.
    turns: Vec<(u64, Slot)>,
    /// Whether it was taken by toxics that take a share, by the toxic's number.
    rolls: Vec<(u64, bool)>,
}

impl Slots {
    /// The turn that it has, or that it is given now.
    pub(super) fn turn(&mut self, on: &On<'_>, give: impl FnOnce() -> Slot) -> Slot {
        let uid = on.toxic.uid;
        if let Some((_, slot)) = self.turns.iter().find(|(of, _)| *of == uid) {
            return *slot;
        }
        let slot = give();
        self.turns.push((uid, slot));
        slot
    }

    /// With these turns, by the toxics' numbers.
    pub(crate) fn with_turns(turns: Vec<(u64, Slot)>) -> Self {
        Self {
            turns,
            ..Self::default()
        }
    }

    /// The turns that it has, by the toxics' numbers.
    pub(crate) fn turns(&self) -> &[(u64, Slot)] {
        &self.turns
    }

    /// Takes note of whether a toxic takes it, and writes it down where that was decided by chance and is news.
    pub(crate) fn rolled(&mut self, rule: &Rule, toxic: &Toxic, handle: &Handle, taken: bool) {
        let ratio = toxic.toxicity.as_ratio();
        let Some(log) = rule.log().filter(|_| ratio > 0.0 && ratio < 1.0) else {
            return;
        };
        let before = self.rolls.iter_mut().find(|(of, _)| *of == toxic.uid);
        match before {
            Some((_, before)) if *before == taken => return,
            Some((_, before)) => *before = taken,
            None => self.rolls.push((toxic.uid, taken)),
        }
        if let Some(subject) = toxic.subject(handle) {
            let decided = if taken { "taken" } else { "spared" };
            log.write(rule, &subject, toxic.stream_name(), 0, decided);
        }
    }

    /// Forgets toxics that are no longer there.
    pub(crate) fn keep(&mut self, is_there: impl Fn(u64) -> bool) {
        self.rolls.retain(|(uid, _)| is_there(*uid));
        self.turns.retain(|(uid, _)| is_there(*uid));
    }
}
