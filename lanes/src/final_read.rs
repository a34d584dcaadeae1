//! The final read: every stream anew, from its floor to its head, as a client would get it.

use std::time::Duration;

use model::event::Origin;
use model::ids::{Seq, StreamId};
use model::quantity::Span;
use model::shard::{FinalRead, StreamRead};

use crate::content::{Contents, Row, Verdict, runs};
use crate::oneshot::{Answer, Asked};
use crate::store::Store;
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
    /// The organisation that owns the streams.
    pub org: String,
    /// Whose events are looked for.
    pub origin: Origin,
}

impl Reader {
    /// Reads these streams.
    pub async fn read(&self, streams: &[StreamId]) -> FinalRead {
        let mut read = FinalRead::default();
        for stream in streams {
            match self.stream(stream).await {
                Ok(found) => drop(read.streams.insert(stream.clone(), found)),
                Err(why) => drop(read.failed.insert(stream.clone(), why)),
            }
        }
        read
    }

    async fn stream(&self, stream: &str) -> Result<StreamRead, String> {
        let mut last = String::new();
        for attempt in 0..TRIES {
            if attempt > 0 {
                tokio::time::sleep(PAUSE.duration()).await;
            }
            let wish = Wish {
                org: self.org.clone(),
                user: User::Part("final-reader"),
                scopes: vec![SCOPE_SUBSCRIBE.to_owned()],
                streams: vec![stream.to_owned()],
                ttl: TTL,
            };
            let refusal = match self.tokens.fetch(&wish).await {
                Ok(token) => {
                    let floor = self
                        .store
                        .head(stream)
                        .await
                        .map_err(|error| format!("head: {error}"))?
                        .1;
                    let cursors = [(stream, floor.unwrap_or(0))];
                    match self.asked.resume(&token.jwt, &cursors).await {
                        Answer::Replayed { rows, heads } => {
                            return Ok(self.judge(stream, floor, &rows, &heads));
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

    fn judge(
        &self,
        stream: &str,
        floor: Option<Seq>,
        rows: &[Row],
        heads: &[(StreamId, Seq)],
    ) -> StreamRead {
        let mut contents = Contents::new(self.origin.clone());
        let mut events = Vec::new();
        let mut foreign = 0;
        let mut seqs: Vec<&Row> = rows.iter().filter(|row| row.stream == stream).collect();
        seqs.sort_by_key(|row| row.seq);
        for row in &seqs {
            match contents.judge(row).verdict {
                Verdict::Ours { index, .. } => events.push((row.seq, index)),
                Verdict::Altered | Verdict::Foreign => foreign += 1,
            }
        }
        let oldest = seqs.first().map(|row| row.seq);
        StreamRead {
            floor: oldest.map_or(floor.unwrap_or(0), |oldest| oldest - 1),
            head: heads
                .iter()
                .find(|(name, _)| name == stream)
                .map_or(0, |(_, head)| *head),
            events: runs(events),
            foreign,
        }
    }
}
