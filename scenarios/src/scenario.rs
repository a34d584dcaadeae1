//! The language: what can be written in a scenario file. docs/scenarios.md explains it with examples.

use std::collections::BTreeMap;

use model::criteria::{Bounds, Limits, Phase};
use model::fault::Fault;
use model::ids::StreamId;
use model::profile::Profile;
use model::quantity::{ByteSize, Rate, Share, Span};
use model::shard::{Burst, Policy};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::inventory::Selection;

mod probe;

pub use probe::{AbortProbe, CommandProbe, HttpProbe, Probe, PromqlProbe};

/// A chaos drill: a load, a steady state, faults on a timeline, and what the way back is judged by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Lower-case letters, digits and hyphens: it names files in the evidence.
    #[schemars(regex(pattern = r"^[a-z0-9][a-z0-9-]*$"), length(max = 64))]
    pub name: String,
    /// What it is about, in a sentence or two.
    #[serde(default)]
    pub about: String,
    /// The load.
    #[serde(default)]
    pub workload: Workload,
    /// Settings of the embedded target.
    #[serde(default)]
    pub target: Target,
    /// When the system counts as steady, before the faults and after them.
    #[serde(default)]
    pub steady: Steady,
    /// The faults, each at its time from the moment at which steady state was reached.
    #[schemars(length(min = 1))]
    pub timeline: Vec<Entry>,
    /// The least share of the clients that the faults must affect; below it a trial is inconclusive.
    pub affected: Share,
    /// Upper bounds on the phases of the way back.
    #[serde(default)]
    pub bounds: BoundsByPhase,
    /// Limits on counts and ratios.
    #[serde(default)]
    pub limits: Limits,
    /// What ends a trial early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<Abort>,
    /// Clients that are not whole so long after the last heal are counted as not recovered. At least as long as every
    /// bound.
    pub deadline: Span,
    /// Settings of the short form: laid over all others by `--quick`, maps key by key, lists item by item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quick: Option<serde_json::Map<String, serde_json::Value>>,
}

/// The load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Workload {
    /// Clients, on each lane.
    #[schemars(range(min = 1))]
    pub clients: u32,
    /// Processes among which the clients are divided.
    #[schemars(range(min = 1))]
    pub shards: u32,
    /// Streams that are published to: `runtime.run.1.events` and so on.
    #[schemars(range(min = 1))]
    pub streams: u32,
    /// Streams that each client subscribes to, chosen by the seed.
    #[schemars(range(min = 1))]
    pub streams_per_client: u32,
    /// Events per second, on each stream.
    pub publish: Rate,
    /// Bursts on the first stream, in place of that rate: so many events at once, again and again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<Burst>,
    /// Padding in each event.
    pub padding: ByteSize,
    /// How clients space their attempts to reconnect.
    pub policy: Policy,
    /// The rate at which clients believe that the target takes them back, for the policy `spread`. When absent, the
    /// truth: the slower of `accept_rate` and `token_rate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Rate>,
    /// First connections are spread evenly over this time. It is stretched where the target admits them more slowly.
    pub ramp: Span,
    /// Each probe is run once in five times this.
    pub probe_every: Span,
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            clients: 200,
            shards: 2,
            streams: 12,
            streams_per_client: 4,
            publish: Rate::per_second(4.0),
            burst: None,
            padding: ByteSize::new(128),
            policy: Policy::Spread,
            capacity: None,
            ramp: Span::from_secs(2),
            probe_every: Span::from_secs(1),
        }
    }
}

/// Settings of the embedded target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Target {
    /// Upgrades per second beyond which the lane answers 503 with Retry-After. No limit when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accept_rate: Option<Rate>,
    /// Tokens per second beyond which the token service answers 429 with Retry-After. No limit when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_rate: Option<Rate>,
    /// Tokens that may be issued at once before that rate bites.
    #[schemars(range(min = 1))]
    pub token_burst: u32,
    /// Clocks and budgets that differ from the embedded profile's.
    pub profile: ProfileChanges,
    /// Streams whose budgets differ from the profile's.
    pub stream_budgets: BTreeMap<StreamId, StreamBudget>,
}

impl Default for Target {
    fn default() -> Self {
        Self {
            accept_rate: None,
            token_rate: None,
            token_burst: 50,
            profile: ProfileChanges::default(),
            stream_budgets: BTreeMap::new(),
        }
    }
}

/// Budgets of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamBudget {
    /// How many events it keeps for replay.
    #[schemars(range(min = 1))]
    pub retention: u64,
    /// The largest replay that a resume may ask for.
    #[schemars(range(min = 1))]
    pub replay_budget: u64,
}

