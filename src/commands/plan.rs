//! `faultlane plan` and `faultlane scenarios`.

use std::sync::Arc;

use model::ids::Lane;
use scenarios::inventory::Inventory;
use scenarios::{Settings, library};

use super::target::Chosen;
use super::{print, source};
use crate::cli::PlanArgs;
use crate::exit::{Error, Exit};

pub(super) fn plan(
    name: &str,
    args: &PlanArgs,
    lane: Option<Lane>,
    json: bool,
) -> Result<Exit, Error> {
    let target = Chosen::named(&args.target)?;
    let lane = match lane {
        Some(lane) => lane,
        None => *target.lanes().first().expect("a target has a lane"),
    };
    let (scenario, source) = source::load(name, target.met_by(args))?;
    let settings = settings(args, &target, lane)?;
    let plan = scenarios::plan(&scenario, &source, &settings).map_err(Error::usage)?;
    if json {
        let text = serde_json::to_string_pretty(&plan).map_err(Error::could_not_run)?;
        print(&format!("{text}\n"));
    } else {
        print(&plan.describe());
    }
    Ok(Exit::Go)
}

pub(super) fn list() -> Result<Exit, Error> {
    for name in library::names() {
        let (scenario, _) = source::load(name, None)?;
        let about = scenario
            .about
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        print(&format!("{name:<20} {about}\n"));
    }
    Ok(Exit::Go)
}

/// The agents that were named.
pub(super) fn inventory(args: &PlanArgs) -> Result<Option<Arc<Inventory>>, Error> {
    let path = args.inventory.as_deref();
    path.map(|path| source::inventory(path).map(Arc::new))
        .transpose()
}

/// The settings that all commands with [`PlanArgs`] share.
pub(super) fn settings(args: &PlanArgs, target: &Chosen, lane: Lane) -> Result<Settings, Error> {
    if args.quick && target.described().is_some() {
        return Err(Error::usage(
            "--quick: a scenario's short form counts on the embedded target's short clocks; write --clients and --set \
             for a target of your own",
        ));
    }
    if args.wire.is_some() && target.described().is_some() {
        return Err(Error::usage(
            "--wire: the target file says how its messages are encoded: write wire: there",
        ));
    }
    Ok(Settings {
        wire: args.wire.unwrap_or_default(),
        clients: args.clients,
        set: overrides(&args.set)?,
        quick: args.quick,
        kind: target.kind(),
        target: target.described().cloned(),
        inventory: inventory(args)?,
        ..Settings::new(lane, args.seed)
    })
}

/// Splits `key=value` overrides.
pub(super) fn overrides(set: &[String]) -> Result<Vec<(String, String)>, Error> {
    set.iter()
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                Ok((key.trim().to_owned(), value.trim().to_owned()))
            }
            _ => Err(Error::usage(format!(
                "--set {pair}: write KEY=VALUE, such as --set bounds.recovery.p99=5s"
            ))),
        })
        .collect()
}
