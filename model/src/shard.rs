//! What a fleet shard is told and what it reports. Control API of a shard, JSON over HTTP:
//!
//! | call | body | answer |
//! |---|---|---|
//! | `GET /heads` | - | [`Cursors`]: the newest seq of every stream that the shard is to publish to |
//! | `POST /start` | [`Start`] | `{}`; clients begin to connect, the publisher to publish |
//! | `POST /tick` | [`Tick`] | [`ShardStatus`] |
//! | `PUT /episode` | [`Episode`] | `{}`; told again whenever it changes |
//! | `POST /faults`, `POST /faults/{id}/renew`, `GET`, `DELETE /faults/{id}` | as every holder | `FaultView` |
//! | `POST /publish/stop` | - | [`Ledger`]; no event is invoked after the answer |
//! | `POST /final-read` | - | [`FinalRead`] |
//! | `POST /clean-up` | - | [`CleanUp`]; removes what the shard has published, after the fleet has been closed |
//! | `POST /finish` | [`Finish`] | [`ShardReport`]; waits for the clients up to the given time, then closes them |

use std::collections::BTreeMap;
use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::anomaly::Findings;
use crate::criteria::Phase;
use crate::defect::Defect;
use crate::event::Origin;
use crate::fault::Fault;
use crate::histogram::Micros;
use crate::ids::{ClientId, FaultId, Lane, Seq, StreamId};
use crate::instant::Mono;
use crate::intervals::IntervalSet;
use crate::moment::ClientRecord;
use crate::probe::ProbesConfig;
use crate::profile::Profile;
use crate::quantity::{Rate, Share, Span};
use crate::schedule::Schedule;
use crate::snapshot::Cover;
use crate::target::{Access, Promise, Secret, TokenEndpoint};

/// How a client spaces its attempts to reconnect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// `min(base·2^(n−1), cap)`, no jitter.
    Desktop,
    /// `3·base·2^min(n,6)`, capped.
    Web,
    /// As desktop, plus 0–50 % jitter; stops on 401.
    Ios,
    /// Uniform from 0 to `min(base·2^n, cap)`.
    FullJitter,
    /// The first delay is uniform over the time that the lane needs to accept all clients; then full jitter.
    #[default]
    Spread,
}

/// A shard: a slice of the fleet, a publisher, probes, or any of them together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShardConfig {
    /// Its ordinal, for names.
    pub ordinal: u32,
    /// Whose events are published and checked.
    pub origin: Origin,
    /// Which protocol.
    pub lane: Lane,
    /// How it is reached and spoken to.
    pub access: Access,
    /// What it promises.
    pub promise: Promise,
    /// Where tokens come from.
    pub tokens: TokenSource,
    /// Clocks and budgets.
    pub profile: Profile,
    /// Budgets of streams that differ from the profile's: `(retention, replay budget)`.
    #[serde(default)]
    pub stream_budgets: BTreeMap<StreamId, (u64, u64)>,
    /// The fleet's slice.
    #[serde(default)]
    pub clients: Option<ClientsConfig>,
    /// The publisher.
    #[serde(default)]
    pub publish: Option<PublishConfig>,
    /// The probes.
    #[serde(default)]
    pub probes: Option<ProbesConfig>,
    /// A planted defect. The shard ignores those that are not the client's.
    #[serde(default)]
    pub defect: Option<Defect>,
}

/// Where a shard's tokens come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenSource {
    /// Who issues them.
    pub issuer: Issuer,
    /// The clients' organisation.
    pub org: String,
    /// How many identities clients share, in turn; `None` for one each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identities: Option<u32>,
}

impl TokenSource {
    /// The embedded token service, with an identity for each client.
    #[must_use]
    pub fn service(
        addr: SocketAddr,
        session_secret: impl Into<String>,
        org: impl Into<String>,
    ) -> Self {
        Self {
            issuer: Issuer::Service {
                addr,
                session_secret: Secret::new(session_secret),
            },
            org: org.into(),
            identities: None,
        }
    }
}

/// Who issues tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Issuer {
    /// The embedded token service.
    Service {
        /// Its address.
        addr: SocketAddr,
        /// From which the clients' session credentials are derived.
        session_secret: Secret,
    },
    /// An HTTP endpoint of the target's own.
    Http {
        /// What it is asked.
        endpoint: Box<TokenEndpoint>,
        /// What its `dial` resolved to.
        addr: SocketAddr,
    },
    /// A command that an agent runs, by the name that the agent's own configuration gives it.
    Command {
        /// The name.
        name: String,
        /// The agent.
        agent: SocketAddr,
    },
    /// Nobody: they were made beforehand, one an identity.
    Files(Vec<Secret>),
}

