//! How fast bytes may go.

use model::instant::Mono;
use model::quantity::Span;

/// One write takes no more than what the rate gives in this time, so that the bytes flow instead of coming in lumps.
const SLICE: Span = Span::from_millis(10);

/// Spaces the writes of one link: each pushes the next one back by the time that its bytes take at the rate.
#[derive(Debug, Default)]
pub(crate) struct Pacer {
    free: Mono,
}

impl Pacer {
    /// How many bytes may go at `now`; or from when on.
    pub(crate) fn allowance(&self, now: Mono, per_second: u64) -> Result<usize, Mono> {
        if self.free > now {
            return Err(self.free);
        }
        let slice = per_second.saturating_mul(SLICE.as_micros()) / 1_000_000;
        Ok(usize::try_from(slice.max(1)).unwrap_or(usize::MAX))
    }

    /// So many bytes went at `now`.
    pub(crate) fn spend(&mut self, now: Mono, per_second: u64, bytes: usize) {
        let micros = (bytes as u64).saturating_mul(1_000_000) / per_second.max(1);
        // Time that was not used is not saved up, except what a late timer took: without it the rate would not be had.
        let start = self.free.max(now - SLICE);
        self.free = start + Span::from_micros(micros);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_link_gets_its_rate_although_its_timer_is_late() {
        let (mut pacer, mut now, mut sent) = (Pacer::default(), Mono(5_000_000), 0);
        while now < Mono(15_000_000) {
            match pacer.allowance(now, 100_000) {
                Ok(bytes) => {
                    pacer.spend(now, 100_000, bytes);
                    sent += bytes;
                }
                Err(until) => now = until + Span::from_micros(700),
            }
        }
        assert!((990_000..=1_002_000).contains(&sent), "{sent}");
    }

    #[test]
    fn the_slowest_rate_still_moves() {
        let mut pacer = Pacer::default();
        assert_eq!(pacer.allowance(Mono(9_000_000), 1), Ok(1));
        pacer.spend(Mono(9_000_000), 1, 1);
        assert_eq!(pacer.allowance(Mono(9_500_000), 1), Err(Mono(9_990_000)));
    }
}
