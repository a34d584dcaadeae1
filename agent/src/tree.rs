//! A process and all that descend from it, ended as one: none is forked meanwhile, and none is forgotten.
//!
//! First all are stopped, parents before their children, so that who is found among the children of a stopped process stays
//! there; then they are looked through again until nobody new is found. Then they are killed, children before their parents.
//! So at every instant whoever is stopped is among those that were seen at first ([`seen`]) or descends from one of them that
//! is still there. That is all that whoever finds a tree half-way must know: [`go_on`].
//!
//! What had left the tree before it was seen, as a daemon does that forks twice, is none of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use host::clock;
use model::quantity::Span;
use rustix::process::Signal;

use crate::process;
use crate::procfs::{self, Identity, Life};

/// SIGSTOP takes effect at once, but for a process that waits for a disk, or for a child that is about to execute a program.
const STOPPED_WITHIN: Span = Span::from_millis(500);
/// More forks than can be followed are an attack, or a mistake.
const FOUND_WITHIN: Span = Span::from_secs(5);
const KILLED_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_micros(200);

/// Processes that are all stopped, parents before their children.
#[derive(Debug)]
pub struct Tree {
    members: Vec<(Identity, OwnedFd)>,
}

/// A process and all that descend from it now, parents before their children.
#[must_use]
pub fn seen(root: Identity) -> Vec<Identity> {
    let mut found = vec![root];
    found.extend(descendants(&[root]));
    found
}

/// Stops the processes that are still there, and all that descend from them, unless it is `called_back` first.
///
/// # Errors
/// One may not be signalled, they fork faster than they can be followed, or it was called back. Some are stopped then.
pub fn stop(seen: &[Identity], called_back: &dyn Fn() -> bool) -> io::Result<Tree> {
    let begun = clock::now();
    let mut tree = Tree {
        members: Vec::new(),
    };
    let mut next = seen.to_vec();
    while !next.is_empty() {
        for process in next {
            // A stop that outlived its lease would be a pause that nobody ends.
            if called_back() {
                let text = "called back before all were stopped";
                return Err(io::Error::new(io::ErrorKind::Interrupted, text));
            }
            if let Some(pidfd) = process::hold(process)
                && process::send(&pidfd, process.pid, Signal::STOP)?
            {
                is_stopped(process);
                tree.members.push((process, pidfd));
            }
        }
        if clock::now().since(begun) > FOUND_WITHIN {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!(
                    "process {} and its descendants fork faster than they can be stopped: {} after {FOUND_WITHIN}",
                    seen.first().map_or(0, |root| root.pid),
                    tree.members.len()
                ),
            ));
        }
        let members: Vec<Identity> = tree.processes().collect();
        next = descendants(&members);
    }
    Ok(tree)
}

/// Continues the processes that are still there, and all that descend from them, where they are stopped: how many were. One
/// that may not be signalled was not stopped from here either, and does not keep the others from going on.
///
/// # Errors
/// One could not be signalled for another reason.
pub fn go_on(seen: &[Identity]) -> io::Result<usize> {
    let (mut count, mut failed) = (0, None);
    for process in seen.iter().copied().chain(descendants(seen)) {
        // One that is about to stop is not stopped yet.
        if process.life() != Life::Lives {
            continue;
        }
        match process::continue_orphan(process) {
            Ok(sent) => count += usize::from(sent),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                tracing::warn!(%error, "it was not stopped from here");
            }
            Err(error) => {
                failed.get_or_insert(error);
            }
        }
    }
    failed.map_or(Ok(count), Err)
}

impl Tree {
    /// Its processes.
    pub fn processes(&self) -> impl Iterator<Item = Identity> {
        self.members.iter().map(|(process, _)| *process)
    }

    /// Kills all of them, children first, and waits for their end: how many have been killed.
    ///
    /// # Errors
    /// One may not be signalled, or does not end.
    pub fn kill(&self) -> io::Result<u64> {
        let mut count = 0;
        for (process, pidfd) in self.members.iter().rev() {
            if process.life() == Life::Lives {
                count += u64::from(process::send(pidfd, process.pid, Signal::KILL)?);
            }
        }
        for (process, pidfd) in &self.members {
            if !process::ends_within(pidfd, KILLED_WITHIN)? {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!(
                        "process {} was killed and has not ended within {KILLED_WITHIN:?}; see what it waits for in \
                         /proc/{0}/stack",
                        process.pid
                    ),
                ));
            }
        }
        Ok(count)
    }
}

