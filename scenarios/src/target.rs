//! The target language: what is written about a system under drill, checked with the place of every mistake, and
//! resolved into what those who speak to it need.
//!
//! ```text
//! file       the types: the language                     either    values that can be written in two ways
//! lanes      how each lane is reached                    tokens    where tokens come from
//! promise    what is promised, and what gates judge by   address   URLs and addresses
//! secrets    ${NAME}, clear text, masks                  template  what `faultlane init` writes
//! clean_up   how a drill's events are removed again      topics   streams that a khala lane cannot carry
//! ```

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use model::ids::{Lane, StreamId};
use model::probe::{Operation, Outcome, StaleStream};
use model::profile::Profile;
use model::quantity::{Share, Span};
use model::target::{Access, Names, Promise, Removal, Secret, TlsClient, TokenSupply, Wire};

use serde::{Deserialize, Serialize};

use crate::check::Checks;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::parse as yaml;
use crate::source::Source;
use crate::typed;

pub(crate) mod address;
mod clean_up;
mod either;
mod file;
mod lanes;
mod promise;
pub(crate) mod secrets;
mod template;
mod tokens;
mod topics;

pub use either::{Acknowledged, StreamNames, StreamPattern, TokenFiles};
pub use file::TargetFile;
pub use template::Template;

/// Certificates and tokens are some KiB; whatever is larger is another file.
const MAX_NAMED_FILE: u64 = 1024 * 1024;
const MAX_STREAMS: usize = 1_000;
/// The probes publish some ten events a second.
const MAX_STALE_BUDGET: u64 = 200;

/// What a target file, or a scenario, refers to outside of itself.
pub struct Surroundings<'a> {
    /// Where relative paths start: the file's folder.
    pub folder: &'a Path,
    /// The environment.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
}

impl<'a> Surroundings<'a> {
    /// Those of a file in this process.
    #[must_use]
    pub fn of(source: &'a Source) -> Self {
        fn variable(name: &str) -> Option<String> {
            std::env::var(name).ok()
        }
        let folder = Path::new(&source.name).parent();
        let folder = folder.filter(|folder| !folder.as_os_str().is_empty());
        Self {
            folder: folder.unwrap_or(Path::new(".")),
            variable: &variable,
        }
    }
}

/// A system under drill, with everything that its file refers to.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// What it is called in the evidence.
    pub name: String,
    /// What it is.
    pub about: String,
    /// How its lanes are reached; at least one.
    pub lanes: BTreeMap<Lane, Endpoint>,
    /// Where tokens come from.
    pub tokens: TokenSupply,
    /// How many distinct identities there are; one a client where nothing is said.
    pub identities: Option<u32>,
    /// The streams that may be published to.
    pub streams: Vec<StreamId>,
    /// Organisations and a stream of each, the canary. Empty, or at least two.
    pub tenants: Vec<Tenant>,
    /// Its nodes. Empty where there are no agents.
    pub nodes: Vec<Node>,
    /// What it promises.
    pub promise: Promise,
    /// What is tried that has to be refused, and where.
    pub probes: Probes,
    /// Its clocks and budgets.
    pub profile: Profile,
    /// What its gates judge by.
    pub limits: Limits,
    /// See [`Self::secrets`].
    hidden: Vec<Secret>,
}

/// How a lane is reached, before anybody has resolved a name or started a proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// What Origin says.
    pub origin: String,
    /// What Host and SNI say: the host, with its port where that is not the scheme's own. SNI goes without the port.
    pub authority: String,
    /// `host:port` to connect to.
    pub dial: String,
    /// Whether the file says so itself, instead of leaving it to the URL.
    pub dial_is_stated: bool,
    /// What stands before the lane's own paths; empty for none.
    pub path_prefix: String,
    /// Further headers, environment variables filled in.
    pub headers: Vec<(String, String)>,
    /// TLS towards the lane; plain TCP where there is none.
    pub tls: Option<TlsClient>,
    /// How messages are encoded.
    pub wire: Wire,
    /// What things are called in its database.
    pub names: Names,
    /// What publishers present as `Authorization: Bearer`.
    pub publish_secret: Option<Secret>,
    /// Where khala publishers append, below the prefix; the lane's own path where nothing is said.
    pub append_path: Option<String>,
    /// Where they ask for a head, likewise.
    pub head_path: Option<String>,
    /// How events are removed from it.
    pub removal: Removal,
}

