//! Whether a lane can be drilled as it is described: every door that a drill goes through is tried once, in the order
//! in which they depend on each other, and nothing is written.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use host::clock;
use host::peer::{Peer, Reach};
use host::tls;
use model::event::Origin;
use model::ids::{Lane, Seq, StreamId};
use model::quantity::Span;
use model::shard::TokenSource;
use model::target::{Access, Argument};

use crate::client::machine::{Held, Refusal};
use crate::lane::Kind;
use crate::oneshot::{Answer, Asked};
use crate::spacetime::STATUS_REDUCER_FAILED;
use crate::store::{AppendError, ReadError, Store};
use crate::token::SCOPE_SUBSCRIBE;
use crate::token_client::{TokenClient, User, Wish};

/// What a drill may wait for, preflight may.
const WITHIN: Duration = Duration::from_secs(5);
/// An append is tried with a seq that is never next: it has to end as a conflict.
const NEVER_NEXT: Seq = 1 << 52;
/// A token for so many seconds is enough to try it.
const TTL: u64 = 120;

/// A lane to be tried.
#[derive(Debug)]
pub struct Preflight<'a> {
    /// Which.
    pub lane: Lane,
    /// How it is reached; its `direct` is tried, for nothing stands before it yet.
    pub access: &'a Access,
    /// Where tokens come from.
    pub tokens: &'a TokenSource,
    /// How long before its end a token is renewed.
    pub lead: Span,
    /// What publishers present.
    pub publish_secret: &'a str,
    /// The streams that a drill publishes to; at least one.
    pub streams: &'a [StreamId],
    /// Further ones that its probes need, each with the organisation whose tokens open it.
    pub further: &'a [(String, StreamId)],
}

/// A door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// TLS settings, headers, names.
    Settings,
    /// TCP.
    Connection,
    /// TLS.
    Tls,
    /// Where a publisher asks for a head.
    Head,
    /// Where a publisher appends.
    Append,
    /// Where events are removed again.
    CleanUp,
    /// Where tokens come from.
    Token,
    /// The WebSocket.
    Upgrade,
    /// The streams.
    Subscription,
}

/// A door that was found open, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// Which.
    pub door: Door,
    /// What was seen.
    pub seen: String,
}

/// A door that was found shut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shut {
    /// Which.
    pub door: Door,
    /// Which of [`Preflight::further`] it was tried for.
    pub further: Option<StreamId>,
    /// The HTTP status, where there was an answer.
    pub status: Option<u16>,
    /// Why.
    pub reason: String,
}

impl fmt::Display for Shut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(status) = self.status {
            write!(f, "{status} ")?;
        }
        f.write_str(&self.reason)
    }
}

impl Error for Shut {}

fn shut(door: Door, reason: impl Into<String>) -> Shut {
    Shut {
        door,
        further: None,
        status: None,
        reason: reason.into(),
    }
}

fn refused(door: Door, refusal: Refusal) -> Shut {
    Shut {
        door,
        further: None,
        status: refusal.status,
        reason: refusal.reason,
    }
}

fn unread(door: Door, error: ReadError) -> Shut {
    match error {
        ReadError::Refused { status, reason } => Shut {
            status: Some(status),
            ..shut(door, reason)
        },
        ReadError::NoAnswer(reason) => shut(door, reason),
    }
}

fn of(stream: &StreamId, shut: Shut) -> Shut {
    Shut {
        further: Some(stream.clone()),
        ..shut
    }
}

async fn head(store: &Store, stream: &str) -> Result<Seq, Shut> {
    let head = store.head(stream).await;
    let (head, _) = head.map_err(|error| unread(Door::Head, error))?;
    Ok(head)
}

