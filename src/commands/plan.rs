//! `faultlane plan` and `faultlane scenarios`.

use model::ids::Lane;
use scenarios::{Settings, library};

use super::{print, source};
use crate::cli::PlanArgs;
use crate::exit::{Error, Exit};

pub(super) fn plan(name: &str, args: &PlanArgs, lane: Lane, json: bool) -> Result<Exit, Error> {
    let (scenario, source) = source::load(name)?;
    let plan = scenarios::plan(&scenario, &source, &settings(args, lane)?).map_err(Error::usage)?;
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
        let (scenario, _) = source::load(name)?;
        let about = scenario
            .about
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        print(&format!("{name:<20} {about}\n"));
    }
    Ok(Exit::Go)
}

/// The settings that all commands with [`PlanArgs`] share.
pub(super) fn settings(args: &PlanArgs, lane: Lane) -> Result<Settings, Error> {
    Ok(Settings {
        clients: args.clients,
        set: overrides(&args.set)?,
        quick: args.quick,
        kind: args.target,
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
