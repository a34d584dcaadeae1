//! WebSocket duplicate: messages arrive more than once.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::edit::{Act, Turn};
use super::selector::Selector;
use super::{Behaviour, On, Slots};
use crate::faults::Effects;
use crate::websocket::Outgoing;

const MOST: u64 = 1_000;

/// Sends messages again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct WsDuplicate {
    /// The messages that it duplicates; all data where nothing is selected.
    #[serde(rename = "match")]
    selector: Selector,
    /// How many more times, from 1 to 1000.
    copies: u64,
}

impl Default for WsDuplicate {
    fn default() -> Self {
        Self {
            selector: Selector::default(),
            copies: 1,
        }
    }
}

impl Behaviour for WsDuplicate {
    fn check(&self) -> Result<(), String> {
        if !(1..=MOST).contains(&self.copies) {
            return Err(format!("copies {} is not from 1 to {MOST}", self.copies));
        }
        self.selector.check()
    }

    fn take_hold(&self, on: &On<'_>, _: &mut Slots, effects: &mut Effects) {
        on.edit(&self.selector, self, effects);
    }
}

impl Act for WsDuplicate {
    fn breaks_compression(&self) -> bool {
        true
    }

    fn act(&self, message: &mut Outgoing, _: &Turn<'_>) -> Option<&'static str> {
        message.copies += usize::try_from(self.copies).unwrap_or(0);
        Some("duplicate")
    }
}
