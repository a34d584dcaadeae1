//! The messages. Fields and variants are in the order of the protocol, which is not always that of the JSON form.

use super::{Bsatn, BsatnError, Reader, row_list, write_bytes};
use crate::spacetime::message::{
    ClientMessage, ConnectionId, DatabaseUpdate, Encoded, Energy, Identity, IdentityToken,
    InitialSubscription, Maybe, MessageId, MultiApplied, OneOffQueryResponse, OneOffTable,
    QueryApplied, QueryId, QueryUpdate, ReducerCall, ServerMessage, SubscribeRows,
    SubscriptionError, TableUpdate, TimeDuration, Timestamp, TransactionUpdate,
    TransactionUpdateLight, UpdateStatus,
};
use crate::spacetime::rows::{StreamCheckpoint, StreamHead, SyncEvent};

/// What a server's messages begin with.
const UNCOMPRESSED: u8 = 0;
const BROTLI: u8 = 1;
const GZIP: u8 = 2;

impl ClientMessage {
    /// The message as bytes.
    #[must_use]
    pub fn to_bsatn(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    /// Reads a message.
    ///
    /// # Errors
    /// The bytes are not one.
    pub fn from_bsatn(bytes: &[u8]) -> Result<Self, BsatnError> {
        whole(Reader::new(bytes))
    }
}

impl ServerMessage {
    /// The message as bytes, behind the byte that says that it is not compressed.
    #[must_use]
    pub fn to_bsatn(&self) -> Vec<u8> {
        let mut out = vec![UNCOMPRESSED];
        self.write(&mut out);
        out
    }

    /// Reads a message.
    ///
    /// # Errors
    /// The bytes are not one, or are compressed.
    pub fn from_bsatn(bytes: &[u8]) -> Result<Self, BsatnError> {
        let mut from = Reader::new(bytes);
        uncompressed("ServerMessage", &mut from)?;
        whole(from)
    }
}

fn whole<T: Bsatn>(mut from: Reader<'_>) -> Result<T, BsatnError> {
    let message = T::read(&mut from)?;
    from.end()?;
    Ok(message)
}

fn uncompressed(what: &'static str, from: &mut Reader<'_>) -> Result<(), BsatnError> {
    match u8::read(from)? {
        UNCOMPRESSED => Ok(()),
        BROTLI => Err(BsatnError::Compressed("brotli")),
        GZIP => Err(BsatnError::Compressed("gzip")),
        tag => Err(BsatnError::Tag { what, tag }),
    }
}

macro_rules! products {
    ($($name:ident { $($field:ident),* })*) => {$(
        impl Bsatn for $name {
            fn write(&self, out: &mut Vec<u8>) {
                $(self.$field.write(out);)*
            }

            fn read(from: &mut Reader<'_>) -> Result<Self, BsatnError> {
                Ok(Self { $($field: Bsatn::read(from)?),* })
            }
        }
    )*};
}

products! {
    QueryId { id }
    ConnectionId { number }
    Timestamp { micros }
    TimeDuration { micros }
    Energy { quanta }
    IdentityToken { identity, token, connection_id }
    TableUpdate { table_id, table_name, num_rows, updates }
    DatabaseUpdate { tables }
    InitialSubscription { database_update, request_id, total_host_execution_duration }
    ReducerCall { reducer_name, reducer_id, args, request_id }
    TransactionUpdate {
        status, timestamp, caller_identity, caller_connection_id, reducer_call, energy_quanta_used,
        total_host_execution_duration
    }
    TransactionUpdateLight { request_id, update }
    OneOffQueryResponse { message_id, error, tables, total_host_execution_duration }
    SubscribeRows { table_id, table_name, table_rows }
    QueryApplied { request_id, total_host_execution_duration_micros, query_id, rows }
    MultiApplied { request_id, total_host_execution_duration_micros, query_id, update }
    SubscriptionError { total_host_execution_duration_micros, request_id, query_id, table_id, error }
    SyncEvent {
        stream_id, seq, idempotency_key, payload_hash, payload_json, committed_at_unix_ms, durable_offset,
        confirmed_read
    }
    StreamHead { stream_id, head_seq, updated_at_unix_ms }
    StreamCheckpoint {
        checkpoint_key, client_id, stream_id, last_applied_seq, durable_offset, updated_at_unix_ms
    }
}

macro_rules! sum {
    ($name:ident { $($tag:literal $variant:ident),* }) => {
        impl Bsatn for $name {
            fn write(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$variant(value) => {
                        out.push($tag);
                        value.write(out);
                    })*
                }
            }

            fn read(from: &mut Reader<'_>) -> Result<Self, BsatnError> {
                match u8::read(from)? {
                    $($tag => Bsatn::read(from).map(Self::$variant),)*
                    tag => Err(BsatnError::Tag { what: stringify!($name), tag }),
                }
            }
        }
    };
}

