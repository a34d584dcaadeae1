//! A target as those who speak to it know it: where a lane is, how it is spoken to, and what it promises.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::Lane;
use crate::quantity::Span;

mod tokens;

pub use tokens::{PLACEHOLDERS, Secret, TokenAsk, TokenEndpoint, TokenService, TokenSupply};

/// How a lane is reached and spoken to.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Where fleet clients connect (a proxy).
    pub endpoint: SocketAddr,
    /// Where publishers, probes and the final reader connect (the lane itself).
    pub direct: SocketAddr,
    /// What `Host` and SNI say, such as `sync.example.com`; the address that is dialled where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// What stands before the lane's own paths, such as `/staging`; empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path_prefix: String,
    /// Further headers of every request and upgrade.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// TLS towards the lane; plain TCP where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsClient>,
    /// TLS towards `endpoint`, where a proxy terminates it with a certificate of its own; as `tls` where nothing is
    /// said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_tls: Option<TlsClient>,
    /// How messages are encoded, on a lane that has a choice.
    #[serde(default)]
    pub wire: Wire,
    /// What things are called in the lane's database, on a lane that has one.
    #[serde(default)]
    pub names: Names,
    /// Where events are appended, below `path_prefix`, on a lane without a database; the lane's own path where nothing is
    /// said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub append_path: Option<String>,
    /// Where a stream's head is asked for, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_path: Option<String>,
    /// How what was published is removed again, where others publish too.
    #[serde(default)]
    pub removal: Removal,
}

impl Access {
    /// A lane in plain text at these addresses, with the sync module's own names.
    #[must_use]
    pub fn plain(endpoint: SocketAddr, direct: SocketAddr) -> Self {
        Self {
            endpoint,
            direct,
            authority: None,
            path_prefix: String::new(),
            headers: Vec::new(),
            tls: None,
            endpoint_tls: None,
            wire: Wire::default(),
            names: Names::default(),
            append_path: None,
            head_path: None,
            removal: Removal::default(),
        }
    }
}

/// How a lane is asked to remove events by their idempotency keys, with the publisher's secret as bearer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Removal {
    /// It is not: they stay.
    #[default]
    Nothing,
    /// `DELETE FROM` the table of events, by SQL over HTTP: on a real `SpacetimeDB` the database's owner may do that.
    Sql,
    /// A reducer whose one argument is the list of the keys.
    Reducer(String),
    /// `POST` to that path with `{stream_id, idempotency_keys}`.
    Path(String),
}

/// TLS as a client of a lane speaks it. PEM texts, not paths: who reads the files is not who connects.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TlsClient {
    /// Certificates of the authorities that are trusted; the system's where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
    /// The client's own certificate chain and private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<TlsIdentity>,
}

/// A certificate chain with its private key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsIdentity {
    /// The chain, the leaf first.
    pub chain_pem: String,
    /// The leaf's private key. Never logged.
    pub key_pem: String,
}

// By hand: headers carry credentials.
impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Access")
            .field("endpoint", &self.endpoint)
            .field("direct", &self.direct)
            .field("authority", &self.authority)
            .field("path_prefix", &self.path_prefix)
            .field("header_names", &names)
            .field("tls", &self.tls)
            .field("endpoint_tls", &self.endpoint_tls)
            .field("wire", &self.wire)
            .field("names", &self.names)
            .field("append_path", &self.append_path)
            .field("head_path", &self.head_path)
            .field("removal", &self.removal)
            .finish()
    }
}

// By hand: a derived form would print the private key wherever a configuration is printed.
impl std::fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsClient")
            .field("private_ca", &self.ca_pem.is_some())
            .field("identity", &self.identity)
            .finish()
    }
}

impl std::fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsIdentity").finish_non_exhaustive()
    }
}

/// How `SpacetimeDB` messages are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Wire {
    /// `v1.json.spacetimedb`: text.
    #[default]
    Json,
    /// `v1.bsatn.spacetimedb`: binary.
    Bsatn,
}

impl Wire {
    /// Whether it is the one that is spoken where nobody chooses: plans leave it out.
    #[must_use]
    pub const fn is_json(&self) -> bool {
        matches!(self, Self::Json)
    }
}

