//! WebSocket reorder: messages are overtaken by those that come after them.

use model::quantity::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::edit::{Act, Turn};
use super::selector::Selector;
use super::{Behaviour, On, Slots};
use crate::faults::Effects;
use crate::websocket::{Behind, Outgoing};

/// Holds messages back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct WsReorder {
    /// The messages that are overtaken; all data where nothing is selected.
    #[serde(rename = "match")]
    selector: Selector,
    /// How many messages overtake each.
    window: u64,
    /// Milli-seconds after which it goes even if they have not come; 0 for never.
    timeout: u64,
}

impl Default for WsReorder {
    fn default() -> Self {
        Self {
            selector: Selector::default(),
            window: 1,
            timeout: 1_000,
        }
    }
}

impl Behaviour for WsReorder {
    fn check(&self) -> Result<(), String> {
        if self.window == 0 {
            return Err("window 0 lets nothing overtake; it is a number of messages".to_owned());
        }
        self.selector.check()
    }

    fn take_hold(&self, on: &On<'_>, _: &mut Slots, effects: &mut Effects) {
        on.edit(&self.selector, self, effects);
    }
}

impl Act for WsReorder {
    fn breaks_compression(&self) -> bool {
        true
    }

    fn act(&self, message: &mut Outgoing, turn: &Turn<'_>) -> Option<&'static str> {
        message.behind = Some(Behind {
            uid: turn.uid,
            messages: self.window,
            limit: (self.timeout > 0).then(|| Span::from_millis(self.timeout)),
        });
        Some("reorder")
    }
}
