//! Asking a cell, and a boundary, once; and what the answer shows.

use std::time::Duration;

use model::anomaly::Anomaly;
use model::event::{Event, payload_hash};
use model::ids::{Seq, StreamId};
use model::probe::StaleStream;
use tokio::time::Instant;

use super::boundary::{Boundary, Window};
use super::cell::{Cell, Expected, Operation, Place, Scope, State};
use super::mint::{Grant, Minted, wish};
use super::resume::{Conversation, Resumed};
use super::{Probes, Shown};
use crate::client::machine::Refusal;
use crate::khala::error::StaleReason;
use crate::oneshot::Answer;
use crate::spacetime::STATUS_REDUCER_FAILED;
use crate::store::{AppendError, ReadError};
use crate::token::{SCOPE_APPEND, SCOPE_CHECKPOINT, SCOPE_SUBSCRIBE};

/// A probe's append is to have this seq, which is never next: what is let through ends as a conflict.
const NEVER_NEXT: Seq = 1 << 52;
/// A stream moves while its cursor is chosen and asked; what was asked of a window that is no more is asked again.
const TRIES: u32 = 4;
/// How long retention may take to move beyond a cursor.
const MOVES_WITHIN: Duration = Duration::from_secs(4);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What became of an attempt.
enum Attempt {
    Accepted(String),
    Refused(String),
    Unreachable(String),
}

impl Probes {
    /// Tries what a cell says.
    pub(super) async fn ask(&self, cell: Cell) -> Shown {
        let attempt = match self.attempt(cell).await {
            Ok(attempt) => attempt,
            Err(shown) => return shown,
        };
        match (
            cell.expected(&self.setting.promise, &self.setting.config),
            attempt,
        ) {
            (_, Attempt::Unreachable(why)) => Shown::Unreachable(why),
            (Expected::Accepted, Attempt::Accepted(_)) => Shown::Met,
            (Expected::Accepted, Attempt::Refused(reason)) => Shown::Otherwise(reason),
            (Expected::Refused(_), Attempt::Accepted(what)) => {
                Shown::Wrong(Anomaly::UnauthorizedSuccess, what)
            }
            (Expected::Refused(reasons), Attempt::Refused(reason)) => {
                if reasons.iter().any(|expected| reason.contains(expected)) {
                    Shown::Met
                } else {
                    Shown::Otherwise(reason)
                }
            }
        }
    }

    async fn attempt(&self, cell: Cell) -> Result<Attempt, Shown> {
        let setting = &self.setting;
        let stream = match &setting.config.rival {
            Some(rival) if cell.place == Place::Foreign => &rival.stream,
            _ => &setting.config.stream,
        };
        let grant = self.grant(cell);
        if cell.operation == Operation::Grant {
            if !setting.tokens.heeds().streams {
                return Err(Shown::NotYet);
            }
            return Ok(match setting.tokens.fetch(&wish(&grant)).await {
                Ok(_) => {
                    Attempt::Accepted(format!("a token of {} for {stream} was issued", grant.org))
                }
                Err(refusal) if away(&refusal) => Attempt::Unreachable(refusal.reason),
                Err(refusal) => Attempt::Refused(refusal.reason),
            });
        }
        let minted = self
            .mint
            .mint(cell.state, &grant, &setting.promise, self.foreign())
            .await;
        let jwt = match minted {
            Minted::Token(jwt) => jwt,
            Minted::NotYet => return Err(Shown::NotYet),
            Minted::Away(why) => return Err(Shown::Unreachable(format!("no token: {why}"))),
        };
        Ok(match cell.operation {
            Operation::Connect => connected(setting.asked.resume(&jwt, &[]).await),
            Operation::Subscribe => connected(setting.asked.resume(&jwt, &[(stream, 0)]).await),
            Operation::Resume => match setting.store.head(stream).await {
                Ok((head, _)) => connected(setting.asked.resume(&jwt, &[(stream, head)]).await),
                Err(error) => Attempt::Unreachable(error.to_string()),
            },
            Operation::Append => self.append(stream, &jwt).await,
            Operation::Grant | Operation::Read => {
                match setting.store.bearing(&jwt).head(stream).await {
                    Ok((head, _)) => Attempt::Accepted(format!("the head was read: {head}")),
                    Err(ReadError::Refused {
                        status: 400..=428 | 430..=499,
                        reason,
                    }) => Attempt::Refused(reason),
                    Err(error) => Attempt::Unreachable(error.to_string()),
                }
            }
        })
    }

