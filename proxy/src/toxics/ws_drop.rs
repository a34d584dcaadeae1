//! WebSocket drop: messages vanish, whole.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::edit::{Act, Turn};
use super::selector::Selector;
use super::{Behaviour, On, Slots};
use crate::faults::Effects;
use crate::websocket::Outgoing;

/// Drops messages.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct WsDrop {
    /// The messages that it drops; all data where nothing is selected.
    #[serde(rename = "match")]
    selector: Selector,
}

impl Behaviour for WsDrop {
    fn check(&self) -> Result<(), String> {
        self.selector.check()
    }

    fn take_hold(&self, on: &On<'_>, _: &mut Slots, effects: &mut Effects) {
        on.edit(&self.selector, self, effects);
    }
}

impl Act for WsDrop {
    fn breaks_compression(&self) -> bool {
        true
    }

    fn needs_all(&self) -> bool {
        false
    }

    fn act(&self, message: &mut Outgoing, _: &Turn<'_>) -> Option<&'static str> {
        message.is_dropped = true;
        Some("drop")
    }
}
