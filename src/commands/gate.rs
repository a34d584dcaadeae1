//! `faultlane gate`.

use std::path::Path;

use results::Decision;

use super::print;
use crate::exit::{Error, Exit};

pub(super) fn gate(dir: &Path, json: bool) -> Result<Exit, Error> {
    let decision = results::gate(dir).map_err(Error::could_not_run)?;
    if json {
        let text = serde_json::to_string_pretty(&decision).map_err(Error::could_not_run)?;
        print(&format!("{text}\n"));
    } else {
        print(&decision.to_string());
    }
    Ok(exit(&decision))
}

/// The exit code of a decision.
pub(super) fn exit(decision: &Decision) -> Exit {
    match decision.exit_code() {
        0 => Exit::Go,
        1 => Exit::NoGo,
        3 => Exit::Inconclusive,
        _ => Exit::CouldNotRun,
    }
}
