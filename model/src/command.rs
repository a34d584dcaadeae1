//! Commands that an agent may run: named and spelled out in its own configuration. What crosses the wire is a name,
//! some variables, and what came of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::quantity::Span;

/// What is kept of each of a command's outputs, in bytes. It may write more.
pub const OUTPUT_LIMIT: usize = 64 * 1024;

/// A command as the agent's own configuration has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandConfig {
    /// The program by its absolute path, and its arguments. No shell is between.
    pub run: Vec<String>,
    /// It is killed, with whatever it has started, when it has run for so long.
    #[serde(default = "two_seconds")]
    pub within: Span,
}

impl CommandConfig {
    /// The program and its arguments. One that runs nothing, which no configuration may say, has an empty program.
    #[must_use]
    pub fn split(&self) -> (&str, &[String]) {
        self.run
            .split_first()
            .map_or(("", &[]), |(program, args)| (program.as_str(), args))
    }
}

const fn two_seconds() -> Span {
    Span::from_secs(2)
}

/// That a command is to be run: `POST /commands/{name}` of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CommandOrder {
    /// Environment variables, on top of the few that every command has. See [`is_variable`].
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandAnswer {
    /// Its exit code, where it exited.
    pub exit: Option<i32>,
    /// The signal that ended it, where one did.
    pub signal: Option<i32>,
    /// The beginning of what it wrote to stdout: at most [`OUTPUT_LIMIT`] bytes, read as UTF-8.
    pub stdout: String,
    /// The same of stderr.
    pub stderr: String,
    /// It had not ended in time and was killed.
    pub timed_out: bool,
}

/// Whether a command may be called so: it becomes a segment of a path.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    !name.is_empty() && name.len() <= 64 && name.chars().all(allowed)
}

/// Whether a caller may set a variable of that name: `FAULTLANE_` and capitals, so that none of those that change what a
/// program is (`PATH`, `LD_PRELOAD`, …) can be set from afar.
#[must_use]
pub fn is_variable(name: &str) -> bool {
    name.strip_prefix("FAULTLANE_").is_some_and(|rest| {
        !rest.is_empty() && rest.chars().all(|c| c.is_ascii_uppercase() || c == '_')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_a_program_is_no_variable_of_a_caller() {
        for name in ["FAULTLANE_IDENTITY", "FAULTLANE_TTL_SECONDS"] {
            assert!(is_variable(name), "{name}");
        }
        for name in [
            "PATH",
            "LD_PRELOAD",
            "FAULTLANE_",
            "FAULTLANE_a",
            "FAULTLANE_A=B",
            "faultlane_A",
            "",
        ] {
            assert!(!is_variable(name), "{name}");
        }
    }

    #[test]
    fn a_name_is_one_segment_of_a_path() {
        for name in ["queue-depth", "mint_token", "Q2"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "a/b", "..", "queue depth", "naïve", &"a".repeat(65)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
