//! Loss, as an application feels it: TCP hides a lost segment behind a retransmission, and all that comes after it waits
//! as long. The stalls are those that retransmission timeouts make; a proxy cannot lose the packets themselves.

use std::sync::Arc;

use model::quantity::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::draws::floor;
use super::gaps::Gaps;
use super::{Acts, Behaviour, On, Slots};
use crate::faults::Effects;
use crate::twists::Lasting;

/// The payload of a segment on an Ethernet path, with timestamps.
const SEGMENT: u64 = 1_448;
/// A segment is not lost more often than this in a row: Linux, too, backs off for minutes then.
const MOST_IN_A_ROW: u32 = 6;

/// Stalls what passes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct LossStall {
    /// Segments of 1,448 bytes that are lost, in percent, which may have a fraction. A retransmission is lost as often.
    percent: f64,
    /// Milli-seconds until the first retransmission; each further one takes twice as long.
    rto: u64,
    /// Milli-seconds by which a stall is longer, uniformly from 0.
    jitter: u64,
}

impl Default for LossStall {
    fn default() -> Self {
        Self {
            percent: 0.0,
            rto: 200,
            jitter: 0,
        }
    }
}

impl Behaviour for LossStall {
    fn check(&self) -> Result<(), String> {
        if !(0.0..100.0).contains(&self.percent) {
            return Err(format!(
                "percent {} is not from 0 to less than 100: some segment has to arrive",
                self.percent
            ));
        }
        Ok(())
    }

    fn take_hold(&self, on: &On<'_>, _: &mut Slots, effects: &mut Effects) {
        for way in on.ways() {
            effects.shape(way).stalled_by.push(Arc::clone(on.rule));
            effects.shape(way).twist().losses.push(Losses {
                uid: on.toxic.uid,
                acts: on.acts(),
                settings: self.clone(),
                lost: Gaps::new(on.draws(way), self.percent / 100.0),
            });
        }
    }
}

/// Losses in one direction.
#[derive(Debug)]
pub(crate) struct Losses {
    uid: u64,
    acts: Acts,
    settings: LossStall,
    lost: Gaps,
}

impl Losses {
    /// Goes over a chunk of that length; tells of each stall where in the chunk it begins and how long it is.
    pub(crate) fn stall(&mut self, length: usize, mut tell: impl FnMut(usize, Span)) {
        let segments = (length as u64).div_ceil(SEGMENT);
        let mut passed = 0;
        while let Some(before) = self.lost.next_within(segments - passed) {
            let at = (passed + before) * SEGMENT;
            let stall = self.length();
            let what = format_args!("stall {}us", stall.as_micros());
            self.lost.fired(what, "segment");
            self.acts.act(1);
            tell(usize::try_from(at).unwrap_or(length), stall);
            passed += before + 1;
        }
    }

    /// How long the last loss stalls: its retransmissions are lost with the same chance.
    fn length(&self) -> Span {
        let LossStall {
            percent,
            rto,
            jitter,
        } = self.settings;
        let unit = 1.0 - self.lost.second();
        let again = floor(unit.ln() / (percent / 100.0).ln());
        let in_a_row = u32::try_from(again).map_or(MOST_IN_A_ROW, |again| MOST_IN_A_ROW.min(again.saturating_add(1)));
        let jitter = self.lost.first_below(jitter.saturating_mul(1_000));
        let retransmitted = Span::from_millis(rto).times((1 << in_a_row) - 1);
        retransmitted.plus(Span::from_micros(jitter))
    }
}

impl Lasting for Losses {
    fn uid(&self) -> u64 {
        self.uid
    }

    fn resume(&mut self, before: Self) {
        self.lost.resume(&before.lost);
    }
}
