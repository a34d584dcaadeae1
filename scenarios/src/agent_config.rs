//! The agent's own configuration: the commands that it may run, by name, the nodes that it may do something to, and how it is
//! operated. A file of the host's operator, in the same language as scenarios and refused with the same care. A scenario can
//! name such a command or node, and never bring one.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use model::command::{CommandConfig, is_name};
use model::node::NodeConfig;
use model::policy::Policy;
use model::quantity::Span;
use serde::Deserialize;

use crate::check::Checks;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::parse as yaml;
use crate::source::Source;
use crate::tree::Mark;
use crate::typed;

mod nodes;
mod operating;

pub use operating::{Listen, Operating, TlsFiles, operating};

const SHORTEST: Span = Span::from_millis(10);
/// What takes longer is a job, and no answer to a question.
const LONGEST: Span = Span::from_secs(300);

/// What an agent may do beside its roles.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct AgentConfig {
    /// Commands by name.
    #[serde(default)]
    pub commands: BTreeMap<String, CommandConfig>,
    /// The operator's nodes to which faults may be done, by name.
    #[serde(default)]
    pub nodes: BTreeMap<String, NodeConfig>,
    /// What drills call the node.
    pub name: Option<String>,
    /// Where the agent keeps what it has to remember.
    pub state_dir: Option<PathBuf>,
    /// Where its children log.
    pub log_dir: Option<PathBuf>,
    /// Who asked it for what.
    pub audit: Option<PathBuf>,
    /// `10.0.0.5:7400`, or the path of a unix socket.
    pub listen: Option<String>,
    /// What it shows, and whom it lets in.
    pub tls: Option<TlsFiles>,
    /// How far it lets a drill go.
    #[serde(default)]
    pub policy: Policy,
}

/// Reads an agent's configuration and checks it against this host, which is the agent's.
///
/// # Errors
/// Everything that is wrong with it, as far as it could be told in one go.
pub fn parse(source: &Source) -> Result<AgentConfig, Diagnostics> {
    read(source, |_, _| {})
}

/// Reads and checks; `further` looks for what is wrong beside.
fn read(
    source: &Source,
    further: impl FnOnce(&mut Checks<'_>, &AgentConfig),
) -> Result<AgentConfig, Diagnostics> {
    let tree = yaml::tree(source)?;
    let (config, found) = match typed::read::<AgentConfig>(&tree, source) {
        Ok(config) => {
            let mut checks = Checks::new(&tree, source, None);
            for (name, command) in &config.commands {
                check(&mut checks, name, command);
            }
            nodes::check(&mut checks, &config);
            further(&mut checks, &config);
            (Some(config), checks.found)
        }
        Err(mistakes) => (None, mistakes),
    };
    Diagnostics::sort_out(found)?;
    config.ok_or_else(|| {
        // Whatever keeps it from being read is an error among those found.
        let message = "the agent's configuration could not be read".to_owned();
        Diagnostic::error(source.place(Mark::START), message).into()
    })
}

fn check(checks: &mut Checks<'_>, name: &str, command: &CommandConfig) {
    let at = ["commands", name];
    if !is_name(name) {
        let message = format!("`{name}` is not a command's name");
        let hint = "use up to 64 letters, digits, hyphens and underscores, such as queue-depth";
        checks.key_error(&at, message, hint);
    }
    let run = [at[0], at[1], "run"];
    match command.run.first() {
        None => {
            let hint = "write [/path/to/program, argument, …]";
            checks.error(&run, format!("`{name}` runs nothing"), hint);
        }
        Some(program) => {
            if let Err((message, hint)) = may_be_run(program) {
                checks.error(&[run[0], run[1], run[2], "0"], message, hint);
            }
        }
    }
    let (within, path) = (command.within, [at[0], at[1], "within"]);
    if within < SHORTEST || within > LONGEST {
        let message = format!("`within` is {within}");
        checks.error(&path, message, format!("it is {SHORTEST} to {LONGEST}"));
    }
}

/// A relative path would mean another program in another folder, and one from the PATH another one on another day.
fn may_be_run(program: &str) -> Result<(), (String, &'static str)> {
    let path = Path::new(program);
    if !path.is_absolute() {
        let message = format!("`{program}` is not an absolute path");
        let hint = "write the program's whole path, such as /usr/local/bin/queue-depth; no shell looks for it";
        return Err((message, hint));
    }
    match fs::metadata(path) {
        Err(error) => Err((
            format!("`{program}` cannot be run: {error}"),
            "install it on this host, or mend its path",
        )),
        Ok(about) if !about.is_file() || about.permissions().mode() & 0o111 == 0 => Err((
            format!("`{program}` is not a program"),
            "it is a file that may be executed: chmod +x",
        )),
        Ok(_) => Ok(()),
    }
}
