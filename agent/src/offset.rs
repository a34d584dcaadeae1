//! How far the clocks of an agent's host are from this host's. Of several round trips the shortest says most: whatever
//! happened on the way, the agent read its clocks somewhere between question and answer.

use std::time::Duration;

use host::clock;
use host::http::CallError;
use model::instant::Mono;
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
    let mut best: Option<Offset> = None;
    for _ in 0..rounds.max(1) {
        let (asked, asked_wall) = (clock::now(), clock::unix_micros());
        let there = agent.clocks(WITHIN).await?;
        let seen = Offset::of(asked, asked_wall, &there, clock::now());
        if best.is_none_or(|best| seen.within < best.within) {
            best = Some(seen);
        }
    }
    Ok(best.expect("there was a round"))
}

impl Offset {
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
            let clocks = Clocks { mono_us: there + to, unix_us: there + to + 7 };
            let seen = Offset::of(Mono(here), here + 7, &clocks, Mono(here + to + back));
            for offset in [seen.mono_us, seen.wall_us] {
                prop_assert!((offset - truth).unsigned_abs() <= seen.within.as_micros());
            }
        }
    }
}
