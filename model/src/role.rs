//! The configuration of each child process. An agent starts children only in these roles, so that no command ever
//! crosses a wire. A child gets its configuration as the first line on its stdin (`--config-stdin`) and ends when
//! stdin does; it says that it is ready by one [`Ready`] line on stdout.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::command::CommandConfig;
use crate::defect::Defect;
use crate::ids::{Lane, StreamId};
use crate::node::NodeConfig;
use crate::profile::Profile;
use crate::quantity::{Rate, Span};
use crate::shard::{Harness, ShardConfig};
use crate::target::{TlsClient, TlsIdentity};

/// The version of the protocol between conductor, agents and children.
pub const PROTOCOL_VERSION: u32 = 1;

/// What a child is to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// `faultlane lane`: an embedded lane server.
    Lane(LaneConfig),
    /// `faultlane spacetimedb`: a real server.
    Spacetimedb(SpacetimedbConfig),
    /// `faultlane tokens`: the embedded token service.
    Tokens(TokensConfig),
    /// `faultlane proxy`.
    Proxy(ProxyConfig),
    /// `faultlane shard`.
    Shard(Box<ShardConfig>),
}

/// An agent. Its control API is `agent::api`'s.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentConfig {
    /// The node's name.
    pub name: String,
    /// Where its journal and its children's data live; the agent makes it (mode 0700) and, when it ends with nothing
    /// left to undo, removes it.
    pub state_dir: PathBuf,
    /// Where its children's logs go.
    pub log_dir: PathBuf,
    /// The `spacetimedb-standalone` that may be run here; without it the role is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spacetimedb: Option<PathBuf>,
    /// The commands that may be run here, by name: `POST /commands/{name}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub commands: BTreeMap<String, CommandConfig>,
    /// The operator's nodes to which faults may be done here, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub nodes: BTreeMap<String, NodeConfig>,
}

/// The one line on a child's stdout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// `lane`, `tokens`, `proxy`, `shard` or `agent`.
    pub ready: String,
    /// [`PROTOCOL_VERSION`].
    pub protocol: u32,
    /// Its process id.
    pub pid: u32,
    /// The process that is the node, where that is a foreign program under this one's guard: what node faults hit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<u32>,
    /// Where its control API listens (HTTP/JSON on loopback).
    pub control: SocketAddr,
    /// Where its services listen, by name: `data` for a lane, a proxy and the token service.
    #[serde(default)]
    pub listen: BTreeMap<String, SocketAddr>,
}

/// An embedded lane server. Control: `GET /status` (counters, see [`LaneStatus`]).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaneConfig {
    /// Which protocol.
    pub lane: Lane,
    /// Where to listen for clients; port 0 takes a free one. A restarted node gets the address it had.
    pub listen: SocketAddr,
    /// Where the log lives.
    pub data_dir: PathBuf,
    /// Clocks and budgets.
    pub profile: Profile,
    /// Stricter than a real server: scope and grant checks, expiry enforced on live connections, durable
    /// acknowledgements. `false` is `--profile real`.
    pub strict: bool,
    /// Upgrades per second beyond which 503 with Retry-After is answered; `None` for no limit.
    pub accept_rate: Option<Rate>,
    /// The database name in spacetime URLs.
    pub database: String,
    /// Whose tokens it trusts: the base URL of the token service, such as `http://127.0.0.1:4000`. khala takes its
    /// HS256 keys from `key_file`, spacetime its ES256 keys from the issuer's JWKS.
    pub issuer: String,
    /// The token service's shared HS256 keys (mode 0600), written by [`TokensConfig::key_file`].
    pub key_file: PathBuf,
    /// The secret that publishers present as `Authorization: Bearer`.
    pub publish_secret: String,
    /// Streams whose retention and budget differ from the profile's: `(retention, replay budget)`.
    #[serde(default)]
    pub stream_budgets: BTreeMap<StreamId, (u64, u64)>,
    /// A planted defect. The server ignores those that are not its own.
    #[serde(default)]
    pub defect: Option<Defect>,
}

/// Counters of a lane server: `GET /status`. All since it started.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LaneStatus {
    /// Its process id.
    pub pid: u32,
    /// Open client connections.
    pub connections: u64,
    /// Upgrades accepted.
    pub upgrades: u64,
    /// Upgrades refused with 503.
    pub refused_rate: u64,
    /// Refusals by reason, such as `token_expired`.
    pub refused: BTreeMap<String, u64>,
    /// Live connections closed because their token expired.
    pub expired_live: u64,
    /// Events appended and acknowledged.
    pub appended: u64,
    /// Update rows sent.
    pub delivered: u64,
    /// Bytes received from clients (WebSocket payloads).
    pub received_bytes: u64,
    /// Head seq by stream.
    pub heads: BTreeMap<StreamId, u64>,
    /// Events held, by stream: counted by the lane itself, where it can.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub held: BTreeMap<StreamId, u64>,
}

