//! The nodes that an operator runs, by the names that the agent's own configuration gives them: how each is found, and how it
//! is started. Without a runtime, as a watchdog needs them too.
//!
//! ```text
//! main    its main process: a pid file, a unit of systemd, what a command prints
//! start   it is started, and awaited; by one at a time
//! ```

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::command::CommandConfig;
use model::node::NodeConfig;
use serde::{Deserialize, Serialize};

mod main;
mod start;

pub(crate) use main::forbidden;
pub use main::{Found, Main};
pub use start::Up;

/// An operator's node. All that its undo needs is in here, so that it works in a process that has no configuration, or another
/// one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// How its main process is found.
    pub main: Main,
    /// The command that starts it. A unit of systemd needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<CommandConfig>,
    /// Where what the command says goes.
    pub log: PathBuf,
    /// Whoever starts it has this file locked.
    pub turn: PathBuf,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Nodes {
    named: BTreeMap<String, Arc<Node>>,
}

impl Nodes {
    /// Those of a configuration, whose commands go by these names. What they say on being started goes to `log_dir`; `turns`
    /// is a folder of the agent's own.
    ///
    /// # Errors
    /// A node names no command that there is, or not exactly one way to find its process.
    pub fn new(
        configs: BTreeMap<String, NodeConfig>,
        commands: &BTreeMap<String, CommandConfig>,
        log_dir: &Path,
        turns: &Path,
    ) -> io::Result<Self> {
        let mut named = BTreeMap::new();
        for (name, config) in configs {
            let wrong = |why: String| {
                io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("node `{name}` of the agent's configuration: {why}"),
                )
            };
            let command = |wanted: String| {
                let found = commands.get(&wanted).cloned();
                found.ok_or_else(|| wrong(format!("there is no command `{wanted}`")))
            };
            let main = match (config.pid_file, config.systemd, config.pid) {
                (Some(path), None, None) => Main::PidFile(path),
                (None, Some(unit), None) => Main::Systemd(unit),
                (None, None, Some(name)) => Main::Command(command(name)?),
                _ => {
                    let why = "give exactly one of pid_file, systemd and pid";
                    return Err(wrong(why.to_owned()));
                }
            };
            let node = Node {
                main,
                start: config.start.map(command).transpose()?,
                log: log_dir.join(format!("node-{name}.log")),
                turn: turns.join(&name),
                name: name.clone(),
            };
            named.insert(name, Arc::new(node));
        }
        Ok(Self { named })
    }

    /// A node by name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Node>> {
        self.named.get(name)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.named.values()
    }
}
