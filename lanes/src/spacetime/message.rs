//! The messages, which both wires share: here with their JSON form (`v1.json.spacetimedb`), in [`super::bsatn`] with
//! their binary one. Field order is the real server's, so that what is encoded here is what it would have sent, byte
//! for byte.

use model::target::Wire;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::bsatn::BsatnError;
use super::rows::{Row, RowError, Table};
use crate::frame::Frame;

/// Why a frame is not a message.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// A text is not one.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// A binary message is not one.
    #[error(transparent)]
    Bsatn(#[from] BsatnError),
}

/// A row, or the arguments of a call, as its message has it: a wire carries either kind within its own messages only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encoded {
    /// JSON, which travels as a text within the text.
    Text(String),
    /// BSATN.
    Binary(Vec<u8>),
}

impl Encoded {
    /// The bytes of either.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// The text; `None` for BSATN.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Binary(_) => None,
        }
    }
}

impl Serialize for Encoded {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            // As SATS writes bytes into JSON, though no JSON message has any here.
            Self::Binary(bytes) => serializer.serialize_str(&model::event::hex(bytes)),
        }
    }
}

impl<'de> Deserialize<'de> for Encoded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::Text)
    }
}

/// What a client sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientMessage {
    /// Calls a reducer. A failed call is answered with `request_id` 0, so that answers are matched by order.
    CallReducer {
        /// The reducer's name.
        reducer: String,
        /// The arguments: a JSON array, or a BSATN product.
        args: Encoded,
        /// Comes back in the answer of a call that committed.
        request_id: u32,
        /// 0 for an answer to every call.
        flags: u8,
    },
    /// Replaces all subscriptions made by this (the legacy) message.
    Subscribe {
        /// The queries.
        query_strings: Vec<String>,
        /// Comes back in the answer.
        request_id: u32,
    },
    /// A query without a subscription.
    OneOffQuery {
        /// Comes back in the answer, there in hexadecimal.
        message_id: MessageId,
        /// The query.
        query_string: String,
    },
    /// Adds one query.
    SubscribeSingle {
        /// The query.
        query: String,
        /// Comes back in the answer.
        request_id: u32,
        /// By which it is unsubscribed.
        query_id: QueryId,
    },
    /// Adds a set of queries.
    SubscribeMulti {
        /// The queries.
        query_strings: Vec<String>,
        /// Comes back in the answer.
        request_id: u32,
        /// By which it is unsubscribed.
        query_id: QueryId,
    },
    /// Ends a `SubscribeSingle`.
    Unsubscribe {
        /// Comes back in the answer.
        request_id: u32,
        /// The subscription.
        query_id: QueryId,
    },
    /// Ends a `SubscribeMulti`.
    UnsubscribeMulti {
        /// Comes back in the answer.
        request_id: u32,
        /// The subscription.
        query_id: QueryId,
    },
}

impl ClientMessage {
    /// The message as JSON text.
    #[must_use]
    pub fn encode(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers have a JSON form")
    }

    /// Reads a message.
    ///
    /// # Errors
    /// The text is not one.
    pub fn decode(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The message as a wire has it.
    #[must_use]
    pub fn frame(&self, wire: Wire) -> Frame<'static> {
        match wire {
            Wire::Json => self.encode().into(),
            Wire::Bsatn => self.to_bsatn().into(),
        }
    }

    /// Reads a message of either wire.
    ///
    /// # Errors
    /// The frame is not one.
    pub fn of(frame: &Frame<'_>) -> Result<Self, MessageError> {
        Ok(match frame {
            Frame::Text(text) => Self::decode(text)?,
            Frame::Binary(bytes) => Self::from_bsatn(bytes)?,
        })
    }
}

/// What a server sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerMessage {
    /// The first message on every connection.
    IdentityToken(IdentityToken),
    /// The answer to `Subscribe`.
    InitialSubscription(InitialSubscription),
    /// A transaction that changed subscribed rows, or the answer to a call.
    TransactionUpdate(TransactionUpdate),
    /// The same with `?light=true`.
    TransactionUpdateLight(TransactionUpdateLight),
    /// The answer to `OneOffQuery`.
    OneOffQueryResponse(OneOffQueryResponse),
    /// The answer to `SubscribeSingle`.
    SubscribeApplied(QueryApplied),
    /// The answer to `Unsubscribe`: the rows that are no longer subscribed to, as deletes.
    UnsubscribeApplied(QueryApplied),
    /// The answer to `SubscribeMulti`.
    SubscribeMultiApplied(MultiApplied),
    /// The answer to `UnsubscribeMulti`: the rows that are no longer subscribed to, as deletes.
    UnsubscribeMultiApplied(MultiApplied),
    /// A subscription was refused or broke.
    SubscriptionError(SubscriptionError),
}

