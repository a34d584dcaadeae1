//! WebSocket fragment: messages arrive in more frames than they were sent in.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::edit::{Act, Turn};
use super::selector::Selector;
use super::{Behaviour, On, Slots};
use crate::faults::Effects;
use crate::websocket::{First, Frame, Outgoing, opcode};

/// The most fragments of one message: each costs memory, however little is in it.
const MOST: usize = 1 << 14;

/// Cuts messages up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct WsFragment {
    /// The messages that it cuts up; all data where nothing is selected.
    #[serde(rename = "match")]
    selector: Selector,
    /// Bytes of each fragment's payload, the last one's apart.
    size: u64,
}

impl Default for WsFragment {
    fn default() -> Self {
        Self {
            selector: Selector::default(),
            size: 64,
        }
    }
}

impl Behaviour for WsFragment {
    fn check(&self) -> Result<(), String> {
        if self.size == 0 {
            return Err("size 0 makes no fragments; it is the bytes of one".to_owned());
        }
        self.selector.check()
    }

    fn take_hold(&self, on: &On<'_>, _: &mut Slots, effects: &mut Effects) {
        on.edit(&self.selector, self, effects);
    }
}

impl Act for WsFragment {
    fn suits(&self, first: &First, _: bool) -> bool {
        !first.is_control()
    }

    fn act(&self, message: &mut Outgoing, turn: &Turn<'_>) -> Option<&'static str> {
        let plain = message.plain();
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        let first = message.frames.first()?.header;
        if plain.len() <= size {
            return None;
        }
        let many = plain.len().min(size.saturating_mul(MOST - 1));
        let (many, last) = plain.split_at(many);
        let last = Some(last).filter(|last| !last.is_empty());
        let mut frames: Vec<_> = many
            .chunks(size)
            .chain(last)
            .zip(0..)
            .map(|(piece, slot)| {
                let mut frame = Frame::new(
                    opcode::CONTINUATION,
                    piece,
                    first.mask.map(|_| turn.key(slot)),
                );
                frame.header_mut().fin = false;
                frame
            })
            .collect();
        if let Some(frame) = frames.first_mut() {
            let header = frame.header_mut();
            header.opcode = first.opcode;
            header.rsv = first.rsv;
        }
        if let Some(frame) = frames.last_mut() {
            frame.header_mut().fin = true;
        }
        message.frames = frames;
        Some("fragment")
    }
}
