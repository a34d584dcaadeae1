//! A client's socket as a lane drives it: a queue of what it is to be sent, the clocks of the connection, and the end
//! of its token.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use model::profile::Profile;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_websockets::{CloseCode, Message};

use crate::front::Socket;

/// How long the other side's Close is awaited: a real server's `close-handshake-timeout`.
const CLOSE_HANDSHAKE: Duration = Duration::from_millis(250);

/// How many queued items are written before the socket is looked at again.
const ITEMS_PER_TURN: usize = 64;

/// The sending end of a connection's queue.
#[derive(Debug)]
pub(crate) struct Outbox<I> {
    queue: mpsc::UnboundedSender<I>,
    depth: Arc<AtomicUsize>,
    limit: usize,
    strikes: AtomicU64,
    evict: Arc<Notify>,
}

/// The strikes after which a slow consumer is evicted.
pub(crate) const STRIKES: u64 = 3;

/// The receiving end.
#[derive(Debug)]
pub(crate) struct Inbox<I> {
    queue: mpsc::UnboundedReceiver<I>,
    depth: Arc<AtomicUsize>,
    evict: Arc<Notify>,
}

/// A queue for a connection. Nothing is dropped from it: one whose queue is `STRIKES` times as long as `limit` is
/// evicted.
pub(crate) fn outbox<I>(limit: usize) -> (Outbox<I>, Inbox<I>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let (depth, evict) = (Arc::<AtomicUsize>::default(), Arc::<Notify>::default());
    let outbox = Outbox {
        queue: sender,
        depth: Arc::clone(&depth),
        limit,
        strikes: AtomicU64::new(0),
        evict: Arc::clone(&evict),
    };
    let inbox = Inbox {
        queue: receiver,
        depth,
        evict,
    };
    (outbox, inbox)
}

impl<I> Outbox<I> {
    /// Queues an item. `Some(depth)` when that is a strike for a slow consumer; the third evicts it.
    pub(crate) fn push(&self, item: I) -> Option<usize> {
        let depth = self.depth.fetch_add(1, Relaxed) + 1;
        let _ = self.queue.send(item);
        let strikes = (depth / self.limit) as u64;
        if strikes <= self.strikes.fetch_max(strikes, Relaxed) {
            return None;
        }
        if strikes >= STRIKES {
            self.evict.notify_one();
        }
        Some(depth)
    }
}

/// What happens on a connection.
#[derive(Debug)]
pub(crate) enum Event<I> {
    /// The client sent a message.
    Message(Message),
    /// It is an item's turn to be sent.
    Item(I),
    /// The server's tick.
    Tick,
    /// The token has expired.
    Expired,
    /// Nothing was heard from the client for too long.
    Idle,
    /// It reads too slowly.
    Evicted,
    /// The connection is over.
    Gone,
}

/// A connection could not be written to, or not in time.
#[derive(Debug)]
pub(crate) struct Gone;

/// A client's connection.
#[derive(Debug)]
pub(crate) struct Connection<I> {
    socket: Socket,
    inbox: Inbox<I>,
    tick: Interval,
    idle_after: Duration,
    heard: Instant,
    /// When its token ends, in micro-seconds since the Unix epoch.
    expires_us: Option<u64>,
    ready: VecDeque<I>,
    unflushed: bool,
    deaf: bool,
}

