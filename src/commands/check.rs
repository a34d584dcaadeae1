//! `faultlane check`.

use std::path::Path;
use std::sync::Arc;

use model::ids::Lane;
use scenarios::target::{self, Target};
use scenarios::{Settings, Source};

use super::{plan, print, source, target as target_file};
use crate::exit::{Error, Exit};

/// Checks scenarios and target files, told apart by what is in them; scenarios against `target`, where one is named.
pub(super) fn check(
    names: &[String],
    target: Option<&Path>,
    set: &[String],
) -> Result<Exit, Error> {
    let mut wrong = Vec::new();
    let mut report = |name: &str, outcome: Result<(), Error>| match outcome {
        Ok(()) => print(&format!("{name}: ok\n")),
        Err(error) => wrong.push(error.message),
    };
    let mut against = None;
    if let Some(path) = target {
        match target_file::load(path) {
            Ok(target) => {
                against = Some(Arc::new(target));
                report(&path.display().to_string(), Ok(()));
            }
            // Against a target that is not known nothing can be said about a scenario.
            Err(error) => return Err(error),
        }
    }
    for name in names {
        let outcome = source::find(name).and_then(|source| {
            if target::is_target(&source) {
                target_file::check(&source).map(drop)
            } else {
                scenario(&source, against.as_ref(), set)
            }
        });
        report(name, outcome);
    }
    if wrong.is_empty() {
        Ok(Exit::Go)
    } else {
        Err(Error::usage(wrong.join("\n")))
    }
}

/// A scenario that parses can still be impossible to plan: overrides are applied, and every lane is tried.
fn scenario(source: &Source, target: Option<&Arc<Target>>, set: &[String]) -> Result<(), Error> {
    let set = plan::overrides(set)?;
    // With overrides it is the overridden form that meets the target.
    let met = target.filter(|_| set.is_empty()).map(Arc::as_ref);
    let checked = scenarios::parse_for(source, met).map_err(Error::usage)?;
    for warning in &checked.warnings {
        eprintln!("{warning}");
    }
    for lane in Lane::ALL {
        if target.is_some_and(|target| !target.lanes.contains_key(&lane)) {
            continue;
        }
        // The short form counts on the embedded target's short clocks.
        for quick in [false, true] {
            if quick && target.is_some() {
                continue;
            }
            let settings = Settings {
                set: set.clone(),
                quick,
                target: target.cloned(),
                ..Settings::new(lane, 1)
            };
            scenarios::plan(&checked.scenario, source, &settings).map_err(Error::usage)?;
        }
    }
    Ok(())
}
