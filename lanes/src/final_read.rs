//! The final read: every stream anew, from its floor to its head, as a client would get it. Where others publish too,
//! from where the trial began.

use std::collections::BTreeMap;
use std::time::Duration;

use model::event::Origin;
use model::ids::{Seq, StreamId};
use model::intervals::IntervalSet;
use model::quantity::Span;
use model::shard::{Cursors, FinalRead, StreamRead};
use model::target::World;

use crate::client::machine::Refusal;
use crate::content::{Contents, Row, Verdict, runs};
use crate::oneshot::{Answer, Asked};
use crate::store::{ReadError, Store};
use crate::token::SCOPE_SUBSCRIBE;
use crate::token_client::{TokenClient, User, Wish};

/// A token for so many seconds is enough to read everything.
const TTL: u64 = 60;
/// How often a lane that is busy is asked again, and how long the reader waits in between at least.
const TRIES: u32 = 5;
const PAUSE: Span = Span::from_millis(200);

/// Whom the reader asks.
#[derive(Debug)]
pub struct Reader {
    /// The lane.
    pub asked: Asked,
    /// Heads and floors.
    pub store: Store,
    /// Tokens.
    pub tokens: TokenClient,
    /// Where the trial began; nothing at or below is read.
    pub begun: Cursors,
    /// The largest replay by stream, where it differs, and the usual one.
    pub budgets: (BTreeMap<StreamId, u64>, u64),
    /// How many events a stream has to keep, likewise.
    pub retentions: (BTreeMap<StreamId, u64>, u64),
}

/// How much of a stream is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// From its floor, or from where the trial began.
    Whole,
    /// Not more than the lane replays in one go.
    Newest,
}

/// Why a stream was not replayed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The cursor is stale: more is there than the lane replays.
    #[error("the lane did not replay it: {0}")]
    Stale(String),
    /// No token, no answer, or another.
    #[error("{0}")]
    Other(String),
}

/// A stream as it was read.
#[derive(Debug)]
pub struct Replay {
    /// The cursor that was read from.
    pub after: Seq,
    /// The rows, ascending by seq.
    pub rows: Vec<Row>,
    /// The head that the lane names.
    pub head: Seq,
    /// The floor that it names, if it names one.
    named_floor: Option<Seq>,
}

impl Reader {
    /// Reads these streams of an organisation, looking for the events of `origin`.
    pub async fn read(
        &self,
        org: &str,
        streams: &[StreamId],
        origin: &Origin,
        world: World,
    ) -> FinalRead {
        let mut read = FinalRead::default();
        for stream in streams {
            match self.replay(org, stream, Extent::Whole).await {
                Ok(found) => {
                    let contents = Contents::new(origin.clone(), world);
                    let floor = self.floor(stream, &found);
                    let found = judge(contents, &found, floor);
                    drop(read.streams.insert(stream.clone(), found));
                }
                Err(why) => drop(read.failed.insert(stream.clone(), why.to_string())),
            }
        }
        read
    }

    /// Has a stream replayed.
    ///
    /// # Errors
    /// See [`ReplayError`].
    pub async fn replay(
        &self,
        org: &str,
        stream: &str,
        extent: Extent,
    ) -> Result<Replay, ReplayError> {
        let mut last = ReplayError::Other(String::new());
        for attempt in 0..TRIES {
            if attempt > 0 {
                tokio::time::sleep(PAUSE.duration()).await;
            }
            let wish = Wish {
                org: org.to_owned(),
                user: User::Part("final-reader"),
                scopes: vec![SCOPE_SUBSCRIBE.to_owned()],
                streams: vec![stream.to_owned()],
                ttl: TTL,
            };
            let refusal = match self.tokens.fetch(&wish).await {
                Ok(token) => match self.ask(&token.jwt, stream, extent).await {
                    Ok(replay) => return Ok(replay),
                    Err(Failed::Unreachable(refusal)) => refusal,
                    Err(Failed::For(error)) => {
                        // Where others publish the head may have moved on meanwhile.
                        if extent == Extent::Whole || !matches!(error, ReplayError::Stale(_)) {
                            return Err(error);
                        }
                        last = error;
                        continue;
                    }
                },
                Err(refusal) if matches!(refusal.status, None | Some(429 | 500..)) => refusal,
                Err(refusal) => {
                    return Err(ReplayError::Other(format!("no token: {}", refusal.reason)));
                }
            };
            if let Some(wait) = refusal.retry_after {
                tokio::time::sleep(wait.duration().min(Duration::from_secs(2))).await;
            }
            last = ReplayError::Other(refusal.reason);
        }
        Err(last)
    }

