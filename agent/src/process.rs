//! One child process. It is signalled by its pidfd, so that a process id that is used again is never hit, and waited
//! for in one place, which notes the instant of its end.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use host::child::Child;
use host::clock;
use model::instant::Mono;
use model::role::Ready;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::process::ChildStdin;
use tokio::sync::watch;

use crate::procfs::{self, Identity};

/// How often `/proc` is looked at while a process is being stopped or continued.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// One that is killed may have much to give back.
const ORPHAN_ENDS_WITHIN: Duration = Duration::from_secs(5);

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// When its end was seen.
    pub at: Mono,
    /// Its status; `None` when the kernel would not tell.
    pub status: Option<ExitStatus>,
}

impl Exit {
    /// The signal that killed it, if one did.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        self.status?.signal()
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.status {
            Some(status) => write!(f, "{status}"),
            None => f.write_str("ended, status unknown"),
        }
    }
}

/// A child process and what became of it. Where the child only stands for a foreign program that it guards, signals go
/// to that program; the child ends with it, and its exit code tells how.
#[derive(Debug)]
pub struct Process {
    name: String,
    ready: Ready,
    /// Of the process that is the node.
    pidfd: OwnedFd,
    /// Of the child, where that is another.
    guard: Option<OwnedFd>,
    started: u64,
    stdin: Mutex<Option<ChildStdin>>,
    exit: watch::Receiver<Option<Exit>>,
    /// Somebody is about to end it: its end is then no news.
    end_expected: Arc<AtomicBool>,
}

impl Process {
    /// Takes charge of a child that is ready. When the process ends and nobody meant it to, that is logged.
    ///
    /// # Errors
    /// The child ended already, or no descriptor is left.
    pub fn adopt(name: &str, child: Child) -> io::Result<Arc<Self>> {
        let (ready, mut process, stdin) = child.into_parts();
        let gone = || io::Error::other(format!("`{name}` ended as soon as it was ready"));
        // The child is not waited for before the task below runs, so that its id cannot be used again until then.
        let own = process.id().ok_or_else(gone)?;
        let pid = ready.node.unwrap_or(own);
        let pidfd = open(pid)?;
        let guard = if pid == own { None } else { Some(open(own)?) };
        let started = procfs::stat(pid).ok_or_else(gone)?.started;
        let (sender, exit) = watch::channel(None);
        let end_expected = Arc::new(AtomicBool::new(false));
        let (expected, named) = (Arc::clone(&end_expected), name.to_owned());
        tokio::spawn(async move {
            let status = process.wait().await.ok();
            let exit = Exit {
                at: clock::now(),
                status,
            };
            if expected.load(Ordering::SeqCst) {
                tracing::debug!(child = named, pid, %exit, "the child ended");
            } else {
                tracing::warn!(child = named, pid, %exit, "the child ended, and nobody had asked it to");
            }
            sender.send_replace(Some(exit));
        });
        Ok(Arc::new(Self {
            name: name.to_owned(),
            ready,
            pidfd,
            guard,
            started,
            stdin: Mutex::new(stdin),
            exit,
            end_expected,
        }))
    }

    /// What it said when it became ready.
    #[must_use]
    pub const fn ready(&self) -> &Ready {
        &self.ready
    }

