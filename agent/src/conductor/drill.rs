//! All rows of a run: lanes side by side, trials one after the other, each judged and written as it ends.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use host::clock;
use model::command::CommandConfig;
use model::event::trial_mark;
use model::ids::Lane;
use model::moment::ClientRecord;
use model::trial::Abort;
use results::{Row, RunFolder};
use scenarios::inventory::Inventory;
use scenarios::plan::Plan;
use scenarios::target;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::crew::Crew;
use super::diary::Diary;
use super::node::Node;
use super::trial::{self, Observer, Setting};

/// A row to be.
#[derive(Debug, Clone)]
pub struct PlannedTrial {
    /// What to do.
    pub plan: Plan,
    /// The trial's number, from 1.
    pub number: u32,
}

/// A run.
#[derive(Clone)]
pub struct Drill {
    /// The faultlane program, of which all processes are started.
    pub program: PathBuf,
    /// The `SpacetimeDB` server that agents may run.
    pub spacetimedb: Option<PathBuf>,
    /// What the target file describes; `None` for a target that the drill starts.
    pub described: Option<Arc<target::Target>>,
    /// The commands that agents may run, by name.
    pub commands: BTreeMap<String, CommandConfig>,
    /// The run's id.
    pub run: String,
    /// The agents that are taken for it, beside the one that each trial has of its own.
    pub inventory: Option<Arc<Inventory>>,
    /// The rows, in the order in which each lane takes them.
    pub trials: Vec<PlannedTrial>,
    /// Where evidence goes.
    pub folder: Arc<Mutex<RunFolder>>,
    /// Cancelled by Ctrl-C.
    pub cancel: CancellationToken,
    /// Who watches.
    pub observer: Observer,
    /// Told of each row once it is on disk.
    pub on_row: Arc<dyn Fn(&Row) + Send + Sync>,
}

/// Runs all trials; each ends as a row in the folder. A run that is cancelled leaves the rows it did not come to
/// absent, which the gate counts as inconclusive.
///
/// # Errors
/// Evidence could not be written, or an agent not be started. Everything that was started has been ended.
pub async fn drill(drill: Drill) -> io::Result<()> {
    let mut by_lane: BTreeMap<Lane, Vec<PlannedTrial>> = BTreeMap::new();
    for planned in &drill.trials {
        by_lane
            .entry(planned.plan.lane)
            .or_default()
            .push(planned.clone());
    }
    let mut lanes = JoinSet::new();
    let lost = CancellationToken::new();
    let Some(inventory) = &drill.inventory else {
        for trials in by_lane.into_values() {
            lanes.spawn(one_lane(drill.clone(), None, trials, lost.clone()));
        }
        return all(lanes, &lost).await;
    };
    let crew = Crew::take(inventory, &drill.run).await;
    let crew = Arc::new(crew.map_err(io::Error::other)?);
    let mut outcome = Ok(());
    // What is done to a host's kernel is done to both lanes' clients there: one after the other.
    for trials in by_lane.into_values() {
        lanes.spawn(one_lane(
            drill.clone(),
            Some(Arc::clone(&crew)),
            trials,
            lost.clone(),
        ));
        outcome = all(std::mem::take(&mut lanes), &lost).await;
        if outcome.is_err() {
            break;
        }
    }
    if let Some(crew) = Arc::into_inner(crew) {
        crew.release().await;
    }
    outcome
}

/// Waits for all lanes; the first error, at which the others are told to end.
async fn all(mut lanes: JoinSet<io::Result<()>>, lost: &CancellationToken) -> io::Result<()> {
    let mut first_error = Ok(());
    while let Some(ended) = lanes.join_next().await {
        let ended = ended.unwrap_or_else(|panicked| Err(io::Error::other(panicked)));
        if let Err(error) = ended {
            lost.cancel();
            first_error = first_error.and(Err(error));
        }
    }
    first_error
}

