//! How far the clocks of an agent's host are from this host's. Of several round trips the shortest says most: whatever
//! happened on the way, the agent read its clocks somewhere between question and answer.

use std::time::Duration;

use host::clock;
use host::http::CallError;
use model::crew::ClockOffset;
use model::fault::{FaultView, Observation};
use model::instant::{Bracket, Mono};
use model::quantity::Span;
use serde::{Deserialize, Serialize};

use crate::api::Clocks;
use crate::client::Agent;

/// Whoever takes longer to read a clock says nothing about it.
const WITHIN: Duration = Duration::from_secs(2);

/// What has to be taken from an agent's instants to have them in this host's clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offset {
    /// Of the monotonic clocks, in micro-seconds.
    pub mono_us: i64,
    /// Of the wall clocks, in micro-seconds: positive where the agent's is ahead.
    pub wall_us: i64,
    /// Either is off by no more than this: half of the round trip.
    pub within: Span,
}

/// Asks so many times.
///
/// # Errors
/// The agent does not answer.
pub async fn measure(agent: &Agent, rounds: u32) -> Result<Offset, CallError> {
    let (offset, _) = measure_boot(agent, rounds).await?;
    Ok(offset)
}

/// The same, and whether the agent's kernel is this one: the same boot, and the same monotonic clock in it.
///
/// # Errors
/// As [`measure`].
pub async fn measure_boot(agent: &Agent, rounds: u32) -> Result<(Offset, bool), CallError> {
    let mut best: Option<Offset> = None;
    let mut same_boot = true;
    for _ in 0..rounds.max(1) {
        let (asked, asked_wall) = (clock::now(), clock::unix_micros());
        let there = agent.clocks(WITHIN).await?;
        let seen = Offset::of(asked, asked_wall, &there, clock::now());
        same_boot &= there.boot == clock::boot();
        if best.is_none_or(|best| seen.within < best.within) {
            best = Some(seen);
        }
    }
    let best = best.expect("there was a round");
    // A time namespace has the boot of its host, and a clock of its own.
    let one_clock = best.mono_us.unsigned_abs() <= best.within.as_micros();
    Ok((best, same_boot && one_clock))
}

impl Offset {
    /// That of this host's own clocks.
    pub const NONE: Self = Self {
        mono_us: 0,
        wall_us: 0,
        within: Span::ZERO,
    };

    /// As evidence has it.
    #[must_use]
    pub const fn record(&self) -> ClockOffset {
        ClockOffset {
            mono_us: self.mono_us,
            wall_us: self.wall_us,
            within_us: self.within.as_micros(),
        }
    }

    /// What an agent tells of a fault, in this host's clock: each bracket is as much wider as the offset is uncertain.
    #[must_use]
    pub fn here(&self, view: FaultView) -> FaultView {
        let instant = |there: Mono| {
            let micros = i128::from(there.0) - i128::from(self.mono_us);
            Mono(u64::try_from(micros.max(0)).unwrap_or(u64::MAX))
        };
        let bracket = |there: Bracket| Bracket {
            asked: instant(there.asked) - self.within,
            observed: instant(there.observed) + self.within,
        };
        let observed = view.observation.observed.map(instant);
        FaultView {
            injected: bracket(view.injected),
            healed: view.healed.map(bracket),
            observation: Observation {
                observed,
                ..view.observation
            },
            ..view
        }
    }

    fn of(asked: Mono, asked_wall: u64, there: &Clocks, answered: Mono) -> Self {
        let half = answered.since(asked).as_micros().div_ceil(2);
        let minus = |there: u64, here: u64| there.wrapping_sub(here).cast_signed();
        Self {
            mono_us: minus(there.mono_us, asked.0 + half),
            wall_us: minus(there.unix_us, asked_wall + half),
            within: Span::from_micros(half),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However the round trip is divided between there and back.
        #[test]
        fn the_truth_lies_within_the_bound(there in 0_u64..1 << 40, here in 0_u64..1 << 40, to in 0_u64..5_000_000, back in 0_u64..5_000_000) {
            let truth = there.cast_signed() - here.cast_signed();
            let clocks = Clocks { mono_us: there + to, unix_us: there + to + 7, boot: String::new() };
            let seen = Offset::of(Mono(here), here + 7, &clocks, Mono(here + to + back));
            for offset in [seen.mono_us, seen.wall_us] {
                prop_assert!((offset - truth).unsigned_abs() <= seen.within.as_micros());
            }
            // What happened there at a known instant lies within what is told of it here.
            let moment = Mono(there + 20_000_000);
            let at = Bracket { asked: moment, observed: moment };
            let view = FaultView { id: "f".to_owned(), active: false, injected: at, healed: Some(at), lapsed: false, observation: Observation::default() };
            let told = seen.here(view);
            let truly = here + 20_000_000;
            for told in [told.injected, told.healed.unwrap()] {
                prop_assert!(told.asked.0 <= truly && truly <= told.observed.0);
            }
        }
    }
}
