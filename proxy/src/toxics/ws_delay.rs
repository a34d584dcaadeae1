//! WebSocket delay: messages are late, and what comes behind them waits for them, as on a real connection.

use model::quantity::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::edit::{Act, Turn};
use super::selector::Selector;
use super::{Behaviour, On, Slots};
use crate::faults::Effects;
use crate::websocket::Outgoing;

/// Delays messages.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct WsDelay {
    /// The messages that it delays; all data where nothing is selected.
    #[serde(rename = "match")]
    selector: Selector,
    /// Milli-seconds.
    delay: u64,
    /// Milli-seconds by which the delay varies uniformly either way.
    jitter: u64,
}

impl Behaviour for WsDelay {
    fn check(&self) -> Result<(), String> {
        self.selector.check()
    }

    fn take_hold(&self, on: &On<'_>, _: &mut Slots, effects: &mut Effects) {
        on.edit(&self.selector, self, effects);
    }
}

impl Act for WsDelay {
    fn needs_all(&self) -> bool {
        false
    }

    fn delays(&self) -> bool {
        true
    }

    fn act(&self, message: &mut Outgoing, turn: &Turn<'_>) -> Option<&'static str> {
        let jitter = self.jitter.saturating_mul(1_000);
        let up = turn.below(0, jitter.saturating_mul(2).saturating_add(1));
        let delay = Span::from_millis(self.delay).plus(Span::from_micros(up));
        let delay = delay.as_micros().saturating_sub(jitter);
        message.hold = message.hold.plus(Span::from_micros(delay));
        (delay > 0).then_some("delay")
    }
}
