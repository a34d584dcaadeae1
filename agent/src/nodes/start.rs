//! An operator's node is up again: brought back by whoever keeps it, or started here.

use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use host::clock;
use model::command::CommandConfig;
use model::instant::{Bracket, Mono};
use model::quantity::Span;

use super::Node;
use super::main::{Found, Main};
use crate::commands;
use crate::launch;
use crate::process;
use crate::procfs::{Identity, Life};
use crate::tool;

/// How long after its start a node may take until its process can be told.
const UP_WITHIN: Span = Span::from_secs(10);
/// SIGKILL takes effect at once, but for a process that waits for a disk.
const KILLED_WITHIN: Duration = Duration::from_secs(5);
/// How much longer than its program the launcher may take.
const LAUNCHER: Duration = Duration::from_secs(2);
const TURN_LOOK_EVERY: Duration = Duration::from_millis(10);
/// To so much [`Identity::age`] is exact.
const TICK: Span = Span::from_millis(10);
/// So much of what a start command said last is shown.
const TAIL: i64 = 400;

/// A node that is up again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Up {
    /// Its process.
    pub process: Identity,
    /// Whether it was started here, and not by whoever keeps it.
    pub started: bool,
    /// When it was started, or asked for; and when it was seen.
    pub heal: Bracket,
}

impl Node {
    /// Whether it can be started here.
    #[must_use]
    pub const fn can_start(&self) -> bool {
        self.start.is_some() || matches!(self.main, Main::Systemd(_))
    }

    /// Has it up with another process than `old`, which has been killed or is about to be gone: waits for the end of that,
    /// looks whether another one is there already, and starts it only where none is. Any number may call it at once.
    ///
    /// # Errors
    /// The old process does not end, there is no way to start it, or it is not up in time.
    pub fn up(&self, old: Option<Identity>) -> io::Result<Up> {
        if let Some(old) = old {
            self.ended(old)?;
        }
        if let Some(up) = self.is_up()? {
            return Ok(up);
        }
        let turn = match self.turn()? {
            Turn::Ours(turn) => turn,
            Turn::Done(up) => return Ok(up),
        };
        // Whoever had the turn before may have done it.
        if let Some(up) = self.is_up()? {
            return Ok(up);
        }
        let asked = clock::now();
        let said = match (&self.main, &self.start) {
            (Main::Systemd(unit), _) => start_unit(unit),
            (_, Some(command)) => self.launch(command, turn),
            (_, None) => Err(io::Error::other(format!(
                "node `{}` has no `start` in the agent's configuration: start it by hand",
                self.name
            ))),
        };
        match said {
            Ok(()) => self.comes_up(asked),
            // Somebody may have been quicker: what counts is what is there.
            Err(error) => match self.is_up()? {
                Some(up) => {
                    tracing::warn!(node = self.name, %error, "it runs all the same");
                    Ok(up)
                }
                None => Err(error),
            },
        }
    }

    /// The process that is there to stay, if one is: it was started when it says. One that has been killed is waited for.
    ///
    /// # Errors
    /// Whoever knows could not be asked, or what was killed does not end.
    pub fn is_up(&self) -> io::Result<Option<Up>> {
        let Found::Process(process) = self.main.find()? else {
            return Ok(None);
        };
        match process.life() {
            Life::Lives => {
                let begun = Mono(clock::now().0.saturating_sub(process.age().as_micros()));
                let heal = Bracket {
                    asked: begun,
                    observed: begun + TICK,
                };
                Ok(Some(Up {
                    process,
                    started: false,
                    heal,
                }))
            }
            Life::Dying => self.ended(process).map(|()| None),
            Life::Gone => Ok(None),
        }
    }

