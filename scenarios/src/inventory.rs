//! Which agents there are, how each is reached, and which of them a fault takes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use model::command::is_name;
use model::crew::{Layout, Part};
use serde::Deserialize;

use crate::check::Checks;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::parse as yaml;
use crate::source::Source;
use crate::tree::Mark;
use crate::typed;

mod select;

pub use select::{Pick, Selection, SelectionError, choose, select};

/// The agents of a drill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    /// Each of them; at least one, no two of the same name.
    pub agents: Vec<Entry>,
    /// How many nodes may be under faults at once, over all agents.
    pub nodes_at_once: Option<u32>,
}

/// An agent that an operator runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What drills call the node.
    pub name: String,
    /// Where it is.
    pub at: Place,
    /// What groups it with others.
    pub labels: BTreeMap<String, String>,
    /// The address of its host, as other hosts reach it; `None` where neither `host` nor the agent's address says it.
    pub host: Option<IpAddr>,
    /// The parts of a drill that its host runs.
    pub runs: BTreeSet<Part>,
}

impl Inventory {
    /// The agent of that name.
    #[must_use]
    pub fn agent(&self, name: &str) -> Option<&Entry> {
        self.agents.iter().find(|agent| agent.name == name)
    }

    /// Who runs what.
    #[must_use]
    pub fn layout(&self) -> Layout {
        let runners = |part| {
            let runs = self
                .agents
                .iter()
                .filter(move |agent| agent.runs.contains(&part));
            runs.map(|agent| agent.name.clone())
        };
        Layout {
            lane: runners(Part::Lane).next(),
            tokens: runners(Part::Tokens).next(),
            publisher: runners(Part::Publisher).next(),
            clients: runners(Part::Clients).collect(),
        }
    }
}

/// Where an agent is, and what is shown there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Behind a unix socket of this host.
    Socket(PathBuf),
    /// On loopback, for those who know what is in the file of its token.
    Loopback {
        /// `127.0.0.1:7400`.
        address: String,
        /// The file.
        token: PathBuf,
    },
    /// Anywhere, by TLS with certificates on both sides.
    Tls {
        /// `host:port`.
        address: String,
        /// PEM files.
        files: ClientFiles,
    },
}

/// PEM files of somebody who calls agents.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ClientFiles {
    /// The authorities of the agents' certificates.
    pub ca: PathBuf,
    /// The caller's certificate chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// What an agent's certificate is made out to, where that is not the host of its address.
    pub server_name: Option<String>,
}

#[derive(Debug, Deserialize)]
struct File {
    agents: Vec<Written>,
    tls: Option<ClientFiles>,
    #[serde(default)]
    limits: Limits,
}

#[derive(Debug, Default, Deserialize)]
struct Limits {
    nodes_at_once: Option<u32>,
}

#[derive(Debug, Deserialize)]
struct Written {
    name: String,
    address: Option<String>,
    socket: Option<PathBuf>,
    token: Option<PathBuf>,
    tls: Option<ClientFiles>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    host: Option<String>,
    #[serde(default)]
    runs: Vec<Part>,
}

/// Reads an inventory. Relative paths are seen from `folder`, the file's.
///
/// # Errors
/// Everything that is wrong with it, as far as it could be told in one go.
pub fn parse(source: &Source, folder: &Path) -> Result<Inventory, Diagnostics> {
    let tree = yaml::tree(source)?;
    let (inventory, found) = match typed::read::<File>(&tree, source) {
        Ok(file) => {
            let mut checks = Checks::new(&tree, source, None);
            let inventory = resolve(&mut checks, file, folder);
            (Some(inventory), checks.found)
        }
        Err(mistakes) => (None, mistakes),
    };
    Diagnostics::sort_out(found)?;
    inventory.ok_or_else(|| {
        // Whatever keeps it from being read is an error among those found.
        let message = "the inventory could not be read".to_owned();
        Diagnostic::error(source.place(Mark::START), message).into()
    })
}

fn resolve(checks: &mut Checks<'_>, file: File, folder: &Path) -> Inventory {
    if file.agents.is_empty() {
        let hint = "add `- name: db-1` with its `address`";
        checks.error(&["agents"], "the inventory has no agents", hint);
    }
    if file.limits.nodes_at_once == Some(0) {
        let path = ["limits", "nodes_at_once"];
        checks.error(&path, "`nodes_at_once` is 0", "it is at least 1");
    }
    let mut names = BTreeSet::new();
    let mut agents = Vec::new();
    for (index, written) in file.agents.into_iter().enumerate() {
        let index = index.to_string();
        let at = |field| ["agents", &index, field];
        if !is_name(&written.name) {
            let message = format!("`{}` is not an agent's name", written.name);
            let hint = "use up to 64 letters, digits, hyphens and underscores, such as db-1";
            checks.error(&at("name"), message, hint);
        }
        if !names.insert(written.name.clone()) {
            let message = format!("another agent is called `{}`", written.name);
            checks.error(&at("name"), message, "call each by a name of its own");
        }
        let host = host(checks, &index, &written);
        agents.extend(
            place(checks, &index, &written, file.tls.as_ref(), folder).map(|at| Entry {
                name: written.name,
                at,
                labels: written.labels,
                host,
                runs: written.runs.iter().copied().collect(),
            }),
        );
    }
    parts(checks, &agents);
    Inventory {
        agents,
        nodes_at_once: file.limits.nodes_at_once,
    }
}

