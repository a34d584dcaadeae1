//! The khala lane's wire: Phoenix frames `[join_ref, ref, topic, event, payload]` as JSON text, the messages of the
//! channel `sync:v1` in both directions. Client and embedded server share these types.
//!
//! ```text
//! frame     the array of five             message   what each side sends, by event
//! error     stale_cursor, slow_consumer and the other refusals
//! snapshot  a stream's digest             ingress   what publishers call over HTTP
//! ```

pub mod error;
pub mod frame;
pub mod ingress;
pub mod message;
pub mod snapshot;

/// The path of the socket.
pub const SOCKET_PATH: &str = "/sync/socket/websocket";

/// The Phoenix serializer's version.
pub const VSN: &str = "2.0.0";

/// The channel's topic.
pub const CHANNEL: &str = "sync:v1";

/// The topic of the transport's own heartbeat.
pub const PHOENIX: &str = "phoenix";

/// The protocol version of the compatibility metadata.
pub const PROTOCOL_VERSION: &str = "khala.ws.v1";

/// The schema version of the compatibility metadata and of frames.
pub const SCHEMA_VERSION: u32 = 1;

/// How many updates a replay batch holds where a client does not say.
pub const REPLAY_BATCH_SIZE: u32 = 200;

/// Path and query of the socket, with the compatibility metadata.
#[must_use]
pub fn socket_path(token: &str, client: &str) -> String {
    format!(
        "{SOCKET_PATH}?token={token}&vsn={VSN}&client={client}&protocol_version={PROTOCOL_VERSION}\
         &schema_version={SCHEMA_VERSION}"
    )
}