    fn ended(&self, process: Identity) -> io::Result<()> {
        let in_time = match process::hold(process) {
            Some(pidfd) => process::ends_within(&pidfd, KILLED_WITHIN)?,
            None => true,
        };
        if in_time {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!(
                "node `{}` (process {}) has not ended within {KILLED_WITHIN:?}; see what it waits for in /proc/{1}/stack",
                self.name, process.pid
            ),
        ))
    }

    /// Waits for its turn; the node may come up meanwhile.
    fn turn(&self) -> io::Result<Turn> {
        let file = match File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&self.turn)
        {
            Ok(file) => file,
            // The agent's folder is gone, and with it everybody else who could start the node.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Turn::Ours(None)),
            Err(error) => {
                let text = format!("{}: {error}", self.turn.display());
                return Err(io::Error::new(error.kind(), text));
            }
        };
        let begun = clock::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Turn::Ours(Some(file))),
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) => {}
            }
            if let Some(up) = self.is_up()? {
                return Ok(Turn::Done(up));
            }
            if clock::now().since(begun) > UP_WITHIN {
                return Err(io::Error::new(
                    io::ErrorKind::ResourceBusy,
                    format!(
                        "node `{}` is being started by somebody else, for more than {UP_WITHIN}: its start command does not \
                         return",
                        self.name
                    ),
                ));
            }
            thread::sleep(TURN_LOOK_EVERY);
        }
    }

    /// Runs the start command to its end. The turn is the launcher's until then, also when this process is killed.
    fn launch(&self, command: &CommandConfig, turn: Option<File>) -> io::Result<()> {
        let failed = |why: &dyn std::fmt::Display| {
            let shown = command.run.join(" ");
            io::Error::other(format!("node `{}`: `{shown}` {why}", self.name))
        };
        let (program, args) = command.split();
        let (out, complaints) = match log(&self.log) {
            Ok(pair) => pair,
            Err(error) => {
                // To be started without a log is better than not to be started.
                tracing::warn!(log = %self.log.display(), %error, "what the start says is lost");
                (Stdio::null(), Stdio::null())
            }
        };
        // This very program, also where its file has been replaced meanwhile.
        let mut launcher = Command::new("/proc/self/exe")
            .args(["launch", "--within", &command.within.to_string(), "--"])
            .arg(program)
            .args(args)
            .env_clear()
            .envs(commands::environment())
            .current_dir("/")
            .stdin(turn.map_or_else(Stdio::null, Stdio::from))
            .stdout(out)
            .stderr(complaints)
            .spawn()
            .map_err(|error| failed(&format_args!("could not be launched: {error}")))?;
        let in_time = process::open(launcher.id()).and_then(|pidfd| {
            process::ends_within(&pidfd, command.within.duration().saturating_add(LAUNCHER))
        });
        if !matches!(in_time, Ok(true)) {
            launcher.kill()?;
        }
        let status = launcher.wait()?;
        if status.success() && in_time? {
            return Ok(());
        }
        let said = tail(&self.log);
        if status.code() == Some(launch::TIMED_OUT.into()) {
            return Err(failed(&format_args!(
                "did not return within {} and was killed: it has to put the node into the background; it said: {said}",
                command.within
            )));
        }
        Err(failed(&format_args!(
            "failed ({status}); it said: {said} ({})",
            self.log.display()
        )))
    }

    fn comes_up(&self, asked: Mono) -> io::Result<Up> {
        loop {
            let found = self.main.find();
            if let Ok(Found::Process(process)) = &found
                && process.life() == Life::Lives
            {
                let observed = clock::now();
                return Ok(Up {
                    process: *process,
                    started: true,
                    heal: Bracket { asked, observed },
                });
            }
            if clock::now().since(asked) > UP_WITHIN {
                let why = match found? {
                    Found::None(why) => why,
                    Found::Process(process) => format!("process {} is ending", process.pid),
                };
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!(
                        "node `{}` was started and is not up within {UP_WITHIN}: {why}",
                        self.name
                    ),
                ));
            }
            thread::sleep(self.main.asked_every());
        }
    }
}

enum Turn {
    Ours(Option<File>),
    Done(Up),
}

/// Does not wait for the unit's own idea of being ready: its process is what is waited for.
fn start_unit(unit: &str) -> io::Result<()> {
    // A unit that was killed often is refused until its failures are forgotten. One that has none is nothing to worry about.
    if let Err(error) = tool::run("systemctl", &["reset-failed", unit], b"") {
        tracing::debug!(unit, %error, "not reset");
    }
    tool::run("systemctl", &["start", "--no-block", unit], b"")?;
    Ok(())
}

fn log(path: &Path) -> io::Result<(Stdio, Stdio)> {
    let file = File::options().create(true).append(true).open(path)?;
    Ok((file.try_clone()?.into(), file.into()))
}

/// What was said last.
fn tail(log: &Path) -> String {
    let read = || {
        let mut file = File::open(log)?;
        let length = i64::try_from(file.metadata()?.len()).unwrap_or(i64::MAX);
        file.seek(SeekFrom::End(-TAIL.min(length)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok::<_, io::Error>(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    match read() {
        Ok(said) if said.is_empty() => "nothing".to_owned(),
        Ok(said) => said,
        Err(error) => format!("{}: {error}", log.display()),
    }
}
