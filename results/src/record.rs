//! One line of `results.jsonl`: the evidence of one trial, the figures derived from it, and the verdict.
//!
//! A row is self-contained. Everything that [`crate::verdict()`] looks at is in it, so that a folder can be judged anew
//! without the processes that made it. Instants are micro-seconds of the monotonic clock of the host that ran the
//! trial, spans of figures are micro-seconds (`_us`), and spans that a scenario declared are written as it writes them.

use std::collections::BTreeMap;
use std::fmt;

use model::anomaly::{Anomaly, Example, Tally};
use model::crew::{NodeRecord, Reach};
use model::criteria::{Criteria, Phase};
use model::defect::Defect;
use model::external::ExternalProbe;
use model::fault::{Fault, Holder, Observation};
use model::ids::{FaultId, Lane};
use model::instant::{Bracket, Mono};
use model::profile::Profile;
use model::quantity::{Rate, Share};
use model::role::{LaneStatus, ProxyStatus};
use model::shard::{DeliveryPart, ProbeTally};
use model::target::Kind;
use model::trial::{Abort, Residue};
use scenarios::waivers::Date;
use serde::{Deserialize, Serialize};

use crate::figures::Figures;
use crate::open_world::OpenWorld;
use crate::seal::Seal;
use crate::storm::Storm;

/// The version of the row format. Readers refuse a larger one.
pub const SCHEMA_VERSION: u32 = 1;

/// How a trial ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Everything within bounds and limits.
    Passed,
    /// Proves nothing either way.
    Inconclusive,
    /// The tool could not do what the plan asks.
    Error,
    /// A safety anomaly, residue, a declared limit breached, or a bound exceeded.
    Failed,
}

impl Status {
    /// The name in results and summaries.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Inconclusive => "inconclusive",
            Self::Error => "error",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A judgement with its grounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The judgement.
    pub status: Status,
    /// The ground that decided.
    pub reason: String,
    /// All grounds, the deciding one first; empty for a trial that passed.
    pub reasons: Vec<String>,
}

/// One scenario, on one lane, once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The scenario's name.
    pub scenario: String,
    /// The verdict's status.
    pub status: Status,
    /// From the first process asked for to the last torn down.
    pub duration_seconds: f64,
    /// The trial's log, relative to the run folder.
    pub log_file: String,
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The run's id. Filled in by [`crate::RunFolder::append`].
    pub run: String,
    /// Which lane.
    pub lane: Lane,
    /// The trial's number, from 1.
    pub trial: u32,
    /// The plan's seed.
    pub seed: u64,
    /// The plan's digest.
    pub plan_digest: String,
    /// Who runs the target: a lane of somebody's own tells no counters.
    #[serde(default)]
    pub target: Kind,
    /// The clocks and budgets that lane and clients ran with; its name is the target's.
    pub profile: Profile,
    /// How true to life the faults are: the kinds of [`Fidelity`], joined by `+`.
    pub fidelity: String,
    /// When the trial began: RFC 3339, UTC.
    pub started: String,
    /// The same on the monotonic clock.
    #[serde(rename = "started_us")]
    pub started_mono: Mono,
    /// When the trial was over, on the monotonic clock.
    #[serde(rename = "ended_us")]
    pub ended_mono: Mono,
    /// When steady state was reached, before the first fault; `None` when it never was.
    #[serde(rename = "steady_us")]
    pub steady: Option<Mono>,
    /// Why an earlier execution of this trial was discarded and the trial repeated.
    pub repeated: Option<String>,
    /// The defect that was planted.
    pub defect: Option<Defect>,
    /// What the row is judged by: a copy of the plan's.
    pub criteria: Criteria,
    /// The verdict.
    pub verdict: Verdict,
    /// The faults.
    pub faults: Vec<FaultEvidence>,
    /// The agents of an inventory that the trial had, and how far their clocks were off.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeRecord>,
    /// The clients.
    pub clients: Clients,
    /// The phases of recovery, over the affected clients.
    pub phases: BTreeMap<Phase, Figures>,
    /// From the last heal to the start of the first steady window after it; `None` when there was none.
    pub time_to_steady_us: Option<u64>,
    /// How often the system fell out of a steady window after the heal.
    pub relapses: u32,
    /// Delivery latency by part of the trial.
    pub delivery: BTreeMap<DeliveryPart, DeliveryFigures>,
    /// (client, event) pairs that had to be delivered; `None` without a ledger.
    pub expected_deliveries: Option<u64>,
    /// How many of them were.
    pub delivered: Option<u64>,
    /// The run's events, counted by whom there is to count them.
    #[serde(default)]
    pub census: Census,
    /// Rows received, by framing, repetitions included.
    pub rows_received: BTreeMap<String, u64>,
    /// Every kind of anomaly, found or not.
    pub anomalies: BTreeMap<Anomaly, AnomalyCount>,
    /// How the fleet came back.
    pub storm: Storm,
    /// What the probes asked, and what they were told.
    pub probes: Vec<ProbeTally>,
    /// What was asked beside the lane, and how often the answer was good.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub external: Vec<ExternalProbe>,
    /// Connections replaced ahead of a token's expiry: no outage.
    pub planned_reconnects: u64,
    /// Resets to a snapshot, or to the beginning, after a stale cursor.
    pub rebootstraps: u64,
    /// How well the harness kept time.
    pub harness: HarnessFigures,
    /// What was left behind; `None` where it could not be examined.
    pub residue: Option<Residue>,
    /// What of others was met, and what became of the run's own events; `None` where nobody else publishes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_world: Option<OpenWorld>,
    /// The lane's own counters at the end.
    pub lane_status: Option<LaneStatus>,
    /// The proxy's, without its arrivals, which are in `storm`.
    pub proxy_status: Option<ProxyStatus>,
    /// Why the trial ended before its plan did.
    pub abort: Option<Abort>,
    /// Evidence that should be here and is not, a sentence each.
    pub missing: Vec<String>,
    /// Checks that panicked, with what they said.
    pub broken_checks: Vec<String>,
    /// What shows that the row is as it was written. Filled in by [`crate::RunFolder::append`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal: Option<Seal>,
}

