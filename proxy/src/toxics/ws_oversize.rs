//! WebSocket oversize: a message is padded with spaces to a length beyond what its receiver accepts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::edit::{Act, Turn};
use super::selector::Selector;
use super::{Behaviour, On, Slots};
use crate::faults::Effects;
use crate::websocket::Outgoing;

/// Makes messages long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct WsOversize {
    /// The messages that it makes long; all data where nothing is selected.
    #[serde(rename = "match")]
    selector: Selector,
    /// Bytes of payload that the message's last frame has then.
    length: u64,
}

impl Default for WsOversize {
    fn default() -> Self {
        Self {
            selector: Selector::default(),
            length: 128 << 20,
        }
    }
}

impl Behaviour for WsOversize {
    fn check(&self) -> Result<(), String> {
        if self.length == 0 || self.length >> 63 != 0 {
            return Err(format!(
                "length {} is not from 1 to 9223372036854775807, the longest frame",
                self.length
            ));
        }
        self.selector.check()
    }

    fn take_hold(&self, on: &On<'_>, _: &mut Slots, effects: &mut Effects) {
        on.edit(&self.selector, self, effects);
    }
}

impl Act for WsOversize {
    fn reads_payload(&self) -> bool {
        true
    }

    fn act(&self, message: &mut Outgoing, _: &Turn<'_>) -> Option<&'static str> {
        let last = message.frames.last_mut()?;
        if last.header.length >= self.length {
            return None;
        }
        last.header_mut().length = self.length;
        last.is_padded = true;
        Some("oversize")
    }
}
