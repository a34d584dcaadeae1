//! The operator's nodes.

use std::path::PathBuf;

use model::command::is_name;
use model::node::NodeConfig;

use super::{AgentConfig, may_be_run};
use crate::check::Checks;
use crate::typed::nearest;

/// Where systemctl is on a host whose PATH does not say so.
const SYSTEM: [&str; 2] = ["/usr/bin", "/bin"];
/// The only units that have a main process.
const SERVICE: &str = ".service";

pub(super) fn check(checks: &mut Checks<'_>, config: &AgentConfig) {
    let commands: Vec<&str> = config.commands.keys().map(String::as_str).collect();
    for (name, node) in &config.nodes {
        let at = ["nodes", name];
        if !is_name(name) {
            let hint = "use up to 64 letters, digits, hyphens and underscores, such as db";
            checks.key_error(&at, format!("`{name}` is not a node's name"), hint);
        }
        kind(checks, at, name, node);
        for (field, command) in [("pid", &node.pid), ("start", &node.start)] {
            if let Some(command) = command
                && !commands.contains(&command.as_str())
            {
                let message = format!("`{command}` is not among this file's `commands`");
                let hint = if commands.is_empty() {
                    format!(
                        "add commands: with {command}: {{ run: [/path/to/program, argument, …] }}"
                    )
                } else {
                    nearest(command, &commands)
                };
                checks.error(&[at[0], at[1], field], message, hint);
            }
        }
        if let Some(unit) = &node.systemd {
            systemd(checks, at, unit, node);
        }
    }
}

/// Exactly one way to find it.
fn kind(checks: &mut Checks<'_>, at: [&str; 2], name: &str, node: &NodeConfig) {
    let ways = [
        ("pid_file", node.pid_file.is_some()),
        ("systemd", node.systemd.is_some()),
        ("pid", node.pid.is_some()),
    ];
    let given: Vec<&str> = ways
        .iter()
        .filter_map(|(way, given)| given.then_some(*way))
        .collect();
    match given.as_slice() {
        [_] => {}
        [] => checks.error(
            &at,
            format!("nothing says which process `{name}` is"),
            "add pid_file: with a path, systemd: with a unit, or pid: with the name of a command that prints the process id",
        ),
        [first, others @ ..] => checks.error(
            &[at[0], at[1], others[0]],
            format!("`{name}` is found by {first} already"),
            format!("keep one of {}", given.join(", ")),
        ),
    }
}

fn systemd(checks: &mut Checks<'_>, at: [&str; 2], unit: &str, node: &NodeConfig) {
    let path = [at[0], at[1], "systemd"];
    let allowed = |c: char| c.is_ascii_alphanumeric() || ":_.\\@-".contains(c);
    if unit.starts_with(['-', '.']) || !unit.ends_with(SERVICE) || !unit.chars().all(allowed) {
        let message = format!("`{unit}` is not the name of a service's unit");
        checks.error(&path, message, "write it whole, such as khala-gate.service");
    }
    if node.start.is_some() {
        let message = format!("`{unit}` is started by systemctl, and by no command");
        checks.error(&[at[0], at[1], "start"], message, "remove `start`");
    }
    if !is_there("systemctl") {
        let message = "there is no systemctl on this host".to_owned();
        let hint =
            "use pid_file or pid with `start` where systemd is absent, or mend the agent's PATH";
        checks.error(&path, message, hint);
    }
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(SYSTEM.map(PathBuf::from))
        .map(|folder| folder.join(program))
        .any(|file| may_be_run(&file.to_string_lossy()).is_ok())
}