impl Row {
    /// `restart-khala-1`: the name of the trial's files.
    #[must_use]
    pub fn name(&self) -> String {
        trial_name(&self.scenario, self.lane, self.trial)
    }

    /// Why the trial may be repeated: harness lag, and nothing else, made it inconclusive. `None` for all others.
    #[must_use]
    pub fn invalid_by_lag(&self) -> Option<&str> {
        let lag = self.status == Status::Inconclusive
            && self
                .verdict
                .reasons
                .iter()
                .all(|reason| reason.starts_with(crate::verdict::LAG));
        lag.then_some(self.verdict.reason.as_str())
    }

    /// The first injection and the last heal, as asked for: the episode. `None` where nothing was injected; the heal
    /// is the injection where none is known.
    #[must_use]
    pub fn episode(&self) -> Option<(Mono, Mono)> {
        let t0 = self
            .faults
            .iter()
            .filter_map(|fault| fault.injected.map(|bracket| bracket.asked))
            .min()?;
        let th = self
            .faults
            .iter()
            .filter_map(|fault| fault.healed.map(|bracket| bracket.asked))
            .max();
        Some((t0, th.map_or(t0, |th| th.max(t0))))
    }
}

/// The name of a trial's files.
pub(crate) fn trial_name(scenario: &str, lane: Lane, trial: u32) -> String {
    format!("{scenario}-{lane}-{trial}")
}

/// What stands between a fault as injected and the same fault in production.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fidelity {
    /// A user-space proxy: peers keep getting ACKs, bytes wait instead of being lost.
    Proxy,
    /// A real signal to a real process.
    Process,
    /// The node's own kernel: packets are lost, connections are ended, as they would be.
    Kernel,
    /// Real tokens with a real, but chosen, expiry.
    Token,
    /// What the node's machine has to give is really taken up; a reserve is left that the field's own shortage may not leave.
    Machine,
    /// A token service that really issues by another time; the clock of its machine is right.
    Clock,
}

impl Fidelity {
    /// That of a fault.
    #[must_use]
    pub const fn of(fault: &Fault) -> Self {
        match fault.holder() {
            Holder::Agent if fault.in_kernel() => Self::Kernel,
            Holder::Agent if fault.on_machine() => Self::Machine,
            Holder::Tokens => Self::Clock,
            Holder::Proxy => Self::Proxy,
            Holder::Agent => Self::Process,
            Holder::Shard => Self::Token,
        }
    }

    /// The name in results.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Process => "process",
            Self::Kernel => "kernel",
            Self::Token => "token",
            Self::Machine => "machine",
            Self::Clock => "clock",
        }
    }
}