    /// What the cell's token is good for.
    fn grant(&self, cell: Cell) -> Grant {
        let config = &self.setting.config;
        let right = match cell.operation {
            Operation::Append => SCOPE_APPEND,
            _ => SCOPE_SUBSCRIBE,
        };
        let scopes = match cell.scope {
            Scope::Right => vec![right],
            Scope::Wrong if right == SCOPE_APPEND => vec![SCOPE_SUBSCRIBE, SCOPE_CHECKPOINT],
            Scope::Wrong => vec![SCOPE_CHECKPOINT],
            Scope::None => Vec::new(),
        };
        let own = &self.setting.source.org;
        let (org, streams) = match (cell.place, cell.operation, &config.rival) {
            (Place::RivalToken, _, Some(rival)) => (&rival.org, vec![rival.stream.clone()]),
            (Place::Foreign, Operation::Grant, Some(rival)) => (own, vec![rival.stream.clone()]),
            (Place::Ungranted, ..) => (own, Vec::new()),
            _ => (own, vec![config.stream.clone()]),
        };
        Grant {
            org: org.clone(),
            scopes: scopes.into_iter().map(str::to_owned).collect(),
            streams,
        }
    }

    /// A stream that a tampered token claims besides its own.
    fn foreign(&self) -> &str {
        let rival = self.setting.config.rival.as_ref();
        rival.map_or("runtime.run.foreign.events", |rival| rival.stream.as_str())
    }

    async fn append(&self, stream: &StreamId, bearer: &str) -> Attempt {
        let payload_json = "{\"probe\":true}".to_owned();
        let event = Event {
            stream: stream.clone(),
            index: 0,
            key: format!("probe:{stream}"),
            payload_hash: payload_hash(&payload_json),
            payload_json,
        };
        let store = self.setting.store.bearing(bearer);
        let ran = STATUS_REDUCER_FAILED.to_string();
        match store.append(&event, NEVER_NEXT).await {
            Ok(seq) => Attempt::Accepted(format!("appended to {stream} as {seq}")),
            Err(AppendError::Conflict(reason)) => {
                Attempt::Accepted(format!("an append to {stream} was let through: {reason}"))
            }
            Err(AppendError::Refused(reason)) if reason.starts_with(&ran) => {
                Attempt::Accepted(format!("an append to {stream} was let through: {reason}"))
            }
            Err(AppendError::Refused(reason)) => Attempt::Refused(reason),
            Err(error) => Attempt::Unreachable(error.to_string()),
        }
    }

    /// Resumes from a boundary of the stale stream.
    pub(super) async fn resume(&self, boundary: Boundary) -> Shown {
        let setting = &self.setting;
        let Some(stale) = &setting.config.stale else {
            return Shown::NotYet;
        };
        let grant = Grant {
            org: setting.source.org.clone(),
            scopes: vec![SCOPE_SUBSCRIBE.to_owned()],
            streams: vec![stale.stream.clone()],
        };
        let minted = self
            .mint
            .mint(State::Valid, &grant, &setting.promise, self.foreign())
            .await;
        let jwt = match minted {
            Minted::Token(jwt) => jwt,
            Minted::NotYet => return Shown::NotYet,
            Minted::Away(why) => return Shown::Unreachable(format!("no token: {why}")),
        };
        for _ in 0..TRIES {
            match self.resume_once(boundary, stale, &jwt).await {
                Ok(Some(shown)) => return shown,
                Ok(None) => {}
                Err(why) => return Shown::Unreachable(why),
            }
        }
        Shown::NotYet
    }