/// A real `SpacetimeDB` server, with the sync module published to it. Control: `GET /status` ([`LaneStatus`]).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpacetimedbConfig {
    /// Where to listen for clients; port 0 takes a free one. A restarted node gets the address it had.
    pub listen: SocketAddr,
    /// Where its data and keys live.
    pub data_dir: PathBuf,
    /// The database to which the module is published.
    pub database: String,
    /// It pings connections so often; see `Profile::server_tick`.
    pub ping: Span,
    /// It gives up a connection that has been silent for so long.
    pub idle: Span,
}

/// The embedded token service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokensConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where to write the shared HS256 keys (mode 0600, atomically).
    pub key_file: PathBuf,
    /// Secret from which session credentials are derived: see `lanes::token::session_credential`.
    pub session_secret: String,
    /// Lifetime where a request names none.
    pub ttl: Span,
    /// The shortest and the longest lifetime that can be asked for.
    pub ttl_limits: (Span, Span),
    /// `refresh_after_in` is the lifetime less this.
    pub refresh_lead: Span,
    /// A token is valid from so long before it was issued, for lanes whose clock is behind; whole seconds.
    #[serde(default)]
    pub skew: Span,
    /// Tokens per second beyond which 429 with Retry-After is answered; `None` for no limit.
    pub rate: Option<Rate>,
    /// How many may be issued at once before the rate bites.
    pub burst: u32,
    /// Which organisation owns which streams; a grant outside is refused with 403.
    pub tenants: BTreeMap<String, Vec<StreamId>>,
    /// A planted defect.
    #[serde(default)]
    pub defect: Option<Defect>,
}

/// A proxy. Control: the fault API (`POST /faults` and so on) and `GET /status` (see [`ProxyStatus`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyConfig {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where the lane is.
    pub upstream: SocketAddr,
    /// TLS that it ends and begins anew; without, TLS passes through as bytes that it cannot read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ProxyTls>,
}

/// TLS at a proxy that terminates it: towards its clients, and anew towards the lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyTls {
    /// What clients are shown.
    pub identity: TlsIdentity,
    /// Authorities of clients' certificates, as PEM: one of them is then required. Without, none is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca_pem: Option<String>,
    /// Towards the lane; `None` when it speaks plain TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<TlsClient>,
    /// The name that the lane's certificate has to bear. Where nothing is said it is the one that the client names in
    /// its `ClientHello`, and the lane's address where that names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
}

/// Counters of a proxy: `GET /status`. All since it started; bytes are counted as they are passed on.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ProxyStatus {
    /// Open connections.
    pub open: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Accepted connections by 100 ms of the monotonic clock: (instant in units of 100 ms, count), in order. The
    /// last 10 minutes.
    pub arrivals: Vec<(u64, u32)>,
    /// Upgrades answered by the lane with 101.
    pub upgraded: u64,
    /// Upgrades answered with anything else, by status.
    pub refused: BTreeMap<u16, u64>,
    /// How many of the refusals carried Retry-After.
    pub refused_with_retry_after: u64,
    /// Bytes passed from clients to the lane.
    pub upstream_bytes: u64,
    /// Bytes passed from the lane to clients.
    pub downstream_bytes: u64,
    /// WebSocket frames seen, upstream and downstream.
    pub frames: (u64, u64),
    /// Connections that began with TLS which this proxy passes through: it sees neither requests nor frames in them.
    #[serde(default)]
    pub opaque: u64,
    /// Connections on which TLS failed, with the client and with the lane: mostly a certificate that is not trusted.
    #[serde(default)]
    pub tls_failed: (u64, u64),
    /// Faults in force.
    pub faults: Vec<String>,
    /// How well it kept time itself; it sends nothing of its own, so that its send lag is empty.
    #[serde(default)]
    pub harness: Harness,
}

impl ProxyStatus {
    /// Adds the counters of another proxy of the same trial and kernel; how well time was kept is that of the worse.
    pub fn merge(&mut self, other: Self) {
        let mut arrivals: BTreeMap<u64, u32> =
            std::mem::take(&mut self.arrivals).into_iter().collect();
        for (slot, count) in other.arrivals {
            *arrivals.entry(slot).or_default() += count;
        }
        self.arrivals = arrivals.into_iter().collect();
        for (status, count) in other.refused {
            *self.refused.entry(status).or_default() += count;
        }
        self.open += other.open;
        self.accepted += other.accepted;
        self.upgraded += other.upgraded;
        self.refused_with_retry_after += other.refused_with_retry_after;
        self.upstream_bytes += other.upstream_bytes;
        self.downstream_bytes += other.downstream_bytes;
        self.frames.0 += other.frames.0;
        self.frames.1 += other.frames.1;
        self.opaque += other.opaque;
        self.tls_failed.0 += other.tls_failed.0;
        self.tls_failed.1 += other.tls_failed.1;
        for fault in other.faults {
            if !self.faults.contains(&fault) {
                self.faults.push(fault);
            }
        }
        self.harness.busiest = self.harness.busiest.max(other.harness.busiest);
        let p99 = |harness: &Harness| {
            let lag = &harness.receive_lag;
            (lag.quantile(0.99, 0), lag.count())
        };
        if p99(&other.harness) > p99(&self.harness) {
            self.harness.receive_lag = other.harness.receive_lag;
        }
    }
}
