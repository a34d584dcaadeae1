//! Target files as they are named on the command line.

use std::path::Path;

use scenarios::Source;
use scenarios::target::{self, Surroundings, Target};

use crate::exit::Error;

/// Reads and checks a target file, with the files and environment variables that it names. Warnings go to stderr.
pub(super) fn load(path: &Path) -> Result<Target, Error> {
    check(&Source::read(path).map_err(Error::usage)?)
}

/// As [`load`], for a text that was read already.
pub(super) fn check(source: &Source) -> Result<Target, Error> {
    let checked = target::parse(source, &Surroundings::of(source)).map_err(Error::usage)?;
    for warning in &checked.warnings {
        eprintln!("{warning}");
    }
    Ok(checked.target)
}
