//! Rare events in a long stream: where they are is drawn gap by gap, so that the stream between them costs nothing, and
//! does not depend on how the stream is cut into chunks.

use std::fmt;

use super::draws::{Draws, floor};

/// Events at positions of a stream, each position taken with the same chance.
#[derive(Debug)]
pub(super) struct Gaps {
    draws: Draws,
    /// The chance of each position.
    chance: f64,
    /// Events so far, and positions from here to the next one.
    events: u64,
    left: u64,
    /// Positions passed over, those of events too.
    passed: u64,
}

impl Gaps {
    pub(super) fn new(draws: Draws, chance: f64) -> Self {
        let mut gaps = Self {
            draws,
            chance,
            events: 0,
            left: 0,
            passed: 0,
        };
        gaps.left = gaps.gap();
        gaps
    }

    /// Goes on where other gaps of the same toxic were, by the chance that holds now.
    pub(super) fn resume(&mut self, before: &Self) {
        self.events = before.events;
        self.passed = before.passed;
        let same = (self.chance - before.chance).abs() < f64::EPSILON;
        self.left = if same { before.left } else { self.gap() };
    }

    /// Positions between the last event and the next one.
    fn gap(&self) -> u64 {
        if self.chance <= 0.0 {
            return u64::MAX;
        }
        if self.chance >= 1.0 {
            return 0;
        }
        // Of the numbers from 0 (excluded) to 1, one in three indices; the others are the event's own.
        let unit = 1.0 - self.draws.unit(self.events * 3);
        floor(unit.ln() / (1.0 - self.chance).ln())
    }

    /// Passes over so many positions, up to the next event: `Some` with how many lie before it.
    pub(super) fn next_within(&mut self, positions: u64) -> Option<u64> {
        if self.left >= positions {
            self.passed += positions;
            if self.left != u64::MAX {
                self.left -= positions;
            }
            return None;
        }
        let before = self.left;
        self.passed += before + 1;
        self.events += 1;
        self.left = self.gap();
        Some(before)
    }

    /// The last event's own decisions, of which it has two: the first below `limit`.
    pub(super) fn first_below(&self, limit: u64) -> u64 {
        self.draws.below(self.last() * 3 + 1, limit)
    }

    /// The second, from 0 (included) to 1 (excluded).
    pub(super) fn second(&self) -> f64 {
        self.draws.unit(self.last() * 3 + 2)
    }

    /// Writes down what the last event did, and at which position, of which there are those of a `unit`.
    pub(super) fn fired(&self, what: impl fmt::Display, unit: &str) {
        let position = self.passed - 1;
        self.draws
            .fired(self.last(), format_args!("{what} at {unit} {position}"));
    }

    const fn last(&self) -> u64 {
        self.events.saturating_sub(1)
    }
}
