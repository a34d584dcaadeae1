//! A lane's log as a publisher uses it: append, and look what the head is. HTTP, straight to the lane.

use std::sync::Arc;
use std::time::Duration;

use host::clock;
use host::http::{CallError, Client, Method, Response};
use host::peer::Peer;
use model::event::Event;
use model::ids::{Lane, Seq};
use model::shard::ShardConfig;
use serde_json::{Value, json};

use crate::connection::reason_in;
use crate::spacetime::query::{events_after, head_of};
use crate::spacetime::rows::SyncEvent;
use crate::spacetime::{APPEND_REDUCER, STATUS_REDUCER_FAILED, call_path, sql_path};

/// A lane that is away answers nothing; one that is there answers in milli-seconds.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Why an append was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// It did not reach the lane.
    #[error("not sent: {0}")]
    NotSent(String),
    /// It may have reached the lane.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// The head is another than was thought.
    #[error("{0}")]
    Conflict(String),
    /// The lane refused it.
    #[error("refused: {0}")]
    Refused(String),
}

/// A lane's log.
#[derive(Debug, Clone)]
pub struct Store {
    http: Client,
    lane: Lane,
    database: String,
    secret: String,
}

impl Store {
    /// The log of the shard's lane, reached there, for a publisher with that secret.
    #[must_use]
    pub fn new(config: &ShardConfig, lane: Arc<Peer>, secret: &str) -> Self {
        Self {
            http: Client::of(lane),
            lane: config.lane,
            database: config.access.names.database.clone(),
            secret: secret.to_owned(),
        }
    }

    /// Head and floor of a stream; the floor only where the lane names it.
    ///
    /// # Errors
    /// No answer, or one that says neither.
    pub async fn head(&self, stream: &str) -> Result<(Seq, Option<Seq>), String> {
        match self.lane {
            Lane::Spacetime => {
                let rows = self.sql(&head_of(stream)).await?;
                Ok((
                    rows.first().and_then(|row| row[1].as_u64()).unwrap_or(0),
                    None,
                ))
            }
            Lane::Khala => {
                let path = format!("/internal/sync/head?stream_id={}", escape(stream));
                let answer = self.call(Method::GET, &path, String::new()).await;
                let answer = answer.map_err(|error| error.to_string())?;
                let body: Value = success(&answer)?;
                let head = body["head"].as_u64().ok_or("the head is not a number")?;
                Ok((head, body["floor"].as_u64()))
            }
        }
    }

    /// Appends an event, as `seq` if nobody else has written meanwhile; the seq it has.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub async fn append(&self, event: &Event, seq: Seq) -> Result<Seq, AppendError> {
        let (path, body) = match self.lane {
            Lane::Spacetime => {
                let row = SyncEvent {
                    stream_id: event.stream.clone(),
                    seq,
                    idempotency_key: event.key.clone(),
                    payload_hash: event.payload_hash.clone(),
                    payload_json: event.payload_json.clone(),
                    committed_at_unix_ms: clock::unix_micros() / 1_000,
                    durable_offset: seq,
                    confirmed_read: true,
                };
                (call_path(&self.database, APPEND_REDUCER), row.positional())
            }
            Lane::Khala => {
                let body = json!({
                    "stream_id": event.stream,
                    "idempotency_key": event.key,
                    "payload_hash": event.payload_hash,
                    "payload_json": event.payload_json,
                    "expected_next_seq": seq,
                    "committed_at_unix_ms": clock::unix_micros() / 1_000,
                });
                ("/internal/sync/append".to_owned(), body.to_string())
            }
        };
        let answer = self
            .call(Method::POST, &path, body)
            .await
            .map_err(|error| match error {
                CallError::Broken {
                    connected: false, ..
                } => AppendError::NotSent(error.to_string()),
                _ => AppendError::Unknown(error.to_string()),
            })?;
        if answer.status.is_success() {
            return match self.lane {
                Lane::Spacetime => Ok(seq),
                Lane::Khala => serde_json::from_slice::<Value>(&answer.body)
                    .ok()
                    .and_then(|body| body["seq"].as_u64())
                    .ok_or_else(|| AppendError::Unknown("the answer has no seq".to_owned())),
            };
        }
        let reason = reason_in(&answer.body);
        if reason.starts_with("sequence_conflict") {
            Err(AppendError::Conflict(reason))
        } else if answer.status.is_server_error() && answer.status.as_u16() != STATUS_REDUCER_FAILED
        {
            // The lane, or what stands before it, broke: that says nothing about what became of the event.
            let status = answer.status.as_u16();
            Err(AppendError::Unknown(format!("{status} {reason}")))
        } else {
            Err(AppendError::Refused(format!(
                "{} {reason}",
                answer.status.as_u16()
            )))
        }
    }

    /// The seq that a key has above `after`, on a lane that does not answer a repeated key with its seq; `None` also
    /// on one that does.
    ///
    /// # Errors
    /// No answer.
    pub async fn find(&self, stream: &str, key: &str, after: Seq) -> Result<Option<Seq>, String> {
        if self.lane == Lane::Khala {
            return Ok(None);
        }
        let rows = self.sql(&events_after(stream, after)).await?;
        Ok(rows
            .iter()
            .find(|row| row[2] == key)
            .and_then(|row| row[1].as_u64()))
    }

    async fn sql(&self, query: &str) -> Result<Vec<Value>, String> {
        let answer = self
            .call(Method::POST, &sql_path(&self.database), query.to_owned())
            .await
            .map_err(|error| error.to_string())?;
        let results: Value = success(&answer)?;
        results[0]["rows"]
            .as_array()
            .cloned()
            .ok_or_else(|| "the answer to a query has no rows".to_owned())
    }

    async fn call(&self, method: Method, path: &str, body: String) -> Result<Response, CallError> {
        let bearer = format!("Bearer {}", self.secret);
        let mut headers = vec![("content-type", "application/json")];
        if !self.secret.is_empty() {
            headers.push(("authorization", &bearer));
        }
        self.http
            .send(method, path, &headers, body.into(), TIMEOUT)
            .await
    }
}

fn success(answer: &Response) -> Result<Value, String> {
    if !answer.status.is_success() {
        return Err(format!(
            "{} {}",
            answer.status.as_u16(),
            reason_in(&answer.body)
        ));
    }
    serde_json::from_slice(&answer.body).map_err(|error| error.to_string())
}

/// Percent-encodes what may not stand in a query. Stream names are mostly letters and dots.
fn escape(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
        escaped
    })
}
