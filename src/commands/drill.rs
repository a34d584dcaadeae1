//! `faultlane drill` and `faultlane run`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use agent::conductor::{Drill, PlannedTrial};
use chrono::{SecondsFormat, Utc};
use model::command::CommandConfig;
use model::defect::Defect;
use model::ids::Lane;
use model::target::{Kind, World};
use results::redact::Masker;
use results::{
    Decision, FolderError, PlannedRow, Row, RunFolder, RunRecord, SCHEMA_VERSION, Status,
};
use scenarios::Source;
use scenarios::plan::{Ask, Step};
use scenarios::target::Target;
use scenarios::waivers::Waivers;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::target::Chosen;
use super::{gate, plan, preflight, print, processes, source};
use crate::cli::DrillArgs;
use crate::exit::{Error, Exit};
use crate::progress::Progress;

pub(super) fn drill(scenarios: &[String], args: &DrillArgs) -> Result<Exit, Error> {
    if scenarios.is_empty() {
        return execute(&scenarios::library::STANDARD, args);
    }
    let names: Vec<&str> = scenarios.iter().map(String::as_str).collect();
    execute(&names, args)
}

pub(super) fn run(scenario: Option<&str>, args: &DrillArgs) -> Result<Exit, Error> {
    match scenario {
        Some(name) => execute(&[name], args),
        None if args.defect.as_deref() == Some("list") => execute(&[], args),
        None => Err(Error::usage(format!(
            "which scenario? The library has {}; or name a YAML file",
            scenarios::library::names().join(", ")
        ))),
    }
}

fn execute(names: &[&str], args: &DrillArgs) -> Result<Exit, Error> {
    let defect = match args.defect.as_deref() {
        Some("list") => return Ok(list_defects()),
        Some(name) => Some(name.parse::<Defect>().map_err(Error::usage)?),
        None => None,
    };
    let target = Chosen::named(&args.plan.target)?;
    let trials = plan_all(names, args, &target, defect)?;
    let commands = source::agent_config(args.agent_config.as_deref())?.commands;
    commands_are_there(&trials, &commands)?;
    descriptors(&trials)?;
    let spacetimedb = server(args, &target)?;
    if let Chosen::Described(described, source) = &target {
        can_be_drilled(described, source, &commands, &trials)?;
    }

    let masker = masker(&target, &trials);
    let now = Utc::now();
    let waivers = source::waivers(args.waivers.as_deref(), &now.to_rfc3339())?;
    let stamp = now.format("%Y%m%dT%H%M%SZ").to_string();
    let run = format!("{stamp}-{}", std::process::id());
    let record = RunRecord {
        schema_version: SCHEMA_VERSION,
        run: run.clone(),
        started: now.to_rfc3339_opts(SecondsFormat::Millis, true),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        seed: args.plan.seed,
        settings: masker.mask_json(settings(names, args, &target)),
        waivers: None,
        rows: trials.iter().map(planned_row).collect(),
    };
    let folder = create(args, &stamp, &record, waivers.as_ref())?.masking(masker);
    let dir = folder.path().to_owned();
    let folder = Arc::new(Mutex::new(folder));
    let program = std::env::current_exe().map_err(Error::could_not_run)?;

    let progress = Progress::new();
    progress.say(&format!(
        "{} trial{}; evidence: {}",
        trials.len(),
        if trials.len() == 1 { "" } else { "s" },
        dir.display()
    ));
    let clean_up = clean_up_of(&target, &run);
    let cancel = CancellationToken::new();
    let rows: Arc<Mutex<Vec<Row>>> = Arc::default();
    let on_row = {
        let (progress, rows) = (Arc::clone(&progress), Arc::clone(&rows));
        Arc::new(move |row: &Row| {
            progress.say(&headline(row));
            rows.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(row.clone());
        })
    };
    let walk = Drill {
        program,
        spacetimedb,
        described: target.described().cloned(),
        commands,
        run,
        inventory: plan::inventory(&args.plan)?,
        trials,
        folder: Arc::clone(&folder),
        cancel: cancel.clone(),
        observer: progress.observer(),
        on_row,
    };
    let ended = processes::runtime()?.block_on(async {
        tokio::spawn(until_interrupted(cancel, Arc::clone(&progress), clean_up));
        agent::conductor::drill(walk).await
    });
    progress.done();
    let folder = Arc::into_inner(folder).expect("whoever else held it has ended");
    let folder = folder.into_inner().unwrap_or_else(PoisonError::into_inner);
    let finished = folder.finish();
    let rows = rows.lock().unwrap_or_else(PoisonError::into_inner);
    show(&rows, finished.as_ref().ok(), args.json)?;
    // The first cause first: where evidence could not be written, a summary mostly cannot either.
    ended.map_err(Error::could_not_run)?;
    let decision = finished.map_err(Error::could_not_run)?;
    if !args.json {
        print(&format!("Evidence: {}\n", dir.display()));
    }
    Ok(gate::exit(&decision))
}

