//! Limits of this host that a drill can run into: descriptors here, the kernel and the rights to it in [`kernel`].

use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub mod kernel;

/// More than this is never asked for: programs that close every possible descriptor would take minutes to start.
const MOST: u64 = 1 << 20;

/// How many descriptors a child of an agent may have open: the hard limit of this process, to which the agent raises
/// its own before it starts children. A client costs its shard one and its proxy two.
#[must_use]
pub fn descriptors_per_process() -> u64 {
    getrlimit(Resource::Nofile)
        .maximum
        .map_or(MOST, |hard| hard.min(MOST))
}

/// Raises this process's limit of open descriptors as far as it may; children inherit it.
///
/// # Errors
/// The kernel refuses.
pub fn raise_descriptor_limit() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = descriptors_per_process();
    if limit.current.is_none_or(|soft| soft >= wanted) {
        return Ok(());
    }
    let raised = Rlimit {
        current: Some(wanted),
        maximum: limit.maximum,
    };
    Ok(setrlimit(Resource::Nofile, raised)?)
}

/// The file behind a program's name: as it is where it has a folder, else the first of the PATH.
///
/// # Errors
/// There is no such file that may be run; the error names it.
pub fn program(name: &Path) -> io::Result<PathBuf> {
    let candidates: Vec<PathBuf> = if name.components().count() > 1 {
        vec![name.to_owned()]
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .map(|folder| folder.join(name))
            .collect()
    };
    candidates
        .into_iter()
        .find(|candidate| may_be_run(candidate))
        .and_then(|found| found.canonicalize().ok())
        .ok_or_else(|| {
            let place = if name.components().count() > 1 {
                ""
            } else {
                " on the PATH"
            };
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("there is no program `{}`{place}", name.display()),
            )
        })
}

fn may_be_run(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata()
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_can_be_raised_to_what_was_promised() {
        raise_descriptor_limit().unwrap();
        let soft = getrlimit(Resource::Nofile).current;
        assert!(soft.is_none_or(|soft| soft >= descriptors_per_process()));
        assert!(descriptors_per_process() >= 64);
    }
}
