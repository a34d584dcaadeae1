//! One execution of one plan: steady state, faults, the way back.
//!
//! ```text
//! timeline   the faults      gather   undo, and what was seen
//! ```

mod gather;
mod kernel;
mod timeline;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, try_join, try_join_all};
use host::clock;
use host::http::CallError;
use model::fault::FaultView;
use model::ids::Lane;
use model::instant::Mono;
use model::shard::Cursors;
use model::target::World;
use model::trial::{Abort, FaultRecord, Trial};
use scenarios::plan::{Plan, Step};
use scenarios::target;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::crew::Crew;
use super::diary::Diary;
use super::fleet::Fleet;
use super::hosts::Hosts;
use super::node::Node;
use super::probe::Probes;
use super::steady::{Sample, SteadyWatch};
use super::target::Target;
use crate::api::ChildView;
use crate::client::Agent;
use kernel::ask_the_kernels;

const TICK: Duration = Duration::from_millis(100);
const TICKS_PER_ROLL_CALL: u32 = 10;

/// How a trial is doing, for whoever watches.
#[derive(Debug, Clone)]
pub struct Beat {
    /// Which scenario.
    pub scenario: String,
    /// Which lane.
    pub lane: Lane,
    /// Which trial, from 1.
    pub trial: u32,
    /// What is being waited for, such as `steady` or `recovery`.
    pub phase: &'static str,
    /// The fleet.
    pub sample: Sample,
}

/// Somebody who watches.
pub type Observer = Arc<dyn Fn(Beat) + Send + Sync>;

/// What a trial needs.
pub struct Setting<'a> {
    /// The agent that does what no agent of an inventory does.
    pub node: &'a Node,
    /// The agents of the inventory, where there is one.
    pub crew: Option<&'a Crew>,
    /// What to do.
    pub plan: &'a Plan,
    /// What the plan's target file describes; `None` for a target that is started here.
    pub described: Option<&'a target::Target>,
    /// What marks its events: see [`model::event::trial_mark`].
    pub mark: &'a str,
    /// The trial's number.
    pub number: u32,
    /// The trial's log.
    pub diary: &'a Diary,
    /// Cancelled by Ctrl-C.
    pub cancel: &'a CancellationToken,
    /// Cancelled when a part of the harness is lost, be it another lane's.
    pub lost: &'a CancellationToken,
    /// Who watches.
    pub observer: &'a Observer,
}

/// Executes a plan. Whatever happens, faults are undone, and what there is of evidence is in the answer.
pub async fn run(setting: &Setting<'_>) -> Trial {
    let started = clock::now();
    let mut conductor = Conductor {
        setting,
        agent: setting.node.agent.clone(),
        hosts: None,
        trial: Trial {
            started,
            ended: started,
            started_unix_us: clock::unix_micros(),
            steady: None,
            time_to_steady: None,
            relapses: 0,
            faults: blank_records(setting.plan),
            nodes: Vec::new(),
            shards: Vec::new(),
            shards_planned: 0,
            cursors: Cursors::new(),
            ledger: None,
            final_read: None,
            clean_up: None,
            external: Vec::new(),
            lane: None,
            proxy: None,
            residue: None,
            abort: None,
        },
        sample: Sample::default(),
        ticks: 0,
        owns_lane: true,
        probes: Probes::default(),
        healed: None,
    };
    let abort = conductor.walk().await.err();
    if let Some(abort) = &abort {
        setting.diary.note(&format!("ended early: {abort:?}"));
    }
    let dismissed = conductor.dismiss().await;
    conductor.trial.abort = abort.or(dismissed.err());
    conductor.trial.ended = clock::now();
    conductor.trial
}

fn blank_records(plan: &Plan) -> Vec<FaultRecord> {
    let blank = |step: &Step| FaultRecord {
        id: step.id.clone(),
        fault: step.fault.clone(),
        share: step.share,
        view: None,
        error: None,
        nodes: plan.done_by(step),
        toothless: Vec::new(),
        reach: Vec::new(),
    };
    plan.steps.iter().map(blank).collect()
}

struct Conductor<'a> {
    setting: &'a Setting<'a>,
    agent: Agent,
    /// Where the trial runs; `None` before that is known.
    hosts: Option<Hosts>,
    trial: Trial,
    sample: Sample,
    ticks: u32,
    /// Whether the lane is a child of the agent.
    owns_lane: bool,
    probes: Probes,
    /// When the last fault was over, and the way back began.
    healed: Option<Mono>,
}

/// A part of the harness that does not answer ends the trial.
fn lost(what: &'static str) -> impl Fn(CallError) -> Abort {
    move |error| Abort::Harness(format!("{what}: {error}"))
}

async fn mark_residue(hosts: &Hosts) -> Result<(), Abort> {
    let marking = hosts.agents().map(|(_, agent)| agent.mark_residue());
    try_join_all(marking)
        .await
        .map(drop)
        .map_err(lost("residue"))
}