impl Endpoint {
    /// As a shard is told: `endpoint` is where the fleet connects (a proxy), `direct` what [`Self::dial`] resolved to.
    #[must_use]
    pub fn access(&self, endpoint: SocketAddr, direct: SocketAddr) -> Access {
        let origin = ("origin".to_owned(), self.origin.clone());
        Access {
            authority: Some(self.authority.clone()),
            path_prefix: self.path_prefix.clone(),
            headers: [&self.headers[..], &[origin]].concat(),
            tls: self.tls.clone(),
            wire: self.wire,
            names: self.names.clone(),
            append_path: self.append_path.clone(),
            head_path: self.head_path.clone(),
            removal: self.removal.clone(),
            ..Access::plain(endpoint, direct)
        }
    }
}

// By hand: headers carry credentials.
impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("authority", &self.authority)
            .field("dial", &self.dial)
            .field("path_prefix", &self.path_prefix)
            .field("tls", &self.tls)
            .field("wire", &self.wire)
            .field("names", &self.names)
            .field("removal", &self.removal)
            .finish_non_exhaustive()
    }
}

/// An organisation and a stream that only its own tokens open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its name.
    pub name: String,
    /// Its stream.
    pub stream: StreamId,
}

/// A node and its agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What scenarios call it.
    pub name: String,
    /// The agent's URL.
    pub agent: String,
}

/// Clients that have to be refused, and clients that resume from stale cursors.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Probes {
    /// Where cursors are tried; `None` for nowhere.
    pub stale: Option<StaleStream>,
    /// What is tried with a token; what suits the lane where nothing is said.
    pub operations: Option<Vec<Operation>>,
    /// What has to come of a probe, by its name, where that is not what follows from the promise.
    pub expect: BTreeMap<String, Outcome>,
}

/// What gates judge by.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// By how much p95 delivery latency may exceed that before the cutover.
    pub migration_buffer: Span,
    /// Within which time the fleet has to be whole after a reconnect storm.
    pub storm_target: Span,
    /// The largest share of clients that may use the legacy lane as a fallback.
    pub fallback_threshold: Share,
    /// Within which time a rollback has to be complete.
    pub rollback_slo: Span,
}

impl Target {
    /// What is in no message and no evidence, whoever repeats it: what environment variables held, credentials that stand
    /// in the file, tokens out of files. Values of fewer than four characters are not among them: to mask each `1` would
    /// leave nothing that can be read.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        self.hidden.iter().map(Secret::reveal)
    }

    /// The node that a node fault hits when a scenario names none: `lane`, or the only one there is.
    #[must_use]
    pub fn default_node(&self) -> Option<&str> {
        match self.nodes.as_slice() {
            [only] => Some(&only.name),
            nodes => nodes
                .iter()
                .map(|node| node.name.as_str())
                .find(|name| *name == crate::resolve::DEFAULT_NODE),
        }
    }
}

/// A target that can be drilled.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// The target.
    pub target: Target,
    /// What is probably not meant.
    pub warnings: Vec<Diagnostic>,
}

/// Whether a text is a target file rather than a scenario: it has `lanes`.
#[must_use]
pub fn is_target(source: &Source) -> bool {
    yaml::tree(source).is_ok_and(|tree| tree.get("lanes").is_some())
}

/// The JSON schema of a target file: what `target-schema.json` holds, for editors.
#[must_use]
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(TargetFile).to_value()
}

