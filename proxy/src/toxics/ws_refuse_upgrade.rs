//! Upgrade refusal: the proxy answers a request for a WebSocket in the upstream's place, which hears nothing of it. Other
//! requests pass.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Behaviour, On, Slots};
use crate::faults::{Effects, Refusal, check_refusal};

/// Answers upgrades.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct WsRefuseUpgrade {
    /// The answer's status, from 400 to 599.
    status: u16,
    /// The answer's body, as text.
    body: String,
    /// Seconds, as `Retry-After`; without it, none is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
}

impl Default for WsRefuseUpgrade {
    fn default() -> Self {
        Self {
            status: 503,
            body: String::new(),
            retry_after: None,
        }
    }
}

impl Behaviour for WsRefuseUpgrade {
    fn check(&self) -> Result<(), String> {
        check_refusal(self.status)
    }

    fn draws(&self) -> bool {
        false
    }

    fn take_hold(&self, on: &On<'_>, _: &mut Slots, effects: &mut Effects) {
        on.needs_request(effects);
        effects.refuse_upgrade = Some(Refusal {
            rule: on.rule.clone(),
            status: self.status,
            retry_after: self.retry_after,
            body: self.body.clone(),
        });
    }
}
