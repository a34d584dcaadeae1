//! Token buckets.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use model::instant::Mono;
use model::quantity::Rate;

/// A rate that lets short bursts through. The clock is the caller's.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: f64,
    burst: f64,
    level: Mutex<(f64, Option<Mono>)>,
}

impl Bucket {
    /// A full bucket of `burst` that fills at `rate`.
    pub(crate) fn new(rate: Rate, burst: f64) -> Self {
        let burst = burst.max(1.0);
        Self {
            rate: rate.as_per_second(),
            burst,
            level: Mutex::new((burst, None)),
        }
    }

    /// Takes one.
    ///
    /// # Errors
    /// It is empty: how long until one is there.
    pub(crate) fn take(&self, now: Mono) -> Result<(), Duration> {
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        let since = level.1.map_or(0.0, |last| now.since(last).as_secs_f64());
        let filled = (level.0 + since * self.rate).min(self.burst);
        let taken = if filled >= 1.0 { filled - 1.0 } else { filled };
        *level = (taken, Some(level.1.map_or(now, |last| last.max(now))));
        if filled >= 1.0 {
            return Ok(());
        }
        // A rate of zero never fills.
        Err(Duration::try_from_secs_f64((1.0 - filled) / self.rate).unwrap_or(Duration::MAX))
    }
}

#[cfg(test)]
mod tests {
    use model::quantity::Span;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_bucket_says_when_the_next_is_there() {
        let bucket = Bucket::new(Rate::per_second(10.0), 2.0);
        let at = |millis| Mono(1_000_000) + Span::from_millis(millis);
        assert_eq!(bucket.take(at(0)), Ok(()));
        assert_eq!(bucket.take(at(0)), Ok(()));
        let wait = bucket.take(at(50)).unwrap_err();
        assert!(
            wait <= Duration::from_millis(50) && wait > Duration::from_millis(49),
            "{wait:?}"
        );
        assert_eq!(bucket.take(at(101)), Ok(()));
        assert!(bucket.take(at(102)).is_err());
    }

    proptest! {
        #[test]
        fn no_more_than_the_burst_and_the_rate_get_through(steps in proptest::collection::vec(0_u64..40, 1..200)) {
            let bucket = Bucket::new(Rate::per_second(50.0), 5.0);
            let (mut now, mut passed) = (Mono(0), 0_u64);
            for step in steps {
                now = now + Span::from_millis(step);
                passed += u64::from(bucket.take(now).is_ok());
            }
            prop_assert!(passed as f64 <= 5.0 + now.0 as f64 * 50e-6 + 1e-6);
        }
    }
}