/// Takes one lane through its trials. `lost` is cancelled when a part of the harness is, and ends the other lanes too.
async fn one_lane(
    drill: Drill,
    crew: Option<Arc<Crew>>,
    trials: Vec<PlannedTrial>,
    lost: CancellationToken,
) -> io::Result<()> {
    let stopped = || drill.cancel.is_cancelled() || lost.is_cancelled();
    for planned in trials {
        if stopped() {
            break;
        }
        let (mut row, mut kept) = one_trial(&drill, crew.as_deref(), &planned, &lost, None).await?;
        // A machine that was busy with something else proves nothing: once more, and the row says so.
        if row.invalid_by_lag().is_some() && !stopped() {
            let reason = row.verdict.reason.clone();
            (row, kept) = one_trial(&drill, crew.as_deref(), &planned, &lost, Some(reason)).await?;
        }
        let mut folder = drill.folder.lock().unwrap_or_else(PoisonError::into_inner);
        folder
            .keep_clients(&row.scenario, row.lane, row.trial, &kept)
            .map_err(io::Error::other)?;
        let row = folder.append(&row).map_err(io::Error::other)?;
        drop(folder);
        (drill.on_row)(&row);
    }
    Ok(())
}

/// One execution of a trial: its row, and the clients that are to be explained.
async fn one_trial(
    drill: &Drill,
    crew: Option<&Crew>,
    planned: &PlannedTrial,
    lost: &CancellationToken,
    repeated: Option<String>,
) -> io::Result<(Row, Vec<ClientRecord>)> {
    let PlannedTrial { plan, number } = planned;
    let (logs, masker) = {
        let mut folder = drill.folder.lock().unwrap_or_else(PoisonError::into_inner);
        folder.keep_plan(plan, *number).map_err(io::Error::other)?;
        let logs = folder.log_dir(&plan.scenario, plan.lane, *number);
        (logs.map_err(io::Error::other)?, folder.masker().clone())
    };
    let name = if repeated.is_some() {
        "trial-repeated.log"
    } else {
        "trial.log"
    };
    let diary = Diary::begin(&logs.join(name), clock::now(), masker)?;
    let node = Node::start(
        &drill.program,
        drill.spacetimedb.clone(),
        drill.commands.clone(),
        "local",
        &drill.run,
        &logs,
    )
    .await
    .map_err(io::Error::other)?;
    diary.note(&format!(
        "{} on {}, trial {number}, seed {}, {}; agent pid {}",
        plan.scenario,
        plan.lane,
        plan.seed,
        plan.digest,
        node.pid()
    ));
    let again = if repeated.is_some() { "-again" } else { "" };
    let trial_name = format!("{}-{}-{number}{again}", plan.scenario, plan.lane);
    let setting = Setting {
        node: &node,
        crew,
        plan,
        described: drill.described.as_deref(),
        mark: &trial_mark(&drill.run, &trial_name),
        number: *number,
        diary: &diary,
        cancel: &drill.cancel,
        lost,
        observer: &drill.observer,
    };
    let mut trial = trial::run(&setting).await;
    if let Some(Abort::Harness(why)) = &mut trial.abort
        && !node.answers().await
    {
        *why = format!("the agent (process {}) is gone: {why}", node.pid());
        diary.note(why);
        // Whatever killed it may be about to kill the rest: what is on disk is safe, the rest is not begun.
        lost.cancel();
    }
    let ended = node.end().await;
    diary.note(if ended {
        "the agent and its children have ended"
    } else {
        "the agent was killed"
    });
    let log_file = format!(
        "{}/{name}",
        RunFolder::log_path(&plan.scenario, plan.lane, *number)
    );
    let row = results::judge(plan, &trial, *number, &log_file, repeated);
    let folder = drill.folder.lock().unwrap_or_else(PoisonError::into_inner);
    let row = folder.judged(row);
    drop(folder);
    let kept = trial.shards.into_iter().flat_map(|shard| shard.kept);
    Ok((row, kept.collect()))
}
