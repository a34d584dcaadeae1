//! The main process of an operator's node.

use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use model::command::CommandConfig;
use model::quantity::Span;
use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};

use crate::procfs::{self, Identity, Life};
use crate::tool::{self, ToolError};

/// A pid file that is older than its process by more than this was written for another. Wall clocks are set now and then, by
/// less.
const OLDER: Span = Span::from_secs(5);

/// So much of a pid file is read: its first line is short.
const LONGEST: u64 = 4_096;

/// How the main process of a node is found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Main {
    /// The first line of a file is its id.
    PidFile(PathBuf),
    /// It is what a unit of systemd has as its main process.
    Systemd(String),
    /// A command prints its id.
    Command(CommandConfig),
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The process; it may be on its way out.
    Process(Identity),
    /// There is none, and why that is thought.
    None(String),
}

impl Main {
    /// Looks for the process.
    ///
    /// # Errors
    /// Whoever knows could not be asked.
    pub fn find(&self) -> io::Result<Found> {
        match self {
            Self::PidFile(path) => by_file(path),
            Self::Systemd(unit) => {
                let args = ["show", "-p", "MainPID", "--value", unit];
                let said = tool::run("systemctl", &args, b"")?;
                Ok(match String::from_utf8_lossy(&said).trim() {
                    "0" | "" => Found::None(format!("unit {unit} has no main process")),
                    pid => by_id(pid, &format_args!("systemctl says of {unit}")),
                })
            }
            Self::Command(command) => match tool::ask(command) {
                Ok(said) => {
                    let said = String::from_utf8_lossy(&said);
                    let said = said.trim();
                    Ok(by_id(
                        said,
                        &format_args!("`{}` says", command.run.join(" ")),
                    ))
                }
                // As pidof and pgrep answer that there is none.
                Err(error @ ToolError::Failed { .. }) => Ok(Found::None(error.to_string())),
                Err(error) => Err(error.into()),
            },
        }
    }

    /// How often it is worth being asked.
    pub(super) const fn asked_every(&self) -> Duration {
        match self {
            Self::PidFile(_) => Duration::from_millis(5),
            Self::Systemd(_) | Self::Command(_) => Duration::from_millis(50),
        }
    }
}

fn by_file(path: &Path) -> io::Result<Found> {
    let shown = path.display();
    let (text, about) = match beginning(path) {
        Ok(read) if read.1.is_file() => read,
        Ok(_) => return Ok(Found::None(format!("{shown} is not a file"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Found::None(format!("{shown} is not there")));
        }
        Err(error) => return Err(io::Error::new(error.kind(), format!("{shown}: {error}"))),
    };
    let first = text.lines().next().unwrap_or_default();
    let found = by_id(first.trim(), &format_args!("{shown} says"));
    let written = about.modified().ok();
    let age = written.and_then(|at| SystemTime::now().duration_since(at).ok());
    if let (Found::Process(process), Some(age)) = (&found, age)
        && Span::from(age) > process.age().plus(OLDER)
    {
        return Ok(Found::None(format!(
            "{shown} is stale: it was written {} ago, and process {} was started only {} ago",
            rounded(Span::from(age)),
            process.pid,
            rounded(process.age())
        )));
    }
    Ok(found)
}

/// What a file begins with, and what it is. Whoever writes it may be less than the agent, and is not to have that wait at a pipe
/// or read without end.
fn beginning(path: &Path) -> io::Result<(String, fs::Metadata)> {
    let file = fs::File::options()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)?;
    let about = file.metadata()?;
    let mut bytes = Vec::new();
    if about.is_file() {
        file.take(LONGEST).read_to_end(&mut bytes)?;
    }
    Ok((String::from_utf8_lossy(&bytes).into_owned(), about))
}

fn by_id(text: &str, who: &dyn fmt::Display) -> Found {
    match text.parse::<u32>() {
        Ok(pid) if pid > 0 => match Identity::of(pid) {
            Some(process) => Found::Process(process),
            None => Found::None(format!("{who} {pid}, and there is no such process")),
        },
        _ => {
            let shown: String = text.chars().take(40).collect();
            Found::None(format!(
                "{who} `{}`, which is no process id",
                shown.escape_debug()
            ))
        }
    }
}

fn rounded(span: Span) -> Span {
    Span::from_secs(span.as_micros() / 1_000_000)
}

impl Found {
    /// A process that is there to stay.
    #[must_use]
    pub fn living(self) -> Option<Identity> {
        match self {
            Self::Process(process) if process.life() == Life::Lives => Some(process),
            _ => None,
        }
    }
}