    /// `None` when the stream moved on while it was asked.
    async fn resume_once(
        &self,
        boundary: Boundary,
        stale: &StaleStream,
        jwt: &str,
    ) -> Result<Option<Shown>, String> {
        let setting = &self.setting;
        let stream = &stale.stream;
        let chosen = self.window(stale).await?;
        let foreign = match (boundary, &setting.config.rival) {
            (Boundary::Foreign, Some(rival)) => self.head_of(&rival.stream).await?,
            _ => 0,
        };
        let Some(cursor) = boundary.cursor(chosen, foreign) else {
            return Ok(Some(Shown::NotYet));
        };
        let mut conversation = Conversation::open(&setting.asked, jwt).await?;
        if boundary == Boundary::Moving {
            let began = Instant::now();
            while self.window(stale).await?.floor <= cursor {
                if began.elapsed() > MOVES_WITHIN {
                    return Ok(Some(Shown::NotYet));
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        let before = self.window(stale).await?;
        let resumed = conversation
            .resume(stream, cursor, before.budget, setting.defect)
            .await;
        conversation.close().await;
        // A lane that has just died is silent too: then this says so.
        if self.window(stale).await? != before || (boundary != Boundary::Moving && before != chosen)
        {
            return Ok(None);
        }
        let asked = format!(
            "resumed {stream} after {cursor} of {}..={}",
            before.floor + 1,
            before.head
        );
        Ok(Some(match resumed {
            Ok(resumed) => self.shown(before, cursor, resumed, &asked),
            Err(why) if why.starts_with("subscribed, then no answer") => {
                Shown::Wrong(Anomaly::StaleCursor, format!("{asked}: {why}"))
            }
            Err(why) => Shown::Unreachable(why),
        }))
    }

    fn shown(&self, window: Window, cursor: Seq, resumed: Resumed, asked: &str) -> Shown {
        let expected = window.stale(cursor);
        // A lane that names no floor and replays from the cursor on keeps more than was thought.
        let kept = |first: Option<Seq>| {
            let below = expected == Some(StaleReason::RetentionFloorBreach);
            below && !self.setting.asked.kind.answers_stale && first == Some(cursor + 1)
        };
        match (expected, resumed) {
            (None, Resumed::Replayed(replay)) => match replay.flaw(cursor) {
                None => Shown::Met,
                Some(flaw) => Shown::Wrong(Anomaly::Gap, format!("{asked}: {flaw}")),
            },
            (Some(_), Resumed::Replayed(replay)) if kept(replay.seqs.first().copied()) => {
                Shown::NotYet
            }
            (Some(reason), Resumed::Replayed(replay)) => {
                let (count, reason) = (replay.seqs.len(), reason.name());
                Shown::Wrong(
                    Anomaly::StaleCursor,
                    format!("{asked}: {count} events and no word of {reason}"),
                )
            }
            (_, Resumed::Stale { first, .. }) if kept(first) => Shown::NotYet,
            (
                Some(expected),
                Resumed::Stale {
                    reason,
                    rebootstrap,
                    ..
                },
            ) if expected.name() == reason => {
                // From nothing a client gets what is kept; from a snapshot, what that does not hold.
                let flaw = match rebootstrap {
                    Ok((0, replay)) => replay.missing_after(window.floor),
                    Ok((from, replay)) => replay.flaw(from),
                    Err(why) => Some(why),
                };
                match flaw {
                    None => Shown::Met,
                    Some(flaw) => Shown::Wrong(
                        Anomaly::StaleCursor,
                        format!("{asked}, and beginning anew: {flaw}"),
                    ),
                }
            }
            (_, Resumed::Stale { reason, .. }) => Shown::Otherwise(format!("stale: {reason}")),
        }
    }

    async fn window(&self, stale: &StaleStream) -> Result<Window, String> {
        let head = self.setting.store.head(&stale.stream);
        let (head, floor) = head.await.map_err(|error| error.to_string())?;
        Ok(Window {
            head,
            floor: floor.unwrap_or_else(|| head.saturating_sub(stale.retention)),
            budget: stale.replay_budget,
        })
    }

    async fn head_of(&self, stream: &str) -> Result<Seq, String> {
        let (head, _) = self
            .setting
            .store
            .head(stream)
            .await
            .map_err(|error| error.to_string())?;
        Ok(head)
    }
}

/// What the answer to a connection says of whether it was accepted.
fn connected(answer: Answer) -> Attempt {
    match answer {
        Answer::Unreachable(refusal) => Attempt::Unreachable(refusal.reason),
        Answer::Silent => Attempt::Unreachable("subscribed, then nothing".to_owned()),
        Answer::Refused(refusal) => Attempt::Refused(refusal.reason),
        Answer::Stale(_) => Attempt::Accepted("the subscription was accepted".to_owned()),
        Answer::Replayed { rows, .. } => {
            Attempt::Accepted(format!("accepted, and {} events delivered", rows.len()))
        }
    }
}

/// The lane or the service is busy or gone.
const fn away(refusal: &Refusal) -> bool {
    matches!(refusal.status, None | Some(429 | 500..))
}
