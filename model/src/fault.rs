//! What can be injected. A fault is leased, reversible, and held by exactly one process, which undoes it alone when
//! its lease lapses: link and WebSocket faults by a proxy, faults of nodes, kernels and machines by an agent, token faults by a
//! shard, and the token service's clock by that.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::FaultId;
use crate::instant::{Bracket, Mono};
use crate::net::Cidr;
use crate::quantity::{ByteSize, Share, Span};

mod clock;
mod network;
mod resource;

pub use clock::{ClockSkew, Offset};
pub use network::{Action, DropSockets, Flow, Netem, PacketLoss, Partition, Throttle};
pub use resource::{Amount, Cores, CpuBurn, DiskFill, MemoryFill};

/// A fault with its settings, as scenarios write it: `{ latency: { delay: 50ms } }`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// Link: every chunk is passed on after a delay; order is kept.
    Latency(Latency),
    /// Link: throughput is paced.
    Bandwidth(Bandwidth),
    /// Link: a partition as a user-space proxy can make it. Bytes wait in both directions, new connections are
    /// accepted and hang; nothing is dropped, and on undo everything that waited is passed on.
    Hold(Hold),
    /// Link: every open connection is closed with RST on both sides. Momentary.
    Reset(Reset),
    /// Link: new connections are closed with RST.
    Refuse(Refuse),
    /// WebSocket: a Close frame to the client, then the connection is closed. Momentary.
    WsClose(WsClose),
    /// WebSocket: upgrades are answered with an HTTP error.
    RefuseUpgrade(RefuseUpgrade),
    /// Any toxic of the standalone proxy, under a lease: faults of bytes, TLS, requests and WebSocket messages.
    Toxic(Toxic),
    /// Node: SIGKILL; the undo starts the node again.
    Kill(Kill),
    /// Node: SIGTERM, and SIGKILL where that does not end it in time; the undo starts the node again.
    Terminate(Terminate),
    /// Node: SIGSTOP; the undo is SIGCONT.
    Pause(Pause),
    /// Node: the node's data go back to what they were some time before, and the process with them: SIGKILL, and the
    /// undo starts the node again on the older data.
    Restore(Restore),
    /// Node: SIGKILL to the node's process and to all that descend from it; the undo starts the node again.
    KillTree(KillTree),
    /// Node: SIGKILL, again and again: whenever the node is back it is killed anew. After the undo it stays.
    CrashLoop(CrashLoop),
    /// Kernel: packets from and to peers are dropped or rejected.
    Partition(Partition),
    /// Kernel: a share of the packets is lost.
    PacketLoss(PacketLoss),
    /// Kernel: an interface sends no more than so many bytes a second.
    Throttle(Throttle),
    /// Kernel: packets are delayed, reordered, duplicated, corrupted or lost, where the kernel has netem.
    Netem(Netem),
    /// Kernel: established TCP connections are ended, with RST to the peer. Momentary.
    DropSockets(DropSockets),
    /// Machine: cores are kept busy.
    CpuBurn(CpuBurn),
    /// Machine: memory is taken up. A reserve is always left.
    MemoryFill(MemoryFill),
    /// Machine: a file takes up room on a disk. A reserve is always left.
    DiskFill(DiskFill),
    /// Clock: the token service sees another time than the rest of the world, and issues tokens by that. The machine's own
    /// clock is never touched.
    ClockSkew(ClockSkew),
    /// Token: clients take on tokens that all expire in the same second. It ends with that second.
    TokenExpiry(TokenExpiry),
}

/// Settings of [`Fault::Latency`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// Added to each chunk.
    pub delay: Span,
    /// The delay varies uniformly by so much either way.
    #[serde(default)]
    pub jitter: Span,
    /// Which way.
    #[serde(default)]
    pub direction: Direction,
}

/// Settings of [`Fault::Bandwidth`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bandwidth {
    /// Bytes per second, per connection and direction.
    pub per_second: ByteSize,
    /// Which way.
    #[serde(default)]
    pub direction: Direction,
}

/// Settings of [`Fault::Hold`]: none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hold {}

/// Settings of [`Fault::Reset`]: none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reset {}

/// Settings of [`Fault::Refuse`]: none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Refuse {}

/// Settings of [`Fault::WsClose`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WsClose {
    /// The close code, 1000 to 4999 (RFC 6455, section 7.4).
    pub code: u16,
    /// At most 123 bytes.
    #[serde(default)]
    pub reason: String,
}

/// Settings of [`Fault::RefuseUpgrade`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RefuseUpgrade {
    /// The HTTP status, 400 to 599.
    pub status: u16,
    /// Sent as `Retry-After`, in whole seconds, rounded up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Span>,
}

/// Settings of [`Fault::Toxic`]. The entry's `share` is its toxicity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Toxic {
    /// Its type, such as `ws_drop`; docs/toxics.md has them all.
    #[serde(rename = "type")]
    pub kind: String,
    /// Which way.
    #[serde(default)]
    pub direction: Direction,
    /// Its settings, as its page in docs/toxics has them.
    #[serde(default)]
    pub attributes: serde_json::Map<String, serde_json::Value>,
}