/// A slice of the fleet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClientsConfig {
    /// The first client's ordinal.
    pub first: u32,
    /// How many.
    pub count: u32,
    /// How many there are in all shards together.
    pub fleet: u32,
    /// All streams that clients may subscribe to; each client takes `per_client` of them, chosen by the seed.
    pub streams: Vec<StreamId>,
    /// See `streams`.
    pub per_client: u32,
    /// First connections are spread evenly over this time, over the whole fleet.
    pub ramp: Span,
    /// Reconnect policy.
    pub policy: Policy,
    /// The rate at which the lane (or, if slower, the token service) takes the fleet back, for [`Policy::Spread`].
    pub capacity: Option<Rate>,
    /// Deliveries later than this count as late in [`ShardStatus`].
    pub late_after: Span,
}

/// The publisher: open loop, one writer per stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PublishConfig {
    /// The streams to write.
    pub streams: Vec<StreamId>,
    /// Events per second and stream.
    pub rate: Rate,
    /// How the first of the streams is written, instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<Burst>,
    /// What the lane wants as `Authorization: Bearer` from publishers.
    pub secret: String,
}

/// Events that are due at once, and sent without a wait for each answer where the lane takes that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Burst {
    /// How many.
    #[schemars(range(min = 2, max = 1024))]
    pub events: u32,
    /// From one burst to the next.
    pub every: Span,
}

/// A seq by stream.
pub type Cursors = BTreeMap<StreamId, Seq>;

/// The beginning of a trial.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Start {
    /// Where others publish too: the heads before the trial. Clients begin after these, and nothing at or below them is
    /// read. A stream that is not named is begun from nothing.
    #[serde(default)]
    pub cursors: Cursors,
}

/// The highest acknowledged seq of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Acknowledged at.
    #[serde(rename = "acked_us")]
    pub acked: Mono,
    /// The seq.
    pub seq: Seq,
}

/// A step of the conductor's clock, some 10 times a second.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tick {
    /// What the ledger newly holds as acknowledged, by stream, oldest first.
    pub acknowledged: BTreeMap<StreamId, Vec<Mark>>,
    /// The marks are complete up to this instant.
    #[serde(rename = "complete_until_us")]
    pub complete_until: Mono,
}

/// How a shard is doing: the answer to a tick. Counters are cumulative unless said otherwise.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ShardStatus {
    /// When it was taken.
    #[serde(rename = "at_us")]
    pub at: Mono,
    /// Clients that should be live.
    pub intended: u32,
    /// Clients that are upgraded, authenticated and subscribed now.
    pub live: u32,
    /// The fewest that were at any instant since the last tick.
    pub live_min: u32,
    /// Clients affected by the episode so far.
    pub affected: u32,
    /// Affected clients that are whole again.
    pub recovered: u32,
    /// Clients still behind what was acknowledged by `Tick::complete_until`.
    pub behind: u32,
    /// Connection attempts.
    pub attempts: u64,
    /// Rows delivered (first deliveries).
    pub delivered: u64,
    /// Rows delivered later than `ClientsConfig::late_after` after their intended instant.
    pub late: u64,
    /// Safety anomalies noticed.
    pub safety: u64,
    /// Events that the publisher has invoked, and those it has had acknowledged.
    pub published: (u64, u64),
    /// What the publisher's ledger newly holds as acknowledged since the last tick, by stream, oldest first; to be
    /// handed to all shards in the next [`Tick`].
    pub acknowledged: BTreeMap<StreamId, Vec<Mark>>,
    /// `acknowledged` is complete up to here. `None` for a shard that does not publish.
    #[serde(
        rename = "complete_until_us",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub complete_until: Option<Mono>,
}

/// The time under fault: from the first injection to the last heal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Episode {
    /// The first injection's `asked`.
    #[serde(rename = "t0_us")]
    pub t0: Mono,
    /// The last heal's `asked`; `None` until it is known. For faults with no heal of their own it is `t0`.
    #[serde(rename = "th_us", default)]
    pub th: Option<Mono>,
    /// The faults in it.
    pub faults: Vec<EpisodeFault>,
}

/// A fault as clients need to know it: to tell whether they are under it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpisodeFault {
    /// Its id: the rule of [`crate::decide::selected`].
    pub id: FaultId,
    /// What it does.
    pub fault: Fault,
    /// Which share of the clients it takes.
    pub share: Share,
}