/// Reads a target file and what it refers to, and checks it.
///
/// # Errors
/// Everything that is wrong with it, as far as it could be told in one go; with the warnings. No secret is in them.
pub fn parse(source: &Source, around: &Surroundings<'_>) -> Result<Checked, Diagnostics> {
    let tree = yaml::tree(source)?;
    let (target, mut found) = match typed::read::<TargetFile>(&tree, source) {
        Ok(file) => {
            let mut checks = Checks::new(&tree, source, None);
            // Elsewhere the names of keys sound like secrets and are none: `authorization: enforced`.
            let with_secrets = ["lanes", "tokens", "nodes"].into_iter();
            let in_file = with_secrets
                .filter_map(|key| tree.get(key))
                .flat_map(|entry| secrets::under(&entry.key, &entry.node));
            let held = RefCell::new(in_file.collect::<Vec<_>>());
            let noting = |name: &str| {
                let value = (around.variable)(name);
                held.borrow_mut().extend(value.clone());
                value
            };
            let around = Surroundings {
                folder: around.folder,
                variable: &noting,
            };
            let mut target = resolve(&mut checks, &file, &around);
            if let Some(target) = &mut target {
                target.hidden = secrets::hidden(&held.borrow(), &target.tokens);
            }
            (target, checks.found)
        }
        Err(mistakes) => (None, mistakes),
    };
    secrets::mask(&mut found, &secrets::in_tree(&tree));
    let warnings = Diagnostics::sort_out(found)?;
    let target = target.ok_or_else(|| {
        let place = source.place(crate::tree::Mark::START);
        Diagnostics::from(Diagnostic::error(
            place,
            "the target could not be read".to_owned(),
        ))
    })?;
    Ok(Checked { target, warnings })
}

/// An error about a target file that only its target could tell, at the place of the setting that is to blame.
#[must_use]
pub fn blame(
    source: &Source,
    path: &[&str],
    message: impl Into<String>,
    hint: impl Into<String>,
) -> Diagnostics {
    let tree = match yaml::tree(source) {
        Ok(tree) => tree,
        Err(unreadable) => return unreadable,
    };
    let mut checks = Checks::new(&tree, source, None);
    checks.error(path, message, hint);
    secrets::mask(&mut checks.found, &secrets::in_tree(&tree));
    Diagnostics::sort_out(checks.found).expect_err("an error was just added")
}

fn resolve(
    checks: &mut Checks<'_>,
    file: &TargetFile,
    around: &Surroundings<'_>,
) -> Option<Target> {
    checks.name("target", &file.name);
    let lanes = lanes::resolve(checks, &file.lanes, around);
    let tokens = tokens::resolve(checks, &file.tokens, around);
    let started = file
        .tokens
        .service
        .as_ref()
        .is_some_and(|service| service.url.is_none());
    if started && file.lanes.khala.is_some() {
        let message = "a khala lane shares its keys with whoever issues its tokens";
        let hint = "start `faultlane tokens --key-file FILE` where the lane reads that file, and write service: { url: \
                    …, session_secret: … }";
        checks.error(&["tokens", "service"], message, hint);
    }
    let streams = streams(checks, &file.streams);
    clean_up::check(checks, file);
    tenants(checks, file);
    nodes(checks, file);
    stale(checks, file, &streams);
    topics::check(checks, file, &streams);
    let profile = file.promise.profile.apply(Profile {
        name: file.name.clone(),
        ..Profile::field()
    });
    checks.profile(&["promise", "profile"], &profile);
    let promise = promise::promise(checks, &file.promise);
    let limits = promise::limits(checks, &file.limits);
    let (tokens, identities) = tokens?;
    let promise = promise?;
    Some(Target {
        name: file.name.clone(),
        about: file.about.clone(),
        lanes,
        tokens,
        identities,
        streams,
        tenants: file
            .tenants
            .iter()
            .map(|tenant| Tenant {
                name: tenant.name.clone(),
                stream: tenant.stream.clone(),
            })
            .collect(),
        nodes: file
            .nodes
            .iter()
            .map(|node| Node {
                name: node.name.clone(),
                agent: node.agent.clone(),
            })
            .collect(),
        profile: Profile {
            token_skew: promise.token_skew,
            ..profile
        },
        promise,
        probes: Probes {
            stale: file.probes.stale.clone(),
            operations: file.probes.operations.clone(),
            expect: file.probes.expect.clone(),
        },
        limits: limits?,
        hidden: Vec::new(),
    })
}

