//! The clocks and budgets that a lane and its clients agree on. Real services count in tens of seconds; the embedded
//! target scales these to seconds so that a drill ends in minutes, and says so in its evidence.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quantity::Span;

/// The clocks and budgets of a target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// What it is called in the evidence.
    pub name: String,
    /// The client sends a heartbeat (khala) or a one-off query (spacetime) so often.
    pub heartbeat: Span,
    /// The server ticks or pings so often, and closes a connection that has been silent for `heartbeat_timeout`.
    pub server_tick: Span,
    /// See `server_tick`.
    pub heartbeat_timeout: Span,
    /// A client gives a connection up when nothing has arrived for so long.
    pub read_idle: Span,
    /// A connection attempt (TCP, upgrade, join, subscribe reply) may take so long.
    pub connect_timeout: Span,
    /// The first reconnect delay, before the policy's growth.
    pub backoff_base: Span,
    /// The largest reconnect delay.
    pub backoff_cap: Span,
    /// A connection that has lived so long counts as stable, and resets the backoff.
    pub stable_after: Span,
    /// The lifetime a client asks of its tokens.
    pub token_ttl: Span,
    /// A client renews its token so long before it expires.
    pub refresh_lead: Span,
    /// How long past `exp` a token is still accepted.
    pub token_skew: Span,
    /// How many events a stream keeps for replay.
    pub retention: u64,
    /// The largest replay that a resume may ask for.
    pub replay_budget: u64,
}

impl Profile {
    /// The embedded target's: the field's numbers scaled to seconds.
    #[must_use]
    pub fn embedded() -> Self {
        Self {
            name: "embedded".to_owned(),
            heartbeat: Span::from_secs(1),
            server_tick: Span::from_millis(750),
            heartbeat_timeout: Span::from_secs(3),
            read_idle: Span::from_secs(3),
            connect_timeout: Span::from_secs(3),
            backoff_base: Span::from_millis(250),
            backoff_cap: Span::from_secs(2),
            stable_after: Span::from_secs(2),
            token_ttl: Span::from_secs(120),
            refresh_lead: Span::from_secs(1),
            token_skew: Span::ZERO,
            retention: 100_000,
            replay_budget: 20_000,
        }
    }

    /// The field's own numbers.
    #[must_use]
    pub fn field() -> Self {
        Self {
            name: "field".to_owned(),
            heartbeat: Span::from_secs(20),
            server_tick: Span::from_secs(15),
            heartbeat_timeout: Span::from_secs(60),
            read_idle: Span::from_secs(45),
            connect_timeout: Span::from_secs(10),
            backoff_base: Span::from_millis(250),
            backoff_cap: Span::from_secs(8),
            stable_after: Span::from_secs(10),
            token_ttl: Span::from_secs(300),
            refresh_lead: Span::from_secs(30),
            token_skew: Span::from_secs(30),
            retention: 100_000,
            replay_budget: 20_000,
        }
    }
}
