//! The final read: every stream anew, from its floor to its head, as a client would get it. Where others publish too,
//! from where the trial began.

use std::time::Duration;

use model::event::Origin;
use model::ids::{Seq, StreamId};
use model::intervals::IntervalSet;
use model::quantity::Span;
use model::shard::{Cursors, FinalRead, StreamRead};
use model::target::World;

use crate::content::{Contents, Row, Verdict, runs};
use crate::oneshot::{Answer, Asked};
use crate::store::Store;
use crate::token::SCOPE_SUBSCRIBE;
use crate::token_client::{TokenClient, Wish};

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
            match self.replay(org, stream).await {
                Ok(found) => {
                    let contents = Contents::new(origin.clone(), world);
                    drop(read.streams.insert(stream.clone(), judge(contents, &found)));
                }
                Err(why) => drop(read.failed.insert(stream.clone(), why)),
            }
        }
        read
    }

    /// Has a stream replayed.
    ///
    /// # Errors
    /// No token, no answer, or another than a replay.
    pub async fn replay(&self, org: &str, stream: &str) -> Result<Replay, String> {
        let mut last = String::new();
        for attempt in 0..TRIES {
            if attempt > 0 {
                tokio::time::sleep(PAUSE.duration()).await;
            }
            let wish = Wish {
                org: org.to_owned(),
                user: "final-reader".to_owned(),
                scopes: vec![SCOPE_SUBSCRIBE.to_owned()],
                streams: vec![stream.to_owned()],
                ttl: TTL,
            };
            let refusal = match self.tokens.fetch(&wish).await {
                Ok(token) => {
                    let (head, floor) = self
                        .store
                        .head(stream)
                        .await
                        .map_err(|error| format!("head: {error}"))?;
                    // A head that went back behind the beginning has the trial begin there.
                    let begun = self.begun.get(stream).map_or(0, |begun| head.min(*begun));
                    let after = begun.max(floor.unwrap_or(0));
                    match self.asked.resume(&token.jwt, &[(stream, after)]).await {
                        Answer::Replayed { mut rows, heads } => {
                            rows.retain(|row| row.stream == stream);
                            rows.sort_by_key(|row| row.seq);
                            let head = heads.iter().find(|(name, _)| name == stream);
                            let head = head.map_or(0, |(_, head)| *head);
                            return Ok(Replay { after, rows, head });
                        }
                        Answer::Unreachable(refusal) => refusal,
                        answer => return Err(format!("the lane did not replay it: {answer:?}")),
                    }
                }
                Err(refusal) if matches!(refusal.status, None | Some(429 | 500..)) => refusal,
                Err(refusal) => return Err(format!("no token: {}", refusal.reason)),
            };
            if let Some(wait) = refusal.retry_after {
                tokio::time::sleep(wait.duration().min(Duration::from_secs(2))).await;
            }
            last = refusal.reason;
        }
        Err(last)
    }
}

fn judge(mut contents: Contents, replay: &Replay) -> StreamRead {
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
        floor: replay
            .rows
            .first()
            .map_or(replay.after, |oldest| oldest.seq - 1),
        head: replay.head,
        events: runs(events),
        foreign,
        foreign_at,
        altered,
    }
}