impl ServerMessage {
    /// The message as JSON text.
    #[must_use]
    pub fn encode(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers have a JSON form")
    }

    /// Reads a message.
    ///
    /// # Errors
    /// The text is not one.
    pub fn decode(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The message as a wire has it.
    #[must_use]
    pub fn frame(&self, wire: Wire) -> Frame<'static> {
        match wire {
            Wire::Json => self.encode().into(),
            Wire::Bsatn => self.to_bsatn().into(),
        }
    }

    /// Reads a message of either wire.
    ///
    /// # Errors
    /// The frame is not one.
    pub fn of(frame: &Frame<'_>) -> Result<Self, MessageError> {
        Ok(match frame {
            Frame::Text(text) => Self::decode(text)?,
            Frame::Binary(bytes) => Self::from_bsatn(bytes)?,
        })
    }
}

/// Names a subscription within its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QueryId {
    /// The number.
    pub id: u32,
}

/// A message id: bytes, which requests carry as an array and answers as hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum MessageId {
    /// As requests have it.
    Bytes(Vec<u8>),
    /// As answers have it.
    Hex(String),
}

impl MessageId {
    /// The hexadecimal form.
    #[must_use]
    pub fn to_hex(&self) -> String {
        match self {
            Self::Bytes(bytes) => model::event::hex(bytes),
            Self::Hex(text) => text.clone(),
        }
    }

    /// The bytes; those of the text where it is not hexadecimal.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes.clone(),
            Self::Hex(text) => unhex(text).unwrap_or_else(|| text.as_bytes().to_vec()),
        }
    }
}

/// The bytes of hexadecimal digits.
fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => u8::try_from(digit(high)? << 4 | digit(low)?).ok(),
            _ => None,
        })
        .collect()
}

/// The option type of SATS: `{"some": …}` or `{"none": []}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Maybe<T> {
    /// A value.
    Some(T),
    /// None.
    None([(); 0]),
}

impl<T> Maybe<T> {
    /// None.
    pub const NONE: Self = Self::None([]);

    /// As an ordinary option.
    pub fn into_option(self) -> Option<T> {
        match self {
            Self::Some(value) => Some(value),
            Self::None([]) => None,
        }
    }
}

/// Who a connection is: `0x` and 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The text.
    #[serde(rename = "__identity__")]
    pub text: String,
}

impl Identity {
    /// The number of 256 bits that it is, little-endian; 0 for a text that is none.
    #[must_use]
    pub fn to_le_bytes(&self) -> [u8; 32] {
        let digits = self.text.strip_prefix("0x").unwrap_or(&self.text);
        let mut bytes: [u8; 32] = unhex(&format!("{digits:0>64}"))
            .and_then(|bytes| bytes.try_into().ok())
            .unwrap_or_default();
        bytes.reverse();
        bytes
    }

    /// The identity of that number.
    #[must_use]
    pub fn from_le_bytes(mut bytes: [u8; 32]) -> Self {
        bytes.reverse();
        Self {
            text: format!("0x{}", model::event::hex(&bytes)),
        }
    }
}

/// A connection's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionId {
    /// 128 bits, as a JSON integer.
    #[serde(rename = "__connection_id__")]
    pub number: u128,
}

/// Micro-seconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timestamp {
    /// The number.
    #[serde(rename = "__timestamp_micros_since_unix_epoch__")]
    pub micros: u64,
}

/// A duration in micro-seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TimeDuration {
    /// The number.
    #[serde(rename = "__time_duration_micros__")]
    pub micros: u64,
}

/// The first message on every connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityToken {
    /// Whom the token stands for.
    pub identity: Identity,
    /// The token.
    pub token: String,
    /// The connection.
    pub connection_id: ConnectionId,
}

/// Rows of one table that came and went by one query.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct QueryUpdate {
    /// Rows gone: see [`super::rows`].
    pub deletes: Vec<Encoded>,
    /// Rows come.
    pub inserts: Vec<Encoded>,
}

/// What happened to one table. Rows are unordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableUpdate {
    /// See [`Table::id`].
    pub table_id: u32,
    /// See [`Table::name`].
    pub table_name: String,
    /// Deletes and inserts together.
    pub num_rows: u64,
    /// One entry for each of the connection's queries that matched.
    pub updates: Vec<QueryUpdate>,
}