/// Waits until a process is stopped, or cannot be: it has ended, or waits in the kernel, where it cannot fork either.
fn is_stopped(process: Identity) {
    let begun = clock::now();
    while process.life() == Life::Lives && procfs::is_stopped(process.pid) == Some(false) {
        if clock::now().since(begun) > STOPPED_WITHIN {
            tracing::warn!(pid = process.pid, "was sent SIGSTOP and does not stop yet");
            return;
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// All that descend from these and are not among them, parents before their children; without those that have ended.
fn descendants(of: &[Identity]) -> Vec<Identity> {
    let mut children: BTreeMap<u32, Vec<Identity>> = BTreeMap::new();
    let mut there = BTreeSet::new();
    for (pid, stat) in procfs::all() {
        let started = stat.started;
        let process = Identity { pid, started };
        there.insert(process);
        if !matches!(stat.state, 'Z' | 'X') {
            children.entry(stat.parent).or_default().push(process);
        }
    }
    let known: BTreeSet<Identity> = of.iter().copied().collect();
    // One that has ended has no children, and its id may be another's.
    let mut parents: Vec<Identity> = known.intersection(&there).copied().collect();
    let mut found = Vec::new();
    while let Some(parent) = parents.pop() {
        for child in children.remove(&parent.pid).unwrap_or_default() {
            // A process cannot be older than its parent: to a stranger with the id of one that ended just now it can.
            if !known.contains(&child) && child.started >= parent.started {
                found.push(child);
                parents.push(child);
            }
        }
    }
    found
}

#[cfg(test)]
pub(crate) mod tests {
    use std::process::{Child, Command};

    use super::*;

    pub(crate) fn never() -> bool {
        false
    }

    /// A process, two children, and a child of one of them, once all are there.
    #[expect(
        clippy::zombie_processes,
        reason = "whoever asks for them waits for them"
    )]
    pub(crate) fn four() -> (Child, Vec<Identity>) {
        let script = "sleep 60 & sh -c 'sleep 60 & wait; exit' & wait; exit";
        let root = Command::new("sh").args(["-c", script]).spawn().unwrap();
        let identity = Identity::of(root.id()).unwrap();
        loop {
            let seen = seen(identity);
            if seen.len() == 4 {
                return (root, seen);
            }
            thread::yield_now();
        }
    }

    pub(crate) fn stopped(of: &[Identity]) -> usize {
        let is_stopped = |process: &&Identity| procfs::is_stopped(process.pid) == Some(true);
        of.iter().filter(is_stopped).count()
    }

    #[test]
    fn who_is_stopped_is_found_from_the_root_and_goes_on_and_who_is_killed_is_killed_with_all() {
        let (mut root, seen) = four();
        // As though all others had come after the record was written.
        let record = &seen[..1];
        let tree = stop(record, &never).unwrap();
        assert_eq!((tree.processes().count(), stopped(&seen)), (4, 4));
        drop(tree);
        assert_eq!(go_on(record).unwrap(), 4);
        while stopped(&seen) > 0 {
            thread::yield_now();
        }
        assert_eq!(stop(record, &never).unwrap().kill().unwrap(), 4);
        assert!(seen.iter().all(|process| process.life() == Life::Gone));
        root.wait().unwrap();
        assert_eq!(stop(&seen, &never).unwrap().kill().unwrap(), 0);
        assert_eq!(go_on(&seen).unwrap(), 0);
    }
    #[test]
    fn a_stop_that_is_called_back_stops_nobody_else() {
        let (mut root, seen) = four();
        let looks = std::cell::Cell::new(0);
        let third = || looks.replace(looks.get() + 1) == 2;
        let error = stop(&seen, &third).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
        assert_eq!(stopped(&seen), 2);
        assert_eq!(go_on(&seen).unwrap(), 4);
        stop(&seen, &never).unwrap().kill().unwrap();
        root.wait().unwrap();
    }

    /// As where the agent is not root, and something in a tree is another user's.
    #[test]
    fn one_that_may_not_be_signalled_does_not_keep_the_others_stopped() {
        use std::os::unix::process::CommandExt as _;

        use rustix::process::Uid;
        use rustix::thread::set_thread_res_uid;

        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: it has to be root to be two users");
            return;
        }
        // SIGCONT may be sent to whoever is of the same session.
        let of = |uid: u32| {
            let mut sleeper = Command::new("setsid");
            sleeper.args(["sleep", "60"]).uid(uid).spawn().unwrap()
        };
        let mut sleepers = [of(65_533), of(65_534), of(65_533)];
        for sleeper in &sleepers {
            let pid = rustix::process::Pid::from_child(sleeper);
            while rustix::process::getsid(Some(pid)).unwrap() != pid {
                thread::yield_now();
            }
        }
        let seen: Vec<_> = sleepers
            .iter()
            .map(|sleeper| Identity::of(sleeper.id()).unwrap())
            .collect();
        // Of this thread alone.
        thread::scope(|scope| {
            let other = scope.spawn(|| {
                let user = Uid::from_raw(65_533);
                set_thread_res_uid(user, user, user).unwrap();
                let error = stop(&seen, &never).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
                let last = process::hold(seen[2]).unwrap();
                process::send(&last, seen[2].pid, Signal::STOP).unwrap();
                is_stopped(seen[2]);
                assert_eq!(stopped(&seen), 2);
                assert_eq!(go_on(&seen).unwrap(), 2);
            });
            other.join().unwrap();
        });
        while stopped(&seen) > 0 {
            thread::yield_now();
        }
        for sleeper in &mut sleepers {
            sleeper.kill().unwrap();
            sleeper.wait().unwrap();
        }
    }
}
