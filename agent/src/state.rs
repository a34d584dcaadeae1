//! The agent's folder: the journal, the marker of a halt, and its children's data.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use host::clock;
use model::quantity::Span;

const JOURNAL: &str = "journal.jsonl";
const HALTED: &str = "halted";
const LOCK: &str = "lock";
const DATA: &str = "data";
const COMMANDS: &str = "commands";
const TURNS: &str = "turns";
const AUDIT: &str = "audit.jsonl";
const RUN: &str = "run.json";
const TOKEN: &str = "token";
const SOCKET: &str = "agent.sock";

/// What an agent was about to execute when it was killed has its lock until then, for some milli-seconds.
const LOCKED_WITHIN: Span = Span::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The folder, locked for as long as this lives.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Makes the folder (mode 0700) or takes it over from an agent that is gone.
    ///
    /// # Errors
    /// It cannot be made, or another agent uses it; the error names it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let named = |error: io::Error| named(path, &error);
        for folder in [DATA, COMMANDS, TURNS] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path.join(folder))
                .map_err(named)?;
        }
        let lock = File::create(path.join(LOCK)).map_err(named)?;
        let begun = clock::now();
        while let Err(error) = lock.try_lock() {
            if clock::now().since(begun) < LOCKED_WITHIN {
                std::thread::sleep(LOOK_EVERY);
                continue;
            }
            let error = io::Error::new(
                io::ErrorKind::ResourceBusy,
                format!("another agent uses it ({error}); end that one, or choose another folder"),
            );
            return Err(named(error));
        }
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// Where the journal is.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.path.join(JOURNAL)
    }

    /// Where the audit log is, unless an operator names another place.
    #[must_use]
    pub fn audit(&self) -> PathBuf {
        self.path.join(AUDIT)
    }

    /// Where the last fence is kept.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.path.join(RUN)
    }

    /// Where the token is that callers on loopback have to show to an agent that an operator runs.
    #[must_use]
    pub fn token(&self) -> PathBuf {
        self.path.join(TOKEN)
    }

    /// Where children may keep their data.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.path.join(DATA)
    }

    /// Where commands run: what they write there is theirs.
    #[must_use]
    pub fn commands(&self) -> PathBuf {
        self.path.join(COMMANDS)
    }

    /// Where there is a file for each of the operator's nodes, which whoever starts it has locked.
    #[must_use]
    pub fn turns(&self) -> PathBuf {
        self.path.join(TURNS)
    }

    /// Whether the agent was halted, in this life or an earlier one.
    #[must_use]
    pub fn is_halted(&self) -> bool {
        self.path.join(HALTED).exists()
    }

    /// Marks the agent as halted, or clears the mark. It is on disk when this returns.
    ///
    /// # Errors
    /// The marker cannot be written or removed.
    pub fn set_halted(&self, halted: bool) -> io::Result<()> {
        let marker = self.path.join(HALTED);
        let changed = if halted {
            File::create(&marker).and_then(|file| file.sync_all())
        } else {
            match fs::remove_file(&marker) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            }
        };
        changed
            .and_then(|()| File::open(&self.path)?.sync_all())
            .map_err(|error| named(&marker, &error))
    }

    /// What is in the folder that the agent did not put there. Its children's data is theirs, and so is that of commands.
    #[must_use]
    pub fn strangers(&self) -> Vec<String> {
        let own = [
            JOURNAL, HALTED, LOCK, DATA, COMMANDS, TURNS, AUDIT, RUN, TOKEN, SOCKET,
        ];
        let mut names: Vec<String> = fs::read_dir(&self.path)
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
            .filter(|name| !own.contains(&name.as_str()))
            .collect();
        names.sort();
        names
    }

    /// Removes what children and commands have left, and keeps what the agent has to remember.
    ///
    /// # Errors
    /// Something in it cannot be removed.
    pub fn remove_data(&self) -> io::Result<()> {
        for folder in [DATA, COMMANDS] {
            let path = self.path.join(folder);
            fs::remove_dir_all(&path).map_err(|error| named(&path, &error))?;
        }
        Ok(())
    }

    /// Removes the folder and all that is in it.
    ///
    /// # Errors
    /// Something in it cannot be removed.
    pub fn remove(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.path).map_err(|error| named(&self.path, &error))
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_folder_is_private_and_has_one_agent_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent");
        let state = StateDir::open(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o700
        );
        let error = StateDir::open(&path).unwrap_err().to_string();
        assert!(error.contains("another agent"), "{error}");
        drop(state);
        StateDir::open(&path).unwrap().remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_halt_is_remembered_until_it_is_cleared_and_strangers_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        state.set_halted(true).unwrap();
        drop(state);
        let state = StateDir::open(folder.path()).unwrap();
        assert!(state.is_halted());
        state.set_halted(false).unwrap();
        state.set_halted(false).unwrap();
        assert!(!state.is_halted());
        assert!(state.strangers().is_empty());
        fs::write(folder.path().join("core.123"), "").unwrap();
        assert_eq!(state.strangers(), ["core.123"]);
    }
}
