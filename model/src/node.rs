//! The nodes that an operator runs, as the agent's own configuration names them. What crosses the wire is a name.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// An operator's node: how its main process is found, and how it is started. Exactly one of the first three is given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeConfig {
    /// A file whose first line is the main process's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid_file: Option<PathBuf>,
    /// A unit of systemd, such as `khala-gate.service`. It is started by systemctl.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub systemd: Option<String>,
    /// The name of a command that prints the main process's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<String>,
    /// The name of a command that starts it, and returns once it has. Without one it can be paused, and not be ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
}
