//! Scenarios as they are named on the command line.

use std::path::Path;

use scenarios::agent_config::AgentConfig;
use scenarios::inventory::Inventory;
use scenarios::target::Target;
use scenarios::waivers::{Date, Waivers};
use scenarios::{Scenario, Source, library};

use crate::exit::Error;

/// Reads, parses and checks a library scenario or a file, against a described target where there is one. Warnings go to
/// stderr.
pub(super) fn load(name: &str, target: Option<&Target>) -> Result<(Scenario, Source), Error> {
    let source = find(name)?;
    let checked = scenarios::parse_for(&source, target).map_err(Error::usage)?;
    for warning in &checked.warnings {
        eprintln!("{warning}");
    }
    Ok((checked.scenario, source))
}

/// Reads and checks a file of waivers, as of the day of an instant. Warnings go to stderr.
pub(super) fn waivers(path: Option<&Path>, now: &str) -> Result<Option<Waivers>, Error> {
    let Some(path) = path else {
        return Ok(None);
    };
    let source = Source::read(path).map_err(Error::usage)?;
    let today = Date::of_rfc3339(now).expect("the clock says a date");
    let checked = scenarios::waivers::parse(&source, today).map_err(Error::usage)?;
    for warning in &checked.warnings {
        eprintln!("{warning}");
    }
    Ok(Some(checked.waivers))
}

/// Reads and checks an agent's own configuration; without one it has no commands.
pub(super) fn agent_config(path: Option<&Path>) -> Result<AgentConfig, Error> {
    let Some(path) = path else {
        return Ok(AgentConfig::default());
    };
    let source = Source::read(path).map_err(Error::usage)?;
    scenarios::agent_config::parse(&source).map_err(Error::usage)
}

/// The text of a library scenario or of a file.
pub(super) fn find(name: &str) -> Result<Source, Error> {
    if let Some(text) = library::source(name) {
        return Ok(Source {
            name: format!("{name}.yaml"),
            text: text.to_owned(),
        });
    }
    let path = Path::new(name);
    let looks_like_a_file = path.extension().is_some() || name.contains('/') || path.exists();
    if !looks_like_a_file {
        return Err(Error::usage(format!(
            "there is no scenario `{name}`: {}; for a file, name its path",
            library::nearest(name)
        )));
    }
    Source::read(path).map_err(Error::usage)
}

/// Reads and checks the list of the agents that there are.
pub(super) fn inventory(path: &Path) -> Result<Inventory, Error> {
    let source = Source::read(path).map_err(Error::usage)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    scenarios::inventory::parse(&source, folder).map_err(Error::usage)
}
