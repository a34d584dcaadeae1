//! WebSocket swallow: pings or pongs do not arrive, as if the peer had stopped to answer, while data pass.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::edit::{Act, Turn};
use super::selector::Selector;
use super::{Behaviour, On, Slots};
use crate::faults::Effects;
use crate::websocket::{First, Outgoing, opcode};

/// A kind of control frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Questions.
    Ping,
    /// Answers.
    Pong,
}

impl Kind {
    const fn opcode(self) -> u8 {
        match self {
            Self::Ping => opcode::PING,
            Self::Pong => opcode::PONG,
        }
    }
}

/// Swallows control frames.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct WsSwallow {
    /// Those of these kinds that it swallows; all of them where nothing is selected.
    #[serde(rename = "match")]
    selector: Selector,
    /// `ping`, `pong`, or both.
    kinds: Vec<Kind>,
}

impl Default for WsSwallow {
    fn default() -> Self {
        Self {
            selector: Selector::default(),
            kinds: vec![Kind::Ping, Kind::Pong],
        }
    }
}

impl Behaviour for WsSwallow {
    fn check(&self) -> Result<(), String> {
        if self.kinds.is_empty() {
            return Err("kinds is empty; name \"ping\", \"pong\", or both".to_owned());
        }
        self.selector.check()
    }

    fn take_hold(&self, on: &On<'_>, _: &mut Slots, effects: &mut Effects) {
        on.edit(&self.selector, self, effects);
    }
}

impl Act for WsSwallow {
    fn suits(&self, first: &First, _: bool) -> bool {
        let mut kinds = self.kinds.iter();
        kinds.any(|kind| kind.opcode() == first.opcode)
    }

    fn needs_all(&self) -> bool {
        false
    }

    fn act(&self, message: &mut Outgoing, _: &Turn<'_>) -> Option<&'static str> {
        message.is_dropped = true;
        Some("swallow")
    }
}
