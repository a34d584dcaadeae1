//! An agent that an operator runs: where it keeps things, where it listens, and whom it lets in.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use model::command::{CommandConfig, is_name};
use model::fault::Fault;
use model::node::NodeConfig;
use model::policy::Policy;
use serde::Deserialize;

use super::{AgentConfig, read};
use crate::check::Checks;
use crate::diagnostic::Diagnostics;
use crate::source::Source;
use crate::typed::nearest;

/// What an agent can be asked to start.
const CHILDREN: [&str; 5] = ["lane", "proxy", "shard", "spacetimedb", "tokens"];
/// What it starts where nothing is said: the parts of a drill. The others write where they are told to.
const USUAL_CHILDREN: [&str; 2] = ["proxy", "shard"];

/// PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TlsFiles {
    /// The agent's certificate chain, the leaf first.
    pub certificate: PathBuf,
    /// The leaf's private key.
    pub key: PathBuf,
    /// The authorities of those whom it lets in.
    pub client_ca: PathBuf,
}

/// Where an agent listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// On a unix socket of mode 0600.
    Socket(PathBuf),
    /// On an address.
    Address(SocketAddr),
}

/// How an agent is operated. Paths are as seen from where the agent runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operating {
    /// What drills call the node.
    pub name: String,
    /// What it has to remember: its journal, a halt, fencing tokens.
    pub state_dir: PathBuf,
    /// Where its children log.
    pub log_dir: PathBuf,
    /// Who asked it for what; in `state_dir` where nothing is said.
    pub audit: PathBuf,
    /// Where it listens; on `agent.sock` in `state_dir` where nothing is said.
    pub listen: Listen,
    /// With it, callers need a certificate. Off loopback there is no other way.
    pub tls: Option<TlsFiles>,
    /// The commands that may be run, by name.
    pub commands: BTreeMap<String, CommandConfig>,
    /// The operator's nodes to which faults may be done, by name.
    pub nodes: BTreeMap<String, NodeConfig>,
    /// How far it lets a drill go.
    pub policy: Policy,
}

/// Reads the configuration of an agent that is to run from it. Relative paths are seen from `folder`, the file's.
///
/// # Errors
/// Everything that is wrong with it, as far as it could be told in one go.
pub fn operating(source: &Source, folder: &Path) -> Result<Operating, Diagnostics> {
    let mut listen = None;
    let config = read(source, |checks, config| {
        listen = check(checks, config, folder);
    })?;
    let at = |path: Option<PathBuf>| folder.join(path.expect("a missing one was an error"));
    let state_dir = at(config.state_dir);
    Ok(Operating {
        name: config.name.expect("a missing one was an error"),
        log_dir: at(config.log_dir),
        audit: match config.audit {
            Some(audit) => folder.join(audit),
            None => state_dir.join("audit.jsonl"),
        },
        listen: listen.unwrap_or_else(|| Listen::Socket(state_dir.join("agent.sock"))),
        tls: config.tls.map(|tls| seen_from(folder, &tls)),
        commands: config.commands,
        nodes: config
            .nodes
            .into_iter()
            .map(|(name, node)| {
                let pid_file = node.pid_file.map(|path| folder.join(path));
                (name, NodeConfig { pid_file, ..node })
            })
            .collect(),
        policy: Policy {
            children: config
                .policy
                .children
                .or_else(|| Some(USUAL_CHILDREN.map(str::to_owned).to_vec())),
            ..config.policy
        },
        state_dir,
    })
}

fn seen_from(folder: &Path, tls: &TlsFiles) -> TlsFiles {
    TlsFiles {
        certificate: folder.join(&tls.certificate),
        key: folder.join(&tls.key),
        client_ca: folder.join(&tls.client_ca),
    }
}