/// Settings of [`Fault::Kill`]: none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kill {}

/// Settings of [`Fault::Terminate`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Terminate {
    /// How long the process may take before it is killed.
    #[serde(default = "default_grace")]
    pub grace: Span,
}

const fn default_grace() -> Span {
    Span::from_secs(2)
}

/// Settings of [`Fault::Pause`]: none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pause {}

/// Settings of [`Fault::Restore`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Restore {
    /// How old the data are that the node gets back: they are copied at `at`, and the node is killed so much later.
    pub age: Span,
}

/// Settings of [`Fault::KillTree`]: none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KillTree {}

/// Settings of [`Fault::CrashLoop`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CrashLoop {
    /// How long the node is left alone each time that it is back.
    #[serde(default = "default_every")]
    pub every: Span,
    /// How often it is killed in all; until the undo where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
}

const fn default_every() -> Span {
    Span::from_secs(1)
}

/// Settings of [`Fault::TokenExpiry`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenExpiry {
    /// From the injection to the common expiry (which falls on a whole second).
    pub after: Span,
    /// The clients take on the new tokens within this time of the injection, each at a seeded instant.
    pub spread: Span,
}

/// Which way through a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From the client to the lane.
    Upstream,
    /// From the lane to the client.
    Downstream,
    /// Both ways.
    #[default]
    Both,
}

/// Who holds a fault and enforces its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holder {
    /// The proxies between the clients and the lane.
    Proxy,
    /// The agent of a node.
    Agent,
    /// The fleet's shards.
    Shard,
    /// The token service.
    Tokens,
}

impl Fault {
    /// The name that scenarios use.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Latency(_) => "latency",
            Self::Bandwidth(_) => "bandwidth",
            Self::Hold(_) => "hold",
            Self::Reset(_) => "reset",
            Self::Refuse(_) => "refuse",
            Self::WsClose(_) => "ws_close",
            Self::RefuseUpgrade(_) => "refuse_upgrade",
            Self::Toxic(_) => "toxic",
            Self::Kill(_) => "kill",
            Self::Terminate(_) => "terminate",
            Self::Pause(_) => "pause",
            Self::Restore(_) => "restore",
            Self::KillTree(_) => "kill_tree",
            Self::CrashLoop(_) => "crash_loop",
            Self::Partition(_) => "partition",
            Self::PacketLoss(_) => "packet_loss",
            Self::Throttle(_) => "throttle",
            Self::Netem(_) => "netem",
            Self::DropSockets(_) => "drop_sockets",
            Self::CpuBurn(_) => "cpu_burn",
            Self::MemoryFill(_) => "memory_fill",
            Self::DiskFill(_) => "disk_fill",
            Self::ClockSkew(_) => "clock_skew",
            Self::TokenExpiry(_) => "token_expiry",
        }
    }

    /// Which kind of process holds it.
    #[must_use]
    pub const fn holder(&self) -> Holder {
        match self {
            Self::Pause(_) => Holder::Agent,
            _ if self.ends_node() => Holder::Agent,
            _ if self.in_kernel() || self.on_machine() => Holder::Agent,
            Self::TokenExpiry(_) => Holder::Shard,
            Self::ClockSkew(_) => Holder::Tokens,
            _ => Holder::Proxy,
        }
    }

    /// Whether it is made in the kernel of a node's machine, and not to a process there.
    #[must_use]
    pub const fn in_kernel(&self) -> bool {
        matches!(
            self,
            Self::Partition(_)
                | Self::PacketLoss(_)
                | Self::Throttle(_)
                | Self::Netem(_)
                | Self::DropSockets(_)
        )
    }

    /// Whether it takes up what a node's machine has to give, and is done to no process there.
    #[must_use]
    pub const fn on_machine(&self) -> bool {
        matches!(
            self,
            Self::CpuBurn(_) | Self::MemoryFill(_) | Self::DiskFill(_)
        )
    }

    /// The peers whose traffic it touches, as it names them: none means all that there are. `None` where it touches no
    /// traffic of the machine.
    #[must_use]
    pub fn peers(&self) -> Option<&[Cidr]> {
        match self {
            Self::Partition(settings) => Some(&settings.peers),
            Self::PacketLoss(settings) => Some(&settings.peers),
            Self::DropSockets(settings) => Some(&settings.peers),
            _ => self.in_kernel().then_some(&[]),
        }
    }

    /// The same, to be added to; `None` where it names no peers.
    #[must_use]
    pub const fn peers_mut(&mut self) -> Option<&mut Vec<Cidr>> {
        match self {
            Self::Partition(settings) => Some(&mut settings.peers),
            Self::PacketLoss(settings) => Some(&mut settings.peers),
            Self::DropSockets(settings) => Some(&mut settings.peers),
            _ => None,
        }
    }

    /// For a fault that ends by itself, how long it lasts: a scenario gives it no `for`. `None` for all others, which
    /// last until they are undone.
    #[must_use]
    pub const fn ends_after(&self) -> Option<Span> {
        match self {
            Self::Reset(_) | Self::WsClose(_) | Self::DropSockets(_) => Some(Span::ZERO),
            Self::TokenExpiry(settings) => Some(settings.after),
            _ => None,
        }
    }

    /// How long an injection takes before it can bite: what goes before the deed itself.
    #[must_use]
    pub const fn lead(&self) -> Span {
        match self {
            Self::Restore(settings) => settings.age,
            _ => Span::ZERO,
        }
    }

    /// Whether it ends the process of a node, and with it what the process had not yet brought to safety.
    #[must_use]
    pub const fn ends_node(&self) -> bool {
        matches!(
            self,
            Self::Kill(_)
                | Self::Terminate(_)
                | Self::Restore(_)
                | Self::KillTree(_)
                | Self::CrashLoop(_)
        )
    }

    /// What undoing it does, for `faultlane plan`.
    #[must_use]
    pub const fn undo(&self) -> &'static str {
        match self {
            Self::Latency(_) | Self::Bandwidth(_) => "pass bytes on at once again",
            Self::Hold(_) => "pass on what waited, and let connections through",
            Self::Reset(_) | Self::WsClose(_) | Self::DropSockets(_) => {
                "nothing: closed connections stay closed, new ones are let through"
            }
            Self::Refuse(_) => "let connections through",
            Self::RefuseUpgrade(_) => "let upgrades through",
            Self::Toxic(_) => {
                "let everything pass as it comes; what still waits is passed on first"
            }
            Self::Kill(_) | Self::Terminate(_) | Self::KillTree(_) => "start the node again",
            Self::CrashLoop(_) => "kill it no more, and start the node again where it is down",
            Self::Pause(_) => "SIGCONT",
            Self::Restore(_) => "start the node again, on the older data",
            Self::Partition(_) | Self::PacketLoss(_) => "delete the fault's own nft table",
            Self::Throttle(_) | Self::Netem(_) => {
                "delete the fault's own qdisc: the kernel's default comes back"
            }
            Self::CpuBurn(_) | Self::MemoryFill(_) => "end the fault's own worker",
            Self::DiskFill(_) => "remove the fault's own file",
            Self::ClockSkew(_) => "tell the true time again",
            Self::TokenExpiry(_) => "ask for tokens of the usual lifetime again",
        }
    }
}