    async fn ask(&self, jwt: &str, stream: &str, extent: Extent) -> Result<Replay, Failed> {
        let other = |why| Err(Failed::For(ReplayError::Other(why)));
        let (head, floor) = match self.store.head(stream).await {
            Ok(found) => found,
            Err(ReadError::NoAnswer(why)) => {
                return Err(Failed::Unreachable(Refusal {
                    reason: format!("head: {why}"),
                    ..Refusal::default()
                }));
            }
            Err(error) => return other(format!("head: {error}")),
        };
        let after = self.cursor(stream, extent, head, floor);
        match self.asked.resume(jwt, &[(stream, after)]).await {
            Answer::Replayed { rows, heads } => Ok(Replay {
                named_floor: floor,
                ..Replay::of(stream, after, rows, &heads)
            }),
            Answer::Unreachable(refusal) => Err(Failed::Unreachable(refusal)),
            Answer::Stale(stale) => Err(Failed::For(ReplayError::Stale(format!("{stale:?}")))),
            answer => other(format!("the lane did not replay it: {answer:?}")),
        }
    }

    /// Below which seq an event need not be held: where the trial began, or the floor that the lane names where that is
    /// no higher than what it has to keep allows. Not the oldest that came: a lane that lost its oldest events has those
    /// too.
    fn floor(&self, stream: &str, replay: &Replay) -> Seq {
        let retention = self.retentions.0.get(stream).unwrap_or(&self.retentions.1);
        let allowed = replay.head.saturating_sub(*retention);
        let begun = self.begun.get(stream).copied().unwrap_or(0);
        replay
            .named_floor
            .map_or(allowed, |floor| floor.min(allowed))
            .max(begun.min(replay.head))
    }

    /// From where to read a stream.
    fn cursor(&self, stream: &str, extent: Extent, head: Seq, floor: Option<Seq>) -> Seq {
        // A head that went back behind the beginning has the trial begin there.
        let begun = self.begun.get(stream).map_or(0, |begun| head.min(*begun));
        let after = begun.max(floor.unwrap_or(0));
        match extent {
            Extent::Whole => after,
            Extent::Newest => {
                let budget = self.budgets.0.get(stream).unwrap_or(&self.budgets.1);
                after.max(head.saturating_sub(*budget))
            }
        }
    }
}

/// Why one attempt failed.
enum Failed {
    /// The lane may answer the next one.
    Unreachable(Refusal),
    /// It will not.
    For(ReplayError),
}

impl Replay {
    fn of(stream: &str, after: Seq, mut rows: Vec<Row>, heads: &[(StreamId, Seq)]) -> Self {
        rows.retain(|row| row.stream == stream);
        rows.sort_by_key(|row| row.seq);
        let head = heads.iter().find(|(name, _)| name == stream);
        let head = head.map_or(0, |(_, head)| *head);
        Self {
            after,
            rows,
            head,
            named_floor: None,
        }
    }
}

fn judge(mut contents: Contents, replay: &Replay, floor: Seq) -> StreamRead {
    let mut events = Vec::new();
    let mut foreign_at = IntervalSet::default();
    let (mut foreign, mut altered) = (0, 0);
    for row in &replay.rows {
        match contents.judge(row).verdict {
            Verdict::Ours { index, .. } => events.push((row.seq, index)),
            Verdict::Altered => altered += 1,
            Verdict::Foreign => {
                foreign += 1;
                foreign_at.insert(row.seq);
            }
        }
    }
    StreamRead {
        floor,
        head: replay.head,
        events: runs(events),
        foreign,
        foreign_at,
        altered,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use host::peer::Peer;
    use model::ids::Lane;
    use model::shard::TokenSource;
    use model::target::Access;

    use super::*;
    use crate::lane::Kind;

    fn reader(begun: Seq, retention: u64) -> Reader {
        let addr = ([127, 0, 0, 1], 9).into();
        let (access, peer) = (Access::plain(addr, addr), Arc::new(Peer::plain(addr)));
        let source = TokenSource::service(addr, "s", "o");
        Reader {
            asked: Asked {
                peer: Arc::clone(&peer),
                kind: Kind::of(Lane::Khala),
                access: Arc::new(access.clone()),
                within: Duration::from_secs(1),
            },
            store: Store::new(Lane::Khala, &access, peer, ""),
            tokens: TokenClient::new(&source, Lane::Khala, Span::ZERO).unwrap(),
            begun: [("s".to_owned(), begun)].into(),
            budgets: (BTreeMap::new(), 100),
            retentions: (BTreeMap::new(), retention),
        }
    }

    #[test]
    fn a_floor_is_what_a_lane_may_have_let_go_of_and_not_the_oldest_that_came() {
        let floor = |begun, retention, head, named_floor| {
            let replay = Replay {
                after: 0,
                rows: Vec::new(),
                head,
                named_floor,
            };
            reader(begun, retention).floor("s", &replay)
        };
        assert_eq!(floor(0, 1_000, 80, Some(0)), 0);
        assert_eq!(floor(0, 1_000, 80, None), 0, "it has to keep all of them");
        assert_eq!(floor(0, 50, 80, Some(30)), 30);
        assert_eq!(floor(0, 50, 80, None), 30);
        assert_eq!(floor(0, 50, 80, Some(70)), 30, "it let go of too much");
        assert_eq!(floor(0, 50, 80, Some(10)), 10, "it kept more");
        assert_eq!(floor(60, 1_000, 80, Some(0)), 60);
        assert_eq!(floor(90, 1_000, 80, None), 80, "the head went back");
    }
}
