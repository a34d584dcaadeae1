//! How well a process of the harness itself keeps time: a canary timer for the receive side, and the processor time
//! used.

use std::sync::{Mutex, PoisonError};

use model::histogram::Micros;
use model::instant::Mono;
use model::quantity::Span;

use crate::clock;
use crate::timer::Timer;

/// The canary flies so often.
const EVERY: Span = Span::from_millis(10);
/// The processor time is looked at so often.
const LOOK: Span = Span::from_secs(1);
/// Units of the times in /proc, per second: `USER_HZ` is 100 on every Linux of today.
const TICKS_PER_SECOND: f64 = 100.0;

/// What the canary and the processor's clock said.
#[derive(Debug, Default)]
pub struct Gauge {
    seen: Mutex<(Micros, f64)>,
}

impl Gauge {
    /// Looks on, until it is dropped.
    pub async fn watch(&self, timer: &Timer) {
        let mut next = clock::now();
        let mut looked = (next, processor_time());
        loop {
            timer.sleep_until(next + EVERY).await;
            let now = clock::now();
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            next = fly(&mut seen.0, next, now);
            let wall = now.since(looked.0);
            if wall >= LOOK {
                let used = processor_time();
                if let (Some(before), Some(after)) = (looked.1, used) {
                    seen.1 = seen.1.max((after - before) / wall.as_secs_f64());
                }
                looked = (now, used);
            }
        }
    }

    /// The canary's lag, and the busiest second as a share of one core.
    #[must_use]
    pub fn read(&self) -> (Micros, f64) {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Records every flight that was due after `last`, up to `now`, and says which was the last of them. A stall delays
/// all the flights that fall into it, not one: a canary that took up its schedule anew afterwards would count a stall
/// of any length as a single late flight, and no quantile would ever show it.
fn fly(lags: &mut Micros, last: Mono, now: Mono) -> Mono {
    let mut last = last;
    while last + EVERY <= now {
        last = last + EVERY;
        lags.record(now.since(last));
    }
    last
}

/// Seconds of processor time that this process has used.
fn processor_time() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    used(&stat)
}

fn used(stat: &str) -> Option<f64> {
    // The name in parentheses may hold anything, spaces too; fields 14 and 15 are the 12th and 13th after it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_delays_every_flight_that_falls_into_it() {
        let at = |millis: u64| Mono(millis * 1_000);
        let mut lags = Micros::default();
        let mut last = at(0);
        for tick in 1..=100 {
            last = fly(&mut lags, last, at(tick * 10));
        }
        // Six tenths of a second of which nothing was seen: sixty flights, the first of them 590 ms late.
        last = fly(&mut lags, last, at(1_600));
        assert_eq!((lags.count(), last), (160, at(1_600)));
        assert!(lags.quantile(0.99, 0) > Some(Span::from_millis(500)));
        assert_eq!(fly(&mut lags, last, at(1_605)), last, "none is due yet");
    }

    #[test]
    fn processor_time_is_user_and_system_time_whatever_the_process_is_called() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 4 0 1000 1 1";
        assert_eq!(used(stat), Some(2.0));
        assert!(processor_time().is_some());
    }
}