impl<I> Connection<I> {
    /// A connection of which the token ends at `expires_us` (micro-seconds since the Unix epoch).
    pub(crate) fn new(
        socket: Socket,
        inbox: Inbox<I>,
        profile: &Profile,
        expires_us: Option<u64>,
    ) -> Self {
        let period = profile.server_tick.duration();
        let mut tick = tokio::time::interval_at(Instant::now() + period, period);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            socket,
            inbox,
            tick,
            idle_after: profile.heartbeat_timeout.duration(),
            heard: Instant::now(),
            expires_us,
            ready: VecDeque::new(),
            unflushed: false,
            deaf: false,
        }
    }

    /// Whether the token has expired: asked before anything is delivered, since timers are late.
    pub(crate) fn expired(&self) -> bool {
        self.expires_us
            .is_some_and(|at| host::clock::unix_micros() >= at)
    }

    /// Planted: from now on nothing that the client sends is heard, its Close neither.
    pub(crate) const fn deafen(&mut self) {
        self.deaf = true;
    }

    fn until_expiry(&self) -> Option<Duration> {
        let left = self.expires_us?.saturating_sub(host::clock::unix_micros());
        Some(Duration::from_micros(left))
    }

    /// The next event. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Event<I> {
        if self.expired() {
            return Event::Expired;
        }
        if self.ready.is_empty() && self.unflushed && self.flush().await.is_err() {
            return if self.expired() {
                Event::Expired
            } else {
                Event::Gone
            };
        }
        if let Some(item) = self.pop() {
            return Event::Item(item);
        }
        let expiry = self.until_expiry();
        let expired = async {
            match expiry {
                Some(left) => tokio::time::sleep(left).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = expired => Event::Expired,
            () = self.inbox.evict.notified() => Event::Evicted,
            message = self.socket.next(), if !self.deaf => match message {
                Some(Ok(message)) => {
                    self.heard = Instant::now();
                    if message.is_close() { Event::Gone } else { Event::Message(message) }
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, "a client's socket broke");
                    Event::Gone
                }
                None => Event::Gone,
            },
            item = self.inbox.queue.recv() => match item {
                Some(item) => {
                    self.take(item);
                    self.pop().map_or(Event::Gone, Event::Item)
                }
                None => Event::Gone,
            },
            _ = self.tick.tick() => {
                if !self.deaf && self.heard.elapsed() >= self.idle_after { Event::Idle } else { Event::Tick }
            }
        }
    }

    fn take(&mut self, first: I) {
        self.ready.push_back(first);
        while self.ready.len() < ITEMS_PER_TURN {
            match self.inbox.queue.try_recv() {
                Ok(item) => self.ready.push_back(item),
                Err(_) => break,
            }
        }
    }

    fn pop(&mut self) -> Option<I> {
        let item = self.ready.pop_front()?;
        self.inbox.depth.fetch_sub(1, Relaxed);
        Some(item)
    }

    /// How many items wait.
    pub(crate) fn depth(&self) -> usize {
        self.inbox.depth.load(Relaxed)
    }

    /// Writes a text; it leaves when nothing more is queued.
    pub(crate) async fn write(&mut self, text: Bytes) -> Result<(), Gone> {
        self.write_message(Message::text(text)).await
    }

    /// Writes a message of either kind; it leaves when nothing more is queued.
    pub(crate) async fn write_message(&mut self, message: Message) -> Result<(), Gone> {
        self.unflushed = true;
        let deadline = self.patience();
        within(deadline, self.socket.feed(message)).await
    }

    /// Sends a ping.
    pub(crate) async fn ping(&mut self) -> Result<(), Gone> {
        let deadline = self.patience();
        within(deadline, self.socket.send(Message::ping(""))).await
    }

    async fn flush(&mut self) -> Result<(), Gone> {
        self.unflushed = false;
        let deadline = self.patience();
        within(deadline, self.socket.flush()).await
    }

    /// A client that takes nothing for as long as it may be silent is gone; and none is served past its token.
    fn patience(&self) -> Duration {
        let left = self.until_expiry().unwrap_or(Duration::MAX);
        self.idle_after.min(left)
    }

    /// Sends what is written and a Close, and waits a little for the client's.
    pub(crate) async fn close(mut self, code: CloseCode, reason: &str) {
        let farewell = async {
            if self
                .socket
                .send(Message::close(Some(code), reason))
                .await
                .is_ok()
            {
                while let Some(Ok(_)) = self.socket.next().await {}
            }
        };
        let _ = tokio::time::timeout(CLOSE_HANDSHAKE, farewell).await;
    }

    /// Waits for the client's next message and ignores it: what a real server of the spacetime lane does with a
    /// connection that it has given up, before it closes the socket.
    pub(crate) async fn linger(mut self) {
        let _ = self.socket.next().await;
    }
}

async fn within<E>(
    deadline: Duration,
    write: impl Future<Output = Result<(), E>>,
) -> Result<(), Gone> {
    match tokio::time::timeout(deadline, write).await {
        Ok(Ok(())) => Ok(()),
        _ => Err(Gone),
    }
}
