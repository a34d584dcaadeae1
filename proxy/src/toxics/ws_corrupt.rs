//! WebSocket corrupt: bits of a message's payload are turned over; its frames stay right.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::edit::{Act, Turn};
use super::selector::Selector;
use super::{Behaviour, On, Slots};
use crate::faults::Effects;
use crate::websocket::Outgoing;

const MOST: u64 = 1_000;

/// Turns bits over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct WsCorrupt {
    /// The messages that it corrupts; all data where nothing is selected.
    #[serde(rename = "match")]
    selector: Selector,
    /// Bits of each, from 1 to 1000. One that is drawn twice is as it was.
    bits: u64,
}

impl Default for WsCorrupt {
    fn default() -> Self {
        Self {
            selector: Selector::default(),
            bits: 1,
        }
    }
}

impl Behaviour for WsCorrupt {
    fn check(&self) -> Result<(), String> {
        if !(1..=MOST).contains(&self.bits) {
            return Err(format!("bits {} is not from 1 to {MOST}", self.bits));
        }
        self.selector.check()
    }

    fn take_hold(&self, on: &On<'_>, _: &mut Slots, effects: &mut Effects) {
        on.edit(&self.selector, self, effects);
    }
}

impl Act for WsCorrupt {
    fn breaks_compression(&self) -> bool {
        true
    }

    fn act(&self, message: &mut Outgoing, turn: &Turn<'_>) -> Option<&'static str> {
        let payloads = message.frames.iter().map(|frame| frame.payload.len());
        let length: usize = payloads.sum();
        if length == 0 {
            return None;
        }
        for slot in 0..self.bits {
            let bit = turn.below(slot, length as u64 * 8);
            let mut at = usize::try_from(bit / 8).unwrap_or(0);
            for frame in &mut message.frames {
                if let Some(byte) = frame.payload.get_mut(at) {
                    *byte ^= 1 << (bit % 8);
                    break;
                }
                at -= frame.payload.len();
            }
        }
        Some("corrupt")
    }
}
