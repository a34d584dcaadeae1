//! What toxics do to an upgrade: to the head of its request, to the head of its answer, and to what comes after it.

use std::sync::atomic::Ordering;

use model::instant::Mono;
use model::quantity::Span;

use crate::faults::Delay;
use crate::plane::Handle;
use crate::tap::Way;
use crate::toxics::Acts;
use crate::websocket::HeadEdit;

/// What is to be done to the upgrade of one connection.
#[derive(Debug, Default)]
pub(crate) struct Upgrade {
    pub(crate) request: Head,
    pub(crate) answer: Head,
    /// Nothing follows the answer 101, because of the toxics of these numbers.
    pub(crate) stalls: Vec<(u64, Acts)>,
}

/// What is to be done to one head.
#[derive(Debug, Default)]
pub(crate) struct Head {
    /// One after the other.
    pub(crate) edits: Vec<(HeadEdit, Acts)>,
    /// It passes so much later. The delays add up.
    pub(crate) delays: Vec<Delay>,
}

impl Upgrade {
    pub(crate) const fn head(&mut self, way: Way) -> &mut Head {
        match way {
            Way::Upstream => &mut self.request,
            Way::Downstream => &mut self.answer,
        }
    }
}

impl Head {
    /// Whether nothing of it may pass before it is complete.
    pub(crate) const fn waits(&self) -> bool {
        !self.edits.is_empty() || !self.delays.is_empty()
    }

    /// Writes down the delays of a head that is there now.
    pub(crate) fn fired(&self, handle: &Handle) {
        for delay in self.delays.iter().filter(|delay| delay.of(0) > Span::ZERO) {
            delay.fired(0, delay.of(0));
            delay.rule.bites.acts.fetch_add(1, Ordering::Relaxed);
            handle.bitten_by(&delay.rule);
        }
    }

    /// When it may pass, if it was complete at `came`.
    pub(crate) fn due(&self, came: Mono) -> Mono {
        let delays = self.delays.iter().map(|delay| delay.of(0));
        delays.fold(came, |at, delay| at + delay)
    }
}
