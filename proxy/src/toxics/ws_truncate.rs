//! WebSocket truncate: a frame announces its whole length, part of it arrives, and both sides are closed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::edit::{Act, Turn};
use super::selector::Selector;
use super::{Behaviour, On, Slots};
use crate::faults::Effects;
use crate::twists::Verdict;
use crate::websocket::Outgoing;

/// Breaks a message off.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct WsTruncate {
    /// The message that it breaks off; the next data where nothing is selected.
    #[serde(rename = "match")]
    selector: Selector,
    /// Bytes of the payload that arrive; one less than all where there are no more.
    keep: u64,
}

impl Behaviour for WsTruncate {
    fn check(&self) -> Result<(), String> {
        self.selector.check()
    }

    fn take_hold(&self, on: &On<'_>, _: &mut Slots, effects: &mut Effects) {
        on.edit(&self.selector, self, effects);
    }
}

impl Act for WsTruncate {
    fn act(&self, message: &mut Outgoing, _: &Turn<'_>) -> Option<&'static str> {
        let payloads = message.frames.iter().map(|frame| frame.payload.len());
        let length: usize = payloads.sum();
        let most = length.checked_sub(1)?;
        let mut keep = usize::try_from(self.keep).unwrap_or(most).min(most);
        let whole = message.frames.iter().position(|frame| {
            let is_cut = keep < frame.payload.len();
            if !is_cut {
                keep -= frame.payload.len();
            }
            is_cut
        })?;
        message.frames.truncate(whole + 1);
        message.frames[whole].payload.truncate(keep);
        message.frames[whole].is_padded = false;
        message.copies = 0;
        message.end = Some(Verdict::HangUp);
        Some("truncate")
    }
}
