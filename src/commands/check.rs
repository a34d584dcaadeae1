//! `faultlane check`.

use model::ids::Lane;
use scenarios::Settings;

use super::{plan, print, source};
use crate::exit::{Error, Exit};

pub(super) fn check(names: &[String], set: &[String]) -> Result<Exit, Error> {
    let mut wrong = Vec::new();
    for name in names {
        match check_one(name, set) {
            Ok(()) => print(&format!("{name}: ok\n")),
            Err(error) => wrong.push(error.message),
        }
    }
    if wrong.is_empty() {
        Ok(Exit::Go)
    } else {
        Err(Error::usage(wrong.join("\n")))
    }
}

/// A scenario that parses can still be impossible to plan: overrides are applied, and both lanes are tried.
fn check_one(name: &str, set: &[String]) -> Result<(), Error> {
    let (scenario, source) = source::load(name)?;
    for lane in Lane::ALL {
        for quick in [false, true] {
            let set = plan::overrides(set)?;
            let settings = Settings {
                set,
                quick,
                ..Settings::new(lane, 1)
            };
            scenarios::plan(&scenario, &source, &settings).map_err(Error::usage)?;
        }
    }
    Ok(())
}