impl Conductor<'_> {
    async fn walk(&mut self) -> Result<(), Abort> {
        let Setting {
            node,
            crew,
            plan,
            described,
            mark,
            diary,
            ..
        } = *self.setting;
        self.beat("starting");
        let (hosts, records) = Hosts::of(plan, node, crew).await.map_err(Abort::Harness)?;
        self.trial.nodes = records;
        let hosts = self.hosts.insert(hosts);
        ask_the_kernels(plan, hosts).await?;
        let target = Target::start(hosts, plan, described, mark)
            .await
            .map_err(|error| Abort::Harness(format!("the target could not be started: {error}")))?;
        self.owns_lane = target.owns_lane;
        mark_residue(hosts).await?;
        let mut fleet = Fleet::new(&target);
        self.trial.shards_planned = u32::try_from(fleet.len()).unwrap_or(u32::MAX);
        // Streams of a target of somebody's own have a history, be it that of the drill before.
        if described.is_some() || self.is_among_others() {
            self.trial.cursors = fleet
                .heads()
                .await
                .map_err(lost("where the streams stand before the trial"))?;
        }
        // From here on events may have been published: whatever happens, they are cleaned up.
        let under_way = match fleet.start(&self.trial.cursors).await {
            Ok(()) => {
                diary.note(&format!(
                    "{} clients begin to connect",
                    plan.workload.clients
                ));
                self.probes = Probes::start(&plan.probes, &self.agent);
                let under_way = self.until_recovered(&mut fleet).await;
                self.trial.external = std::mem::take(&mut self.probes).finish();
                under_way
            }
            Err(error) => Err(lost("the fleet could not be started")(error)),
        };
        if let Err(abort) = &under_way {
            diary.note(&format!("cut off: {abort:?}"));
        }
        self.undo_everything().await;
        let gathered = self.gather(&fleet, &target, under_way.is_err()).await;
        under_way.and(gathered)
    }

    fn is_among_others(&self) -> bool {
        self.setting.plan.target.promise.world == World::Open
    }

    /// Steady state, the timeline, the way back.
    async fn until_recovered(&mut self, fleet: &mut Fleet) -> Result<(), Abort> {
        let plan = self.setting.plan;
        let began = clock::now();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);

        let mut watch = SteadyWatch::new(plan.steady.clone(), &plan.probes);
        loop {
            self.wait(&mut ticks).await?;
            let sample = self.tick(fleet, "steady").await?;
            watch.hear(self.probes.fresh());
            if watch.push(sample).is_some() {
                break;
            }
            if clock::now().since(began) > plan.steady.within {
                let within = plan.steady.within;
                let why = watch.unsteady_because();
                return Err(Abort::NotSteady(format!(
                    "not steady within {within}: {why}"
                )));
            }
        }
        let zero = clock::now();
        self.trial.steady = Some(zero);
        self.setting.diary.note("steady; the timeline begins");
        self.timeline(fleet, zero, &mut ticks).await?;
        self.recovery(fleet, &mut ticks).await
    }

    async fn recovery(
        &mut self,
        fleet: &mut Fleet,
        ticks: &mut tokio::time::Interval,
    ) -> Result<(), Abort> {
        let plan = self.setting.plan;
        // An expiry is planted long before it comes: the way back begins when the last fault is over.
        let from = clock::now();
        let heal = self
            .trial
            .faults
            .iter()
            .filter_map(over)
            .max()
            .unwrap_or(from);
        self.healed = Some(from);
        let mut watch = SteadyWatch::new(plan.steady.clone(), &plan.probes);
        let mut steady = None;
        let mut below = None;
        loop {
            self.wait(ticks).await?;
            let sample = self.tick(fleet, "recovery").await?;
            if steady.is_none() {
                watch.hear(self.probes.fresh());
                steady = watch.push(sample);
                self.trial.relapses = watch.relapses();
                self.trial.time_to_steady = steady.map(|start| start.since(heal));
            }
            if steady.is_some() && sample.recovered == sample.affected {
                self.setting
                    .diary
                    .note("every affected client is whole, and the system is steady");
                return Ok(());
            }
            let now = clock::now();
            if now.since(from) > plan.criteria.deadline {
                let why = watch.unsteady_because();
                self.setting
                    .diary
                    .note(&format!("the deadline has passed: {why}"));
                return Ok(());
            }
            if let Some(rule) = &plan.abort {
                let limit = rule.connected_below.as_ratio() * f64::from(sample.intended);
                let since = *below.get_or_insert(now);
                if f64::from(sample.live) >= limit {
                    below = None;
                } else if now.since(since) >= rule.lasting {
                    return Err(Abort::Limit(format!(
                        "fewer than {} of the clients were live for {} after the last heal",
                        rule.connected_below, rule.lasting
                    )));
                }
            }
        }
    }

    /// The next tick, unless somebody wants to stop.
    async fn wait(&self, ticks: &mut tokio::time::Interval) -> Result<(), Abort> {
        tokio::select! {
            biased;
            () = self.setting.cancel.cancelled() => Err(Abort::Operator("interrupted".to_owned())),
            () = self.setting.lost.cancelled() => {
                Err(Abort::Harness("another lane of this run was lost, and this one stopped with it".to_owned()))
            }
            _ = ticks.tick() => Ok(()),
        }
    }

    async fn tick(&mut self, fleet: &mut Fleet, phase: &'static str) -> Result<Sample, Abort> {
        self.sample = fleet.tick().await.map_err(lost("a shard"))?;
        self.beat(phase);
        self.ticks += 1;
        if self.ticks.is_multiple_of(TICKS_PER_ROLL_CALL) {
            self.roll_call().await?;
        }
        for news in self.probes.collect() {
            self.setting.diary.note(&news);
        }
        if let Some(why) = self.probes.breach(self.healed) {
            return Err(Abort::Limit(why));
        }
        Ok(self.sample)
    }

    /// A shard that ended does not answer its ticks; nobody hears of a proxy, whose end would look like the target's
    /// failure, nor of a part of the target, whose end would look like a fault that is never over.
    async fn roll_call(&self) -> Result<(), Abort> {
        let Some(hosts) = &self.hosts else {
            return Ok(());
        };
        let calling = hosts.agents().map(|(node, agent)| async move {
            let asked = try_join(agent.children(), agent.status()).await;
            (node, asked)
        });
        for (node, asked) in join_all(calling).await {
            let (children, status) = asked.map_err(|error| match node {
                Some(node) => Abort::Harness(format!("agent `{node}`: {error}")),
                None => lost("the agent")(error),
            })?;
            if status.halted {
                return Err(Abort::Operator(format!(
                    "agent `{}` was halted",
                    status.name
                )));
            }
            if let Some(abort) = ended(&children) {
                return Err(abort);
            }
        }
        Ok(())
    }

    /// What agents of the inventory run of the trial ends with it, and their clocks are looked at once more.
    async fn dismiss(&mut self) -> Result<(), Abort> {
        let (Some(crew), Some(hosts)) = (self.setting.crew, &self.hosts) else {
            return Ok(());
        };
        let dismissed = hosts.dismiss().await;
        let clocks = crew.clocks().await;
        for record in &mut self.trial.nodes {
            let after = clocks
                .get(&record.name)
                .and_then(|clocks| clocks.as_ref().ok());
            record.after = after.map(|(offset, _)| offset.record());
        }
        dismissed.map_err(|why| {
            let why = format!("what runs of the trial could not be ended: {why}");
            self.setting.diary.note(&why);
            Abort::Harness(why)
        })
    }

    fn beat(&self, phase: &'static str) {
        let Setting {
            plan,
            number,
            observer,
            ..
        } = *self.setting;
        observer(Beat {
            scenario: plan.scenario.clone(),
            lane: plan.lane,
            trial: number,
            phase,
            sample: self.sample,
        });
    }
}

