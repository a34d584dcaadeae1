//! The language: what can be written in a target file. docs/targets.md explains it with examples.

use std::collections::BTreeMap;

use model::probe::{Operation, Outcome, StaleStream};
use model::quantity::{Share, Span};
use model::target::{
    Argument, Authorization, ColumnKind, EventColumn, ExpiryEnforcement, HeadColumn, TokenChecks,
    Wire, World,
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::either::{Acknowledged, StreamNames, TokenFiles};
use crate::scenario::ProfileChanges;

/// A system under drill: how it is reached, where tokens come from, what it promises, and the limits of its gates.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("required" = ["name", "lanes", "tokens", "streams", "promise", "limits"]))]
pub struct TargetFile {
    /// Lower-case letters, digits and hyphens: it names the target in the evidence.
    #[schemars(regex(pattern = r"^[a-z0-9][a-z0-9-]*$"), length(max = 64))]
    pub name: String,
    /// What it is, in a sentence or two.
    #[serde(default)]
    pub about: String,
    /// Its lanes: at least one.
    pub lanes: Lanes,
    /// Where tokens come from.
    pub tokens: Tokens,
    /// The streams that may be published to.
    pub streams: StreamNames,
    /// Organisations whose streams must stay closed to each other; at least two, or none.
    #[serde(default)]
    pub tenants: Vec<TenantEntry>,
    /// Its nodes and their agents. Without any, node faults are refused.
    #[serde(default)]
    pub nodes: Vec<NodeEntry>,
    /// What it promises, and is held to.
    #[serde(default)]
    pub promise: PromiseEntry,
    /// What is tried that has to be refused, and where.
    #[serde(default)]
    pub probes: ProbesEntry,
    /// What its gates judge by.
    #[serde(default)]
    pub limits: LimitsEntry,
}

/// The lanes of a target: at least one.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lanes {
    /// `SpacetimeDB` subscriptions.
    #[serde(default)]
    pub spacetime: Option<SpacetimeEntry>,
    /// The legacy lane with Phoenix frames.
    #[serde(default)]
    pub khala: Option<KhalaEntry>,
}

macro_rules! lane_entry {
    ($(#[doc = $about:literal])+ $name:ident { $($(#[doc = $doc:literal])+ $field:ident: $type:ty,)* }) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// `ws://`, `wss://`, `http://` or `https://`: what Host, Origin and SNI say. Its path stands before the
            /// lane's own paths.
            pub url: String,
            /// `host:port` to connect to, where that is not what the URL says.
            #[serde(default)]
            pub dial: Option<String>,
            /// Certificates; the system's roots where there are none.
            #[serde(default)]
            pub tls: Option<TlsEntry>,
            /// Further headers of every request. `${NAME}` is replaced by that environment variable.
            #[serde(default)]
            pub headers: BTreeMap<String, String>,
            $($(#[doc = $doc])+ #[serde(default)] pub $field: $type,)*
        }
    };
}

lane_entry! {
    /// How the spacetime lane is reached and spoken to.
    SpacetimeEntry {
        /// How messages are encoded.
        wire: Wire,
        /// The database's name or identity.
        database: Option<String>,
        /// The table of events; the sync module's where nothing is said.
        events: Option<TableEntry<EventColumn>>,
        /// The table of heads; the sync module's where nothing is said.
        heads: Option<TableEntry<HeadColumn>>,
        /// How an event is appended; as in the sync module where nothing is said.
        publish: ReducerEntry,
        /// How a drill's events are removed again; to be said where others publish too.
        clean_up: Option<SpacetimeCleanUp>,
    }
}

lane_entry! {
    /// How the khala lane is reached and spoken to.
    KhalaEntry {
        /// How an event is appended.
        publish: IngressEntry,
        /// How a drill's events are removed again; to be said where others publish too.
        clean_up: Option<KhalaCleanUp>,
    }
}

/// Certificates, as PEM files. A relative path starts at the target file's folder.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TlsEntry {
    /// Authorities that are trusted instead of the system's.
    pub ca: Option<String>,
    /// The client's own certificate chain.
    pub certificate: Option<String>,
    /// Its private key.
    pub key: Option<String>,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TableEntry<C> {
    /// Its name.
    pub table: String,
    /// Its columns, all of them, in the order of its definition; the sync module's where nothing is said.
    pub columns: Option<Vec<ColumnEntry<C>>>,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ColumnEntry<C> {
    /// Its name.
    pub name: String,
    /// What it means to a drill; left out for a column that a drill has no use for.
    pub holds: Option<C>,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: ColumnKind,
}

/// The reducer that appends an event.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReducerEntry {
    /// Its name.
    pub reducer: Option<String>,
    /// Its arguments in order.
    pub arguments: Option<Vec<Argument>>,
    /// What publishers present as `Authorization: Bearer`; write `${NAME}`.
    pub secret: Option<String>,
}

/// The HTTP call that appends an event.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IngressEntry {
    /// Its path below the lane's URL.
    pub path: Option<String>,
    /// The path of the call that tells a stream's head, with `?stream_id=…`.
    pub head: Option<String>,
    /// What publishers present as `Authorization: Bearer`; write `${NAME}`.
    pub secret: Option<String>,
}

/// How events are removed from the spacetime lane, with `publish.secret` as bearer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SpacetimeCleanUp {
    /// They stay.
    None,
    /// `DELETE FROM` the table of events, which on a real server only the database's owner may do.
    Sql,
    /// A reducer whose one argument is the list of their idempotency keys.
    Reducer(String),
}