impl TableUpdate {
    /// An update with `num_rows` counted.
    #[must_use]
    pub fn new(table: Table, updates: Vec<QueryUpdate>) -> Self {
        let rows = updates
            .iter()
            .map(|update| update.deletes.len() + update.inserts.len())
            .sum::<usize>();
        Self {
            table_id: table.id(),
            table_name: table.name().to_owned(),
            num_rows: rows as u64,
            updates,
        }
    }
}

/// What happened to the tables of a database.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DatabaseUpdate {
    /// Tables that changed.
    pub tables: Vec<TableUpdate>,
}

impl DatabaseUpdate {
    /// The inserted rows of the sync module's tables, decoded; rows of other tables are left out.
    ///
    /// # Errors
    /// A row is not one of its table.
    pub fn inserted(&self) -> Result<Vec<Row>, RowError> {
        let mut rows = Vec::new();
        for update in &self.tables {
            let Some(table) = Table::named(&update.table_name) else {
                continue;
            };
            for row in update.updates.iter().flat_map(|query| &query.inserts) {
                rows.push(Row::decode(table, row)?);
            }
        }
        Ok(rows)
    }
}

/// The answer to `Subscribe`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitialSubscription {
    /// All rows that match.
    pub database_update: DatabaseUpdate,
    /// The request's.
    pub request_id: u32,
    /// How long it took.
    pub total_host_execution_duration: TimeDuration,
}

/// How a transaction ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdateStatus {
    /// It was committed; rows that this connection subscribes to.
    Committed(DatabaseUpdate),
    /// It failed with the reducer's text. Only its caller is told.
    Failed(String),
    /// The database has no energy left.
    OutOfEnergy([(); 0]),
}

/// The call behind a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReducerCall {
    /// The reducer; `<none>` for a legacy `Subscribe` that failed.
    pub reducer_name: String,
    /// Its number; `u32::MAX` for none.
    pub reducer_id: u32,
    /// The arguments as they came.
    pub args: Encoded,
    /// The request's; 0 for a call that failed.
    pub request_id: u32,
}

/// Energy, a real server's currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Energy {
    /// The amount.
    pub quanta: u128,
}

/// A transaction that changed subscribed rows, or the answer to a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionUpdate {
    /// How it ended.
    pub status: UpdateStatus,
    /// When.
    pub timestamp: Timestamp,
    /// Whose call it was.
    pub caller_identity: Identity,
    /// On which connection; 0 for a call over HTTP.
    pub caller_connection_id: ConnectionId,
    /// The call.
    pub reducer_call: ReducerCall,
    /// What it cost.
    pub energy_quanta_used: Energy,
    /// How long it took.
    pub total_host_execution_duration: TimeDuration,
}

/// A transaction as connections with `?light=true` are told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionUpdateLight {
    /// The request's.
    pub request_id: u32,
    /// Rows that this connection subscribes to.
    pub update: DatabaseUpdate,
}

/// Rows of one table as a one-off query finds them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneOffTable {
    /// The table.
    pub table_name: String,
    /// Its rows; in JSON with named columns.
    pub rows: Vec<Encoded>,
}

/// The answer to `OneOffQuery`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneOffQueryResponse {
    /// The request's, in hexadecimal.
    pub message_id: MessageId,
    /// What is wrong with the query.
    pub error: Maybe<String>,
    /// What it found.
    pub tables: Vec<OneOffTable>,
    /// How long it took.
    pub total_host_execution_duration: TimeDuration,
}

/// Rows of a single query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscribeRows {
    /// See [`Table::id`].
    pub table_id: u32,
    /// See [`Table::name`].
    pub table_name: String,
    /// The rows.
    pub table_rows: TableUpdate,
}

/// The answer to `SubscribeSingle` and `Unsubscribe`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryApplied {
    /// The request's.
    pub request_id: u32,
    /// How long it took.
    pub total_host_execution_duration_micros: u64,
    /// The subscription.
    pub query_id: QueryId,
    /// Its rows.
    pub rows: SubscribeRows,
}

/// The answer to `SubscribeMulti` and `UnsubscribeMulti`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MultiApplied {
    /// The request's.
    pub request_id: u32,
    /// How long it took.
    pub total_host_execution_duration_micros: u64,
    /// The subscription.
    pub query_id: QueryId,
    /// Its rows.
    pub update: DatabaseUpdate,
}

/// A subscription was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionError {
    /// How long it took.
    pub total_host_execution_duration_micros: u64,
    /// The request's.
    pub request_id: Maybe<u32>,
    /// The subscription.
    pub query_id: Maybe<u32>,
    /// The table, where it concerns one.
    pub table_id: Maybe<u32>,
    /// What is wrong.
    pub error: String,
}
