//! What a later life of the agent, or its watchdog, does about a process fault that was not undone: without a runtime and from
//! the journal alone. The start command of an operator's node is in there, as the agent had it when the fault was ordered: a
//! watchdog has no configuration, and one that was changed meanwhile shall not keep a node down.

use std::io;
use std::time::Duration;

use model::quantity::Span;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::nodes::Node;
use crate::process;
use crate::procfs::{self, Identity, Life};
use crate::tree;

const KILLED_WITHIN: Duration = Duration::from_secs(5);
/// A node is to be up again soon after the lease, also where it was given longer to end.
const GRACE_AFTER_LEASE: Span = Span::from_millis(500);

/// Processes to which something was to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recall {
    /// What was to be done.
    pub deed: Deed,
    /// The node's own process and, where they are ended too, those that descended from it.
    pub processes: Vec<Identity>,
    /// The operator's node; `None` for a child of the agent's, which has ended with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Node>,
}

/// What is done to a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// SIGKILL, once or again and again.
    Kill,
    /// SIGTERM, and SIGKILL after the grace.
    Terminate {
        /// How long it may take.
        grace: Span,
    },
    /// All are stopped, then all are killed.
    KillTree,
}

impl Recall {
    /// Undoes it, from whatever state it is in and any number of times; a word on how. `applied`: it is on record that it was
    /// done.
    ///
    /// # Errors
    /// A process may not be signalled or does not end, or the node does not come up.
    pub fn undo(&self, applied: bool) -> io::Result<String> {
        let Some(root) = self.processes.first() else {
            return Ok("it was done to no process".to_owned());
        };
        let spared = match self.deed {
            Deed::Kill => root.life() == Life::Lives,
            Deed::Terminate { grace } => is_spared(*root, grace, applied)?,
            Deed::KillTree => self.settle()?,
        };
        let Some(node) = &self.node else {
            return Ok("its node was the old agent's child and ended with it".to_owned());
        };
        if spared {
            return Ok(format!("process {} had not been ended", root.pid));
        }
        let up = node.up(Some(*root))?;
        let how = if up.started {
            "was started again"
        } else {
            "had been brought back"
        };
        Ok(format!(
            "node `{}` {how} as process {}",
            node.name, up.process.pid
        ))
    }

    /// Nobody of a tree stays stopped, and none is left half dead: where some have been killed, the others are too. Whether
    /// nobody was.
    ///
    /// # Errors
    /// As [`tree::stop`] and [`tree::go_on`].
    pub(super) fn settle(&self) -> io::Result<bool> {
        let lives = |process: &Identity| process.life() == Life::Lives;
        let root = self.processes.first().filter(|root| lives(root));
        // The root is the first to be stopped and the last to be killed. Where it runs, others have ended by themselves.
        let untouched = root.is_some_and(|root| procfs::is_stopped(root.pid) != Some(true));
        if untouched || self.processes.iter().all(lives) {
            tree::go_on(&self.processes)?;
            return Ok(true);
        }
        match tree::stop(&self.processes, &|| false).and_then(|tree| tree.kill()) {
            Ok(_) => Ok(false),
            Err(error) => {
                // What cannot be killed whole is tried again, and does not stand still until then.
                tree::go_on(&self.processes)?;
                Err(error)
            }
        }
    }
}

/// Whether a process that may have been sent SIGTERM was not. There is no sign of that, so it is given its time; one of which
/// it is known is killed then, as it was to be, and soon: its lease is over.
fn is_spared(process: Identity, grace: Span, applied: bool) -> io::Result<bool> {
    if process.life() != Life::Lives {
        return Ok(false);
    }
    let Some(pidfd) = process::hold(process) else {
        return Ok(false);
    };
    let grace = if applied {
        grace.min(GRACE_AFTER_LEASE)
    } else {
        grace
    };
    if process::ends_within(&pidfd, grace.duration())? {
        return Ok(false);
    }
    if !applied {
        return Ok(true);
    }
    process::send(&pidfd, process.pid, Signal::KILL)?;
    process::ends_within(&pidfd, KILLED_WITHIN)?;
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::tests::{four, never, stopped};

    fn recall(processes: &[Identity]) -> Recall {
        Recall {
            deed: Deed::KillTree,
            processes: processes.to_vec(),
            node: None,
        }
    }

    fn kill(process: Identity) {
        let pidfd = process::hold(process).unwrap();
        process::send(&pidfd, process.pid, Signal::KILL).unwrap();
        assert!(process::ends_within(&pidfd, KILLED_WITHIN).unwrap());
    }

    #[test]
    fn a_tree_that_was_stopped_and_not_killed_goes_on() {
        let (mut root, seen) = four();
        drop(tree::stop(&seen, &never).unwrap());
        assert!(recall(&seen).settle().unwrap());
        while stopped(&seen) > 0 {
            std::thread::yield_now();
        }
        // One that ends by itself is no sign of a kill.
        kill(seen[3]);
        assert!(recall(&seen).settle().unwrap());
        assert_eq!(seen[0].life(), Life::Lives);
        tree::stop(&seen, &never).unwrap().kill().unwrap();
        root.wait().unwrap();
    }

    #[test]
    fn a_tree_that_is_half_dead_is_killed_whole() {
        let (mut root, seen) = four();
        drop(tree::stop(&seen, &never).unwrap());
        kill(seen[3]);
        assert!(!recall(&seen).settle().unwrap());
        assert!(seen.iter().all(|process| process.life() == Life::Gone));
        assert!(!recall(&seen).settle().unwrap(), "again");
        root.wait().unwrap();
    }
}