/// A fault and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaultEvidence {
    /// Its id in the plan.
    pub id: FaultId,
    /// What was injected.
    pub fault: Fault,
    /// The share of the clients it was to take.
    pub share: Share,
    /// How true to life it is.
    pub fidelity: Fidelity,
    /// The injection; `None` where it was never applied.
    pub injected: Option<Interval>,
    /// The heal.
    pub healed: Option<Interval>,
    /// Whether it was still in force when last looked at.
    pub active: bool,
    /// Whether its lease lapsed.
    pub lapsed: bool,
    /// What it was seen to do.
    pub observation: Observation,
    /// Why it could not be applied or undone.
    pub error: Option<String>,
    /// The agents of an inventory that it was done by; empty for the conductor's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// Those of several where it was not seen to bite.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub toothless: Vec<String>,
    /// Around a partition: who heard whom.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reach: Vec<Reach>,
}

/// A bracket with its width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    /// Just before the call that made the change.
    #[serde(rename = "asked_us")]
    pub asked: Mono,
    /// When the change was first seen to be in force.
    #[serde(rename = "observed_us")]
    pub observed: Mono,
    /// The uncertainty about the true instant.
    pub width_us: u64,
}

impl From<Bracket> for Interval {
    fn from(bracket: Bracket) -> Self {
        Self {
            asked: bracket.asked,
            observed: bracket.observed,
            width_us: bracket.width().as_micros(),
        }
    }
}

/// Who took part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Clients {
    /// As planned.
    pub intended: u64,
    /// Under the fault: these are in the phases.
    pub affected: u64,
    /// Affected, and cut off by an abort before they could be whole.
    pub unknown: u64,
    /// Affected, of those intended.
    pub share: Share,
}

/// The run's events at the end, as different witnesses count them: what is lost shows as a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Census {
    /// Acknowledged, by the publisher's ledger or because a client saw an event of unknown outcome.
    pub acknowledged: u64,
    /// Of those, found by the final read.
    pub read: u64,
    /// What it found beside them: events of unknown outcome that no client saw, and rows that are not this run's.
    #[serde(default)]
    pub unacknowledged: u64,
    /// Acknowledged, and no longer held by the lane: each is one of `lost`.
    #[serde(default)]
    pub lost: u64,
    /// (client, event) pairs, held by the lane and absent from what the client had: the others of `lost`.
    #[serde(default)]
    pub missed: u64,
    /// Held in the streams published to, by the lane's own count; `None` where it does not count.
    pub counted: Option<u64>,
}

/// Delivery latency of one part of a trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeliveryFigures {
    /// From the intended instant of publication.
    pub corrected: Figures,
    /// From the instant it was really sent, or without what a replay brought.
    pub uncorrected: Figures,
}

/// How often one kind of anomaly was found, and how often it may be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnomalyCount {
    /// How many; `None` when the evidence to judge it was missing.
    pub count: Option<u64>,
    /// Against all rows received, for the kinds that are limited by a ratio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// The largest count, or ratio, that passes.
    pub limit: f64,
    /// Whether it is; `None` when it could not be judged.
    pub within: Option<bool>,
    /// Who answers for it, where somebody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiver: Option<RowWaiver>,
    /// The first few.
    pub examples: Vec<Example>,
    /// Such as the target does not promise to do without: reported, and neither counted above nor judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unpromised: Option<Tally>,
}

/// A waiver as it applies to one kind of anomaly in one row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowWaiver {
    /// Who answers for it.
    pub owner: String,
    /// The last day on which it holds.
    pub expires: Date,
    /// Why it is acceptable.
    pub reason: String,
    /// No more than so many are.
    pub at_most: Option<u64>,
    /// The run began after that day.
    pub expired: bool,
    /// Whether the trial is spared: it has not expired, and no more than `at_most` were found.
    pub holds: bool,
}

/// How well the harness kept time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HarnessFigures {
    /// The publisher: actual − intended send.
    pub send_lag: Figures,
    /// A canary timer in every shard and in the proxy: that of the process which kept time worst.
    pub receive_lag: Figures,
    /// A p99 above this invalidates the trial: the larger of 10 ms and 5 % of the tightest bound judged.
    pub limit_us: u64,
    /// The share of one core that the busiest of them used, at its highest over any second.
    pub busiest: f64,
    /// Above this a trial is invalid.
    pub busiest_limit: f64,
}

/// The rate at which the target accepts connections, and what is held against it.
pub(crate) fn over_capacity(peak_per_second: f64, capacity: Option<Rate>) -> Option<f64> {
    let capacity = capacity?.as_per_second();
    (capacity > 0.0).then(|| round6(peak_per_second / capacity))
}

/// Rounded so that a figure and its text are the same.
pub(crate) fn round6(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}