fn streams(checks: &mut Checks<'_>, streams: &StreamNames) -> Vec<StreamId> {
    const NUMBER: &str = "{n}";
    let names: Vec<String> = match streams {
        StreamNames::Names(names) => names.clone(),
        StreamNames::Pattern(StreamPattern { pattern, count }) => {
            if !pattern.contains(NUMBER) {
                let message = format!("`{pattern}` gives every stream the same name");
                let hint = "write {n} where its number goes, such as \"runtime.run.{n}.events\"";
                checks.error(&["streams", "pattern"], message, hint);
            }
            if *count == 0 || *count as usize > MAX_STREAMS {
                let message = format!("`count` is {count}");
                let hint = format!("it is 1 to {MAX_STREAMS}");
                checks.error(&["streams", "count"], message, hint);
                return Vec::new();
            }
            return (1..=*count)
                .map(|n| pattern.replace(NUMBER, &n.to_string()))
                .collect();
        }
    };
    if names.is_empty() || names.len() > MAX_STREAMS {
        let message = format!("{} streams make no drill", names.len());
        let hint = format!("name 1 to {MAX_STREAMS} streams that a drill may publish to");
        checks.error(&["streams"], message, hint);
    }
    let mut seen = BTreeSet::new();
    for (place, name) in names.iter().enumerate() {
        let path = ["streams", &place.to_string()];
        if name.trim().is_empty() {
            checks.error(&path, "a stream has no name", "name it, or remove the item");
        } else if !seen.insert(name) {
            let message = format!("the stream `{name}` is named twice");
            checks.error(&path, message, "name each once");
        }
    }
    names
}

fn tenants(checks: &mut Checks<'_>, file: &TargetFile) {
    if file.tenants.len() == 1 {
        let hint = "name a second one whose token must not open the first one's stream, or none";
        checks.error(&["tenants"], "one tenant cannot be told from another", hint);
    }
    let mut seen = BTreeSet::new();
    for (place, tenant) in file.tenants.iter().enumerate() {
        for (key, value) in [("name", &tenant.name), ("stream", &tenant.stream)] {
            if !seen.insert((key, value)) {
                let path = ["tenants", &place.to_string(), key];
                let message = format!("another tenant has the {key} `{value}`");
                checks.error(&path, message, "a canary is one tenant's own");
            }
        }
    }
    let endpoint = file.tokens.http.as_ref();
    if !file.tenants.is_empty() && endpoint.is_some_and(|http| !http.body.contains("{tenant}")) {
        let hint = "put {tenant} where the service expects the organisation";
        let message = "every tenant's token would be the same: the body does not say {tenant}";
        checks.error(&["tokens", "http", "body"], message, hint);
    }
}

fn stale(checks: &mut Checks<'_>, file: &TargetFile, streams: &[StreamId]) {
    let Some(stale) = &file.probes.stale else {
        return;
    };
    if streams.contains(&stale.stream) {
        let message = format!("`{}` is one of `streams` too", stale.stream);
        let hint = "name a stream of its own: it is written to at a pace of the probes' own";
        checks.error(&["probes", "stale", "stream"], message, hint);
    }
    for (key, value) in [
        ("retention", stale.retention),
        ("replay_budget", stale.replay_budget),
    ] {
        if value == 0 || value > MAX_STALE_BUDGET {
            let message = format!("`{key}` is {value}");
            let hint = format!(
                "it is 1 to {MAX_STALE_BUDGET} events: a drill has to get beyond it within its time"
            );
            checks.error(&["probes", "stale", key], message, hint);
        }
    }
}

