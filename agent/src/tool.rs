//! The programs by which the kernel is asked for what it does: nft, tc, ss, ip. Each call is bounded in time, and what
//! fails is named with its words. Without a runtime, so that an undo works where there is none.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use model::command::CommandConfig;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::commands;
use crate::preflight;
use crate::process;

/// They answer within milli-seconds, but for a host that is far too busy.
const WITHIN: Duration = Duration::from_secs(5);
/// Where they are on a host whose PATH does not say so.
const SYSTEM: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// Why a program did not do what it was to.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It is not installed.
    #[error("there is no program `{0}` on the PATH nor in /usr/sbin; install it")]
    Missing(String),
    /// It could not be started, or its pipes broke.
    #[error("`{command}`: {source}")]
    Start {
        /// Program and arguments.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// It failed.
    #[error("`{command}` failed ({status}): {said}")]
    Failed {
        /// Program and arguments.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said on stderr.
        said: String,
    },
    /// It did not end in time, and was killed. What it was to do may have been done.
    #[error("`{command}` did not end within {within:?} and was killed")]
    TimedOut {
        /// Program and arguments.
        command: String,
        /// How long it had.
        within: Duration,
    },
}

impl ToolError {
    /// What the program said.
    #[must_use]
    pub fn said(&self) -> &str {
        match self {
            Self::Failed { said, .. } => said,
            _ => "",
        }
    }
}

impl From<ToolError> for io::Error {
    fn from(error: ToolError) -> Self {
        let kind = match &error {
            ToolError::Missing(_) => io::ErrorKind::NotFound,
            ToolError::Start { source, .. } => source.kind(),
            ToolError::Failed { .. } => io::ErrorKind::Other,
            ToolError::TimedOut { .. } => io::ErrorKind::TimedOut,
        };
        Self::new(kind, error.to_string())
    }
}

/// A program that is changing something may live on when the agent is killed, and do it after the undo. So each has the
/// lock that an undo needs, as its stdout, until it has ended: the lock goes with the last who has it. It is open for
/// reading only, so that nothing can be written to it.
static LOCK: OnceLock<File> = OnceLock::new();

/// From now on each [`change`] of this process has this lock.
pub(crate) fn changes_hold(lock: File) {
    LOCK.get_or_init(|| lock);
}

/// Runs a program that says nothing and changes something.
///
/// # Errors
/// See [`ToolError`].
pub fn change(program: &str, args: &[&str], input: &[u8]) -> Result<(), ToolError> {
    let lock = LOCK.get().map(File::try_clone).transpose();
    let lock = lock.map_err(|source| ToolError::Start {
        command: program.to_owned(),
        source,
    })?;
    run_with(
        program,
        args,
        input,
        lock.map_or_else(Stdio::null, Stdio::from),
    )
    .map(drop)
}

/// Runs a program to its end; what it said on stdout.
///
/// # Errors
/// See [`ToolError`].
pub fn run(program: &str, args: &[&str], input: &[u8]) -> Result<Vec<u8>, ToolError> {
    run_with(program, args, input, Stdio::piped())
}

/// Runs a command of the agent's own configuration to its end, in the root folder; what it said on stdout.
///
/// # Errors
/// See [`ToolError`].
pub fn ask(config: &CommandConfig) -> Result<Vec<u8>, ToolError> {
    let (program, args) = config.split();
    let mut command = Command::new(program);
    command
        .args(args)
        .env_clear()
        .envs(commands::environment())
        .current_dir("/")
        .stdout(Stdio::piped());
    to_its_end(
        command,
        &config.run.join(" "),
        b"",
        config.within.duration(),
    )
}

fn run_with(
    program: &str,
    args: &[&str],
    input: &[u8],
    stdout: Stdio,
) -> Result<Vec<u8>, ToolError> {
    let mut shown = program.to_owned();
    for arg in args {
        let _ = write!(shown, " {arg}");
    }
    let mut command = Command::new(find(program)?);
    // What is said is looked at.
    command.args(args).env("LC_ALL", "C").stdout(stdout);
    to_its_end(command, &shown, input, WITHIN)
}

fn to_its_end(
    command: Command,
    shown: &str,
    input: &[u8],
    within: Duration,
) -> Result<Vec<u8>, ToolError> {
    let shown = shown.to_owned();
    match in_time(command, input, within) {
        Ok(Some((status, said, _))) if status.success() => Ok(said),
        Ok(Some((status, _, complained))) => Err(ToolError::Failed {
            command: shown,
            status,
            said: brief(&complained),
        }),
        Ok(None) => Err(ToolError::TimedOut {
            command: shown,
            within,
        }),
        Err(source) => Err(ToolError::Start {
            command: shown,
            source,
        }),
    }
}

fn find(program: &str) -> Result<PathBuf, ToolError> {
    let in_system = || {
        SYSTEM
            .into_iter()
            .find_map(|folder| preflight::program(&Path::new(folder).join(program)).ok())
    };
    preflight::program(Path::new(program))
        .ok()
        .or_else(in_system)
        .ok_or_else(|| ToolError::Missing(program.to_owned()))
}

type Ended = (ExitStatus, Vec<u8>, Vec<u8>);

/// `None` when its time was over.
fn in_time(mut command: Command, input: &[u8], within: Duration) -> io::Result<Option<Ended>> {
    let mut child = command
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        // A program that ends without having read everything is no error here: its status tells.
        scope.spawn(move || stdin.map(|mut pipe| pipe.write_all(input)));
        let said = scope.spawn(move || read(stdout));
        let complained = scope.spawn(move || read(stderr));
        let ended =
            process::open(child.id()).and_then(|pidfd| process::ends_within(&pidfd, within));
        // The group, whether it ended or not: what it has left there would keep the pipes open.
        let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
        let status = child.wait()?;
        let told = |thread: std::thread::ScopedJoinHandle<'_, io::Result<Vec<u8>>>| {
            thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("its output was not read")))
        };
        let (said, complained) = (told(said)?, told(complained)?);
        Ok(ended?.then_some((status, said, complained)))
    })
}

fn read(pipe: Option<impl Read>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        pipe.read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// The first lines, without the pointers below them.
fn brief(complained: &[u8]) -> String {
    let text = String::from_utf8_lossy(complained);
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.bytes().all(|byte| b"^~ ".contains(&byte)))
        .take(3)
        .collect();
    if lines.is_empty() {
        "it said nothing".to_owned()
    } else {
        lines.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_comes_back_however_long_it_is() {
        let input = vec![b'x'; 1 << 20];
        assert_eq!(run("cat", &[], &input).unwrap().len(), input.len());
    }

    #[test]
    fn what_a_program_leaves_behind_is_not_waited_for() {
        let begun = std::time::Instant::now();
        assert_eq!(
            run("sh", &["-c", "sleep 60 & echo 7"], b"").unwrap(),
            b"7\n"
        );
        assert!(begun.elapsed() < WITHIN, "{:?}", begun.elapsed());
    }

    #[test]
    fn what_fails_is_named_with_its_words() {
        let error = run("sh", &["-c", "echo no such luck >&2; exit 3"], b"").unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("exit status: 3") && text.contains("no such luck"),
            "{text}"
        );
        assert_eq!(error.said(), "no such luck");
        let error = run("no-such-program", &[], b"").unwrap_err().to_string();
        assert!(error.contains("`no-such-program`"), "{error}");
    }
}
