//! The module's two reducers, and one of the embedded lane's own.

use std::sync::Arc;

use lanes::spacetime::message::{
    ConnectionId, Encoded, Energy, Identity, ReducerCall, TimeDuration,
};
use lanes::spacetime::message::{Timestamp, TransactionUpdate, UpdateStatus};
use lanes::spacetime::rows::{Row, Table};
use lanes::spacetime::{APPEND_REDUCER, CHECKPOINT_REDUCER, REMOVE_REDUCER};
use lanes::token::{SCOPE_APPEND, SCOPE_CHECKPOINT};
use model::target::Wire;

use super::{Caller, FORBIDDEN_STREAM, Spacetime};
use crate::counters::Counters;
use crate::log::AppendError;

/// A call: what subscribers are told about the transaction behind a change.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) caller_identity: String,
    /// 0 for a call over HTTP.
    pub(crate) connection_id: u128,
    pub(crate) reducer: String,
    pub(crate) args: Arc<Encoded>,
    pub(crate) request_id: u32,
    /// The connection that called; its answer is the update.
    pub(crate) connection: Option<u64>,
}

impl Call {
    /// The transaction with its status. A failed one has request id 0, and reducer id `u32::MAX` where there is no
    /// such reducer.
    pub(crate) fn update(&self, status: UpdateStatus, wire: Wire) -> TransactionUpdate {
        let failed = matches!(status, UpdateStatus::Failed(_));
        TransactionUpdate {
            status,
            timestamp: Timestamp {
                micros: host::clock::unix_micros(),
            },
            caller_identity: Identity {
                text: format!("0x{}", self.caller_identity),
            },
            caller_connection_id: ConnectionId {
                number: self.connection_id,
            },
            reducer_call: ReducerCall {
                reducer_name: self.reducer.clone(),
                reducer_id: match self.reducer.as_str() {
                    CHECKPOINT_REDUCER => 1,
                    APPEND_REDUCER => 0,
                    _ => u32::MAX,
                },
                args: self.arguments(wire),
                request_id: if failed { 0 } else { self.request_id },
            },
            energy_quanta_used: Energy::default(),
            total_host_execution_duration: TimeDuration::default(),
        }
    }
}

impl Call {
    /// The arguments as a wire has them: as they came, where they came by that wire.
    fn arguments(&self, wire: Wire) -> Encoded {
        let table = match self.reducer.as_str() {
            CHECKPOINT_REDUCER => Some(Table::StreamCheckpoint),
            APPEND_REDUCER => Some(Table::SyncEvent),
            _ => None,
        };
        let came_by = match self.args.as_ref() {
            Encoded::Text(_) => Wire::Json,
            Encoded::Binary(_) => Wire::Bsatn,
        };
        if came_by == wire {
            return self.args.as_ref().clone();
        }
        let row = table.and_then(|table| Row::decode(table, &self.args).ok());
        row.map_or_else(|| none(wire), |row| row.in_update(wire))
    }
}

/// No arguments.
pub(crate) fn none(wire: Wire) -> Encoded {
    match wire {
        Wire::Json => Encoded::Text("[]".to_owned()),
        Wire::Bsatn => Encoded::Binary(Vec::new()),
    }
}

/// What became of a call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It changed something; subscribers, and the connection that called, have been told.
    Committed,
    /// It changed nothing, as its key was known, or nothing that subscribers are told.
    Unchanged,
}

/// Why a call failed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// There is no such reducer.
    #[error("no such reducer")]
    NoReducer,
    /// The arguments are not its columns.
    #[error("invalid arguments for reducer {reducer}: {reason}")]
    Arguments {
        /// Whose.
        reducer: String,
        /// What is wrong.
        reason: String,
    },
    /// The caller may not.
    #[error("{0}")]
    Refused(String),
    /// The reducer failed.
    #[error("{0}")]
    Failed(String),
}

impl Spacetime {
    /// Calls a reducer and waits until it is acknowledged.
    pub(crate) async fn call(&self, caller: &Caller, call: Call) -> Result<Outcome, CallError> {
        let outcome = self.try_call(caller, call).await;
        if let Err(CallError::Refused(reason)) = &outcome {
            let counted = reason.split(' ').next().unwrap_or(reason);
            self.ground.counters.refuse(&caller.client, counted, "call");
        }
        outcome
    }

    async fn try_call(&self, caller: &Caller, call: Call) -> Result<Outcome, CallError> {
        let row = |table| {
            row(table, &call.args).map_err(|reason| CallError::Arguments {
                reducer: call.reducer.clone(),
                reason,
            })
        };
        let failed = |error: AppendError| CallError::Failed(error.to_string());
        let allowed = |scope: &str, stream: &str| {
            let refusal = caller.refusal(scope, Some(stream));
            refusal.map_or(Ok(()), |reason| Err(CallError::Refused(reason)))
        };
        match call.reducer.as_str() {
            APPEND_REDUCER => {
                let Row::Event(event) = row(Table::SyncEvent)? else {
                    return Err(CallError::NoReducer);
                };
                // As `allowed`, but for what may be planted.
                let confined = self.ground.defects.checks_append_stream();
                let refused = caller
                    .refusal(SCOPE_APPEND, Some(&event.stream_id))
                    .filter(|reason| confined || !reason.starts_with(FORBIDDEN_STREAM));
                if let Some(reason) = refused {
                    return Err(CallError::Refused(reason));
                }
                let expected = Some(event.seq);
                let appended = self.ground.log.append(event, expected, call).await;
                if appended.map_err(failed)?.duplicate {
                    return Ok(Outcome::Unchanged);
                }
                Counters::add(&self.ground.counters.appended, 1);
            }
            CHECKPOINT_REDUCER => {
                let Row::Checkpoint(row) = row(Table::StreamCheckpoint)? else {
                    return Err(CallError::NoReducer);
                };
                allowed(SCOPE_CHECKPOINT, &row.stream_id)?;
                // The key says which row is replaced: it has to be one of the stream that the grant is for.
                let own = format!("{}:{}", row.client_id, row.stream_id);
                if !caller.trusted && row.checkpoint_key != own {
                    let key = &row.checkpoint_key;
                    return Err(CallError::Refused(format!("foreign_checkpoint {key}")));
                }
                self.ground
                    .log
                    .checkpoint(row, call)
                    .await
                    .map_err(failed)?;
            }
            REMOVE_REDUCER => {
                let keys = keys(&call.args).map_err(|reason| CallError::Arguments {
                    reducer: call.reducer.clone(),
                    reason,
                })?;
                if !caller.trusted {
                    return Err(CallError::Refused("publishers_only".to_owned()));
                }
                let log = &self.ground.log;
                log.remove(None, &keys, call).await.map_err(failed)?;
                return Ok(Outcome::Unchanged);
            }
            _ => return Err(CallError::NoReducer),
        }
        Ok(Outcome::Committed)
    }
}

/// The one argument of the removal.
fn keys(args: &Encoded) -> Result<Vec<String>, String> {
    let text = args.as_text().ok_or("it is called in JSON only")?;
    let (keys,): (Vec<String>,) = serde_json::from_str(text).map_err(|error| error.to_string())?;
    Ok(keys)
}

/// A row from its columns in order. Named columns would be read too, so the array is looked for first.
fn row(table: Table, args: &Encoded) -> Result<Row, String> {
    if args
        .as_text()
        .is_some_and(|text| !text.trim_start().starts_with('['))
    {
        return Err("expected an array of the columns".to_owned());
    }
    Row::decode(table, args).map_err(|error| error.to_string())
}
