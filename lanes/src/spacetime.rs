//! The spacetime lane's wire: `SpacetimeDB`'s `v1.json.spacetimedb` WebSocket messages, the sync module's rows and
//! the subset of SQL that subscriptions use. Client and embedded server share these types; golden frames of a real
//! server pin them.
//!
//! ```text
//! message   what client and server send          rows    the tables of the sync module
//! query     SELECT * FROM t WHERE …, both ways
//! ```

pub mod message;
pub mod query;
pub mod rows;

/// The subprotocol that is spoken here; the server must echo it.
pub const SUBPROTOCOL: &str = "v1.json.spacetimedb";

/// The reducer that appends an event. Its arguments are the columns of `sync_event` in order.
pub const APPEND_REDUCER: &str = "append_sync_event";

/// The reducer that stores a checkpoint. Its arguments are the columns of `stream_checkpoint` in order.
pub const CHECKPOINT_REDUCER: &str = "ack_stream_checkpoint";

/// The status of a call whose reducer failed; the body is the reducer's text.
pub const STATUS_REDUCER_FAILED: u16 = 530;

/// The path of the subscription endpoint.
#[must_use]
pub fn subscribe_path(database: &str) -> String {
    format!("/v1/database/{database}/subscribe")
}

/// The path of a reducer call: `POST` a JSON array with `Content-Type: application/json`.
#[must_use]
pub fn call_path(database: &str, reducer: &str) -> String {
    format!("/v1/database/{database}/call/{reducer}")
}

/// The path of SQL queries: `POST` one statement as text.
#[must_use]
pub fn sql_path(database: &str) -> String {
    format!("/v1/database/{database}/sql")
}
