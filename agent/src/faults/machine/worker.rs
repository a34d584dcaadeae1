//! The agent's side of a worker: a child that is signalled by its pidfd and waited for here. Dropping it kills it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Signal, pidfd_send_signal};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{Mutex, watch};

use crate::crash;
use crate::pressure::{Config, Report, Word};
use crate::process;
use crate::procfs;

const READY_WITHIN: Duration = Duration::from_secs(10);
/// A worker that is killed has its memory to give back.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Worker {
    pid: u32,
    started: u64,
    pidfd: OwnedFd,
    process: Mutex<Child>,
    stdin: Mutex<ChildStdin>,
    reports: watch::Receiver<Report>,
}

impl Worker {
    /// Starts a worker, which does nothing yet. `journal` and `fault` tell whoever looks at processes whose it is.
    pub(super) async fn start(
        program: &Path,
        journal: &Path,
        fault: &str,
        config: &Config,
    ) -> io::Result<Self> {
        let failed = |why: &dyn std::fmt::Display| {
            io::Error::other(format!("{} pressure: {why}", program.display()))
        };
        let mut process = Command::new(program)
            .arg("pressure")
            .arg("--journal")
            .arg(journal)
            .arg(format!("--fault={fault}"))
            .env_remove(crash::VARIABLE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C on a terminal goes to the whole foreground group.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(&error))?;
        let pipes = process.stdin.take().zip(process.stdout.take());
        let (mut stdin, stdout) = pipes.ok_or_else(|| failed(&"no pipes"))?;
        // It is not waited for before `end`, so that its id is its own until then.
        let pid = process.id().ok_or_else(|| failed(&"it ended at once"))?;
        let pidfd = process::open(pid)?;
        let stat = procfs::stat(pid).ok_or_else(|| failed(&"it ended at once"))?;
        tell(&mut stdin, config).await?;
        let (sender, mut reports) = watch::channel(Report::default());
        tokio::spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                match serde_json::from_str(&line) {
                    Ok(report) => drop(sender.send_replace(report)),
                    Err(error) => tracing::warn!(pid, %error, line, "not a worker's report"),
                }
            }
        });
        let ready = tokio::time::timeout(READY_WITHIN, reports.changed()).await;
        if !matches!(ready, Ok(Ok(()))) {
            return Err(failed(
                &"it did not become ready; the agent's log has what it said",
            ));
        }
        Ok(Self {
            pid,
            started: stat.started,
            pidfd,
            process: Mutex::new(process),
            stdin: Mutex::new(stdin),
            reports,
        })
    }

    pub(super) const fn pid(&self) -> u32 {
        self.pid
    }

    /// As [`procfs::Stat::started`].
    pub(super) const fn started(&self) -> u64 {
        self.started
    }

    /// Tells it something.
    pub(super) async fn tell(&self, word: Word) -> io::Result<()> {
        tell(&mut *self.stdin.lock().await, &word).await
    }

    /// What it said last.
    pub(super) fn report(&self) -> Report {
        self.reports.borrow().clone()
    }

    /// Waits until it has taken up all that it will, or has ended.
    pub(super) async fn done(&self) {
        let mut reports = self.reports.clone();
        // An error says that its stdout has ended, and so has it.
        let _ = reports.wait_for(|report| report.done).await;
    }

    /// Whether it has ended, whoever ended it.
    pub(super) fn has_ended(&self) -> bool {
        process::ends_within(&self.pidfd, Duration::ZERO).unwrap_or(true)
    }

    /// Kills it and waits for its end; how that was.
    pub(super) async fn end(&self) -> io::Result<ExitStatus> {
        match pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
        let mut process = self.process.lock().await;
        let ended = tokio::time::timeout(ENDS_WITHIN, process.wait()).await;
        ended.unwrap_or_else(|_| {
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!(
                    "worker {} was killed and has not ended within {ENDS_WITHIN:?}",
                    self.pid
                ),
            ))
        })
    }
}

async fn tell(stdin: &mut ChildStdin, what: &impl serde::Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    stdin.write_all(&line).await?;
    stdin.flush().await
}