/// The host's own address: what `host` says, or the agent's address where that is one.
fn host(checks: &mut Checks<'_>, index: &str, written: &Written) -> Option<IpAddr> {
    if let Some(host) = &written.host {
        let parsed = host.parse();
        if parsed.is_err() {
            let message = format!("`{host}` is not an IP address");
            let hint = "write the address at which other hosts reach this one, such as 10.0.0.5";
            checks.error(&["agents", index, "host"], message, hint);
        }
        return parsed.ok();
    }
    let address = written.address.as_ref()?;
    let address: std::net::SocketAddr = address.parse().ok()?;
    Some(address.ip())
}

/// At most one agent runs each part but the clients; what others connect to needs an address.
fn parts(checks: &mut Checks<'_>, agents: &[Entry]) {
    for (index, agent) in agents.iter().enumerate() {
        let index = index.to_string();
        let path = ["agents", index.as_str(), "runs"];
        for part in &agent.runs {
            let name = part.name();
            let mut earlier = agents.iter().take_while(|other| other.name != agent.name);
            let other = earlier.find(|other| other.runs.contains(part));
            if let Some(other) = other.filter(|_| *part != Part::Clients) {
                let message = format!("`{}` runs `{name}` already", other.name);
                checks.error(
                    &path,
                    message,
                    "let one agent run it; only `clients` are divided among several",
                );
            }
            if matches!(part, Part::Lane | Part::Tokens) && agent.host.is_none() {
                let message = format!(
                    "`{}` runs `{name}`, and nothing says where its host is reached",
                    agent.name
                );
                checks.error(&path, message, "add host: 10.0.0.5 to it");
            }
        }
    }
    let run = |part| agents.iter().any(|agent| agent.runs.contains(&part));
    // A part that the conductor ran itself would be on its loopback.
    if let Some(index) = agents.iter().position(|agent| !agent.runs.is_empty()) {
        for part in [Part::Lane, Part::Tokens] {
            if !run(part) {
                let index = index.to_string();
                let name = part.name();
                let message = format!(
                    "parts of the drill run on agents, which could not reach `{name}`: nobody runs it"
                );
                let hint = format!("add `{name}` to the `runs` of an agent");
                checks.error(&["agents", &index, "runs"], message, hint);
            }
        }
    }
}

fn place(
    checks: &mut Checks<'_>,
    index: &str,
    written: &Written,
    common: Option<&ClientFiles>,
    folder: &Path,
) -> Option<Place> {
    let at = |field| ["agents", index, field];
    let address = match (&written.address, &written.socket) {
        (Some(address), None) => address,
        (None, Some(socket)) => {
            for (field, said) in [
                ("tls", written.tls.is_some()),
                ("token", written.token.is_some()),
            ] {
                if said {
                    let message = format!("`{field}` is of no use with a unix socket");
                    let hint = "remove it: the socket's mode says who may open it";
                    checks.key_error(&at(field), message, hint);
                }
            }
            return Some(Place::Socket(folder.join(socket)));
        }
        _ => {
            let message = format!("`{}` needs one of `address` and `socket`", written.name);
            let hint = "write `address: db-1.example:7400`, or `socket: /run/faultlane/agent.sock` on this host";
            checks.error(&["agents", index], message, hint);
            return None;
        }
    };
    if !has_port(address) {
        let message = format!("`{address}` is no address");
        checks.error(
            &at("address"),
            message,
            "write HOST:PORT, such as db-1.example:7400",
        );
        return None;
    }
    if let Some(token) = &written.token {
        let loopback = address
            .parse::<std::net::SocketAddr>()
            .is_ok_and(|address| address.ip().is_loopback());
        if !loopback || written.tls.is_some() {
            let message = "a token is shown on loopback only, in plain text".to_owned();
            checks.key_error(&at("token"), message, "use `tls` instead");
        }
        return Some(Place::Loopback {
            address: address.clone(),
            token: folder.join(token),
        });
    }
    let Some(files) = written.tls.as_ref().or(common) else {
        let message = format!(
            "`{}` is called by an address, and there is no `tls`",
            written.name
        );
        let hint = "add `tls: { ca: …, certificate: …, key: … }`, for all agents or for this one; on loopback, or a \
                    `token` file";
        checks.error(&at("address"), message, hint);
        return None;
    };
    let files = ClientFiles {
        ca: folder.join(&files.ca),
        certificate: folder.join(&files.certificate),
        key: folder.join(&files.key),
        server_name: files.server_name.clone(),
    };
    for (field, path) in [
        ("ca", &files.ca),
        ("certificate", &files.certificate),
        ("key", &files.key),
    ] {
        if let Err(error) = std::fs::metadata(path) {
            let own = ["agents", index, "tls", field];
            let whole = if written.tls.is_some() {
                &own[..]
            } else {
                &["tls", field]
            };
            let message = format!("`{}`: {error}", path.display());
            let hint = "mend the path, which is seen from this file's folder";
            checks.error(whole, message, hint);
        }
    }
    Some(Place::Tls {
        address: address.clone(),
        files,
    })
}

fn has_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}