    /// The process id of the node.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.ready.node.unwrap_or(self.ready.pid)
    }

    /// The process id of the agent's own child: the node's, or that of its guard.
    #[must_use]
    pub const fn own_pid(&self) -> u32 {
        self.ready.pid
    }

    /// Whether the node is a foreign program under a guard.
    #[must_use]
    pub const fn is_guarded(&self) -> bool {
        self.guard.is_some()
    }

    /// The node's process, and no other.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity {
            pid: self.pid(),
            started: self.started,
        }
    }

    /// From now on its end is no surprise.
    pub fn expect_end(&self) {
        self.end_expected.store(true, Ordering::SeqCst);
    }

    /// Whether a fault, or somebody who may, had said that it would end.
    #[must_use]
    pub fn end_expected(&self) -> bool {
        self.end_expected.load(Ordering::SeqCst)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// It has ended (`ESRCH`), or it may not be signalled; the error names it.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        pidfd_send_signal(&self.pidfd, signal).map_err(|error| {
            let text = format!(
                "signal {} to `{}` (process {}): {error}",
                signal.as_raw(),
                self.name,
                self.pid()
            );
            io::Error::new(error.kind(), text)
        })
    }

    /// How it ended; `None` while it has not.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Waits for its end; `None` when that does not come in time.
    pub async fn exited_within(&self, limit: Duration) -> Option<Exit> {
        let mut exit = self.exit.clone();
        let ended = exit.wait_for(Option::is_some);
        *tokio::time::timeout(limit, ended).await.ok()?.ok()?
    }

    /// Waits until all its threads are stopped, or none of them all is; the instant at which that was seen, `None` when
    /// it was not in time or the process ended.
    pub async fn stopped_within(&self, stopped: bool, limit: Duration) -> Option<Mono> {
        let seen = stopped_within(self.pid(), stopped, limit).await?;
        self.exit().is_none().then_some(seen)
    }

    /// Ends it: closes its stdin, waits, kills. A stopped process is continued, so that it can see its stdin end.
    /// `true` when it ended by itself.
    pub async fn end(&self, grace: Duration) -> bool {
        self.expect_end();
        drop(
            self.stdin
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        // An error means that it has ended already.
        let _ = self.signal(Signal::CONT);
        if self.exited_within(grace).await.is_some() {
            return true;
        }
        tracing::warn!(
            child = self.name,
            pid = self.pid(),
            ?grace,
            "did not end with its stdin; killed"
        );
        let _ = self.signal(Signal::KILL);
        if self
            .exited_within(Duration::from_millis(500))
            .await
            .is_none()
            && let Some(guard) = &self.guard
        {
            // What it guarded is dead; it has nothing left to do, and must not stay.
            let _ = pidfd_send_signal(guard, Signal::KILL);
            self.exited_within(Duration::from_millis(500)).await;
        }
        false
    }
}

/// Waits until all threads of a process are stopped, or none of them all is; when that was seen, `None` when it was not.
pub(crate) async fn stopped_within(pid: u32, stopped: bool, limit: Duration) -> Option<Mono> {
    let look = async {
        while procfs::is_stopped(pid)? != stopped {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Some(clock::now())
    };
    tokio::time::timeout(limit, look).await.ok()?
}

/// Continues a stopped process of an earlier life, if that very process is still there. `true` when it was.
///
/// # Errors
/// It is there, but may not be signalled.
pub fn continue_orphan(process: Identity) -> io::Result<bool> {
    let Some(pidfd) = hold(process) else {
        return Ok(false);
    };
    send(&pidfd, process.pid, Signal::CONT)
}

/// Ends a process of an earlier life, if that very process is still there, and waits for its end. `true` when it was.
///
/// # Errors
/// It is there, but may not be signalled, or does not end.
pub fn end_orphan(process: Identity) -> io::Result<bool> {
    let Some(pidfd) = hold(process) else {
        return Ok(false);
    };
    if !send(&pidfd, process.pid, Signal::KILL)? {
        return Ok(false);
    }
    if ends_within(&pidfd, ORPHAN_ENDS_WITHIN)? {
        return Ok(true);
    }
    let text = format!(
        "process {} was killed and has not ended within {ORPHAN_ENDS_WITHIN:?}",
        process.pid
    );
    Err(io::Error::new(io::ErrorKind::TimedOut, text))
}

/// A descriptor of that very process; `None` when it has gone.
pub(crate) fn hold(process: Identity) -> Option<OwnedFd> {
    let pidfd = open(process.pid).ok()?;
    // Checked once the pidfd is held: from here on the id can no longer come to mean another process.
    let found = procfs::stat(process.pid)?;
    (found.started == process.started).then_some(pidfd)
}

/// Sends a signal to a process that may have gone: whether it was there.
///
/// # Errors
/// It is there, but may not be signalled.
pub(crate) fn send(pidfd: &OwnedFd, pid: u32, signal: Signal) -> io::Result<bool> {
    match pidfd_send_signal(pidfd, signal) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::SRCH) => Ok(false),
        Err(error) => Err(io::Error::new(
            error.kind(),
            format!(
                "signal {} to process {pid}: {error}; the agent has to be root, or the process's user",
                signal.as_raw()
            ),
        )),
    }
}

/// Waits, without a runtime, until a process has ended: whether it did in time.
///
/// # Errors
/// The kernel does not let it wait.
pub(crate) fn ends_within(pidfd: &OwnedFd, limit: Duration) -> io::Result<bool> {
    let mut ended = [PollFd::new(pidfd, PollFlags::IN)];
    let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
    loop {
        match poll(&mut ended, Some(&limit)) {
            Ok(count) => return Ok(count > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A descriptor of a process.
pub(crate) fn open(pid: u32) -> io::Result<OwnedFd> {
    let named =
        |reason: &dyn std::fmt::Display| io::Error::other(format!("process {pid}: {reason}"));
    let id = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| named(&"not a process id"))?;
    pidfd_open(id, PidfdFlags::empty()).map_err(|error| named(&error))
}
