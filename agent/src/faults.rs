//! The agent as a holder of faults: those of nodes, kernels and machines it does itself, those of links, tokens and clocks it has
//! its children hold. Every step is in the journal before the next is taken.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use host::clock;
use host::faults::Holder;
use host::http::{Failure, StatusCode};
use model::command::is_name;
use model::fault::{self, Fault, FaultOrder, FaultView, Observation, Renewal};
use model::ids::FaultId;
use model::instant::Bracket;
use model::lease::Deadline;
use model::quantity::Span;
use tokio_util::sync::CancellationToken;

use crate::crash;
use crate::journal::{Event, Journal, Undo};
use crate::nodes::Nodes;
use crate::state::StateDir;
use crate::supervisor::Supervisor;
use crate::watchdog::Watchdog;

mod crash_loop;
mod deed;
mod kill_tree;
pub(crate) mod machine;
pub mod network;
pub mod node;
pub mod recall;
pub mod relay;
pub mod rollback;
mod subject;

use crash_loop::CrashLoop;
use deed::{Deed, NotApplied};
use kill_tree::KillTree;
use network::Network;
use node::NodeFault;
use relay::Relay;
use subject::Subject;

/// How long children may take to inject or undo what is relayed to them.
const RELAY_WITHIN: Duration = Duration::from_secs(5);
/// The same when everything ends: a child that takes longer is killed, and its faults with it.
const RELAY_AT_END_WITHIN: Duration = Duration::from_millis(400);

/// All faults that an agent has held since it started.
#[derive(Debug)]
pub struct AgentHolder {
    supervisor: Arc<Supervisor>,
    nodes: Nodes,
    network: Network,
    state: Arc<StateDir>,
    journal: Mutex<Journal>,
    watchdog: Watchdog,
    records: Mutex<Vec<Record>>,
    /// Those that are being aimed and are in no record yet, by their interrupts.
    aiming: Mutex<BTreeMap<FaultId, CancellationToken>>,
    halted: AtomicBool,
    ending: AtomicBool,
}

#[derive(Debug, Clone)]
struct Record {
    id: FaultId,
    target: Target,
    view: FaultView,
    /// Cancelled when it shall be undone although it may still be under way.
    interrupt: CancellationToken,
    /// Its injection failed and was rolled back: for the outside it never was.
    failed: bool,
}

#[derive(Debug, Clone)]
enum Target {
    Own(Arc<dyn Deed>),
    Children(Relay),
}

impl Target {
    fn node(&self) -> Option<&str> {
        match self {
            Self::Own(deed) => deed.node(),
            Self::Children(_) => None,
        }
    }
}

impl AgentHolder {
    /// A holder that has no faults yet; the journal has been replayed, and is watched.
    #[must_use]
    pub fn new(
        supervisor: Arc<Supervisor>,
        nodes: Nodes,
        network: Network,
        state: Arc<StateDir>,
        journal: Journal,
        watchdog: Watchdog,
    ) -> Self {
        let halted = state.is_halted();
        Self {
            supervisor,
            nodes,
            network,
            state,
            journal: Mutex::new(journal),
            watchdog,
            records: Mutex::default(),
            aiming: Mutex::default(),
            halted: AtomicBool::new(halted),
            ending: AtomicBool::new(false),
        }
    }

    /// The faults in force, oldest first.
    #[must_use]
    pub fn in_force(&self) -> Vec<FaultId> {
        self.records()
            .iter()
            .filter(|record| record.view.active && !record.failed)
            .map(|record| record.id.clone())
            .collect()
    }

    /// Forgets the faults that are over, so that their ids may be used again: a new trial begins.
    pub fn forget_over(&self) {
        self.records().retain(|record| record.view.active);
    }

    /// What the faults of this life have on the machine, in words.
    #[must_use]
    pub(crate) fn traces(&self) -> Vec<String> {
        let records = self.records();
        let deeds = records.iter().filter_map(|record| match &record.target {
            Target::Own(deed) => Some(deed),
            Target::Children(_) => None,
        });
        deeds.flat_map(|deed| deed.traces()).collect()
    }

    /// The kernel, and what is this agent's there.
    #[must_use]
    pub const fn network(&self) -> &Network {
        &self.network
    }

    /// The operator's nodes.
    #[must_use]
    pub const fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// The agent's folder.
    #[must_use]
    pub fn state(&self) -> &StateDir {
        &self.state
    }