/// Why that process is none that a fault may be done to; `None` when it may. `own` are the agent's own children.
pub(crate) fn forbidden(process: Identity, own: &[u32]) -> Option<&'static str> {
    let agent = std::process::id();
    if process.pid == 1 {
        Some("is the first process, with which everything ends")
    } else if procfs::is_kernels(process.pid) {
        Some("is a thread of the kernel, which no signal ends")
    } else if process.pid == agent {
        Some("is the agent itself")
    } else if procfs::ancestors(agent).contains(&process.pid) {
        Some("is an ancestor of the agent, which ends with it or could not undo it")
    } else if own.contains(&process.pid) {
        Some("is a child of the agent's own, and is done something to by its own name only")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none(found: Found) -> String {
        match found {
            Found::None(why) => why,
            Found::Process(process) => panic!("{process:?}"),
        }
    }

    #[test]
    fn a_pid_file_is_believed_by_its_first_line_and_only_about_a_process_that_it_can_know() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db.pid");
        let main = Main::PidFile(path.clone());
        assert!(none(main.find().unwrap()).contains("is not there"));
        let here = std::process::id();
        fs::write(&path, format!("{here}\n/var/lib/db\n5432\n")).unwrap();
        let own = Identity::of(here).unwrap();
        assert_eq!(main.find().unwrap(), Found::Process(own));
        assert_eq!(main.find().unwrap().living(), Some(own));
        for (text, words) in [
            ("", "no process id"),
            ("db", "`db`"),
            ("0", "`0`"),
            ("-1", "`-1`"),
            ("4194305", "no such process"),
        ] {
            fs::write(&path, text).unwrap();
            let why = none(main.find().unwrap());
            assert!(why.contains(words) && why.contains("db.pid"), "{why}");
        }
        fs::write(&path, here.to_string()).unwrap();
        let long_ago = SystemTime::now() - Duration::from_hours(24 * 365);
        fs::File::open(&path)
            .unwrap()
            .set_modified(long_ago)
            .unwrap();
        assert!(none(main.find().unwrap()).contains("is stale"));
    }

    #[test]
    fn what_stands_in_for_a_pid_file_is_neither_waited_for_nor_read_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [pipe, PathBuf::from("/dev/zero"), folder.path().to_owned()] {
            let (done, found) = std::sync::mpsc::channel();
            let main = Main::PidFile(path);
            std::thread::spawn(move || done.send(main.find()));
            let found = found.recv_timeout(Duration::from_secs(10)).unwrap();
            assert!(none(found.unwrap()).contains("is not a file"));
        }
        let long = folder.path().join("long");
        let file = fs::File::create(&long).unwrap();
        file.set_len(1 << 40).unwrap();
        assert!(none(Main::PidFile(long).find().unwrap()).contains("no process id"));
    }

    #[test]
    fn what_a_command_prints_is_asked_for_in_time() {
        let main = |script: &str| {
            Main::Command(CommandConfig {
                run: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
                within: Span::from_millis(300),
            })
        };
        let here = std::process::id();
        let own = Identity::of(here).unwrap();
        let found = main(&format!("echo {here}")).find().unwrap();
        assert_eq!(found, Found::Process(own));
        assert!(none(main("exit 1").find().unwrap()).contains("exit status: 1"));
        let error = main("sleep 9").find().unwrap_err().to_string();
        assert!(error.contains("300ms"), "{error}");
    }

    #[test]
    fn the_agent_and_what_it_stands_on_are_spared() {
        let of = |pid| Identity { pid, started: 7 };
        let here = std::process::id();
        let parent = procfs::stat(here).unwrap().parent;
        for (pid, words) in [(1, "first process"), (here, "itself"), (parent, "ancestor")] {
            let why = forbidden(of(pid), &[]).unwrap();
            assert!(why.contains(words) || pid == 1, "{why}");
        }
        assert!(
            forbidden(of(u32::MAX), &[u32::MAX])
                .unwrap()
                .contains("own")
        );
        assert_eq!(forbidden(of(u32::MAX), &[]), None);
        // A container may see none.
        let mut all = procfs::all().map(|(pid, _)| pid);
        if let Some(kernels) = all.find(|pid| procfs::is_kernels(*pid)) {
            assert!(forbidden(of(kernels), &[]).unwrap().contains("kernel"));
        }
        assert!(!procfs::is_kernels(here));
    }
}