/// What things are called in a lane's database, and how its publish reducer is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// The database's name or identity in URLs.
    pub database: String,
    /// The table of events, its columns in the order of its definition.
    pub events: Table<EventColumn>,
    /// The table of heads.
    pub heads: Table<HeadColumn>,
    /// The reducer that appends an event.
    pub publish: String,
    /// Its arguments in order.
    pub arguments: Vec<Argument>,
}

/// A table's name and columns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table<C> {
    /// Its name.
    pub name: String,
    /// Its columns, all of them, in the order of its definition.
    pub columns: Vec<Column<C>>,
}

/// A column: what it is called and what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column<C> {
    /// Its name.
    pub name: String,
    /// What it means to a drill; `None` for one that a drill has no use for.
    pub holds: Option<C>,
    /// Its type.
    pub kind: ColumnKind,
}

/// The types of columns that are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ColumnKind {
    /// A text.
    String,
    /// An unsigned integer of 64 bits.
    U64,
    /// A truth value.
    Bool,
}

/// What a column of the events' table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventColumn {
    /// The stream's name.
    StreamId,
    /// The place in the stream, from 1.
    Seq,
    /// The idempotency key.
    IdempotencyKey,
    /// `sha256:<hex>` of the payload.
    PayloadHash,
    /// The payload as canonical JSON.
    PayloadJson,
}

/// What a column of the heads' table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HeadColumn {
    /// The stream's name.
    StreamId,
    /// Its newest seq.
    HeadSeq,
}

/// An argument of the publish reducer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Argument {
    /// The stream's name.
    StreamId,
    /// The seq that the event is to have.
    Seq,
    /// The idempotency key.
    IdempotencyKey,
    /// `sha256:<hex>` of the payload.
    PayloadHash,
    /// The payload as canonical JSON.
    PayloadJson,
    /// Milli-seconds since the Unix epoch.
    CommittedAtUnixMs,
    /// The seq again: what the publisher considers durable.
    DurableOffset,
    /// Always true.
    ConfirmedRead,
    /// The seq that has to be next, or the call fails with `sequence_conflict`.
    ExpectedNextSeq,
}

impl Default for Names {
    /// Those of the sync module in `deploy/spacetimedb`.
    fn default() -> Self {
        use ColumnKind::{Bool, String, U64};
        fn column<C>(name: &str, holds: Option<C>, kind: ColumnKind) -> Column<C> {
            Column {
                name: name.to_owned(),
                holds,
                kind,
            }
        }
        Self {
            database: "sync".to_owned(),
            events: Table {
                name: "sync_event".to_owned(),
                columns: vec![
                    column("stream_id", Some(EventColumn::StreamId), String),
                    column("seq", Some(EventColumn::Seq), U64),
                    column("idempotency_key", Some(EventColumn::IdempotencyKey), String),
                    column("payload_hash", Some(EventColumn::PayloadHash), String),
                    column("payload_json", Some(EventColumn::PayloadJson), String),
                    column("committed_at_unix_ms", None, U64),
                    column("durable_offset", None, U64),
                    column("confirmed_read", None, Bool),
                ],
            },
            heads: Table {
                name: "stream_head".to_owned(),
                columns: vec![
                    column("stream_id", Some(HeadColumn::StreamId), String),
                    column("head_seq", Some(HeadColumn::HeadSeq), U64),
                    column("updated_at_unix_ms", None, U64),
                ],
            },
            publish: "append_sync_event".to_owned(),
            arguments: vec![
                Argument::StreamId,
                Argument::Seq,
                Argument::IdempotencyKey,
                Argument::PayloadHash,
                Argument::PayloadJson,
                Argument::CommittedAtUnixMs,
                Argument::DurableOffset,
                Argument::ConfirmedRead,
            ],
        }
    }
}

/// Which target is drilled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The built-in lane servers.
    #[default]
    Embedded,
    /// A real `SpacetimeDB` server that the drill starts.
    Spacetimedb,
    /// A service of somebody's own, as a target file describes it.
    Described,
}

impl Kind {
    /// Those that a drill can start by itself.
    pub const ALL: [Self; 2] = [Self::Embedded, Self::Spacetimedb];

