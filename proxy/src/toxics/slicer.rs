//! Slicer: what passes is cut into small pieces, with a pause after each.

use model::instant::Mono;
use model::quantity::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::draws::Draws;
use super::{Acts, Behaviour, On, Slots};
use crate::faults::Effects;
use crate::twists::Lasting;

/// Cuts what passes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct Slicer {
    /// Bytes of a piece.
    average_size: u64,
    /// Bytes by which that varies uniformly either way.
    size_variation: u64,
    /// Micro-seconds between a piece and the next.
    delay: u64,
}

impl Behaviour for Slicer {
    fn check(&self) -> Result<(), String> {
        if self.average_size == 0 {
            return Err("average_size 0 cuts nothing; it is the bytes of a piece".to_owned());
        }
        if self.size_variation > self.average_size {
            return Err(format!(
                "size_variation {} is more than average_size {}: no piece is shorter than nothing",
                self.size_variation, self.average_size
            ));
        }
        Ok(())
    }

    fn draws(&self) -> bool {
        self.size_variation > 0
    }

    fn take_hold(&self, on: &On<'_>, _: &mut Slots, effects: &mut Effects) {
        for way in on.ways() {
            effects.shape(way).twist().knives.push(Knife {
                uid: on.toxic.uid,
                acts: on.acts(),
                settings: self.clone(),
                draws: on.draws(way),
                pieces: 0,
                left: 0,
                pause: Mono(0),
            });
        }
    }
}

/// Cuts one direction.
#[derive(Debug)]
pub(crate) struct Knife {
    uid: u64,
    acts: Acts,
    settings: Slicer,
    draws: Draws,
    /// Pieces begun, and the bytes left of the last one.
    pieces: u64,
    left: usize,
    /// No piece before that.
    pause: Mono,
}

impl Knife {
    /// How many bytes may go in one piece at `now`; or from when on.
    pub(crate) fn allowance(&mut self, now: Mono) -> Result<usize, Mono> {
        if self.left == 0 {
            if self.pause > now {
                return Err(self.pause);
            }
            self.left = self.piece();
            if self.settings.draws() {
                let size = format_args!("piece of {}B", self.left);
                self.draws.fired(self.pieces, size);
            }
            self.pieces += 1;
        }
        Ok(self.left)
    }

    fn piece(&self) -> usize {
        let Slicer {
            average_size,
            size_variation,
            ..
        } = self.settings;
        let spread = size_variation.saturating_mul(2).saturating_add(1);
        let size = average_size - size_variation + self.draws.below(self.pieces, spread);
        usize::try_from(size.max(1)).unwrap_or(usize::MAX)
    }

    /// So many bytes went, and what waits is now empty or not: with it a piece ends too, as it does with a chunk.
    pub(crate) fn spend(&mut self, now: Mono, bytes: usize, is_last: bool) {
        self.left = if is_last { 0 } else { self.left.saturating_sub(bytes) };
        if self.left == 0 {
            self.acts.act(u64::from(!is_last));
            self.pause = now + Span::from_micros(self.settings.delay);
        }
    }
}

impl Lasting for Knife {
    fn uid(&self) -> u64 {
        self.uid
    }

    fn resume(&mut self, before: Self) {
        self.pieces = before.pieces;
        self.left = before.left;
        self.pause = before.pause;
    }
}