/// What a holder is asked to inject: `POST /faults` of every child and of the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaultOrder {
    /// Unique within the holder's lifetime; a second order with the same id is refused with 409.
    pub id: FaultId,
    /// What to do.
    pub fault: Fault,
    /// The name of the node or child it is done to, where the holder has more than one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Which share of the clients it takes: [`crate::decide::selected`] with `seed` and `id`.
    #[serde(default)]
    pub share: Share,
    /// The trial's seed.
    pub seed: u64,
    /// How long it may live unrenewed.
    pub lease: Span,
}

/// What a fault was seen to do. Each holder looks at the thing itself, not at its own bookkeeping, wherever it can
/// (law 2).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Observation {
    /// How many things (connections, upgrades, processes, tokens) the fault was seen to bite. 0: it did not bite.
    pub bitten: u64,
    /// When it was first seen to bite.
    #[serde(
        rename = "observed_us",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub observed: Option<Mono>,
    /// Figures by name, such as `connections_held`, `bytes_forwarded_while_held`, `pid_before`, `pid_after`.
    #[serde(default)]
    pub figures: BTreeMap<String, u64>,
}

impl Observation {
    /// Adds what another holder saw of the same fault; figures of the same name add up. Of instants (`…_unix`) the
    /// latest counts.
    pub fn merge(&mut self, other: &Self) {
        self.bitten += other.bitten;
        self.observed = match (self.observed, other.observed) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        for (name, value) in &other.figures {
            let sum = self.figures.entry(name.clone()).or_default();
            *sum = if name.ends_with("_unix") {
                (*sum).max(*value)
            } else {
                *sum + value
            };
        }
    }
}

/// The state of a fault at its holder: `GET /faults/{id}`, and the answer to `POST` and `DELETE`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaultView {
    /// The order's id.
    pub id: FaultId,
    /// Whether it is still in force.
    pub active: bool,
    /// The injection.
    pub injected: Bracket,
    /// The heal, once undone. For a fault that is over at once this is the injection, for an expiry the expiry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healed: Option<Bracket>,
    /// Whether its lease lapsed and the holder undid it alone.
    #[serde(default)]
    pub lapsed: bool,
    /// What it was seen to do.
    pub observation: Observation,
}

/// `POST /faults/{id}/renew`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewal {
    /// The lease, counted from now.
    pub lease: Span,
}
