//! External probes as a plan has them. Headers keep their `${NAME}`: a plan is evidence, and secrets are no part of it.

use std::collections::BTreeMap;
use std::fmt;

use model::external::ProbeRule;
use model::quantity::Span;
use model::target::TlsClient;
use serde::{Deserialize, Serialize};

use crate::target::address::Url;
use crate::target::secrets;

/// A probe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// What results call it.
    pub name: String,
    /// What is asked.
    pub ask: Ask,
    /// How often.
    pub every: Span,
    /// How long an answer is waited for.
    pub within: Span,
    /// What follows from it.
    pub rule: Rule,
}

/// What follows from a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// While it fails the system is not steady.
    Steady,
    /// The trial is ended, as failed …
    Abort {
        /// … when it has failed for so long, every time that it was asked …
        lasting: Span,
        /// … at any time, and not only after the last heal.
        always: bool,
    },
}

impl Rule {
    /// Its name in results.
    #[must_use]
    pub const fn kind(self) -> ProbeRule {
        match self {
            Self::Steady => ProbeRule::Steady,
            Self::Abort { always: false, .. } => ProbeRule::Abort,
            Self::Abort { always: true, .. } => ProbeRule::AbortAlways,
        }
    }
}

/// What a probe asks, and which answer is good.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// `GET` of a URL.
    Http(HttpAsk),
    /// An instant query.
    Promql(PromqlAsk),
    /// A command of the agent's own configuration.
    Command(CommandAsk),
}

/// `GET` of a URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpAsk {
    /// Where.
    pub web: Web,
    /// The status that is good; any 2xx where there is none.
    pub status: Option<u16>,
    /// What the body has to contain.
    pub contains: Option<String>,
}

/// An instant query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PromqlAsk {
    /// The server.
    pub web: Web,
    /// The query.
    pub query: String,
    /// What its number has to be above.
    pub above: Option<f64>,
    /// What its number has to be below.
    pub below: Option<f64>,
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandAsk {
    /// Its name.
    pub run: String,
    /// What its stdout has to contain.
    pub contains: Option<String>,
}

/// A web server as a scenario names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Web {
    /// Its URL.
    pub url: String,
    /// Headers, with their `${NAME}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Authorities that are trusted instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
}

/// A web server as it is reached. It holds secrets, and therefore has no debug form.
pub struct Reachable {
    /// `host:port` to connect to.
    pub dial: String,
    /// What Host and SNI say.
    pub authority: String,
    /// The path with its query, from `/`.
    pub path: String,
    /// Headers, environment variables filled in.
    pub headers: Vec<(String, String)>,
    /// TLS; plain TCP where there is none.
    pub tls: Option<TlsClient>,
    /// What the environment variables held: not to be repeated.
    pub secrets: Vec<String>,
}

impl Web {
    /// Fills in the environment variables.
    ///
    /// # Errors
    /// One of them is not set any more.
    pub fn reach(&self, variable: &dyn Fn(&str) -> Option<String>) -> Result<Reachable, String> {
        let told = |(message, hint): (String, String)| format!("{message}; {hint}");
        let url = Url::read(&self.url, &["https", "http"], true).map_err(told)?;
        let held = std::cell::RefCell::new(Vec::new());
        let noting = |name: &str| {
            let value = variable(name);
            held.borrow_mut().extend(value.clone());
            value
        };
        let headers = self.headers.iter().map(|(name, value)| {
            let value = secrets::expand(value, &noting).map_err(told)?;
            Ok((name.clone(), value))
        });
        let headers = headers.collect::<Result<_, String>>()?;
        Ok(Reachable {
            dial: url.dial(),
            path: url.request_path(),
            headers,
            tls: url.secure.then(|| TlsClient {
                ca_pem: self.ca_pem.clone(),
                identity: None,
            }),
            authority: url.authority,
            secrets: held.into_inner(),
        })
    }
}

impl fmt::Display for Ask {
    /// `GET http://127.0.0.1:9000/healthz`, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(http) => write!(f, "GET {}", http.web.url),
            Self::Promql(promql) => {
                let words: Vec<&str> = promql.query.split_whitespace().collect();
                write!(f, "PromQL {} at {}", words.join(" "), promql.web.url)
            }
            Self::Command(command) => write!(f, "command {}", command.run),
        }
    }
}

impl Ask {
    /// Which answer is good: `200, and a body that contains "ok"`.
    #[must_use]
    pub fn wanted(&self) -> String {
        let containing = |lead: String, what: &str, text: Option<&String>| match text {
            Some(text) => format!("{lead}, and {what} that contains {text:?}"),
            None => lead,
        };
        match self {
            Self::Http(http) => {
                let status = http
                    .status
                    .map_or("2xx".to_owned(), |status| status.to_string());
                containing(status, "a body", http.contains.as_ref())
            }
            Self::Promql(promql) => {
                let above = promql.above.map(|limit| format!("above {limit}"));
                let below = promql.below.map(|limit| format!("below {limit}"));
                let limits: Vec<_> = above.into_iter().chain(below).collect();
                limits.join(" and ")
            }
            Self::Command(command) => {
                containing("exit 0".to_owned(), "stdout", command.contains.as_ref())
            }
        }
    }
}