/// Makes the folder that was asked for, or one named by the time. Of runs that begin in one second in one place the later
/// ones get a number.
fn create(
    args: &DrillArgs,
    stamp: &str,
    record: &RunRecord,
    waivers: Option<&Waivers>,
) -> Result<RunFolder, Error> {
    let make = |dir: &Path| RunFolder::create_with(dir, record, waivers);
    match &args.output_dir {
        Some(dir) => make(dir),
        None => free(Path::new("output/chaos/spacetime"), stamp, make),
    }
    .map_err(Error::could_not_run)
}

fn free(
    parent: &Path,
    stamp: &str,
    at: impl Fn(&Path) -> Result<RunFolder, FolderError>,
) -> Result<RunFolder, FolderError> {
    const MOST_AT_ONCE: u32 = 99;
    let mut made = at(&parent.join(stamp));
    for number in 2..=MOST_AT_ONCE {
        let taken = matches!(
            made,
            Err(FolderError::Taken(_) | FolderError::NotEmpty { .. })
        );
        if !taken {
            break;
        }
        made = at(&parent.join(format!("{stamp}-{number}")));
    }
    made
}

fn show(rows: &[Row], decision: Option<&Decision>, json: bool) -> Result<(), Error> {
    if json {
        let text = serde_json::to_string_pretty(&json!({"decision": decision, "rows": rows}))
            .map_err(Error::could_not_run)?;
        print(&format!("{text}\n"));
        return Ok(());
    }
    print(&results::table(rows));
    for row in rows.iter().filter(|row| row.status != Status::Passed) {
        print(&results::explain(row));
    }
    if let Some(decision) = decision {
        print(&decision.to_string());
    }
    Ok(())
}

/// One line as a row ends.
fn headline(row: &Row) -> String {
    let Row {
        lane,
        scenario,
        trial,
        status,
        verdict,
        duration_seconds,
        ..
    } = row;
    format!(
        "{lane:<9} {scenario:<18} #{trial} {status} after {duration_seconds:.1} s: {}",
        verdict.reason
    )
}

fn plan_all(
    names: &[&str],
    args: &DrillArgs,
    target: &Chosen,
    defect: Option<Defect>,
) -> Result<Vec<PlannedTrial>, Error> {
    let name = target.name();
    let lanes = match args.lane {
        Some(lane) if !target.lanes().contains(&lane) => {
            return Err(Error::usage(format!(
                "--lane {lane}: the target {name} has no such lane"
            )));
        }
        Some(lane) => vec![lane],
        None => target.lanes(),
    };
    if let Some(defect) =
        defect.filter(|defect| target.kind() != Kind::Embedded && !defect.is_of_clients())
    {
        return Err(Error::usage(format!(
            "--defect {defect} is planted in the embedded servers, and --target {name} has others"
        )));
    }
    let mut trials = Vec::new();
    for name in names {
        let (scenario, source) = source::load(name, target.met_by(&args.plan))?;
        for lane in &lanes {
            for number in 1..=args.trials {
                let mut settings = plan::settings(&args.plan, target, *lane)?;
                // Each trial makes choices of its own; the first those of the seed that was given.
                settings.seed = args.plan.seed.wrapping_add(u64::from(number) - 1);
                settings.defect = defect;
                let plan = scenarios::plan(&scenario, &source, &settings).map_err(Error::usage)?;
                trials.push(PlannedTrial { plan, number });
            }
        }
    }
    each_once(&trials)?;
    Ok(trials)
}