    /// Who undoes what this agent did when it dies.
    #[must_use]
    pub const fn watchdog(&self) -> &Watchdog {
        &self.watchdog
    }

    /// Whether new work is refused.
    #[must_use]
    pub fn is_halted(&self) -> bool {
        self.halted.load(Ordering::SeqCst)
    }

    /// Refuses new work from now on, also in a later life, or takes it on again.
    ///
    /// # Errors
    /// 500 when the marker cannot be written; when it was to be set, work is refused all the same.
    pub fn set_halted(&self, halted: bool) -> Result<(), Failure> {
        if halted {
            self.halted.store(true, Ordering::SeqCst);
        }
        self.state
            .set_halted(halted)
            .map_err(|error| internal(&error))?;
        self.halted.store(halted, Ordering::SeqCst);
        Ok(())
    }

    /// 423 when the agent is halted.
    ///
    /// # Errors
    /// It is.
    pub fn refuse_when_halted(&self) -> Result<(), Failure> {
        if !self.is_halted() {
            return Ok(());
        }
        let text = "the agent is halted and takes on no work; POST /halt/clear ends that";
        Err(Failure::new(StatusCode::LOCKED, text))
    }

    /// From now on the nodes are being taken down: to undo a kill no longer starts one again.
    pub fn begin_end(&self) {
        self.ending.store(true, Ordering::SeqCst);
    }

    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }

    fn relay_within(&self) -> Duration {
        if self.is_ending() {
            RELAY_AT_END_WITHIN
        } else {
            RELAY_WITHIN
        }
    }

    async fn aim(&self, order: &FaultOrder) -> Result<Target, Failure> {
        match order.fault.holder() {
            fault::Holder::Agent if order.fault.in_kernel() => {
                self.refuse_unwatched()?;
                self.network.aim(order).await.map(Target::Own)
            }
            fault::Holder::Agent if order.fault.on_machine() => {
                self.refuse_unwatched()?;
                let aimed = machine::aim(order, &self.supervisor, &self.state).await;
                aimed.map(Target::Own)
            }
            fault::Holder::Agent => {
                self.refuse_unwatched()?;
                self.aim_at_process(order).await.map(Target::Own)
            }
            fault::Holder::Proxy | fault::Holder::Shard | fault::Holder::Tokens => {
                Relay::aim(order, &self.supervisor).map(Target::Children)
            }
        }
    }

    async fn aim_at_process(&self, order: &FaultOrder) -> Result<Arc<dyn Deed>, Failure> {
        let watchdog = self.watchdog.pid();
        let subject = Subject::find(order, &self.supervisor, &self.nodes, watchdog).await?;
        Ok(match &order.fault {
            Fault::KillTree(_) => Arc::new(KillTree::aim(subject).await?),
            Fault::CrashLoop(settings) => Arc::new(CrashLoop::aim(subject, settings)?),
            _ => Arc::new(NodeFault::aim(order, subject)?),
        })
    }

    /// What children hold ends with them; what the agent does itself would outlive its lease if it died.
    fn refuse_unwatched(&self) -> Result<(), Failure> {
        if self.watchdog.pid().is_some() {
            return Ok(());
        }
        let text = "the agent's watchdog has ended and could not be started again, see its log: nobody would undo a fault \
                    if the agent died";
        Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, text))
    }

    /// Enters the fault in the table. From then on a halt, a lapse and the end of the agent find it there.
    fn register(
        &self,
        id: &str,
        target: &Target,
        interrupt: CancellationToken,
    ) -> Result<(), Failure> {
        let mut records = self.records();
        // Checked under the lock: a halt sets its flag first and reads the table then.
        self.refuse_when_halted()?;
        if self.is_ending() {
            let text = format!("fault `{id}` is not injected: the agent is ending");
            return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, text));
        }
        if let Some(node) = target.node()
            && let Some(other) = records.iter().find(|record| {
                record.target.node() == Some(node) && record.view.active && !record.failed
            })
        {
            let text = format!(
                "node `{node}` is under fault `{}`; undo that first",
                other.id
            );
            return Err(Failure::new(StatusCode::CONFLICT, text));
        }
        records.retain(|record| record.id != id);
        let now = clock::now();
        records.push(Record {
            id: id.to_owned(),
            target: target.clone(),
            view: FaultView {
                id: id.to_owned(),
                active: true,
                injected: Bracket {
                    asked: now,
                    observed: now,
                },
                healed: None,
                lapsed: false,
                observation: Observation::default(),
            },
            interrupt,
            failed: false,
        });
        Ok(())
    }

    async fn apply(&self, order: &FaultOrder, target: &Target) -> Result<FaultView, NotApplied> {
        let id = order.id.as_str();
        let undo = match target {
            Target::Own(deed) => deed.undo_record(),
            Target::Children(relay) => Undo::Relay {
                children: relay.children().to_vec(),
            },
        };
        let intent = Event::Intent {
            order: Box::new(order.clone()),
            undo,
            lease: Deadline {
                until: clock::now() + order.lease,
                boot: clock::boot().to_owned(),
            },
        };
        self.record(id, intent).map_err(NotApplied::untouched)?;
        match target {
            Target::Own(deed) => {
                let interrupt = self.get(id).map(|record| record.interrupt);
                deed.prepare(&interrupt.unwrap_or_default())
                    .await
                    .map_err(NotApplied::half_way)?;
                let asked = clock::now();
                deed.strike().await?;
                self.record(id, Event::Applied)
                    .map_err(NotApplied::half_way)?;
                let (observed, observation) = deed.bite().await.map_err(NotApplied::half_way)?;
                self.record(id, Event::Observed)
                    .map_err(NotApplied::half_way)?;
                let injected = Bracket { asked, observed };
                let over = order.fault.ends_after() == Some(Span::ZERO);
                Ok(FaultView {
                    id: id.to_owned(),
                    active: !over,
                    injected,
                    healed: over.then_some(injected),
                    lapsed: false,
                    observation,
                })
            }
            Target::Children(relay) => {
                let view = relay
                    .inject(order, &self.supervisor, self.relay_within())
                    .await
                    .map_err(NotApplied::half_way)?;
                self.record(id, Event::Applied)
                    .and_then(|()| self.record(id, Event::Observed))
                    .map_err(NotApplied::half_way)?;
                Ok(view)
            }
        }
    }

    async fn revert(&self, record: &Record) -> Result<(FaultView, String), Failure> {
        let mut view = record.view.clone();
        let reason = match &record.target {
            Target::Own(deed) => {
                let undo = deed.undo(self.is_ending(), &mut view.observation);
                let (healed, reason) = crash::in_the_middle(undo).await?;
                // When a process was started is known to 10 ms only, and nothing is healed before it was hurt.
                let hurt = view.injected.observed;
                view.healed = healed.map(|healed| Bracket {
                    asked: healed.asked.max(hurt),
                    observed: healed.observed.max(hurt),
                });
                reason
            }
            Target::Children(relay) => {
                let (supervisor, within) = (&self.supervisor, self.relay_within());
                view = relay.undo(&view, supervisor, within).await?;
                "undone by the children".to_owned()
            }
        };
        view.active = false;
        Ok((view, reason))
    }

    async fn roll_back(&self, id: &str, not_applied: NotApplied) -> Failure {
        let NotApplied {
            mut failure,
            changed,
        } = not_applied;
        tracing::warn!(fault = id, %failure, "not injected");
        if changed && let Some(record) = self.get(id) {
            // A fault that is not undone here stays in the table, where DELETE, halt and the end find it.
            if let Err(error) = self.revert(&record).await {
                failure.message =
                    format!("{failure}; and what was done could not be undone: {error}");
                tracing::error!(fault = id, %error, "the roll-back failed");
                return failure;
            }
        }
        self.conclude(id, &format!("not injected, rolled back: {failure}"));
        if !changed {
            // With it goes what was made ready for it, such as a worker that has not begun.
            self.records().retain(|record| record.id != id);
            return failure;
        }
        self.update(id, |record| {
            record.failed = true;
            record.view.active = false;
        });
        failure
    }

    /// The last entry. The fault is undone already; that this is not on record costs a needless undo in a later life.
    fn conclude(&self, id: &str, reason: &str) {
        let event = Event::Undone {
            reason: reason.to_owned(),
        };
        if let Err(error) = self.record(id, event) {
            tracing::error!(fault = id, %error, "undone, but not on record");
        }
    }

    /// Waits for the disk, some 0.2 ms: shorter than to hand it to another thread is worth.
    fn record(&self, id: &str, event: Event) -> Result<(), Failure> {
        self.journal()
            .record(id, event)
            .map_err(|error| internal(&error))
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn aiming(&self) -> MutexGuard<'_, BTreeMap<FaultId, CancellationToken>> {
        self.aiming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn records(&self) -> MutexGuard<'_, Vec<Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, id: &str) -> Option<Record> {
        self.records()
            .iter()
            .find(|record| record.id == id)
            .cloned()
    }

    fn update(&self, id: &str, change: impl FnOnce(&mut Record)) {
        if let Some(record) = self.records().iter_mut().find(|record| record.id == id) {
            change(record);
        }
    }
}

