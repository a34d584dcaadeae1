//! The agent's side of its watchdog: one runs for as long as the agent does.

use std::io::{self, BufRead as _, BufReader};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, pidfd_send_signal};

use crate::crash;
use crate::process;

const READY_WITHIN: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};
/// A watchdog with nothing to undo reads a file and ends.
const ENDS_WITHIN: Timespec = Timespec {
    tv_sec: 2,
    tv_nsec: 0,
};
const START_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The watchdog of this agent.
#[derive(Debug)]
pub struct Watchdog {
    keeper: Arc<Keeper>,
    keeping: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Keeper {
    program: PathBuf,
    journal: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    running: Option<Running>,
    dismissed: bool,
}

/// Its stdin is held, and nothing is ever written to it: the kernel closes it whatever way this process ends.
#[derive(Debug)]
struct Running {
    pid: u32,
    pidfd: OwnedFd,
    stdin: Option<ChildStdin>,
}

impl Watchdog {
    /// Starts `program watchdog` over a journal that is there, waits until it watches, and from then on starts another
    /// whenever one ends.
    ///
    /// # Errors
    /// It could not be started, or did not become ready.
    pub fn start(program: PathBuf, journal: PathBuf) -> io::Result<Self> {
        let keeper = Arc::new(Keeper {
            program,
            journal,
            state: Mutex::default(),
        });
        let first = keeper.start()?;
        let kept = Arc::clone(&keeper);
        let keeping = thread::Builder::new()
            .name("watchdog".to_owned())
            .spawn(move || kept.keep(first))?;
        Ok(Self {
            keeper,
            keeping: Mutex::new(Some(keeping)),
        })
    }

    /// Its process id; `None` while none runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.keeper
            .lock()
            .running
            .as_ref()
            .map(|running| running.pid)
    }

    /// Has it end, as nothing is in force any more, and waits for that.
    pub fn dismiss(&self) {
        let running = {
            let mut state = self.keeper.lock();
            state.dismissed = true;
            state.running.take()
        };
        let Some(Running { pid, pidfd, stdin }) = running else {
            return;
        };
        drop(stdin);
        if !ready(&pidfd, &ENDS_WITHIN) {
            tracing::warn!(
                pid,
                "the watchdog did not end, although nothing is in force; killed"
            );
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
            ready(&pidfd, &ENDS_WITHIN);
        }
        // It takes the zombie away.
        let keeping = self
            .keeping
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(keeping) = keeping {
            let _ = keeping.join();
        }
    }
}

impl Keeper {
    fn keep(&self, mut watchdog: Child) {
        loop {
            let ended = watchdog.wait();
            {
                let mut state = self.lock();
                if state.dismissed {
                    return;
                }
                state.running = None;
            }
            tracing::warn!(
                ?ended,
                "the watchdog ended, and nobody had asked it to; another is started"
            );
            watchdog = loop {
                match self.start() {
                    Ok(next) => break next,
                    Err(error) => tracing::error!(%error, "no watchdog"),
                }
                thread::sleep(START_AGAIN_AFTER);
                if self.lock().dismissed {
                    return;
                }
            };
        }
    }

    fn start(&self) -> io::Result<Child> {
        let failed = |why: &dyn std::fmt::Display| {
            io::Error::other(format!("{} watchdog: {why}", self.program.display()))
        };
        // Not in a group of its own: only who leads none can begin a session. It has this process's stderr.
        let mut child = Command::new(&self.program)
            .arg("watchdog")
            .arg("--journal")
            .arg(&self.journal)
            .env_remove(crash::VARIABLE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| failed(&error))?;
        let watches = child.stdout.take().is_some_and(says_ready);
        let pidfd = process::open(child.id());
        let mut state = self.lock();
        match pidfd {
            Ok(pidfd) if watches && !state.dismissed => {
                state.running = Some(Running {
                    pid: child.id(),
                    pidfd,
                    stdin: child.stdin.take(),
                });
                Ok(child)
            }
            _ => {
                let _ = child.kill();
                let ended = child.wait();
                Err(failed(&format_args!("it did not become ready ({ended:?})")))
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn says_ready(stdout: ChildStdout) -> bool {
    let mut line = String::new();
    ready(&stdout, &READY_WITHIN)
        && BufReader::new(stdout).read_line(&mut line).is_ok()
        && line == "ready\n"
}

/// Whether something can be read, or has ended, in time.
fn ready(fd: &impl std::os::fd::AsFd, within: &Timespec) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    loop {
        match poll(&mut fds, Some(within)) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.is_ok_and(|count| count > 0),
        }
    }
}