/// A row, its plan and its logs are found by scenario, lane and trial: no two of a run may have the same.
fn each_once(trials: &[PlannedTrial]) -> Result<(), Error> {
    let mut known = BTreeSet::new();
    for PlannedTrial { plan, number } in trials {
        if !known.insert((plan.scenario.as_str(), plan.lane, *number)) {
            return Err(Error::usage(format!(
                "two trials of this run would be `{}` on {}, trial {number}: give each scenario a name of its own \
                 (--set name=NAME renames all of them)",
                plan.scenario, plan.lane
            )));
        }
    }
    Ok(())
}

/// A command that no agent has would fail as a probe that the target fails.
fn commands_are_there(
    trials: &[PlannedTrial],
    commands: &BTreeMap<String, CommandConfig>,
) -> Result<(), Error> {
    for PlannedTrial { plan, .. } in trials {
        for probe in &plan.probes {
            let Ask::Command(command) = &probe.ask else {
                continue;
            };
            if commands.contains_key(&command.run) {
                continue;
            }
            let known: Vec<&str> = commands.keys().map(String::as_str).collect();
            let known = match known.as_slice() {
                [] => "has no commands: name a file that has it by --agent-config".to_owned(),
                known => format!(
                    "has {}: mend the name, or add it to `commands`",
                    known.join(", ")
                ),
            };
            return Err(Error::usage(format!(
                "probe `{}` of {} runs the command `{}`, and the agent's configuration {known}",
                probe.name, plan.scenario, command.run
            )));
        }
    }
    Ok(())
}

/// The server that a drill may start, found before anything is begun.
fn server(args: &DrillArgs, target: &Chosen) -> Result<Option<PathBuf>, Error> {
    if target.kind() != Kind::Spacetimedb {
        return Ok(None);
    }
    agent::preflight::program(&args.spacetimedb).map(Some).map_err(|error| {
        Error::could_not_run(format!(
            "--target spacetimedb needs a server: {error}; name it by --spacetimedb BIN or FAULTLANE_SPACETIMEDB, \
             or build it with deploy/spacetimedb/install.sh DEST"
        ))
    })
}

/// A described target is drilled only where all that it takes is at hand, and every door is open.
fn can_be_drilled(
    target: &Target,
    source: &Source,
    commands: &BTreeMap<String, CommandConfig>,
    trials: &[PlannedTrial],
) -> Result<(), Error> {
    for PlannedTrial { plan, .. } in trials {
        let by_nobody = |step: &&Step| step.node.is_some() && plan.done_by(step).is_empty();
        if let Some(step) = plan.steps.iter().find(by_nobody) {
            let node = step.node.as_deref().unwrap_or_default();
            return Err(Error::could_not_run(format!(
                "{}: {} is done to the node `{node}`, and no agent is named to do it: name agents by --inventory and \
                 `nodes`, or choose scenarios with faults on links and tokens, such as partition and reconnect-storm",
                plan.scenario, step.id
            )));
        }
    }
    let lanes: BTreeSet<Lane> = trials.iter().map(|trial| trial.plan.lane).collect();
    let lanes: Vec<Lane> = lanes.into_iter().collect();
    preflight::run(source, target, commands, &lanes, &|line| {
        eprintln!("{line}");
    })
}