fn check(checks: &mut Checks<'_>, config: &AgentConfig, folder: &Path) -> Option<Listen> {
    for (field, missing, example) in [
        ("name", config.name.is_none(), "name: db-1"),
        (
            "state_dir",
            config.state_dir.is_none(),
            "state_dir: /var/lib/faultlane",
        ),
        (
            "log_dir",
            config.log_dir.is_none(),
            "log_dir: /var/log/faultlane",
        ),
    ] {
        if missing {
            let message = format!("`{field}` is missing: the agent is to run from this file");
            checks.error(&[], message, format!("add a line such as {example}"));
        }
    }
    if let Some(name) = &config.name
        && !is_name(name)
    {
        let hint = "use up to 64 letters, digits, hyphens and underscores, such as db-1";
        checks.error(&["name"], format!("`{name}` is not an agent's name"), hint);
    }
    if let Some(tls) = &config.tls {
        files(checks, &seen_from(folder, tls));
    }
    policy(checks, &config.policy);
    let listen = config.listen.as_deref()?;
    if listen.contains('/') {
        if config.tls.is_some() {
            let message = format!("`{listen}` is a unix socket, which speaks no TLS");
            let hint = "leave `tls` out, or listen on an address such as 10.0.0.5:7400";
            checks.error(&["listen"], message, hint);
        }
        return Some(Listen::Socket(folder.join(listen)));
    }
    let Ok(address) = listen.parse::<SocketAddr>() else {
        let message = format!("`{listen}` is neither an address nor a unix socket");
        let hint =
            "write IP:PORT, such as 10.0.0.5:7400, or a path, such as /run/faultlane/agent.sock";
        checks.error(&["listen"], message, hint);
        return None;
    };
    if !address.ip().is_loopback() && config.tls.is_none() {
        let message = format!("`{listen}` is off loopback, where everybody could hurt this host");
        let hint = "add `tls` with certificate, key and client_ca (`faultlane pki init` makes them), or listen on \
                    loopback or a unix socket";
        checks.error(&["listen"], message, hint);
    }
    Some(Listen::Address(address))
}

fn files(checks: &mut Checks<'_>, tls: &TlsFiles) {
    for (field, path) in [
        ("certificate", &tls.certificate),
        ("key", &tls.key),
        ("client_ca", &tls.client_ca),
    ] {
        let shown = path.display();
        match fs::metadata(path) {
            Err(error) => {
                let hint = "mend the path, which is seen from this file's folder";
                checks.error(&["tls", field], format!("`{shown}`: {error}"), hint);
            }
            Ok(about) if field == "key" && about.permissions().mode() & 0o077 != 0 => {
                let message = format!("`{shown}` can be read by others than its owner");
                checks.error(&["tls", field], message, format!("chmod 600 {shown}"));
            }
            Ok(_) => {}
        }
    }
}

fn policy(checks: &mut Checks<'_>, policy: &Policy) {
    let kinds = kinds_of_faults();
    let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
    known(checks, "faults", policy.faults.as_deref(), &kinds);
    known(checks, "children", policy.children.as_deref(), &CHILDREN);
    for (at, folder) in policy.disk_folders.iter().enumerate() {
        let path = ["policy", "disk_folders", &at.to_string()];
        let shown = folder.display();
        match folder.canonicalize() {
            _ if !folder.is_absolute() => {
                let hint = "write its whole path, such as /srv/data";
                checks.error(&path, format!("`{shown}` is not an absolute path"), hint);
            }
            Err(error) => checks.error(&path, format!("`{shown}`: {error}"), "mend the path"),
            Ok(really) if really != *folder => {
                let message = format!("`{shown}` is really `{}`", really.display());
                checks.error(
                    &path,
                    message,
                    "write that: a link may lead elsewhere tomorrow",
                );
            }
            Ok(really) if !really.is_dir() => {
                let hint = "name a folder, in which faults make files of their own";
                checks.error(&path, format!("`{shown}` is not a folder"), hint);
            }
            Ok(_) => {}
        }
    }
    if policy.faults_at_once == Some(0) {
        let hint = "write `faults: []` for an agent that is to inject nothing";
        checks.error(&["policy", "faults_at_once"], "`faults_at_once` is 0", hint);
    }
}

fn known(checks: &mut Checks<'_>, rule: &str, named: Option<&[String]>, known: &[&str]) {
    for (at, name) in named.unwrap_or_default().iter().enumerate() {
        if !known.contains(&name.as_str()) {
            let path = ["policy", rule, &at.to_string()];
            checks.error(
                &path,
                format!("`{name}` is not known"),
                nearest(name, known),
            );
        }
    }
}

/// From the schema of the type itself, so that none is forgotten.
fn kinds_of_faults() -> Vec<String> {
    let schema = schemars::schema_for!(Fault).to_value();
    schema["oneOf"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|kind| kind["required"][0].as_str().map(str::to_owned))
        .collect()
}
