//! External probes: what a scenario asks beside the lane, of the service as its owners watch it.

use std::collections::BTreeMap;

use model::quantity::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Unless a probe says otherwise, it is asked once in so long …
const EVERY: Span = Span::from_secs(1);
/// … and waited for no longer than this, nor than until it is asked again.
const WITHIN: Span = Span::from_secs(2);

/// A probe that has to be good for the system to count as steady. It asks exactly one of `http`, `promql` and `command`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// What results call it: lower-case letters, digits and hyphens.
    #[schemars(regex(pattern = r"^[a-z0-9][a-z0-9-]*$"), length(max = 64))]
    pub name: String,
    /// An HTTP endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpProbe>,
    /// An instant query of a Prometheus server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promql: Option<PromqlProbe>,
    /// A command of the agent's own configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandProbe>,
    /// It is asked so often; never again before it has answered.
    #[serde(default = "every")]
    pub every: Span,
    /// Without an answer after this time it has failed. At most `every`, which it is where nothing is said, but no more
    /// than 2s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Span>,
}

/// A probe that ends a trial when it fails for long. It asks exactly one of `http`, `promql` and `command`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AbortProbe {
    /// What results call it: lower-case letters, digits and hyphens.
    #[schemars(regex(pattern = r"^[a-z0-9][a-z0-9-]*$"), length(max = 64))]
    pub name: String,
    /// An HTTP endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpProbe>,
    /// An instant query of a Prometheus server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promql: Option<PromqlProbe>,
    /// A command of the agent's own configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandProbe>,
    /// It is asked so often; never again before it has answered.
    #[serde(default = "every")]
    pub every: Span,
    /// Without an answer after this time it has failed. At most `every`, which it is where nothing is said, but no more
    /// than 2s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Span>,
    /// The trial ends when it has failed for so long, every time that it was asked.
    pub lasting: Span,
    /// Whether that counts at any time, and not only after the last heal.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub always: bool,
}

const fn every() -> Span {
    EVERY
}

impl Probe {
    /// How long an answer is waited for.
    #[must_use]
    pub fn patience(&self) -> Span {
        self.within.unwrap_or_else(|| WITHIN.min(self.every))
    }
}

impl AbortProbe {
    /// What it asks, apart from what follows.
    #[must_use]
    pub fn probe(&self) -> Probe {
        Probe {
            name: self.name.clone(),
            http: self.http.clone(),
            promql: self.promql.clone(),
            command: self.command.clone(),
            every: self.every,
            within: self.within,
        }
    }
}

/// `GET` of a URL. At least one of `status` and `contains`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpProbe {
    /// `http://` or `https://`.
    pub url: String,
    /// The status that is good; any 2xx where nothing is said. Redirects are not followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 200, max = 599))]
    pub status: Option<u16>,
    /// What the body has to contain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
    /// Authorities that are trusted instead of the system's: a PEM file, seen from the scenario's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Headers. `${NAME}` is replaced by that environment variable when the probe is asked.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

/// An instant query that has to yield one number. At least one of `above` and `below`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PromqlProbe {
    /// The server's base URL, without `/api/v1`.
    pub url: String,
    /// The query: it yields a scalar, or a vector of exactly one sample.
    pub query: String,
    /// The number has to be above this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above: Option<f64>,
    /// The number has to be below this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<f64>,
    /// Authorities that are trusted instead of the system's: a PEM file, seen from the scenario's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Headers. `${NAME}` is replaced by that environment variable when the probe is asked.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

/// A command that has to exit with 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandProbe {
    /// Its name in the agent's own configuration.
    pub run: String,
    /// What its stdout has to contain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
}