macro_rules! profile_changes {
    ($($(#[doc = $doc:literal])+ $field:ident: $type:ty,)+) => {
        /// Clocks and budgets that differ from the embedded profile's.
        #[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        pub struct ProfileChanges {
            $($(#[doc = $doc])+ #[serde(skip_serializing_if = "Option::is_none")] pub $field: Option<$type>,)+
        }

        impl ProfileChanges {
            /// A profile with these changes.
            #[must_use]
            pub fn apply(&self, profile: Profile) -> Profile {
                Profile { $($field: self.$field.unwrap_or(profile.$field),)+ ..profile }
            }
        }
    };
}

profile_changes! {
    /// The client sends a heartbeat (khala) or a one-off query (spacetime) so often.
    heartbeat: Span,
    /// The server ticks or pings so often.
    server_tick: Span,
    /// The server closes a connection that has been silent for so long.
    heartbeat_timeout: Span,
    /// A client gives a connection up when nothing has arrived for so long.
    read_idle: Span,
    /// A connection attempt may take so long.
    connect_timeout: Span,
    /// The first reconnect delay, before the policy's growth.
    backoff_base: Span,
    /// The largest reconnect delay.
    backoff_cap: Span,
    /// A connection that has lived so long counts as stable, and resets the backoff.
    stable_after: Span,
    /// The lifetime that a client asks of its tokens.
    token_ttl: Span,
    /// A client renews its token so long before it expires.
    refresh_lead: Span,
    /// How long past its expiry a token is still accepted.
    token_skew: Span,
    /// How many events a stream keeps for replay.
    retention: u64,
    /// The largest replay that a resume may ask for.
    replay_budget: u64,
}

/// When the system counts as steady.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Steady {
    /// The window that has to be clean from end to end: at least three heartbeats and the largest reconnect delay.
    pub window: Span,
    /// Live clients, of those intended, throughout the window.
    pub connected: Share,
    /// Delivery latency from the intended instant: p99 within the window.
    pub delivery_p99: Span,
    /// Steady state has to be reached within this time of the start, or nothing is injected.
    pub within: Span,
    /// What else has to be good throughout the window, and to have been asked in it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub probes: Vec<Probe>,
}

impl Default for Steady {
    fn default() -> Self {
        Self {
            window: Span::from_secs(3),
            // The very value that `99.9%` is read as, so that a plan equals what its JSON is read as.
            connected: Share::ratio(99.9 / 100.0),
            delivery_p99: Span::from_millis(250),
            within: Span::from_secs(20),
            probes: Vec::new(),
        }
    }
}

/// One fault of the timeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// When, counted from steady state.
    pub at: Span,
    /// What.
    pub fault: Fault,
    /// How long. Every fault has an end: required, except for the faults that end by themselves (`reset`, `ws_close`,
    /// `token_expiry`), which take none.
    #[serde(rename = "for", default, skip_serializing_if = "Option::is_none")]
    pub lasts: Option<Span>,
    /// Which share of the clients. Node faults take all of them.
    #[serde(default)]
    pub share: Share,
    /// Where, for node faults: `lane` (the default) or `tokens`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// By which agents of the inventory it is done, all at once: faults of processes and kernels. Without, by the one whose
    /// host runs the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<Selection>,
    /// Agents of the inventory whose addresses are added to the fault's own `peers`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers: Option<Selection>,
    /// How long the fault may live unrenewed; when the conductor dies, it is undone after this time.
    #[serde(default = "default_lease")]
    pub lease: Span,
}

const fn default_lease() -> Span {
    Span::from_secs(2)
}

/// Upper bounds by phase.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BoundsByPhase {
    /// First local evidence − fault.
    pub detect: Bounds,
    /// Upgraded and authenticated − the later of detection and heal.
    pub reconnect: Bounds,
    /// First replayed row or the reply − subscribe sent.
    pub resume: Bounds,
    /// Everything applied that was acknowledged when subscribe was sent − resumed.
    pub catch_up: Bounds,
    /// Caught up − heal: the system's property.
    pub recovery: Bounds,
    /// Caught up − fault: the user's pain.
    pub outage: Bounds,
    /// From the last heal to the start of the first steady window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_to_steady: Option<Span>,
}

impl BoundsByPhase {
    /// The bounds of one phase.
    #[must_use]
    pub const fn of(&self, phase: Phase) -> &Bounds {
        match phase {
            Phase::Detect => &self.detect,
            Phase::Reconnect => &self.reconnect,
            Phase::Resume => &self.resume,
            Phase::CatchUp => &self.catch_up,
            Phase::Recovery => &self.recovery,
            Phase::Outage => &self.outage,
        }
    }
}

/// What ends a trial early, as failed: too few clients live for too long after the last heal, or a probe that fails for
/// too long.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Abort {
    /// Live clients, of those intended, below this share …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connected_below: Option<Share>,
    /// … for so long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lasting: Option<Span>,
    /// Probes, each with a time of its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub probes: Vec<AbortProbe>,
}
