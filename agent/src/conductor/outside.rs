//! What is done to a described target outside of a trial: an agent is started only where tokens come by way of one.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use host::child::SpawnError;
use model::command::CommandConfig;
use model::target::TokenSupply;
use scenarios::target::Target;
use tempfile::TempDir;

use super::node::Node;

/// A target, and what an agent needs.
#[derive(Debug)]
pub struct Outside<'a> {
    /// The faultlane program.
    pub program: &'a Path,
    /// The target.
    pub target: &'a Target,
    /// The commands that an agent may run.
    pub commands: &'a BTreeMap<String, CommandConfig>,
}

/// Why there is no agent.
#[derive(Debug, thiserror::Error)]
pub enum OutsideError {
    /// It could not be started.
    #[error("the agent by way of which tokens come: {0}")]
    Agent(#[from] SpawnError),
    /// There is no folder for its logs.
    #[error("a folder for the agent's logs: {0}")]
    Folder(#[from] io::Error),
}

impl Outside<'_> {
    /// The agent, where tokens come by way of one, and the folder of its logs.
    pub(super) async fn node(&self) -> Result<Option<(Node, TempDir)>, OutsideError> {
        let by_agent = matches!(
            self.target.tokens,
            TokenSupply::Service(None) | TokenSupply::Command(_)
        );
        if !by_agent {
            return Ok(None);
        }
        let logs = tempfile::tempdir()?;
        let node = Node::start(
            self.program,
            None,
            self.commands.clone(),
            "outside",
            "outside",
            logs.path(),
        );
        Ok(Some((node.await?, logs)))
    }
}
