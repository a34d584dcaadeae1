//! WebSocket violate: frames that the protocol forbids (RFC 6455), made of a message or put before it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::edit::{Act, Turn};
use super::selector::Selector;
use super::{Behaviour, On, Slots};
use crate::faults::Effects;
use crate::websocket::{First, Frame, Outgoing, opcode};

/// What is forbidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Violation {
    /// The message has opcode 3, or 11 where it is a control frame (5.2).
    #[default]
    ReservedOpcode,
    /// The message has RSV2 and RSV3 set, which no extension was agreed on for (5.2).
    ReservedBits,
    /// The message is masked towards the client, or not masked towards the server (5.1).
    BadMask,
    /// The text message begins with the byte ff, which no UTF-8 has (8.1).
    InvalidUtf8,
    /// The message's lengths are written in 8 bytes, whatever they are (5.2).
    LongLength,
    /// Before the message comes a ping of 126 bytes (5.5).
    OversizedControl,
    /// Before the message comes a ping that is not its last fragment (5.4).
    FragmentedControl,
    /// Before the message comes a continuation of nothing (5.4).
    StrayContinuation,
    /// Before the message another one begins that is not continued (5.4).
    UnfinishedMessage,
    /// Before the message comes a Close frame of one byte, half a code (5.5.1).
    BadClose,
}

/// Breaks the protocol.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct WsViolate {
    /// The messages at which it does; all data where nothing is selected.
    #[serde(rename = "match")]
    selector: Selector,
    /// What it does.
    kind: Violation,
}

impl Behaviour for WsViolate {
    fn check(&self) -> Result<(), String> {
        self.selector.check()
    }

    fn take_hold(&self, on: &On<'_>, _: &mut Slots, effects: &mut Effects) {
        on.edit(&self.selector, self, effects);
    }
}

impl Act for WsViolate {
    fn suits(&self, first: &First, is_named: bool) -> bool {
        match self.kind {
            Violation::InvalidUtf8 => first.opcode == opcode::TEXT,
            _ => is_named || !first.is_control(),
        }
    }

    fn reads_payload(&self) -> bool {
        self.kind == Violation::InvalidUtf8
    }

    fn act(&self, message: &mut Outgoing, turn: &Turn<'_>) -> Option<&'static str> {
        let mask = message.mask(turn.key(0));
        let mut before = |opcode, payload: &[u8], fin| {
            let mut frame = Frame::new(opcode, payload, mask);
            frame.header_mut().fin = fin;
            message.before.push(frame);
        };
        match self.kind {
            Violation::OversizedControl => before(opcode::PING, &[b'x'; 126], true),
            Violation::FragmentedControl => before(opcode::PING, b"x", false),
            Violation::StrayContinuation => before(opcode::CONTINUATION, b"x", true),
            Violation::UnfinishedMessage => before(opcode::TEXT, b"x", false),
            Violation::BadClose => before(opcode::CLOSE, &[3], true),
            Violation::ReservedOpcode => {
                let header = message.frames.first_mut()?.header_mut();
                header.opcode = if header.is_control() { 11 } else { 3 };
            }
            Violation::ReservedBits => message.frames.first_mut()?.header_mut().rsv |= 3,
            Violation::BadMask => {
                for (frame, slot) in message.frames.iter_mut().zip(1..) {
                    let plain = frame.plain();
                    let masked = frame.header.mask.is_some();
                    frame.header_mut().mask = (!masked).then(|| turn.key(slot));
                    frame.set_payload(&plain);
                }
            }
            Violation::InvalidUtf8 => {
                let frame = message
                    .frames
                    .iter_mut()
                    .find(|frame| !frame.payload.is_empty())?;
                let mut plain = frame.plain();
                plain[0] = 0xff;
                frame.set_payload(&plain);
            }
            Violation::LongLength => {
                for frame in &mut message.frames {
                    frame.lengthen_header();
                }
            }
        }
        Some("violate")
    }
}