/// The end of a trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finish {
    /// The highest acknowledged seq by stream: clients are awaited until they have reached these.
    pub marks: BTreeMap<StreamId, Seq>,
    /// How long to wait for them.
    pub wait: Span,
    /// Whether the trial was cut off: clients not whole are then unknown, not censored.
    pub aborted: bool,
}

/// One phase of the recovery.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PhaseReport {
    /// The clients for which it is known.
    pub histogram: Micros,
    /// Affected clients that had not completed it when the deadline passed.
    pub censored: u64,
}

/// Delivery latency of one part of the trial.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Delivery {
    /// From the intended instant of publication to the apply.
    pub corrected: Micros,
    /// From the instant it was really sent, where that is known to the receiver; else as `corrected` but only of
    /// events received live, without those that a replay brought.
    pub uncorrected: Micros,
}

/// Which seq held which index, as runs: `(first seq, first index, length)`.
pub type SeqRuns = Vec<(Seq, u64, u64)>;

/// What one client applied of one stream. Clients that applied the same share an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The stream.
    pub stream: StreamId,
    /// The clients.
    pub clients: Vec<ClientId>,
    /// The cursor they began with, or began anew with where what lies before cannot be judged.
    pub initial: Seq,
    /// Seqs applied.
    pub seqs: IntervalSet,
    /// Indexes of events applied, without those of a snapshot.
    pub indexes: IntervalSet,
    /// The snapshot that it began anew from, if it did. Only the ledger can tell what it stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Cover>,
}

/// Figures of a storm.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Storm {
    /// Connection attempts by 100 ms of the monotonic clock, from the fault on: (instant in units of 100 ms, count).
    pub attempts: Vec<(u64, u32)>,
    /// Attempts per affected client, from the fault until it was whole: (attempts, clients).
    pub attempts_per_client: BTreeMap<u32, u32>,
    /// Attempts that ended before the client was live.
    pub wasted: u64,
    /// Refusals that named a time to wait.
    pub retry_after_given: u64,
    /// Of those, obeyed.
    pub retry_after_obeyed: u64,
    /// Rows replayed to affected clients, and rows among them that they had missed.
    pub replayed: u64,
    /// See `replayed`.
    pub missed: u64,
}

/// How well a process of the harness itself kept time.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Harness {
    /// A canary timer: how late it fired.
    pub receive_lag: Micros,
    /// The publisher: actual − intended send, while the lane answered.
    pub send_lag: Micros,
    /// CPU time used over wall time, at its highest over any second.
    pub busiest: f64,
}

/// One expectation of a probe and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeTally {
    /// Such as `expired/resume` or `cursor/oldest-1`.
    pub probe: String,
    /// What has to happen.
    pub expected: String,
    /// Answers and how often each came.
    pub answers: BTreeMap<String, u64>,
    /// How often the expectation was met.
    pub met: u64,
    /// How often no answer was had, because the lane was away: these prove nothing either way.
    pub unreachable: u64,
    /// What the last of these was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_unreachable: Option<String>,
}

/// A head that lay behind what a client had already applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Regression {
    /// Whose cursor.
    pub client: ClientId,
    /// Of which stream.
    pub stream: StreamId,
    /// The last seq that the client had applied.
    pub cursor: Seq,
    /// What the lane named as its newest.
    pub head: Seq,
    /// When it was noticed.
    #[serde(rename = "at_us")]
    pub at: Mono,
}

/// A client that was not whole at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CensoredClient {
    /// Who.
    pub client: ClientId,
    /// What it was doing: its state, its cursors, its last error.
    pub detail: String,
}

