//! A resume from a cursor, and the rebootstrap that follows where the cursor turns out to be stale, on one connection.

use std::collections::BTreeSet;

use futures_util::SinkExt as _;
use model::defect::Defect;
use model::ids::{Seq, StreamId};

use crate::client::cursor::{continuity, overlooked};
use crate::connection::Socket;
use crate::khala::error::StaleReason;
use crate::lane::{Session, Signal, Stale};
use crate::oneshot::{Answer, Asked, next_signals, send};

/// What a lane and its client made of a resume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Resumed {
    /// The cursor was good, and this was replayed.
    Replayed(Replay),
    /// The cursor was found stale, by the lane or by the client's own look at what came; and what the client then got,
    /// beginning anew.
    Stale {
        /// Why.
        reason: String,
        /// The first row that came nevertheless, on a lane that leaves it to the client to notice.
        first: Option<Seq>,
        /// What begins anew: the seq that the snapshot stands for, or 0, and what came after it.
        rebootstrap: Result<(Seq, Replay), String>,
    },
}

/// A complete replay of one stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Replay {
    /// What came, live rows included that came meanwhile.
    pub(super) seqs: BTreeSet<Seq>,
    /// The head that the lane names.
    pub(super) head: Seq,
}

impl Replay {
    /// What is not as it should be, if the replay has to begin right after `cursor`.
    pub(super) fn flaw(&self, cursor: Seq) -> Option<String> {
        match self.seqs.first() {
            Some(first) if *first <= cursor => {
                Some(format!("{first} was replayed again after {cursor}"))
            }
            _ => self.missing_after(cursor),
        }
    }

    /// What is missing between a seq and the head.
    pub(super) fn missing_after(&self, cursor: Seq) -> Option<String> {
        let head = self.head;
        let missing = (cursor.saturating_add(1)..=head).find(|seq| !self.seqs.contains(seq));
        missing.map(|seq| format!("{seq} is missing between {cursor} and the head {head}"))
    }
}

enum Told {
    Stale(Stale),
    Replayed(Replay),
}

/// A connection that has been let in.
pub(super) struct Conversation<'a> {
    asked: &'a Asked,
    socket: Socket,
    session: Box<dyn Session>,
    /// The last stale answer: it comes in several forms, and all of them say the same.
    answered: Option<Vec<Stale>>,
}

impl<'a> Conversation<'a> {
    /// Connects.
    ///
    /// # Errors
    /// Why not: that proves nothing here.
    pub(super) async fn open(asked: &'a Asked, jwt: &str) -> Result<Self, String> {
        let opening = async {
            let (socket, session) = asked.open(jwt).await.map_err(|answer| why(&answer))?;
            let mut conversation = Self {
                asked,
                socket,
                session,
                answered: None,
            };
            let first = conversation.session.open();
            send(&mut conversation.socket, first).await?;
            while !conversation.next().await?.contains(&Signal::Joined) {}
            Ok(conversation)
        };
        let opened = tokio::time::timeout(asked.within, opening).await;
        opened.unwrap_or_else(|_| Err(format!("not let in within {:?}", asked.within)))
    }

    /// Resumes as a client does, and begins anew where the cursor is stale.
    ///
    /// # Errors
    /// The connection broke or the lane was silent: that proves nothing.
    pub(super) async fn resume(
        &mut self,
        stream: &StreamId,
        cursor: Seq,
        budget: u64,
        defect: Option<Defect>,
    ) -> Result<Resumed, String> {
        let (reason, first, from) = match self.subscribe(stream, cursor).await? {
            Told::Stale(stale) => {
                let from = stale.snapshot.map_or(0, |snapshot| snapshot.watermark);
                (stale.reason, None, from)
            }
            Told::Replayed(replay) if self.asked.kind.answers_stale => {
                return Ok(Resumed::Replayed(replay));
            }
            Told::Replayed(replay) => {
                let first = replay.seqs.first().copied();
                let noticed = continuity(cursor, replay.head, first, budget)
                    .filter(|_| !overlooked(defect, cursor, first));
                match noticed.map(StaleReason::name) {
                    None => return Ok(Resumed::Replayed(replay)),
                    Some(reason) => (reason.to_owned(), first, 0),
                }
            }
        };
        let rebootstrap = match self.subscribe(stream, from).await? {
            Told::Replayed(replay) => Ok((from, replay)),
            Told::Stale(again) => Err(format!(
                "a second stale answer, {}, to what the first said to resume from: {from}",
                again.reason
            )),
        };
        Ok(Resumed::Stale {
            reason,
            first,
            rebootstrap,
        })
    }

    async fn subscribe(&mut self, stream: &StreamId, cursor: Seq) -> Result<Told, String> {
        let within = self.asked.within;
        let told = tokio::time::timeout(within, self.told(stream, cursor)).await;
        told.unwrap_or_else(|_| Err(format!("subscribed, then no answer within {within:?}")))
    }

    async fn told(&mut self, stream: &StreamId, cursor: Seq) -> Result<Told, String> {
        let request = self.session.subscribe(&[(stream, cursor)]);
        send(&mut self.socket, request).await?;
        let mut replay = Replay::default();
        loop {
            for signal in self.next().await? {
                match signal {
                    Signal::Rows { framing: 0, rows } => replay.add(stream, &rows),
                    Signal::Subscribed { rows, heads } => {
                        replay.add(stream, &rows);
                        let head = heads.iter().find(|(name, _)| name == stream);
                        replay.head = head.map_or(0, |(_, head)| *head);
                        return Ok(Told::Replayed(replay));
                    }
                    // The same answer once more.
                    Signal::Stale(stale) if self.answered.as_ref() == Some(&stale) => {}
                    Signal::Stale(stale) => {
                        let own = stale.iter().find(|answer| answer.stream == *stream);
                        let own = own.cloned().ok_or("stale, but not this stream")?;
                        self.answered = Some(stale);
                        return Ok(Told::Stale(own));
                    }
                    Signal::Denied(refusal) => return Err(refusal.reason),
                    Signal::Rows { .. } | Signal::Joined | Signal::Throttled(_) => {}
                }
            }
        }
    }

    async fn next(&mut self) -> Result<Vec<Signal>, String> {
        next_signals(&mut self.socket, &mut *self.session)
            .await
            .map_err(|answer| why(&answer))
    }

    pub(super) async fn close(mut self) {
        let _ = self.socket.close().await;
    }
}

impl Replay {
    fn add(&mut self, stream: &str, rows: &[crate::content::Row]) {
        let own = rows.iter().filter(|row| row.stream == stream);
        self.seqs.extend(own.map(|row| row.seq));
    }
}

fn why(answer: &Answer) -> String {
    match answer {
        Answer::Unreachable(refusal) | Answer::Refused(refusal) => refusal.reason.clone(),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_is_whole_when_it_is_contiguous_from_the_cursor_to_the_head() {
        let replay = |seqs: &[Seq], head| Replay {
            seqs: seqs.iter().copied().collect(),
            head,
        };
        assert_eq!(replay(&[6, 7, 8], 8).flaw(5), None);
        assert_eq!(replay(&[6, 7, 8, 9], 8).flaw(5), None, "9 is live already");
        assert_eq!(replay(&[], 8).flaw(8), None);
        assert!(
            replay(&[6, 8], 8)
                .flaw(5)
                .is_some_and(|flaw| flaw.starts_with("7 is missing"))
        );
        assert!(replay(&[6, 7], 8).flaw(5).is_some());
        assert!(replay(&[5, 6], 6).flaw(5).is_some(), "what was had already");
    }
}