impl Preflight<'_> {
    /// Tries one door after the other; `open` hears of each that is.
    ///
    /// # Errors
    /// The first that is shut.
    pub async fn run(&self, mut open: impl FnMut(Open)) -> Result<(), Shut> {
        let mut open = |door, seen: String| open(Open { door, seen });
        let settings = |error: &(dyn Error + 'static)| shut(Door::Settings, error.to_string());
        let reach = Reach::of(self.access).map_err(|error| settings(&error))?;
        let peer = reach.direct;
        open(Door::Connection, self.connect(&peer).await?);

        let store = Store::new(
            self.lane,
            self.access,
            Arc::clone(&peer),
            self.publish_secret,
        );
        let mut heads = Vec::new();
        for stream in self.streams {
            heads.push((stream.as_str(), head(&store, stream).await?));
        }
        let mut further = Vec::new();
        for (org, stream) in self.further {
            let head = head(&store, stream)
                .await
                .map_err(|shut| of(stream, shut))?;
            further.push((org, stream, head));
        }
        let newest = heads.iter().map(|(_, head)| *head).max().unwrap_or(0);
        let streams = heads.len() + further.len();
        open(
            Door::Head,
            format!("the heads of {streams} streams can be read; the highest is {newest}"),
        );
        open(Door::Append, self.append(&store).await?);
        if store.removes() {
            open(Door::CleanUp, self.remove(&store).await?);
        }

        let token = self.token(&self.tokens.org, self.streams).await?;
        let left = token.exp.since(clock::now()).as_micros() / 1_000_000;
        open(
            Door::Token,
            format!("a token was issued; it is good for {left} s"),
        );
        open(
            Door::Subscription,
            self.subscribe(&peer, &token, &heads).await?,
        );
        for (org, stream, head) in further {
            let opened = async {
                let token = self.token(org, std::slice::from_ref(stream)).await?;
                self.subscribe(&peer, &token, &[(stream, head)]).await
            };
            opened.await.map_err(|shut| of(stream, shut))?;
            open(
                Door::Subscription,
                format!("a token of {org} opens {stream}"),
            );
        }
        Ok(())
    }

    async fn connect(&self, peer: &Peer) -> Result<String, Shut> {
        let (addr, host) = (peer.addr(), peer.host());
        let began = clock::now();
        let connected = tokio::time::timeout(WITHIN, peer.connect()).await;
        let error = match connected {
            Ok(Ok(_)) => {
                let took = clock::now().since(began).duration();
                let by = if self.access.tls.is_some() {
                    "TLS"
                } else {
                    "TCP"
                };
                return Ok(format!("{by} to {addr} as {host} in {took:.1?}"));
            }
            Err(_) if self.access.tls.is_some() => {
                return Err(shut(
                    Door::Tls,
                    format!("{addr} said nothing within {WITHIN:?}"),
                ));
            }
            Err(_) => {
                return Err(shut(
                    Door::Connection,
                    format!("{addr} did not answer within {WITHIN:?}"),
                ));
            }
            Ok(Err(error)) => error,
        };
        // What fails before TLS does is told by the kernel.
        let door = if error.raw_os_error().is_some() {
            Door::Connection
        } else {
            Door::Tls
        };
        Err(shut(door, format!("{addr}: {}", tls::reason(&error))))
    }

    /// What is let through conflicts: nothing is written.
    async fn append(&self, store: &Store) -> Result<String, Shut> {
        let arguments = &self.access.names.arguments;
        let guarded = [Argument::Seq, Argument::ExpectedNextSeq]
            .iter()
            .any(|argument| arguments.contains(argument));
        if self.lane == Lane::Spacetime && !guarded {
            return Ok("not tried: the reducer is told no seq, so that it would write".to_owned());
        }
        let origin = Origin {
            run: format!("preflight-{}", clock::unix_micros()),
            seed: 0,
            padding: 0,
        };
        let stream = &self.streams[0];
        let event = origin.event(stream, 0, clock::now());
        let ran = STATUS_REDUCER_FAILED.to_string();
        match store.append(&event, NEVER_NEXT).await {
            Err(AppendError::Conflict(reason)) => Ok(format!(
                "an append that has to conflict did, and wrote nothing: {reason}"
            )),
            Err(AppendError::Refused(reason)) if reason.starts_with(&ran) => Ok(format!(
                "an append that has to fail did, and wrote nothing: {reason}"
            )),
            Ok(seq) => Err(shut(
                Door::Append,
                format!(
                    "an append to {stream} as seq {NEVER_NEXT} was acknowledged as {seq}: the service does not look at \
                     the seq that an event is to have, so that two writers are not noticed"
                ),
            )),
            Err(AppendError::Refused(reason)) => {
                let status = reason.split(' ').next().and_then(|code| code.parse().ok());
                let reason = match status {
                    Some(_) => reason.split_once(' ').map_or("", |(_, why)| why).to_owned(),
                    None => reason,
                };
                Err(Shut {
                    status,
                    ..shut(Door::Append, reason)
                })
            }
            Err(error) => Err(shut(Door::Append, error.to_string())),
        }
    }

    /// To remove what is not there has to succeed.
    async fn remove(&self, store: &Store) -> Result<String, Shut> {
        let key = format!("preflight-{}", clock::unix_micros());
        store
            .remove(&self.streams[0], &[key])
            .await
            .map_err(|error| unread(Door::CleanUp, error))?;
        Ok("the removal of an event that is not there was acknowledged".to_owned())
    }

    async fn token(&self, org: &str, streams: &[StreamId]) -> Result<Held, Shut> {
        let tokens = TokenClient::new(self.tokens, self.lane, self.lead)
            .map_err(|error| shut(Door::Token, error.to_string()))?;
        let wish = Wish {
            org: org.to_owned(),
            user: User::Part("preflight"),
            scopes: vec![SCOPE_SUBSCRIBE.to_owned()],
            streams: streams.to_vec(),
            ttl: TTL,
        };
        tokens
            .fetch(&wish)
            .await
            .map_err(|refusal| refused(Door::Token, refusal))
    }

    async fn subscribe(
        &self,
        peer: &Arc<Peer>,
        token: &Held,
        heads: &[(&str, Seq)],
    ) -> Result<String, Shut> {
        let asked = Asked {
            peer: Arc::clone(peer),
            kind: Kind::of(self.lane),
            access: Arc::new(self.access.clone()),
            within: WITHIN,
        };
        // First without streams, so that a lane that lets nobody in is told from one that knows no such stream.
        match asked.resume(&token.jwt, &[]).await {
            Answer::Replayed { .. } => {}
            Answer::Unreachable(refusal) | Answer::Refused(refusal) => {
                return Err(refused(Door::Upgrade, refusal));
            }
            answer => return Err(shut(Door::Upgrade, format!("{answer:?}"))),
        }
        match asked.resume(&token.jwt, heads).await {
            Answer::Replayed { heads: named, .. } => Ok(format!(
                "subscribed to {} streams from their heads; the lane names {} heads",
                heads.len(),
                named.len()
            )),
            Answer::Stale(stale) => {
                let first = stale.first().map_or(String::new(), |stale| {
                    format!("{}: {}", stale.stream, stale.reason)
                });
                Err(shut(
                    Door::Subscription,
                    format!("the head just read is a stale cursor to the lane ({first})"),
                ))
            }
            Answer::Silent => Err(shut(
                Door::Subscription,
                format!("no answer to a subscription within {WITHIN:?}"),
            )),
            // One that was let in without streams is not refused for anything else.
            Answer::Unreachable(refusal) | Answer::Refused(refusal) => {
                Err(refused(Door::Subscription, refusal))
            }
        }
    }
}
