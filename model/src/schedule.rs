//! When a stream's events are due: fixed before the first of them, so that whoever knows the schedule knows the whole
//! content of the n-th event.

use serde::{Deserialize, Serialize};

use crate::instant::Mono;
use crate::quantity::{Rate, Span};
use crate::shard::Burst;

/// The events of one stream over time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// The first event is due.
    #[serde(rename = "first_us")]
    pub first: Mono,
    /// Events per second.
    pub rate: Rate,
    /// So many events are due at once, each so long after the last: instead of the rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<Burst>,
}

impl Schedule {
    /// The instant of an event; `None` for a rate of zero.
    #[must_use]
    pub fn due(&self, index: u64) -> Option<Mono> {
        if let Some(Burst { events, every }) = self.burst {
            let burst = index / u64::from(events.max(1));
            return Some(self.first + every.times(burst));
        }
        let per_second = self.rate.as_per_second();
        (per_second > 0.0).then(|| self.first + Span::from_secs(1).scale(index as f64 / per_second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_due_one_by_one_or_many_at_once_and_the_same_wherever_it_is_computed() {
        let mut schedule = Schedule {
            first: Mono(7),
            rate: Rate::per_second(1_000.0 / 3.0),
            burst: None,
        };
        let text = serde_json::to_string(&schedule).unwrap();
        let told: Schedule = serde_json::from_str(&text).unwrap();
        for index in 0..10_000 {
            assert_eq!(told.due(index), schedule.due(index), "{text}");
        }
        assert_eq!(schedule.due(1), Some(Mono(3_007)));
        schedule.burst = Some(Burst {
            events: 3,
            every: Span::from_secs(1),
        });
        let due: Vec<_> = (0..5).filter_map(|index| schedule.due(index)).collect();
        assert_eq!(due.iter().filter(|due| **due == Mono(7)).count(), 3);
        assert_eq!(due[4], Mono(1_000_007));
        schedule.burst = None;
        schedule.rate = Rate::per_second(0.0);
        assert_eq!(schedule.due(0), None);
    }
}