/// A client costs a shard one descriptor and a proxy two.
fn descriptors(trials: &[PlannedTrial]) -> Result<(), Error> {
    const RESERVE: u64 = 200;
    let limit = agent::preflight::descriptors_per_process();
    for PlannedTrial { plan, .. } in trials {
        let needed = 2 * u64::from(plan.workload.clients) + RESERVE;
        if needed > limit {
            return Err(Error::could_not_run(format!(
                "{} clients need {needed} descriptors in the proxy, and a process may have {limit} here: \
                 ask for at most {} clients, or raise `ulimit -n`",
                plan.workload.clients,
                limit.saturating_sub(RESERVE) / 2
            )));
        }
    }
    Ok(())
}

fn planned_row(planned: &PlannedTrial) -> PlannedRow {
    PlannedRow {
        scenario: planned.plan.scenario.clone(),
        lane: planned.plan.lane,
        trial: planned.number,
        plan_digest: planned.plan.digest.clone(),
    }
}

/// Knows what the target file holds of secrets, but for what the rows are named by.
fn masker(target: &Chosen, trials: &[PlannedTrial]) -> Masker {
    let secrets = target.described().into_iter();
    let masker = Masker::new(secrets.flat_map(|target| target.secrets()));
    trials.iter().fold(masker, |masker, planned| {
        let plan = &planned.plan;
        masker.sparing(&RunFolder::log_path(
            &plan.scenario,
            plan.lane,
            planned.number,
        ))
    })
}

fn settings(names: &[&str], args: &DrillArgs, target: &Chosen) -> serde_json::Value {
    json!({
        "scenarios": names,
        "target": target.name(),
        "lane": args.lane,
        "clients": args.plan.clients,
        "trials": args.trials,
        "set": args.plan.set,
        "quick": args.plan.quick,
        "defect": args.defect,
        "waivers": args.waivers,
        "agent_config": args.agent_config,
        "inventory": args.plan.inventory,
    })
}

fn list_defects() -> Exit {
    for defect in Defect::ALL {
        let lanes: Vec<_> = defect.lanes().iter().map(|lane| lane.name()).collect();
        print(&format!(
            "{:<24} {:<22} {:<20} {}\n",
            defect.name(),
            defect.anomaly().name(),
            defect.scenario(),
            lanes.join(", ")
        ));
    }
    Exit::Go
}

/// The command that removes what a run leaves among others' events when it ends at once.
fn clean_up_of(target: &Chosen, run: &str) -> Option<String> {
    let Chosen::Described(target, source) = target else {
        return None;
    };
    let open = target.promise.world == World::Open;
    open.then(|| format!("faultlane clean-up {} --run {run}", source.name))
}

/// The first Ctrl-C (or SIGTERM) winds up; a second one ends at once, and the children with their stdin. What is then left
/// among others' events, `clean_up` removes.
async fn until_interrupted(
    cancel: CancellationToken,
    progress: Arc<Progress>,
    clean_up: Option<String>,
) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return;
    };
    for first in [true, false] {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if !first {
            if let Some(command) = &clean_up {
                progress.say(&format!(
                    "ended at once; this removes what the run published: {command}"
                ));
            }
            std::process::exit(130);
        }
        progress.say("stopping: undoing every fault and closing the fleet (again to end at once)");
        cancel.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_begin_in_one_second_get_folders_of_their_own() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let record = RunRecord {
            schema_version: SCHEMA_VERSION,
            run: "r".to_owned(),
            started: String::new(),
            version: String::new(),
            seed: 1,
            settings: json!({}),
            waivers: None,
            rows: Vec::new(),
        };
        for name in [
            "20260101T000000Z",
            "20260101T000000Z-2",
            "20260101T000000Z-3",
        ] {
            let folder = free(parent.path(), "20260101T000000Z", |dir| {
                RunFolder::create(dir, &record)
            })
            .expect("it is free");
            assert_eq!(folder.path(), parent.path().join(name));
        }
    }
}
