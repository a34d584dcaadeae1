//! WebSocket close: the peer that messages go to gets a Close frame between two of them, then both sides are closed. With
//! the code 1006, which is never sent, both are reset instead.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::edit::{Act, Turn};
use super::selector::Selector;
use super::{Behaviour, On, Slots};
use crate::faults::Effects;
use crate::twists::Verdict;
use crate::websocket::{Frame, Outgoing, opcode};

/// What stands for an end without a Close frame.
const ABNORMAL: u16 = 1_006;

/// Closes the connections of WebSocket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct WsClose {
    /// The messages after which it closes; at once where nothing is selected.
    #[serde(rename = "match")]
    selector: Selector,
    /// The code, from 1000 to 4999; 1006 for RST without a Close frame.
    code: u16,
    /// The reason, of at most 123 bytes.
    reason: String,
}

impl Default for WsClose {
    fn default() -> Self {
        Self {
            selector: Selector::default(),
            code: 1_001,
            reason: String::new(),
        }
    }
}

impl Behaviour for WsClose {
    fn check(&self) -> Result<(), String> {
        if !(1_000..=4_999).contains(&self.code) {
            return Err(format!("code {} is not from 1000 to 4999", self.code));
        }
        if self.reason.len() > 123 {
            return Err(format!(
                "the reason has {} bytes; a Close frame carries at most 123",
                self.reason.len()
            ));
        }
        if self.code == ABNORMAL && !self.reason.is_empty() {
            return Err("code 1006 sends no Close frame, so there is no reason".to_owned());
        }
        self.selector.check()
    }

    fn take_hold(&self, on: &On<'_>, _: &mut Slots, effects: &mut Effects) {
        on.edit(&self.selector, self, effects);
    }
}

impl Act for WsClose {
    fn needs_all(&self) -> bool {
        false
    }

    fn is_momentary(&self) -> bool {
        true
    }

    fn act(&self, message: &mut Outgoing, turn: &Turn<'_>) -> Option<&'static str> {
        if self.code == ABNORMAL {
            message.end = Some(Verdict::Reset);
            return Some("reset");
        }
        let payload = [&self.code.to_be_bytes()[..], self.reason.as_bytes()].concat();
        let frame = Frame::new(opcode::CLOSE, &payload, message.mask(turn.key(0)));
        message.after.push(Arc::new(frame.bytes()));
        message.end = Some(Verdict::HangUp);
        Some("close")
    }
}
