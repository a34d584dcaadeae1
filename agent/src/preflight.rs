//! Limits of this host that a drill can run into.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

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