impl Holder for AgentHolder {
    async fn inject(&self, order: FaultOrder) -> Result<FaultView, Failure> {
        let id = order.id.clone();
        // It is a segment of a path, of files' names and of logs.
        if !is_name(&id) {
            let shown: String = id.chars().take(40).collect();
            let text = format!(
                "`{}` is not a fault's id: use up to 64 letters, digits, hyphens and underscores, such as f1-kill",
                shown.escape_debug()
            );
            return Err(Failure::new(StatusCode::BAD_REQUEST, text));
        }
        let interrupt = CancellationToken::new();
        self.aiming().insert(id.clone(), interrupt.clone());
        let aimed = self.aim(&order).await;
        let registered = aimed.and_then(|target| {
            // Whoever calls it back from here on finds it in the table.
            self.register(&id, &target, interrupt.clone())?;
            Ok(target)
        });
        self.aiming().remove(&id);
        let target = registered?;
        if interrupt.is_cancelled() {
            let text =
                "called back before anything was done: the lease is shorter than it takes to aim";
            let called_back = Failure::new(StatusCode::INTERNAL_SERVER_ERROR, text);
            return Err(self
                .roll_back(&id, NotApplied::untouched(called_back))
                .await);
        }
        match self.apply(&order, &target).await {
            Ok(view) => {
                tracing::info!(fault = id, what = order.fault.name(), "injected");
                self.update(&id, |record| record.view = view.clone());
                if !view.active {
                    self.conclude(&id, "it was momentary");
                }
                Ok(view)
            }
            Err(not_applied) => Err(self.roll_back(&id, not_applied).await),
        }
    }