    /// The lanes that it has, in the order in which results list them.
    #[must_use]
    pub const fn lanes(self) -> &'static [Lane] {
        match self {
            Self::Embedded | Self::Described => &Lane::ALL,
            Self::Spacetimedb => &[Lane::Spacetime],
        }
    }

    /// The name on the command line and in results.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Spacetimedb => "spacetimedb",
            Self::Described => "described",
        }
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| {
                format!("unknown target `{text}`; the targets are embedded and spacetimedb")
            })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a target says of itself, and is held to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// What becomes of a connection whose token expires.
    pub expiry_enforcement: ExpiryEnforcement,
    /// How long past `exp` a token is still accepted.
    pub token_skew: Span,
    /// What an acknowledgement is worth.
    pub acknowledged: Durability,
    /// Whether only this run publishes to its streams.
    pub world: World,
    /// Whether the lane looks at a token's scopes and streams.
    pub authorization: Authorization,
    /// What it looks at in a token besides its signature and `exp`.
    #[serde(default)]
    pub token_checks: TokenChecks,
}

impl Promise {
    /// The strictest: what the embedded target keeps.
    #[must_use]
    pub const fn strict(token_skew: Span) -> Self {
        Self {
            expiry_enforcement: ExpiryEnforcement::Live,
            token_skew,
            acknowledged: Durability::Durable,
            world: World::Closed,
            authorization: Authorization::Enforced,
            token_checks: TokenChecks::STRICT,
        }
    }

    /// What a `SpacetimeDB` 1.3.0 server with the sync module is known to keep: it writes to disk every 500 ms and
    /// answers before that, looks at a token once and with a leeway of a minute, and its module asks nobody what they
    /// may do.
    #[must_use]
    pub const fn spacetimedb() -> Self {
        Self {
            expiry_enforcement: ExpiryEnforcement::AtConnect,
            token_skew: Span::from_secs(60),
            acknowledged: Durability::Within(Span::from_millis(500)),
            world: World::Closed,
            authorization: Authorization::None,
            token_checks: TokenChecks::NONE,
        }
    }
}

/// The oldest token that the embedded lanes take.
pub const MAX_TOKEN_AGE: Span = Span::from_secs(3_600);

/// What a lane looks at in a token besides its signature and `exp`. What it does not look at is declared, not found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenChecks {
    /// It refuses a token before its `nbf`, less [`TokenChecks::NBF_SKEW`].
    pub not_before: bool,
    /// It refuses a token that its issuer has revoked.
    pub revocation: bool,
    /// It refuses a token whose `iat` is longer ago than this; `None` for a lane that takes any.
    pub max_age: Option<Span>,
}

impl TokenChecks {
    /// How far in the future `iat` and `nbf` may lie.
    pub const NBF_SKEW: Span = Span::from_secs(30);

    /// All of them: what the embedded target does.
    pub const STRICT: Self = Self {
        not_before: true,
        revocation: true,
        max_age: Some(MAX_TOKEN_AGE),
    };

    /// None of them: what a real `SpacetimeDB` 1.3 does.
    pub const NONE: Self = Self {
        not_before: false,
        revocation: false,
        max_age: None,
    };
}

impl Default for TokenChecks {
    fn default() -> Self {
        Self::STRICT
    }
}

/// What becomes of a connection whose token expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExpiryEnforcement {
    /// It is closed, and nothing that is published later reaches it.
    Live,
    /// It lives on; only a new one is refused.
    AtConnect,
}

/// What an acknowledgement is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// The event survives whatever happens to a node.
    Durable,
    /// The event survives what happens to a node so long after the acknowledgement.
    Within(Span),
}

impl Durability {
    /// From so long after its acknowledgement on an event must survive.
    #[must_use]
    pub const fn after(self) -> Span {
        match self {
            Self::Durable => Span::ZERO,
            Self::Within(window) => window,
        }
    }
}

/// Whether only this run publishes to its streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum World {
    /// It does: whatever else is found there is a phantom.
    #[default]
    Closed,
    /// Others do too (shared staging): only events that bear this run's mark are judged.
    Open,
}

/// Whether a lane looks at a token's scopes and streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Authorization {
    /// A token opens what it was granted and nothing else.
    Enforced,
    /// Any valid token opens everything: that is declared, not found.
    None,
}
