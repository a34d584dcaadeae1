//! Corrupt: bits are turned over, at random places that depend on the seed, the connection and the offset in the stream
//! alone.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::gaps::Gaps;
use super::{Acts, Behaviour, On, Slots};
use crate::faults::Effects;
use crate::queue::ReleaseQueue;
use crate::twists::Lasting;

const MEGABYTE: u64 = 1_000_000;

/// Turns bits over.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct Corrupt {
    /// Bytes in a million of which one bit is turned over.
    rate: u64,
}

impl Behaviour for Corrupt {
    fn check(&self) -> Result<(), String> {
        if self.rate > MEGABYTE {
            return Err(format!(
                "rate {} is more than every byte; it is the bytes in a million",
                self.rate
            ));
        }
        Ok(())
    }

    fn take_hold(&self, on: &On<'_>, _: &mut Slots, effects: &mut Effects) {
        for way in on.ways() {
            effects.shape(way).twist().noises.push(Noise {
                uid: on.toxic.uid,
                acts: on.acts(),
                flips: Gaps::new(on.draws(way), self.rate as f64 / MEGABYTE as f64),
            });
        }
    }
}

/// Noise on one direction.
#[derive(Debug)]
pub(crate) struct Noise {
    uid: u64,
    acts: Acts,
    flips: Gaps,
}

impl Noise {
    /// Turns bits over in what was queued from that place on.
    pub(crate) fn disturb(&mut self, queue: &mut ReleaseQueue, mut from: usize) {
        loop {
            let left = queue.len() - from;
            let Some(before) = self.flips.next_within(left as u64) else {
                return;
            };
            from += usize::try_from(before).unwrap_or(left);
            let bit = self.flips.first_below(8);
            queue.flip(from, 1 << bit);
            self.acts.act(1);
            self.flips.fired(format_args!("bit {bit}"), "byte");
            from += 1;
        }
    }
}

impl Lasting for Noise {
    fn uid(&self) -> u64 {
        self.uid
    }

    fn resume(&mut self, before: Self) {
        self.flips.resume(&before.flips);
    }
}