/// Everything that a shard saw in a trial.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ShardReport {
    /// Its ordinal.
    pub shard: u32,
    /// Clients of the slice.
    pub clients: u32,
    /// Clients that the episode affected.
    pub affected: u32,
    /// Affected clients that were cut off by an abort.
    pub unknown: u32,
    /// Phases of the affected clients.
    pub phases: BTreeMap<Phase, PhaseReport>,
    /// Those that were not whole when the deadline passed (the first 100).
    pub censored: Vec<CensoredClient>,
    /// Connections replaced ahead of a token's expiry, without a fault.
    pub planned_reconnects: u64,
    /// Resets to a snapshot or to the beginning after a stale cursor.
    pub rebootstraps: u64,
    /// Delivery of events meant for before the fault, between it and the client's recovery, and after.
    pub delivery: BTreeMap<DeliveryPart, Delivery>,
    /// Rows delivered, by framing (`rows`; khala: `batch` and `frame`).
    pub deliveries: BTreeMap<String, u64>,
    /// Which seq held which event, as its clients saw it.
    pub seen: BTreeMap<StreamId, SeqRuns>,
    /// Which seqs held what this run did not publish, as its clients saw it.
    #[serde(default)]
    pub foreign: BTreeMap<StreamId, IntervalSet>,
    /// Rows that its clients received and that this run did not publish, repetitions included.
    #[serde(default)]
    pub foreign_rows: u64,
    /// What its clients applied.
    pub applied: Vec<Applied>,
    /// Cursors that lay beyond the head of a lane which said nothing of it: the head has gone back. The client began
    /// anew.
    #[serde(default)]
    pub regressions: Vec<Regression>,
    /// Anomalies that the shard can see by itself: gap, duplicates, reorder, over-replay, divergence, stale cursor,
    /// leak, zombie, unauthorized success, wrong reason, Retry-After ignored. Lost, vanished and phantom need the
    /// ledger and are found by results.
    pub findings: Findings,
    /// The clients that were anomalous or did not have everything in the end: of each kind of anomaly the first, then
    /// the second, and so on up to [`crate::moment::CLIENTS_KEPT`].
    #[serde(default)]
    pub kept: Vec<ClientRecord>,
    /// Storm figures.
    pub storm: Storm,
    /// Probes.
    pub probes: Vec<ProbeTally>,
    /// The harness's own lag.
    pub harness: Harness,
}

/// A part of a trial, for delivery figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryPart {
    /// Meant to be sent before the fault.
    Before,
    /// Meant to be sent from the fault until the client was whole again (unaffected clients: until the heal).
    During,
    /// Later.
    After,
}

/// What became of the publisher's events, by stream.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Ledger {
    /// What its events are made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// By stream.
    pub streams: BTreeMap<StreamId, StreamLedger>,
}

/// One stream's ledger, by index.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct StreamLedger {
    /// When its events were due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// Publish was begun.
    pub invoked: IntervalSet,
    /// Acknowledged, and as which seq, in the order of the acknowledgements.
    pub acknowledged: SeqRuns,
    /// When each of them was: (index, instant), in the order of the instants.
    #[serde(rename = "acknowledged_us", default)]
    pub acknowledged_at: Vec<(u64, Mono)>,
    /// Of these, those submitted again after an attempt of which nobody knows whether it was committed.
    #[serde(default)]
    pub repeated: IntervalSet,
    /// Definitely not appended.
    pub failed: IntervalSet,
    /// The connection broke and a repeat with the same key has not settled it: outcome unknown.
    pub unknown: IntervalSet,
}

/// What the lane holds at the end, read anew from each stream's floor, or from where the trial began, to its head.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FinalRead {
    /// By stream. A stream that could not be read is in `failed` instead.
    pub streams: BTreeMap<StreamId, StreamRead>,
    /// Why a stream could not be read.
    pub failed: BTreeMap<StreamId, String>,
}

/// One stream at the end.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StreamRead {
    /// At or below this the lane need not hold an event: where the trial began, or what it may have let go of.
    pub floor: Seq,
    /// The head that the lane names.
    pub head: Seq,
    /// Which seq holds which of this run's events.
    pub events: SeqRuns,
    /// Rows that are not this run's.
    pub foreign: u64,
    /// Where they are.
    #[serde(default)]
    pub foreign_at: IntervalSet,
    /// Rows that bear this run's mark and not the content that it gave them.
    #[serde(default)]
    pub altered: u64,
}

/// What became of the run's own events in a world that is not its own, once they were no longer needed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CleanUp {
    /// Nothing was to be removed: the target file says `clean_up: none`.
    #[serde(default)]
    pub declined: bool,
    /// Rows that were there and are gone.
    pub removed: u64,
    /// Events that lie beyond what the lane replays of a stream, where nobody can look whether they were there. Unless
    /// `declined`, it has acknowledged their removal. By stream.
    #[serde(default)]
    pub unseen: BTreeMap<StreamId, u64>,
    /// Rows that are still there, by stream.
    #[serde(default)]
    pub left: BTreeMap<StreamId, u64>,
    /// Why a stream could not be read, or the lane did not remove what is in it.
    #[serde(default)]
    pub failed: BTreeMap<StreamId, String>,
    /// Why nothing could be asked for at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl CleanUp {
    /// One that could not even be asked for.
    #[must_use]
    pub fn unasked(why: String) -> Self {
        Self {
            error: Some(why),
            ..Self::default()
        }
    }
}