fn nodes(checks: &mut Checks<'_>, file: &TargetFile) {
    let mut seen = BTreeSet::new();
    for (place, node) in file.nodes.iter().enumerate() {
        let place = place.to_string();
        if !seen.insert(&node.name) {
            let message = format!("another node is called `{}`", node.name);
            let hint = "scenarios name nodes: give each a name of its own";
            checks.error(&["nodes", &place, "name"], message, hint);
        }
        let path = ["nodes", &place, "agent"];
        match address::Url::read(&node.agent, &["https", "http"], false) {
            Ok(url) if !url.secure && !url.is_loopback() => {
                let message = format!("the agent of `{}` is not on loopback", node.name);
                let hint = "an agent off loopback is spoken to by https:// only";
                checks.error(&path, message, hint);
            }
            Ok(_) => {}
            Err((message, hint)) => checks.error(&path, message, hint),
        }
    }
}

/// Reads a text file that a target file names.
pub(crate) fn named_file(
    checks: &mut Checks<'_>,
    path: &[&str],
    name: &str,
    around: &Surroundings<'_>,
) -> Option<String> {
    let hint = format!(
        "a relative path starts at {}, the file's folder",
        around.folder.display()
    );
    let file = around.folder.join(name);
    let outcome = fs::metadata(&file).and_then(|about| {
        if !about.is_file() || about.len() > MAX_NAMED_FILE {
            let message = "it is not a file of at most 1 MiB";
            return Err(std::io::Error::other(message));
        }
        fs::read_to_string(&file)
    });
    match outcome {
        Ok(text) => Some(text),
        Err(error) => {
            checks.error(path, format!("`{name}` cannot be read: {error}"), hint);
            None
        }
    }
}

/// A text with its environment variables filled in, and a warning where it is a secret that stands in the file.
fn secret_text(
    checks: &mut Checks<'_>,
    path: &[&str],
    key: &str,
    text: &str,
    around: &Surroundings<'_>,
) -> Option<String> {
    if secrets::in_clear(key, text) {
        let hint = "write ${NAME} and export NAME=… before faultlane starts";
        let message = format!("the value of `{key}` looks like a secret in clear text");
        checks.warning(path, message, hint);
    }
    match secrets::expand(text, around.variable) {
        Ok(text) => Some(text),
        Err((message, hint)) => {
            checks.error(path, message, hint);
            None
        }
    }
}

/// Headers with their environment variables filled in.
pub(crate) fn headers(
    checks: &mut Checks<'_>,
    path: &[&str],
    headers: &BTreeMap<String, String>,
    around: &Surroundings<'_>,
) -> Vec<(String, String)> {
    const OWN: [&str; 6] = [
        "host",
        "connection",
        "upgrade",
        "content-length",
        "transfer-encoding",
        "origin",
    ];
    let mut resolved = Vec::new();
    for (name, value) in headers {
        let path: Vec<&str> = path.iter().copied().chain([name.as_str()]).collect();
        let lower = name.to_ascii_lowercase();
        // RFC 9110, section 5.6.2: what a field name is made of.
        let valid = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if name.is_empty() || !name.chars().all(valid) {
            let hint = "it is letters, digits and hyphens, such as x-environment";
            checks.key_error(&path, format!("`{name}` is not a header's name"), hint);
            continue;
        }
        if OWN.contains(&lower.as_str()) || lower.starts_with("sec-websocket-") {
            let hint = "Host and Origin follow `url`; the others belong to the protocol: remove it";
            checks.key_error(&path, format!("`{name}` is set by faultlane itself"), hint);
            continue;
        }
        let Some(value) = secret_text(checks, &path, name, value, around) else {
            continue;
        };
        if value.chars().any(char::is_control) {
            let hint = "it is one line; look for a line break at the end of the variable";
            checks.error(
                &path,
                format!("the value of `{name}` holds a control character"),
                hint,
            );
            continue;
        }
        resolved.push((name.clone(), value));
    }
    resolved
}