    async fn look(&self, id: &str) -> Option<FaultView> {
        let record = self.get(id).filter(|record| !record.failed)?;
        match &record.target {
            Target::Own(deed) => {
                let mut view = record.view;
                if view.active {
                    deed.look(&mut view.observation).await;
                }
                Some(view)
            }
            Target::Children(relay) => {
                let (supervisor, within) = (&self.supervisor, self.relay_within());
                Some(relay.look(&record.view, supervisor, within).await)
            }
        }
    }

    async fn undo(&self, id: &str, lapsed: bool) -> Result<FaultView, Failure> {
        let record = self.get(id).ok_or_else(|| {
            Failure::new(StatusCode::NOT_FOUND, format!("there is no fault `{id}`"))
        })?;
        if !record.view.active {
            // What ended by itself may have been seen to do more since. At the end nobody asks any more.
            let now = if self.is_ending() {
                None
            } else {
                self.look(id).await
            };
            return Ok(now.unwrap_or(record.view));
        }
        let (mut view, reason) = self.revert(&record).await?;
        view.lapsed |= lapsed;
        self.update(id, |record| record.view = view.clone());
        let who = if lapsed { "the lease lapsed" } else { "asked" };
        self.conclude(id, &format!("{who}: {reason}"));
        tracing::info!(fault = id, lapsed, reason, "undone");
        Ok(view)
    }

    async fn renewed(&self, id: &str, renewal: &Renewal) {
        match self.get(id).map(|record| record.target) {
            Some(Target::Own(deed)) => {
                let until = clock::now() + renewal.lease;
                let on_record = self.journal().renewed(id, until);
                if let Err(error) = on_record {
                    tracing::warn!(fault = id, %error, "the watchdog knows of an earlier end of the lease only");
                }
                deed.renewed(until).await;
            }
            Some(Target::Children(relay)) => relay.renew(id, renewal, &self.supervisor).await,
            None => {}
        }
    }

    fn interrupt(&self, id: &str) {
        if let Some(interrupt) = self.aiming().get(id) {
            interrupt.cancel();
        }
        if let Some(record) = self.get(id) {
            record.interrupt.cancel();
        }
    }

    fn ids(&self) -> Vec<FaultId> {
        self.records()
            .iter()
            .filter(|record| !record.failed)
            .map(|record| record.id.clone())
            .collect()
    }
}

fn internal(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}
