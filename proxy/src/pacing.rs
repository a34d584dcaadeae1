//! How fast bytes may go.

use model::instant::Mono;
use model::quantity::Span;

/// Nothing waits for more than what the rate gives in this time, so that the bytes flow instead of coming in lumps.
pub(crate) const SLICE: Span = Span::from_millis(10);
/// Nor more than this, in bytes: of a larger lump the peer's socket may take a part only, and the line would stand still.
const LUMP: u128 = 128 << 10;
const SECOND_US: u128 = 1_000_000;

/// A line of a rate: bytes are on it one after the other, and each has gone when the line has had the time for it.
#[derive(Debug, Default)]
pub(crate) struct Pacer {
    /// When the line has dealt with everything so far, and what is left of that instant's micro-second, in bytes
    /// times 1,000,000.
    free: Mono,
    rest: u128,
}

impl Pacer {
    /// How many of `waiting` bytes, the first of which is here since `since`, have gone at `now`; or when some will
    /// have.
    pub(crate) fn allowance(
        &self,
        now: Mono,
        per_second: u64,
        waiting: usize,
        since: Mono,
    ) -> Result<usize, Mono> {
        let (start, rest) = if since > self.free {
            (since, 0)
        } else {
            (self.free, self.rest)
        };
        let rate = u128::from(per_second.max(1));
        let slice = (rate * u128::from(SLICE.as_micros()) / SECOND_US).clamp(1, LUMP);
        let least = slice.min(waiting as u128);
        let at = start + micros((least * SECOND_US).saturating_sub(rest).div_ceil(rate));
        if at > now {
            return Err(at);
        }
        let line = (u128::from(now.since(start).as_micros()) * rate + rest) / SECOND_US;
        Ok(usize::try_from(line.max(least)).map_or(waiting, |line| line.min(waiting)))
    }

    /// So many bytes went, the first of which was here since `since`.
    pub(crate) fn spend(&mut self, per_second: u64, bytes: usize, since: Mono) {
        if since > self.free {
            *self = Self {
                free: since,
                rest: 0,
            };
        }
        let rate = u128::from(per_second.max(1));
        let line = (bytes as u128 * SECOND_US).saturating_sub(self.rest);
        let took = line.div_ceil(rate);
        self.rest = (took * rate + self.rest).saturating_sub(bytes as u128 * SECOND_US);
        self.free = self.free + micros(took);
    }

    /// The line has stood still until `now`: that time is not made up for.
    pub(crate) fn stood(&mut self, now: Mono) {
        if now > self.free {
            *self = Self { free: now, rest: 0 };
        }
    }
}

fn micros(count: u128) -> Span {
    Span::from_micros(u64::try_from(count).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends what is offered all the time by a timer that is late, and returns how much went.
    fn offered(rate: u64, time: Span, late: Span) -> usize {
        let start = Mono(5_000_000);
        let (mut pacer, mut now, mut sent) = (Pacer::default(), start, 0);
        while now < start + time {
            match pacer.allowance(now, rate, 64 << 10, start) {
                Ok(bytes) => {
                    pacer.spend(rate, bytes, start);
                    sent += bytes;
                }
                Err(until) => now = until + late,
            }
        }
        sent
    }

    #[test]
    fn a_busy_line_has_its_rate_although_its_timer_is_late() {
        let sent = offered(100_000, Span::from_secs(10), Span::from_micros(700));
        assert!((998_000..=1_001_000).contains(&sent), "{sent}");
        // Where a byte takes less than a micro-second too.
        let sent = offered(7_777_777, Span::from_secs(1), Span::from_micros(110));
        assert!((7_700_000..=7_780_000).contains(&sent), "{sent}");
    }

    #[test]
    fn bytes_take_their_time_on_a_line_that_was_idle_too() {
        let mut pacer = Pacer::default();
        let since = Mono(9_000_000);
        assert_eq!(
            pacer.allowance(since, 1_000, 5, since),
            Err(Mono(9_005_000))
        );
        assert_eq!(pacer.allowance(Mono(9_005_000), 1_000, 5, since), Ok(5));
        pacer.spend(1_000, 5, since);
        // The next one comes before the line is free, the one after that long after.
        let next = pacer.allowance(Mono(9_005_000), 1_000, 1, Mono(9_003_000));
        assert_eq!(next, Err(Mono(9_006_000)));
        pacer.spend(1_000, 1, Mono(9_003_000));
        let later = pacer.allowance(Mono(20_000_000), 1_000, 900, Mono(19_995_000));
        assert_eq!(later, Err(Mono(20_005_000)));
    }

    #[test]
    fn the_slowest_rate_still_moves() {
        let mut pacer = Pacer::default();
        let since = Mono(9_000_000);
        assert_eq!(pacer.allowance(since, 1, 3, since), Err(Mono(10_000_000)));
        assert_eq!(pacer.allowance(Mono(10_000_000), 1, 3, since), Ok(1));
        pacer.spend(1, 1, since);
        let next = pacer.allowance(Mono(10_500_000), 1, 2, since);
        assert_eq!(next, Err(Mono(11_000_000)));
    }

    #[test]
    fn a_fast_line_does_not_wait_for_more_than_a_socket_takes_at_once() {
        let pacer = Pacer::default();
        let since = Mono(9_000_000);
        let (rate, waiting) = (100_000_000, 8 << 20);
        let at = pacer.allowance(since, rate, waiting, since).unwrap_err();
        let lump = pacer.allowance(at, rate, waiting, since).unwrap() as u128;
        // As much more as the line takes in the micro-second that the instant was rounded to.
        assert!((LUMP..LUMP + 100).contains(&lump), "{lump}");
    }

    #[test]
    fn a_line_that_stood_still_does_not_catch_up() {
        let mut pacer = Pacer::default();
        pacer.stood(Mono(9_000_000));
        let next = pacer.allowance(Mono(9_000_000), 1_000, 64, Mono(1_000_000));
        assert_eq!(next, Err(Mono(9_010_000)));
    }
}
