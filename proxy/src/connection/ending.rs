//! The ways in which a connection ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use model::instant::Mono;

use super::Connection;
use crate::faults::{Refusal, Rule, reset};
use crate::plane::{Handle, Plane};
use crate::side::Side;
use crate::twists::Verdict;

/// How long a peer may take to hear a last message and to close its side.
const LINGER: Duration = Duration::from_secs(1);

/// How a connection ends.
pub(super) enum End {
    /// Both sides have ended, or the proxy does.
    Close,
    /// RST both ways: because of a rule, or because one side broke, which the other shall see too.
    Reset(Option<Arc<Rule>>),
    /// FIN both ways, in such a way that the peers hear what was sent to them before, and last of all this.
    Parting(Parting),
}

/// The last that peers hear.
pub(super) enum Parting {
    /// Nothing more.
    HangUp,
    /// The proxy's answer to an upgrade.
    Refusal(Refusal),
    /// A Close frame (none where a frame was cut in its middle).
    Farewell(Arc<Rule>, Vec<u8>),
}

impl From<Verdict> for End {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::HangUp => Self::Parting(Parting::HangUp),
            Verdict::Reset => Self::Reset(None),
        }
    }
}

/// The order to close it with a Close frame.
pub(super) struct Closing {
    pub(super) rule: Arc<Rule>,
    /// From then on in the middle of a frame too.
    pub(super) deadline: Option<Mono>,
}

impl Closing {
    pub(super) fn ordered(rule: Arc<Rule>) -> Self {
        rule.bites.pending.fetch_add(1, Ordering::AcqRel);
        let deadline = None;
        Self { rule, deadline }
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.rule.bites.pending.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A connection's place in the registry, given up when it is dropped.
pub(super) struct Entry {
    pub(super) plane: Arc<Plane>,
    pub(super) handle: Arc<Handle>,
}

impl Entry {
    /// Gives it up while there are sockets still to be closed.
    fn strike_out(&self) {
        self.plane.leave(&self.handle);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.strike_out();
    }
}

/// Bites are counted once they were felt, and before the connection is struck out.
impl Connection {
    /// RST both ways, at once. What is left is to close the sockets; that can wait where this is true.
    pub(super) fn reset(&mut self, rule: Option<&Rule>) -> bool {
        self.tally();
        let mut is_sent = reset(self.client.tcp());
        // The upstream may have accepted what was dialled before anybody here has looked.
        if let Some(dial) = self.dial.take()
            && let Some(Ok(dialled)) = dial.now_or_never()
        {
            self.upstream = Some(dialled);
        }
        if let Some(upstream) = &self.upstream {
            is_sent &= reset(upstream.tcp());
        }
        if let Some(rule) = rule {
            rule.bite();
        }
        self.closing = None;
        self.entry.strike_out();
        is_sent
    }

    /// Says what is last, and closes both sockets once the peers have heard it.
    pub(super) async fn part(mut self, parting: Parting) {
        self.tally();
        let Self {
            client,
            upstream,
            closing,
            entry,
            ..
        } = self;
        let (client, upstream) = match parting {
            Parting::HangUp => tokio::join!(say(client, &[]), hang_up(upstream)),
            Parting::Refusal(refusal) => {
                drop(upstream);
                let with_retry_after = refusal.retry_after.is_some();
                entry
                    .plane
                    .counters
                    .answered(refusal.status, with_retry_after);
                let client = say(client, &refusal.response()).await;
                refusal.rule.bite();
                if with_retry_after {
                    refusal.rule.bites.messages.fetch_add(1, Ordering::Relaxed);
                }
                (client, None)
            }
            Parting::Farewell(rule, frame) => {
                let client = say(client, &frame).await;
                if client.is_some() && !frame.is_empty() {
                    rule.bites.messages.fetch_add(1, Ordering::Relaxed);
                }
                let upstream = hang_up(upstream).await;
                rule.bite();
                (client, upstream)
            }
        };
        drop(closing);
        drop(entry);
        tokio::join!(linger(client), linger(upstream));
    }
}

/// Writes a last message and FIN; `None` when the peer did not take it.
async fn say(mut side: Side, message: &[u8]) -> Option<Side> {
    match tokio::time::timeout(LINGER, side.say_last(message)).await {
        Ok(Ok(())) => Some(side),
        _ => None,
    }
}

/// FIN to the lane, where there is a connection to it.
async fn hang_up(upstream: Option<Side>) -> Option<Side> {
    say(upstream?, &[]).await
}

/// Reads until the peer closes: a socket closed with bytes unread is closed with RST, which could overtake the last
/// message.
async fn linger(side: Option<Side>) {
    let Some(mut side) = side else { return };
    let _ = tokio::time::timeout(LINGER, side.outlast()).await;
}
