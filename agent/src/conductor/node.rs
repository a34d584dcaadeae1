//! The agent of a trial, as a process of our own on this host. An agent that an operator runs elsewhere is spoken to
//! in the same way; only who starts it differs.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use host::child::{self, Child, SpawnError};
use model::command::CommandConfig;
use model::role::AgentConfig;
use tempfile::TempDir;

use super::hold::Hold;
use crate::client::Agent;

const READY_WITHIN: Duration = Duration::from_secs(10);
const END_WITHIN: Duration = Duration::from_secs(8);

/// A running agent.
#[derive(Debug)]
pub struct Node {
    /// How to speak to it.
    pub agent: Agent,
    hold: Hold,
    process: Child,
    // Removed with the node. The agent removes it too, for the case that the conductor is killed.
    work: TempDir,
}

impl Node {
    /// Starts an agent: `program agent --config-stdin`, which may run the server and the commands named; and takes it for a
    /// run.
    ///
    /// # Errors
    /// The working folder could not be made, or the agent did not become ready.
    pub async fn start(
        program: &Path,
        spacetimedb: Option<PathBuf>,
        commands: BTreeMap<String, CommandConfig>,
        name: &str,
        run: &str,
        log_dir: &Path,
    ) -> Result<Self, SpawnError> {
        let start = |source: io::Error| SpawnError::Start {
            command: "agent".to_owned(),
            source,
        };
        let work = tempfile::Builder::new()
            .prefix("faultlane-")
            .tempdir()
            .map_err(start)?;
        let config = AgentConfig {
            name: name.to_owned(),
            state_dir: work.path().to_owned(),
            log_dir: log_dir.to_owned(),
            spacetimedb,
            commands,
            nodes: [].into(),
        };
        let log = log_dir.join("agent.log");
        let process = child::spawn(program, &["agent"], &config, &log, READY_WITHIN).await?;
        let hold = Hold::take(&Agent::new(process.ready.control), run)
            .await
            .map_err(|error| start(io::Error::other(error)))?;
        Ok(Self {
            agent: hold.agent().clone(),
            hold,
            process,
            work,
        })
    }

    /// Where the target's data may live. Secrets among it are why it is not in the evidence folder.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.work.path().join("data")
    }

    /// The agent's process id.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.process.ready.pid
    }

    /// Whether it still answers.
    pub async fn answers(&self) -> bool {
        self.agent.status().await.is_ok()
    }

    /// Ends the agent, and with it all its children. `false` when it had to be killed.
    pub async fn end(self) -> bool {
        // Of an agent that is gone there is nothing to give back.
        let _ = self.hold.release().await;
        self.process.end(END_WITHIN).await
    }
}
