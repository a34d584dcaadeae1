//! A plan: a scenario resolved with a seed, a lane and settings. Every action, instant and random choice is fixed; what
//! the conductor walks and what results judges by.

use std::collections::BTreeMap;

use model::crew::Layout;
use model::criteria::Criteria;
use model::defect::Defect;
use model::fault::{Fault, Holder};
use model::ids::{FaultId, Lane, StreamId};
use model::profile::Profile;
use model::quantity::{Rate, Share, Span};
use model::shard::{Burst, Policy};
use model::target::{Kind, Promise, Wire};
use serde::{Deserialize, Serialize};

use crate::target::Limits;

mod describe;
mod probe;

pub use probe::{Ask, CommandAsk, HttpAsk, Probe, PromqlAsk, Reachable, Rule, Web};

/// One scenario on one lane with one seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The scenario's name.
    pub scenario: String,
    /// What the scenario says about itself.
    pub about: String,
    /// Which lane.
    pub lane: Lane,
    /// The seed of every random choice.
    pub seed: u64,
    /// The load.
    pub workload: Workload,
    /// The target's settings.
    pub target: TargetSettings,
    /// Which agents of the inventory run which parts of it.
    #[serde(default, skip_serializing_if = "Layout::is_local")]
    pub layout: Layout,
    /// When the system counts as steady.
    pub steady: Steady,
    /// The faults, by instant.
    pub steps: Vec<Step>,
    /// What ends the trial early.
    pub abort: Option<AbortRule>,
    /// What is asked beside the lane.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probes: Vec<Probe>,
    /// What it is judged by.
    pub criteria: Criteria,
    /// `sha256:<hex>` over the canonical JSON of all fields above. A planted defect and the trial's number are not in
    /// it: the plan is the same.
    pub digest: String,
    /// The planted defect, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defect: Option<Defect>,
}

impl Plan {
    /// What [`Self::digest`] has to be: computed anew from the other fields.
    #[must_use]
    pub fn computed_digest(&self) -> String {
        crate::resolve::digest(self)
    }
}

/// The load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// Clients.
    pub clients: u32,
    /// Shard processes among which they are divided.
    pub shards: u32,
    /// The streams by name, published to and subscribed to.
    pub streams: Vec<StreamId>,
    /// Streams that each client subscribes to.
    pub streams_per_client: u32,
    /// Events per second and stream.
    pub publish: Rate,
    /// Bursts on the first stream, in place of that rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<Burst>,
    /// Padding per event, in bytes.
    pub padding: u32,
    /// Reconnect policy.
    pub policy: Policy,
    /// The rate at which clients believe that the target takes them back, for [`Policy::Spread`].
    pub capacity: Option<Rate>,
    /// First connections are spread over this time.
    pub ramp: Span,
    /// Probes run so often.
    pub probe_every: Span,
}

/// Settings of the target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TargetSettings {
    /// Which.
    pub kind: Kind,
    /// How messages are encoded, on the spacetime lane.
    #[serde(default, skip_serializing_if = "Wire::is_json")]
    pub wire: Wire,
    /// What it promises, and is held to.
    pub promise: Promise,
    /// Clocks and budgets.
    pub profile: Profile,
    /// Upgrades per second beyond which the lane answers 503.
    pub accept_rate: Option<Rate>,
    /// Tokens per second beyond which the token service answers 429.
    pub token_rate: Option<Rate>,
    /// Tokens that may be issued at once before the rate bites.
    pub token_burst: u32,
    /// Streams whose (retention, replay budget) differ from the profile's.
    pub stream_budgets: BTreeMap<StreamId, (u64, u64)>,
    /// What the gates judge by, where the target states it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
}

/// When the system counts as steady.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Steady {
    /// The window that has to be clean from end to end.
    pub window: Span,
    /// Live clients, of those intended, throughout the window.
    pub connected: Share,
    /// Delivery latency from the intended instant: p99 within the window.
    pub delivery_p99: Span,
    /// Steady state has to be reached within this time, before the timeline begins.
    pub within: Span,
}

/// One fault of the timeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// `f1-hold`: its place and its name.
    pub id: FaultId,
    /// From the timeline's zero (steady state reached).
    pub at: Span,
    /// How long it lasts; for a fault that ends by itself, how long that takes.
    pub lasts: Span,
    /// What it does.
    pub fault: Fault,
    /// The node it is done to, for node faults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The agents of the inventory by which it is done, by name. Where none is named, those that run what it is done to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// The share of the clients it takes.
    pub share: Share,
    /// How long it may live unrenewed.
    pub lease: Span,
}

impl Plan {
    /// The agents of the inventory by which a step is done; empty where the conductor's own agent does it.
    #[must_use]
    pub fn done_by(&self, step: &Step) -> Vec<String> {
        if !step.nodes.is_empty() {
            return step.nodes.clone();
        }
        match step.fault.holder() {
            Holder::Proxy | Holder::Shard => self.layout.clients.clone(),
            Holder::Agent | Holder::Tokens => {
                let runner = self.layout.runner(step.node.as_deref());
                runner.map(str::to_owned).into_iter().collect()
            }
        }
    }
}

/// What ends a trial early: too few clients live for too long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AbortRule {
    /// Live clients, of those intended, below this share …
    pub connected_below: Share,
    /// … for so long, after the last heal.
    pub lasting: Span,
}
