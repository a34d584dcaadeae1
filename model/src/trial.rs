//! One execution of a plan: what the conductor hands to results.

use serde::{Deserialize, Serialize};

use crate::crew::{NodeRecord, Reach};
use crate::external::ExternalProbe;
use crate::fault::{Fault, FaultView};
use crate::ids::FaultId;
use crate::instant::Mono;
use crate::quantity::{Share, Span};
use crate::role::{LaneStatus, ProxyStatus};
use crate::shard::{CleanUp, Cursors, FinalRead, Ledger, ShardReport};

/// A fault of the plan and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaultRecord {
    /// Its id in the plan.
    pub id: FaultId,
    /// What was to be injected.
    pub fault: Fault,
    /// The share of the clients it was to take.
    pub share: Share,
    /// The holder's last word on it; `None` where it was never applied.
    pub view: Option<FaultView>,
    /// Why it could not be applied or undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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

/// What was left behind.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Residue {
    /// Left by this tool: fails the trial.
    pub owned: Vec<String>,
    /// Changed by somebody else meanwhile: reported.
    pub foreign: Vec<String>,
    /// Parts of the target that ended and that no fault had ended: nothing was left behind, but the target failed.
    #[serde(default)]
    pub crashed: Vec<String>,
}

impl Residue {
    /// Adds what was left on an agent of an inventory, which it names.
    pub fn add(&mut self, node: &str, other: Self) {
        let named = |lines: Vec<String>| {
            let lines = lines.into_iter();
            lines
                .map(|line| format!("{line} (on `{node}`)"))
                .collect::<Vec<_>>()
        };
        self.owned.extend(named(other.owned));
        self.foreign.extend(named(other.foreign));
        self.crashed.extend(named(other.crashed));
    }
}

/// Why a trial ended before its plan did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Abort {
    /// Ctrl-C, halt, or SIGTERM.
    Operator(String),
    /// The target breached a limit that the scenario declares.
    Limit(String),
    /// A part of the target ended by itself: no fault of the plan had ended it.
    Target(String),
    /// Steady state was not reached, so nothing was injected.
    NotSteady(String),
    /// The harness lost a part of itself: an agent, a shard, a proxy.
    Harness(String),
}

/// Everything seen in one execution of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// The first process was asked for.
    #[serde(rename = "started_us")]
    pub started: Mono,
    /// All was torn down.
    #[serde(rename = "ended_us")]
    pub ended: Mono,
    /// Wall clock at the start, in micro-seconds since the Unix epoch.
    pub started_unix_us: u64,
    /// Steady state was reached.
    #[serde(rename = "steady_us")]
    pub steady: Option<Mono>,
    /// From the last heal to the start of the first steady window after it.
    pub time_to_steady: Option<Span>,
    /// How often the system fell out of a steady window after the heal.
    pub relapses: u32,
    /// The faults of the plan, in its order.
    pub faults: Vec<FaultRecord>,
    /// The shards' reports; one missing makes the trial inconclusive.
    pub shards: Vec<ShardReport>,
    /// How many shards there were.
    pub shards_planned: u32,
    /// Where others publish too: the heads from which it began.
    #[serde(default)]
    pub cursors: Cursors,
    /// The publisher's ledger.
    pub ledger: Option<Ledger>,
    /// The final read.
    pub final_read: Option<FinalRead>,
    /// What became of its events afterwards; `None` where nobody else publishes, or nothing had been published.
    #[serde(default)]
    pub clean_up: Option<CleanUp>,
    /// The external probes of the plan.
    #[serde(default)]
    pub external: Vec<ExternalProbe>,
    /// The lane at the end.
    pub lane: Option<LaneStatus>,
    /// The proxy at the end.
    pub proxy: Option<ProxyStatus>,
    /// What was left behind; `None` where it could not be examined.
    pub residue: Option<Residue>,
    /// Why it ended early.
    pub abort: Option<Abort>,
    /// The agents of an inventory that it had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeRecord>,
}
