//! Latency: each chunk that is read waits in the link's queue before it is written. The order is kept, and as up to
//! [`crate::link::IN_FLIGHT`] bytes wait at once, throughput does not suffer.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::fault::Latency;
use model::quantity::Span;

use super::{Bites, Rule, get, named};
use crate::plane::{Handle, Identity};
use crate::tap::Way;
use crate::toxics::Draws;

/// One rule's delay on one link.
#[derive(Debug)]
pub(crate) struct Delay {
    pub(crate) rule: Arc<Rule>,
    base: Span,
    jitter: Span,
    /// The jitter.
    draws: Draws,
}

impl Delay {
    /// Of a drill's order. What the jitter hangs on is `c0042/upstream`, or `connection-7/upstream` where no client is
    /// known.
    pub(super) fn new(rule: &Arc<Rule>, settings: &Latency, handle: &Handle, way: Way) -> Self {
        let way = way.name();
        let key = match handle.identity() {
            Identity::Client(client) => format!("{client}/{way}"),
            Identity::Unread | Identity::Anonymous => {
                format!("connection-{}/{way}", handle.ordinal)
            }
        };
        let draws = Draws::ordered(Arc::clone(rule), key);
        Self::drawn(rule, settings.delay, settings.jitter, draws)
    }

    pub(crate) fn drawn(rule: &Arc<Rule>, base: Span, jitter: Span, draws: Draws) -> Self {
        Self {
            rule: Arc::clone(rule),
            base,
            jitter,
            draws,
        }
    }

    /// The longest that a chunk can wait for it.
    pub(crate) fn longest(&self) -> Span {
        self.base.plus(self.jitter)
    }

    /// How long the link's chunk of this index waits: the delay ± the jitter, never less than nothing.
    pub(crate) fn of(&self, index: u64) -> Span {
        if self.jitter == Span::ZERO {
            return self.base;
        }
        let up = self.draws.span(index, self.jitter.times(2));
        Span::from_micros(
            self.base
                .plus(up)
                .as_micros()
                .saturating_sub(self.jitter.as_micros()),
        )
    }

    /// The chunk of this index waits that long because of it.
    pub(crate) fn fired(&self, index: u64, delay: Span) {
        if self.jitter > Span::ZERO {
            self.draws
                .fired(index, format_args!("delay {}us", delay.as_micros()));
        }
    }
}

pub(super) fn figures(bites: &Bites) -> BTreeMap<String, u64> {
    named([
        ("connections_delayed", get(&bites.total)),
        ("chunks_delayed", get(&bites.chunks)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::fault::{Direction, Fault, FaultOrder};
    use model::ids::ClientId;
    use model::quantity::Share;

    #[test]
    fn jitter_is_seeded_and_within_its_bounds() {
        let settings = Latency {
            delay: Span::from_millis(20),
            jitter: Span::from_millis(30),
            direction: Direction::Both,
        };
        let order = FaultOrder {
            id: "f1".to_owned(),
            fault: Fault::Latency(settings.clone()),
            node: None,
            share: Share::ALL,
            seed: 7,
            lease: Span::from_secs(1),
        };
        let rule = Arc::new(Rule::new(order, 1).unwrap());
        let on = |ordinal, client| {
            let handle = Handle::new(ordinal);
            handle.identify(client);
            let delay = Delay::new(&rule, &settings, &handle, Way::Upstream);
            (0..500).map(|index| delay.of(index)).collect::<Vec<_>>()
        };
        let delays = on(1, Some(ClientId(5)));
        assert!(delays.iter().all(|delay| *delay <= Span::from_millis(50)));
        assert!(
            delays.contains(&Span::ZERO),
            "20 ms ± 30 ms is cut off at 0"
        );
        assert!(delays.iter().any(|delay| *delay > Span::from_millis(45)));
        assert_eq!(
            delays,
            on(2, Some(ClientId(5))),
            "it is the client that counts, not its connection"
        );
        assert_ne!(delays, on(1, Some(ClientId(6))));
    }
}