sum!(ServerMessage {
    0 InitialSubscription,
    1 TransactionUpdate,
    2 TransactionUpdateLight,
    3 IdentityToken,
    4 OneOffQueryResponse,
    5 SubscribeApplied,
    6 UnsubscribeApplied,
    7 SubscriptionError,
    8 SubscribeMultiApplied,
    9 UnsubscribeMultiApplied
});
sum!(UpdateStatus { 0 Committed, 1 Failed, 2 OutOfEnergy });

macro_rules! requests {
    ($($tag:literal $variant:ident { $($field:ident),* })*) => {
        impl Bsatn for ClientMessage {
            fn write(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$variant { $($field),* } => {
                        out.push($tag);
                        $($field.write(out);)*
                    })*
                }
            }

            fn read(from: &mut Reader<'_>) -> Result<Self, BsatnError> {
                match u8::read(from)? {
                    $($tag => Ok(Self::$variant { $($field: Bsatn::read(from)?),* }),)*
                    tag => Err(BsatnError::Tag { what: "ClientMessage", tag }),
                }
            }
        }
    };
}

requests! {
    0 CallReducer { reducer, args, request_id, flags }
    1 Subscribe { query_strings, request_id }
    2 OneOffQuery { message_id, query_string }
    3 SubscribeSingle { query, request_id, query_id }
    4 SubscribeMulti { query_strings, request_id, query_id }
    5 Unsubscribe { request_id, query_id }
    6 UnsubscribeMulti { request_id, query_id }
}

/// The empty value, such as that of a variant that says everything.
impl Bsatn for [(); 0] {
    fn write(&self, _: &mut Vec<u8>) {}

    fn read(_: &mut Reader<'_>) -> Result<Self, BsatnError> {
        Ok([])
    }
}

impl<T: Bsatn> Bsatn for Maybe<T> {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Some(value) => {
                out.push(0);
                value.write(out);
            }
            Self::None([]) => out.push(1),
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, BsatnError> {
        match u8::read(from)? {
            0 => T::read(from).map(Self::Some),
            1 => Ok(Self::NONE),
            tag => Err(BsatnError::Tag {
                what: "Option",
                tag,
            }),
        }
    }
}

impl Bsatn for Identity {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.to_le_bytes());
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, BsatnError> {
        from.array().map(Self::from_le_bytes)
    }
}

impl Bsatn for MessageId {
    fn write(&self, out: &mut Vec<u8>) {
        write_bytes(&self.to_bytes(), out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, BsatnError> {
        from.bytes().map(|bytes| Self::Bytes(bytes.to_vec()))
    }
}

/// Arguments; rows are in lists of their own form.
impl Bsatn for Encoded {
    fn write(&self, out: &mut Vec<u8>) {
        write_bytes(self.as_bytes(), out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, BsatnError> {
        from.bytes().map(|bytes| Self::Binary(bytes.to_vec()))
    }
}

/// Within a table's update each query's may be compressed by itself.
impl Bsatn for QueryUpdate {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(UNCOMPRESSED);
        row_list::write(&self.deletes, out);
        row_list::write(&self.inserts, out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, BsatnError> {
        uncompressed("QueryUpdate", from)?;
        Ok(Self {
            deletes: row_list::read(from)?,
            inserts: row_list::read(from)?,
        })
    }
}

impl Bsatn for OneOffTable {
    fn write(&self, out: &mut Vec<u8>) {
        self.table_name.write(out);
        row_list::write(&self.rows, out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, BsatnError> {
        Ok(Self {
            table_name: Bsatn::read(from)?,
            rows: row_list::read(from)?,
        })
    }
}
