//! `faultlane guard -- PROGRAM ARGS…`: runs a program that is not ours, and that therefore does not end with its stdin,
//! so that it does not outlive its parent.
//!
//! The program gets a process group of its own, and no stdin. When guard's stdin ends or guard gets SIGTERM or SIGINT,
//! the group gets SIGTERM and, after a grace of two seconds, SIGKILL; when the program ends, whatever else is in its
//! group is killed. Guard's exit code is the program's, or 128 and the number of the signal that ended it.
//!
//! For the case that guard itself is killed a shell waits at the other end of a pipe and kills the group when that
//! breaks. (The kernel's parent-death signal would take the program but not its children.) The group is the shell's, so that
//! there is no instant at which the program runs and the shell does not know it. What escapes: a process that makes itself
//! a group of its own.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use host::child::until_stdin_ends;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

const GRACE: Duration = Duration::from_secs(2);
/// Reads nothing until the pipe breaks. What asks the group to end does not mean the watcher.
const WATCH: &str = r#"trap "" TERM INT HUP QUIT; read -r _; kill -s KILL -- "-$$""#;

/// Runs a program until it ends or guard shall; the code to exit with.
///
/// # Errors
/// The program or the shell that watches could not be started.
pub async fn main(program: &OsStr, args: &[OsString]) -> io::Result<u8> {
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let stdin_ended = until_stdin_ends();
    let mut guarded = Guarded::start(program, args, Stdio::inherit())?;
    tokio::select! {
        () = guarded.ended() => {}
        () = async {
            tokio::select! {
                () = stdin_ended.cancelled() => {}
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        } => guarded.terminate().await,
    }
    guarded.reap()
}

/// A program, in a group with its watcher. Neither is reaped before [`Self::reap`], so that until then the numbers are
/// theirs and can be signalled.
pub(crate) struct Guarded {
    program: Child,
    group: Pid,
    ended: oneshot::Receiver<()>,
    has_ended: bool,
    watcher: Child,
}

impl Guarded {
    /// Starts a program.
    pub(crate) fn start(program: &OsStr, args: &[OsString], stdout: Stdio) -> io::Result<Self> {
        Self::start_command(Command::new(program).args(args).stdout(stdout))
    }

    /// Starts a program as it was made ready, without a stdin.
    pub(crate) fn start_command(command: &mut Command) -> io::Result<Self> {
        let mut watcher = Command::new("/bin/sh")
            .args(["-c", WATCH])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("/bin/sh: {error}")))?;
        let group = Pid::from_child(&watcher);
        let started = command
            .stdin(Stdio::null())
            .process_group(group.as_raw_nonzero().get())
            .spawn();
        let program = match started {
            Ok(program) => program,
            Err(error) => {
                watcher.kill()?;
                watcher.wait()?;
                return Err(error);
            }
        };
        let pid = Pid::from_child(&program);
        let (sender, ended) = oneshot::channel();
        std::thread::spawn(move || {
            let leave_it = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while matches!(
                waitid(WaitId::Pid(pid), leave_it),
                Err(rustix::io::Errno::INTR)
            ) {}
            // The receiver goes only when nobody waits any more.
            let _ = sender.send(());
        });
        Ok(Self {
            program,
            group,
            ended,
            has_ended: false,
            watcher,
        })
    }

    /// The program's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.program.id()
    }

    /// What it writes to, where those are pipes; once.
    pub(crate) fn take_outputs(&mut self) -> (Option<ChildStdout>, Option<ChildStderr>) {
        (self.program.stdout.take(), self.program.stderr.take())
    }

    /// Waits until the program has ended.
    pub(crate) async fn ended(&mut self) {
        if !self.has_ended {
            // An error would mean that the thread is gone, and then there is nothing to wait for.
            let _ = (&mut self.ended).await;
            self.has_ended = true;
        }
    }

    /// Asks the group to end, and waits for that, but not for long.
    pub(crate) async fn terminate(&mut self) {
        self.signal(Signal::TERM);
        if tokio::time::timeout(GRACE, self.ended()).await.is_err() {
            tracing::warn!(group = %self.group.as_raw_nonzero(), "did not end by SIGTERM; killed");
        }
    }

    /// Kills what is left of the group. The program's exit code, or 128 and the number of the signal that ended it.
    pub(crate) fn reap(self) -> io::Result<u8> {
        let status = self.reap_status()?;
        let code = status
            .code()
            .or_else(|| status.signal().map(|signal| 128 + signal))
            .and_then(|code| u8::try_from(code).ok());
        Ok(code.unwrap_or(u8::MAX))
    }

    /// As [`Self::reap`]; how the program ended.
    pub(crate) fn reap_status(mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::KILL);
        let status = self.program.wait();
        self.watcher.wait()?;
        status
    }

    fn signal(&self, signal: Signal) {
        if let Err(error) = kill_process_group(self.group, signal) {
            tracing::warn!(group = %self.group.as_raw_nonzero(), %error, "not signalled");
        }
    }
}
