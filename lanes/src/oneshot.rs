//! One connection for one question: resume these streams from these cursors, and what came of it. Probes and the final
//! read ask so.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use host::peer::Peer;
use model::ids::{Seq, StreamId};
use model::target::Access;

use crate::client::machine::Refusal;
use crate::connection::{Socket, dial};
use crate::content::Row;
use crate::frame::Frame;
use crate::lane::{Kind, Session, Signal, Stale};

/// Whom to ask.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The lane.
    pub peer: Arc<Peer>,
    /// Which lane.
    pub kind: Kind,
    /// How it is spoken to.
    pub access: Arc<Access>,
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
    /// Asks with that token. Without cursors the question is whether the lane lets one in.
    pub async fn resume(&self, jwt: &str, cursors: &[(&str, Seq)]) -> Answer {
        let mut subscribed = false;
        let asking = self.ask(jwt, cursors, &mut subscribed);
        match tokio::time::timeout(self.within, asking).await {
            Ok(answer) => answer,
            Err(_) if subscribed => Answer::Silent,
            Err(_) => unreachable(format!("no answer within {:?}", self.within)),
        }
    }

    /// Connects with that token.
    ///
    /// # Errors
    /// [`Answer::Unreachable`] or [`Answer::Refused`].
    pub async fn open(&self, jwt: &str) -> Result<(Socket, Box<dyn Session>), Answer> {
        let upgrade = self.kind.upgrade(&self.access, jwt);
        match dial(&self.peer, &upgrade, 1).await {
            Ok(socket) => Ok((socket, self.kind.session(&self.access))),
            // Too many at once says nothing about the question.
            Err(refusal) if matches!(refusal.status, None | Some(429 | 500..)) => {
                Err(Answer::Unreachable(refusal))
            }
            Err(refusal) => Err(Answer::Refused(refusal)),
        }
    }

    async fn ask(&self, jwt: &str, cursors: &[(&str, Seq)], subscribed: &mut bool) -> Answer {
        let (mut socket, mut session) = match self.open(jwt).await {
            Ok(open) => open,
            Err(answer) => return answer,
        };
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
    loop {
        let signals = match next_signals(socket, session).await {
            Ok(signals) => signals,
            Err(answer) => return answer,
        };
        for signal in signals {
            match signal {
                Signal::Joined if cursors.is_empty() => {
                    return Answer::Replayed {
                        rows: Vec::new(),
                        heads: Vec::new(),
                    };
                }
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
}

/// What the next frame means.
///
/// # Errors
/// The connection is over: [`Answer::Unreachable`], or [`Answer::Refused`] where it was closed with a reason.
pub async fn next_signals(
    socket: &mut Socket,
    session: &mut dyn Session,
) -> Result<Vec<Signal>, Answer> {
    loop {
        let message = match socket.next().await {
            None => return Err(unreachable("closed without an answer".to_owned())),
            Some(Err(error)) => return Err(unreachable(error.to_string())),
            Some(Ok(message)) => message,
        };
        if let Some((_, reason)) = message.as_close() {
            return Err(match reason {
                "" => unreachable("closed without a reason".to_owned()),
                reason => Answer::Refused(Refusal {
                    reason: reason.to_owned(),
                    ..Refusal::default()
                }),
            });
        }
        if let Some(frame) = Frame::of(&message) {
            return session
                .receive(&frame)
                .map_err(|why| unreachable(format!("garbled frame: {why}")));
        }
    }
}

/// Sends messages.
///
/// # Errors
/// The connection broke.
pub async fn send(socket: &mut Socket, frames: Vec<Frame<'static>>) -> Result<(), String> {
    for frame in frames {
        socket
            .feed(frame.into_message())
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
