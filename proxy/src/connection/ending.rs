//! The ways in which a connection ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;

use super::Connection;
use crate::faults::{Refusal, Rule, reset_on_close};
use crate::plane::{Handle, Plane};
use crate::side::Side;
use crate::twists::Verdict;

/// How long a peer may take to hear a last message and to close its side.
const LINGER: Duration = Duration::from_secs(1);

/// How a connection ends.
pub(super) enum End {
    /// Both sides have ended, or the proxy does.
    Close,
    /// FIN both ways, in such a way that the peers hear what was sent to them before.
    HangUp,
    /// RST both ways: because of a rule, or because one side broke, which the other shall see too.
    Reset(Option<Arc<Rule>>),
    /// The proxy's answer to an upgrade.
    Refusal(Refusal),
    /// A Close frame (none where a frame was cut in its middle), then FIN both ways.
    Farewell(Arc<Rule>, Vec<u8>),
}

impl From<Verdict> for End {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::HangUp => Self::HangUp,
            Verdict::Reset => Self::Reset(None),
        }
    }
}

/// A connection's place in the registry, given up when it is dropped.
pub(super) struct Entry {
    pub(super) plane: Arc<Plane>,
    pub(super) handle: Arc<Handle>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.plane.leave(&self.handle);
    }
}

impl Connection {
    /// Closes both sockets. Bites are counted once they were felt, and before the connection is struck out.
    pub(super) async fn finish(mut self, end: End) {
        self.tally();
        let Self {
            client,
            upstream,
            dial,
            closing,
            entry,
            ..
        } = self;
        match end {
            End::Close => {}
            End::HangUp => {
                let (client, upstream) = tokio::join!(say(client, &[]), part(upstream));
                drop(entry);
                tokio::join!(linger(client), linger(upstream));
                return;
            }
            End::Reset(rule) => {
                reset_on_close(client.tcp());
                drop(client);
                // The upstream may have accepted what was dialled before anybody here has looked.
                let dialled = dial.and_then(FutureExt::now_or_never).and_then(Result::ok);
                if let Some(upstream) = upstream.or(dialled) {
                    reset_on_close(upstream.tcp());
                }
                if let Some(rule) = rule {
                    rule.bite();
                }
            }
            End::Refusal(refusal) => {
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
                drop(entry);
                linger(client).await;
                return;
            }
            End::Farewell(rule, frame) => {
                let client = say(client, &frame).await;
                if client.is_some() && !frame.is_empty() {
                    rule.bites.messages.fetch_add(1, Ordering::Relaxed);
                }
                let upstream = part(upstream).await;
                rule.bite();
                rule.bites.pending.fetch_sub(1, Ordering::AcqRel);
                drop(entry);
                tokio::join!(linger(client), linger(upstream));
                return;
            }
        }
        if let Some(closing) = closing {
            closing.rule.bites.pending.fetch_sub(1, Ordering::AcqRel);
        }
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
async fn part(upstream: Option<Side>) -> Option<Side> {
    say(upstream?, &[]).await
}

/// Reads until the peer closes: a socket closed with bytes unread is closed with RST, which could overtake the last
/// message.
async fn linger(side: Option<Side>) {
    let Some(mut side) = side else { return };
    let _ = tokio::time::timeout(LINGER, side.outlast()).await;
}