/// Which proxy or part of the target has ended though no fault was to end it, and how.
fn ended(children: &[ChildView]) -> Option<Abort> {
    let mut unasked = children
        .iter()
        .filter(|child| !child.alive && !child.end_expected);
    unasked.find_map(|child| {
        let (name, pid) = (&child.name, child.pid);
        let exit = child.exit.as_deref().unwrap_or("status unknown");
        match child.role.as_str() {
            "proxy" => Some(Abort::Harness(format!(
                "child `{name}` (process {pid}) ended ({exit})"
            ))),
            "lane" | "tokens" => Some(Abort::Target(format!("`{name}` ended by itself ({exit})"))),
            _ => None,
        }
    })
}

/// When a fault was over: its heal. That of an expiry is the expiry itself.
fn over(fault: &FaultRecord) -> Option<Mono> {
    Some(fault.view.as_ref()?.healed?.asked)
}

fn seen(view: &FaultView) -> String {
    let figures: Vec<String> = view
        .observation
        .figures
        .iter()
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    let lapsed = if view.lapsed {
        ", its lease had lapsed"
    } else {
        ""
    };
    format!(
        "{} bitten; {}{lapsed}",
        view.observation.bitten,
        figures.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn child(role: &str, alive: bool, end_expected: bool) -> ChildView {
        ChildView {
            name: role.to_owned(),
            role: role.to_owned(),
            pid: 7,
            alive,
            exit: (!alive).then(|| "signal: 9 (SIGKILL)".to_owned()),
            end_expected,
            restarts: 0,
            control: ([127, 0, 0, 1], 1).into(),
            listen: BTreeMap::new(),
        }
    }

    #[test]
    fn the_roll_call_tells_a_crash_of_the_target_from_a_fault_and_from_a_loss_of_the_harness() {
        let running = |role: &str| child(role, true, false);
        assert_eq!(
            ended(&[running("lane"), running("tokens"), running("proxy")]),
            None
        );
        assert_eq!(
            ended(&[child("lane", false, true)]),
            None,
            "a fault has it down"
        );
        for role in ["lane", "tokens"] {
            let crashed = format!("`{role}` ended by itself (signal: 9 (SIGKILL))");
            assert_eq!(
                ended(&[running("proxy"), child(role, false, false)]),
                Some(Abort::Target(crashed))
            );
        }
        let lost = ended(&[child("proxy", false, false)]);
        assert!(matches!(lost, Some(Abort::Harness(_))), "{lost:?}");
    }
}
