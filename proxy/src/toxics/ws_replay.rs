//! WebSocket replay: an earlier message arrives again after a later one.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::edit::{Act, Turn};
use super::selector::Selector;
use super::{Behaviour, On, Slots};
use crate::faults::Effects;
use crate::websocket::Outgoing;

/// The furthest back that is remembered.
const MOST: u64 = 64;

/// Sends old messages again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct WsReplay {
    /// The messages after which it sends an old one; all data where nothing is selected.
    #[serde(rename = "match")]
    selector: Selector,
    /// Which: so many data messages before the selected one, from 1 to 64.
    back: u64,
}

impl Default for WsReplay {
    fn default() -> Self {
        Self {
            selector: Selector::default(),
            back: 1,
        }
    }
}

impl WsReplay {
    fn back(&self) -> usize {
        usize::try_from(self.back).unwrap_or(0)
    }
}

impl Behaviour for WsReplay {
    fn check(&self) -> Result<(), String> {
        if !(1..=MOST).contains(&self.back) {
            return Err(format!("back {} is not from 1 to {MOST}", self.back));
        }
        self.selector.check()
    }

    fn take_hold(&self, on: &On<'_>, _: &mut Slots, effects: &mut Effects) {
        on.edit(&self.selector, self, effects);
    }
}

impl Act for WsReplay {
    fn breaks_compression(&self) -> bool {
        true
    }

    fn remembers(&self) -> usize {
        self.back()
    }

    fn act(&self, message: &mut Outgoing, turn: &Turn<'_>) -> Option<&'static str> {
        let old = turn.earlier(self.back())?;
        message.after.push(Arc::clone(old));
        Some("replay")
    }
}
