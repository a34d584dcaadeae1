//! One connection for one question: resume these streams from these cursors, and what came of it. Probes and the final
//! read ask so.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use host::peer::Peer;
use model::ids::{Seq, StreamId};
use tokio_websockets::Message;

use crate::client::machine::Refusal;
use crate::connection::{Socket, dial};
use crate::content::Row;
use crate::lane::{Kind, Session, Signal, Stale};

/// Whom to ask.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The lane.
    pub peer: Arc<Peer>,
    /// Which lane.
    pub kind: Kind,
    /// The database in spacetime URLs.
    pub database: String,
    /// How long the whole of it may take.
    pub within: Duration,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// No connection, or it broke: this proves nothing.
    Unreachable(Refusal),
    /// Subscribed, and then nothing came.
    Silent,
    /// Refused, with the reason.
    Refused(Refusal),
    /// The cursors are stale.
    Stale(Vec<Stale>),
    /// All that there is after the cursors.
    Replayed {
        /// The rows, of the lane's first framing.
        rows: Vec<Row>,
        /// The heads that the lane names.
        heads: Vec<(StreamId, Seq)>,
    },
}

impl Asked {
    /// Asks with that token.
    pub async fn resume(&self, jwt: &str, cursors: &[(&str, Seq)]) -> Answer {
        let mut subscribed = false;
        let asking = self.ask(jwt, cursors, &mut subscribed);
        match tokio::time::timeout(self.within, asking).await {
            Ok(answer) => answer,
            Err(_) if subscribed => Answer::Silent,
            Err(_) => unreachable(format!("no answer within {:?}", self.within)),
        }
    }

    async fn ask(&self, jwt: &str, cursors: &[(&str, Seq)], subscribed: &mut bool) -> Answer {
        let upgrade = self.kind.upgrade(&self.database, jwt);
        let mut socket = match dial(&self.peer, &upgrade, 1).await {
            Ok(socket) => socket,
            // Too many at once says nothing about the question.
            Err(refusal) if matches!(refusal.status, None | Some(429 | 500..)) => {
                return Answer::Unreachable(refusal);
            }
            Err(refusal) => return Answer::Refused(refusal),
        };
        let mut session = self.kind.session();
        let answer = converse(&mut socket, &mut *session, cursors, subscribed).await;
        let _ = socket.close().await;
        answer
    }
}

async fn converse(
    socket: &mut Socket,
    session: &mut dyn Session,
    cursors: &[(&str, Seq)],
    subscribed: &mut bool,
) -> Answer {
    if let Err(error) = send(socket, session.open()).await {
        return unreachable(error);
    }
    let mut replayed = Vec::new();
    while let Some(message) = socket.next().await {
        let message = match message {
            Ok(message) => message,
            Err(error) => return unreachable(error.to_string()),
        };
        if let Some((_, reason)) = message.as_close() {
            return match reason {
                "" => unreachable("closed without a reason".to_owned()),
                reason => Answer::Refused(Refusal {
                    reason: reason.to_owned(),
                    ..Refusal::default()
                }),
            };
        }
        let Some(text) = message.as_text() else {
            continue;
        };
        let signals = match session.receive(text) {
            Ok(signals) => signals,
            Err(why) => return unreachable(format!("garbled frame: {why}")),
        };
        for signal in signals {
            match signal {
                Signal::Joined => {
                    if let Err(error) = send(socket, session.subscribe(cursors)).await {
                        return unreachable(error);
                    }
                    *subscribed = true;
                }
                Signal::Rows { framing: 0, rows } => replayed.extend(rows),
                Signal::Rows { .. } | Signal::Throttled(_) => {}
                Signal::Subscribed { rows, heads } => {
                    replayed.extend(rows);
                    return Answer::Replayed {
                        rows: replayed,
                        heads,
                    };
                }
                Signal::Stale(stale) => return Answer::Stale(stale),
                Signal::Denied(refusal) => return Answer::Refused(refusal),
            }
        }
    }
    unreachable("closed without an answer".to_owned())
}

/// Sends texts.
///
/// # Errors
/// The connection broke.
pub async fn send(socket: &mut Socket, texts: Vec<String>) -> Result<(), String> {
    for text in texts {
        socket
            .feed(Message::text(text))
            .await
            .map_err(|error| error.to_string())?;
    }
    socket.flush().await.map_err(|error| error.to_string())
}

fn unreachable(reason: String) -> Answer {
    Answer::Unreachable(Refusal {
        reason,
        ..Refusal::default()
    })
}
