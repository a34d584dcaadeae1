//! The spacetime lane's wire: `SpacetimeDB`'s WebSocket messages as `v1.json.spacetimedb` and `v1.bsatn.spacetimedb`
//! encode them, the sync module's rows and the subset of SQL that subscriptions use. Client and embedded server share
//! these types; golden frames of a real server pin them.
//!
//! ```text
//! message   what client and server send, and JSON     bsatn   the same in binary
//! named     a target's tables, columns and arguments  rows    the tables of the sync module
//! query     SELECT * FROM t WHERE …, read and matched
//! ```

pub mod bsatn;
pub mod message;
pub mod named;
pub mod query;
pub mod rows;

use model::target::Wire;

/// The subprotocol of a wire; the server must echo it.
#[must_use]
pub const fn subprotocol(wire: Wire) -> &'static str {
    match wire {
        Wire::Json => "v1.json.spacetimedb",
        Wire::Bsatn => "v1.bsatn.spacetimedb",
    }
}

/// The reducer that appends an event. Its arguments are the columns of `sync_event` in order.
pub const APPEND_REDUCER: &str = "append_sync_event";

/// The reducer that stores a checkpoint. Its arguments are the columns of `stream_checkpoint` in order.
pub const CHECKPOINT_REDUCER: &str = "ack_stream_checkpoint";

/// The embedded lane's reducer that removes events, for publishers only. Its one argument is the list of their keys. The
/// sync module has none: there the database's owner deletes by SQL.
pub const REMOVE_REDUCER: &str = "remove_sync_events";

/// The status of a call whose reducer failed; the body is the reducer's text.
pub const STATUS_REDUCER_FAILED: u16 = 530;

/// The path of the subscription endpoint. A real server compresses long binary messages unless it is told not to.
#[must_use]
pub fn subscribe_path(database: &str, wire: Wire) -> String {
    let query = match wire {
        Wire::Json => "",
        Wire::Bsatn => "?compression=None",
    };
    format!("/v1/database/{database}/subscribe{query}")
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