/// How events are removed from the khala lane, with `publish.secret` as bearer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KhalaCleanUp {
    /// They stay.
    None,
    /// `POST` to that path below the lane's URL, with `{stream_id, idempotency_keys}`.
    Path(String),
}

/// Where tokens come from: exactly one of `service`, `http`, `command` and `files`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tokens {
    /// The embedded token service, which the target trusts as an issuer.
    pub service: Option<ServiceEntry>,
    /// An HTTP endpoint.
    pub http: Option<EndpointEntry>,
    /// The name of a command in the agent's own configuration.
    pub command: Option<String>,
    /// Files that hold a token each, or a folder of them.
    pub files: Option<TokenFiles>,
    /// How many distinct identities there are; one a client where nothing is said, one a file with `files`.
    #[schemars(range(min = 1))]
    pub identities: Option<u32>,
}

/// The embedded token service: one that runs already, or with nothing said one that the drill starts.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServiceEntry {
    /// Where it runs: `http://`.
    pub url: Option<String>,
    /// Its `--session-secret`; write `${NAME}`.
    pub session_secret: Option<String>,
}

/// An HTTP endpoint that issues tokens.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointEntry {
    /// `http://` or `https://`.
    pub url: String,
    /// Authorities that are trusted instead of the system's: a PEM file.
    #[serde(default)]
    pub ca: Option<String>,
    /// The method.
    #[serde(default = "post")]
    pub method: String,
    /// Headers. `${NAME}` is replaced by that environment variable.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body, with `{identity}`, `{tenant}`, `{streams}`, `{scopes}` and `{ttl_seconds}`.
    #[serde(default)]
    pub body: String,
    /// Where the token is in the answer, such as `data.token`.
    pub token_field: String,
    /// Where the answer says when the token expires, in seconds since the Unix epoch; the token's own `exp` where
    /// nothing is said.
    #[serde(default)]
    pub expires_field: Option<String>,
}

fn post() -> String {
    "POST".to_owned()
}

/// An organisation and a stream of its own, the canary: no other organisation's token may open it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantEntry {
    /// Its name, as `{tenant}` says it to the token endpoint.
    pub name: String,
    /// Its stream.
    pub stream: String,
}

/// A node and its agent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeEntry {
    /// What scenarios call it.
    pub name: String,
    /// Where its agent answers.
    pub agent: String,
}

/// What a target promises, and is held to. All but `profile` are required.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["expiry_enforcement", "skew", "acknowledged", "world", "authorization"]))]
pub struct PromiseEntry {
    /// What becomes of a connection whose token expires.
    pub expiry_enforcement: Option<ExpiryEnforcement>,
    /// How long past its expiry a token is still accepted.
    pub skew: Option<Span>,
    /// What an acknowledgement is worth: `durable`, or `within 500ms`.
    pub acknowledged: Option<Acknowledged>,
    /// Whether only this run publishes to its streams.
    pub world: Option<World>,
    /// Whether the lane looks at a token's scopes and streams.
    pub authorization: Option<Authorization>,
    /// What the lane looks at in a token besides its signature and `exp`; all of it where nothing is said.
    pub token_checks: TokenChecks,
    /// Clocks and budgets that differ from the field's own.
    pub profile: ProfileChanges,
}

/// Clients that have to be refused, and clients that resume from stale cursors.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProbesEntry {
    /// A stream with small budgets, on which cursors are tried; without one they are not.
    pub stale: Option<StaleStream>,
    /// What is tried with a token. Where nothing is said: everything on the spacetime lane, and all but `append` and
    /// `read` on the khala lane, where only publishers call over HTTP.
    pub operations: Option<Vec<Operation>>,
    /// What has to come of a probe, by its name, where that is not what follows from `promise`.
    pub expect: BTreeMap<String, Outcome>,
}

/// What gates judge by. All are required: none has a number that would suit every service.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["migration_buffer", "storm_target", "fallback_threshold", "rollback_slo"]))]
pub struct LimitsEntry {
    /// By how much p95 delivery latency may exceed that before the cutover.
    pub migration_buffer: Option<Span>,
    /// Within which time the fleet has to be whole after a reconnect storm.
    pub storm_target: Option<Span>,
    /// The largest share of clients that may use the legacy lane as a fallback.
    pub fallback_threshold: Option<Share>,
    /// Within which time a rollback has to be complete.
    pub rollback_slo: Option<Span>,
}
