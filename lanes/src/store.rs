//! A lane's log as a publisher uses it: append, and look what the head is. HTTP, straight to the lane.

use std::sync::Arc;
use std::time::Duration;

use host::clock;
use host::http::{CallError, Client, Method, Response, escape};
use host::peer::Peer;
use model::event::Event;
use model::ids::{Lane, Seq};
use model::target::{Access, Removal, Wire};
use serde_json::{Value, json};

use crate::connection::{Upgrade, reason_in};
use crate::khala::ingress::{APPEND_PATH, HEAD_PATH, Remove};
use crate::lane::Kind;
use crate::spacetime::message::{ClientMessage, Encoded};
use crate::spacetime::named::{self, events_after, head_of, removal_of};
use crate::spacetime::rows::RowError;
use crate::spacetime::{STATUS_REDUCER_FAILED, call_path, sql_path};

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

/// Why something was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No answer, or none that can be understood.
    #[error("{0}")]
    NoAnswer(String),
    /// The lane answered with an error.
    #[error("{status} {reason}")]
    Refused {
        /// Its status.
        status: u16,
        /// Its reason.
        reason: String,
    },
}

/// Whoever could not read what an append needs has not sent it.
impl From<ReadError> for AppendError {
    fn from(error: ReadError) -> Self {
        Self::NotSent(error.to_string())
    }
}

impl From<CallError> for ReadError {
    fn from(error: CallError) -> Self {
        Self::NoAnswer(error.to_string())
    }
}

impl From<RowError> for ReadError {
    fn from(error: RowError) -> Self {
        Self::NoAnswer(error.to_string())
    }
}

/// A lane's log.
#[derive(Debug, Clone)]
pub struct Store {
    http: Client,
    peer: Arc<Peer>,
    lane: Lane,
    access: Arc<Access>,
    secret: String,
}

impl Store {
    /// The log of a lane that is reached there and spoken to so, for a publisher with that secret.
    #[must_use]
    pub fn new(lane: Lane, access: &Access, peer: Arc<Peer>, secret: &str) -> Self {
        Self {
            http: Client::of(Arc::clone(&peer)),
            peer,
            lane,
            // Calls are JSON over HTTP, and so they are over a connection, whatever the clients speak.
            access: Arc::new(Access {
                wire: Wire::Json,
                ..access.clone()
            }),
            secret: secret.to_owned(),
        }
    }

    /// Where and how a publisher connects to send many appends at once; `None` on a lane that takes them one by one.
    #[must_use]
    pub fn pipeline(&self) -> Option<(Arc<Peer>, Upgrade)> {
        let upgrade = Kind::of(self.lane).upgrade(&self.access, &self.secret);
        (self.lane == Lane::Spacetime).then(|| (Arc::clone(&self.peer), upgrade))
    }

    /// The call that appends an event as `seq`.
    pub(crate) fn call_of(&self, event: &Event, seq: Seq, request_id: u32) -> ClientMessage {
        let names = &self.access.names;
        let arguments = named::arguments(names, event, seq, clock::unix_micros() / 1_000);
        ClientMessage::CallReducer {
            reducer: names.publish.clone(),
            args: Encoded::Text(arguments),
            request_id,
            flags: 0,
        }
    }

    /// The same log for whoever presents this as bearer; nothing is presented where it is empty.
    #[must_use]
    pub fn bearing(&self, bearer: &str) -> Self {
        Self {
            secret: bearer.to_owned(),
            ..self.clone()
        }
    }

    /// Head and floor of a stream; the floor only where the lane names it.
    ///
    /// # Errors
    /// No answer, a refusal, or an answer that says neither.
    pub async fn head(&self, stream: &str) -> Result<(Seq, Option<Seq>), ReadError> {
        match self.lane {
            Lane::Spacetime => {
                let rows = self.sql(&head_of(&self.access.names, stream)).await?;
                let head = rows
                    .first()
                    .map(|row| named::head_in(&self.access.names, row));
                let head = head.transpose()?;
                Ok((head.map_or(0, |(_, head)| head), None))
            }
            Lane::Khala => {
                let path = self.access.head_path.as_deref().unwrap_or(HEAD_PATH);
                let path = format!("{path}?stream_id={}", escape(stream));
                let answer = self.call(Method::GET, &path, String::new()).await?;
                let body: Value = success(&answer)?;
                let head = body["head"]
                    .as_u64()
                    .ok_or_else(|| ReadError::NoAnswer("the head is not a number".to_owned()))?;
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
                let names = &self.access.names;
                let arguments = named::arguments(names, event, seq, clock::unix_micros() / 1_000);
                (call_path(&names.database, &names.publish), arguments)
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
                let path = self.access.append_path.as_deref();
                (path.unwrap_or(APPEND_PATH).to_owned(), body.to_string())
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
    pub async fn find(
        &self,
        stream: &str,
        key: &str,
        after: Seq,
    ) -> Result<Option<Seq>, ReadError> {
        if self.lane == Lane::Khala {
            return Ok(None);
        }
        let rows = self
            .sql(&events_after(&self.access.names, stream, after))
            .await?;
        for row in &rows {
            let row = named::event_in(&self.access.names, row)?;
            if row.key.as_deref() == Some(key) {
                return Ok(Some(row.seq));
            }
        }
        Ok(None)
    }

    /// Whether the target has a way to remove events.
    #[must_use]
    pub fn removes(&self) -> bool {
        self.access.removal != Removal::Nothing
    }

    /// Removes the events with these keys. To remove what is not there is no error.
    ///
    /// # Errors
    /// No answer, or a refusal. Events may have been removed all the same.
    pub async fn remove(&self, stream: &str, keys: &[String]) -> Result<(), ReadError> {
        let names = &self.access.names;
        let (path, body) = match &self.access.removal {
            Removal::Nothing => return Ok(()),
            Removal::Sql => (
                sql_path(&names.database),
                removal_of(&names.events, stream, keys),
            ),
            Removal::Reducer(reducer) => (
                call_path(&names.database, reducer),
                json!([keys]).to_string(),
            ),
            Removal::Path(path) => {
                let remove = Remove {
                    stream_id: stream.to_owned(),
                    idempotency_keys: keys.to_vec(),
                };
                (path.clone(), json!(remove).to_string())
            }
        };
        let answer = self.call(Method::POST, &path, body).await?;
        if answer.status.is_success() {
            return Ok(());
        }
        Err(ReadError::Refused {
            status: answer.status.as_u16(),
            reason: reason_in(&answer.body),
        })
    }

    async fn sql(&self, query: &str) -> Result<Vec<Value>, ReadError> {
        let answer = self
            .call(
                Method::POST,
                &sql_path(&self.access.names.database),
                query.to_owned(),
            )
            .await?;
        let results: Value = success(&answer)?;
        results[0]["rows"]
            .as_array()
            .cloned()
            .ok_or_else(|| ReadError::NoAnswer("the answer to a query has no rows".to_owned()))
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

fn success(answer: &Response) -> Result<Value, ReadError> {
    if !answer.status.is_success() {
        return Err(ReadError::Refused {
            status: answer.status.as_u16(),
            reason: reason_in(&answer.body),
        });
    }
    serde_json::from_slice(&answer.body).map_err(|error| ReadError::NoAnswer(error.to_string()))
}
