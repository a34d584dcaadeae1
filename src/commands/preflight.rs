//! `faultlane preflight`: whether a target can be drilled as its file describes it. `init` ends with it, and a drill of a
//! described target begins with it.

mod remedy;

use std::collections::BTreeMap;
use std::path::Path;

use agent::conductor::outside::Outside;
use agent::conductor::preflight::{PreflightError, preflight};
use model::command::CommandConfig;
use model::ids::Lane;
use results::redact::Masker;
use scenarios::Source;
use scenarios::target::Target;

use super::source::agent_config as agent_config_of;
use super::target::check;
use super::{print, processes};
use crate::exit::{Error, Exit};

/// `faultlane preflight FILE`.
pub(super) fn command(path: &Path, agent_config: Option<&Path>) -> Result<Exit, Error> {
    let source = Source::read(path).map_err(Error::usage)?;
    let target = check(&source)?;
    let commands = agent_config_of(agent_config)?.commands;
    let lanes: Vec<Lane> = target.lanes.keys().copied().collect();
    run(&source, &target, &commands, &lanes, &|line| {
        print(&format!("{line}\n"));
    })?;
    print(&format!("{}: ready\n", source.name));
    Ok(Exit::Go)
}

/// Tries these lanes of a target; `say` is given a line for each door that is open.
pub(super) fn run(
    source: &Source,
    target: &Target,
    commands: &BTreeMap<String, CommandConfig>,
    lanes: &[Lane],
    say: &dyn Fn(&str),
) -> Result<(), Error> {
    let program = std::env::current_exe().map_err(Error::could_not_run)?;
    let outside = Outside {
        program: &program,
        target,
        commands,
    };
    let masker = Masker::new(target.secrets());
    let tried = preflight(&outside, lanes, |lane, open| {
        say(&masker.mask(&format!("{:<9} ok  {}", lane.name(), open.seen)));
    });
    processes::runtime()?
        .block_on(tried)
        .map_err(|error| match error {
            PreflightError::Shut { lane, shut } => {
                let blamed = remedy::blame(source, target, &masker, lane, &shut);
                Error::could_not_run(blamed)
            }
            PreflightError::Outside(error) => Error::could_not_run(masker.mask(&error.to_string())),
        })
}
