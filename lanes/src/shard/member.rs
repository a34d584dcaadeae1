//! One client and its driver: the sockets, timers and token fetches that the state machine asks for.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use host::clock;
use host::peer::Peer;
use model::ids::{CLIENT_HEADER, StreamId};
use model::instant::Mono;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;
use tokio_websockets::{CloseCode, Message};

use crate::client::machine::{Event, Held, Refusal, State};
use crate::client::{Client, Command, Common};
use crate::connection::{Socket, dial};
use crate::frame::Frame;
use crate::oneshot::send;
use crate::token::SCOPE_SUBSCRIBE;
use crate::token_client::{TokenClient, User, Wish};

/// A timer that is not needed still has to be somewhere.
const FAR: Duration = Duration::from_hours(1);
/// A polite close may take so long. A lane answers it at once; one that does not, and goes on serving, is seen to.
const FAREWELL: Duration = Duration::from_secs(1);
/// A send that does not get through: the link is stuck, and the read-idle timer will say so.
const STUCK: Duration = Duration::from_secs(1);

/// How many clients are live, and the fewest that were since somebody last asked.
#[derive(Debug, Default)]
pub(super) struct Live {
    counts: Mutex<(u32, u32)>,
}

impl Live {
    fn moved(&self, up: bool) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.0 = if up { counts.0 + 1 } else { counts.0 - 1 };
        counts.1 = counts.1.min(counts.0);
    }

    /// Live now, and the fewest since the last call.
    pub(super) fn take(&self) -> (u32, u32) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, fewest) = *counts;
        counts.1 = now;
        (now, fewest)
    }
}

/// A client that a driver and the control API share.
#[derive(Debug)]
pub(super) struct Member {
    client: Mutex<Client>,
}

impl Member {
    /// A client that is not yet driven.
    #[must_use]
    pub(super) fn new(client: Client) -> Arc<Self> {
        Arc::new(Self {
            client: Mutex::new(client),
        })
    }

    /// The client.
    pub(super) fn client(&self) -> MutexGuard<'_, Client> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Pending<T> = Option<Pin<Box<dyn Future<Output = Result<T, Refusal>> + Send>>>;

/// Drives one client.
pub(super) struct Driver {
    /// Whom.
    pub(super) member: Arc<Member>,
    /// What all clients have in common.
    pub(super) common: Arc<Common>,
    /// The count of live clients.
    pub(super) live: Arc<Live>,
    /// Where to connect.
    pub(super) endpoint: Arc<Peer>,
    /// Tokens.
    pub(super) tokens: TokenClient,
    /// Its organisation.
    pub(super) org: String,
    /// Its streams.
    pub(super) streams: Vec<StreamId>,
}

/// What a driver has under way.
#[derive(Default)]
struct Hands {
    socket: Option<(Socket, u64)>,
    dialling: Pending<Socket>,
    fetching: Pending<Held>,
}

impl Driver {
    /// Drives the client by orders from the control API, until they end.
    pub(super) async fn run(self, mut orders: UnboundedReceiver<Event>) {
        let mut hands = Hands::default();
        let mut out = VecDeque::new();
        let sleep = tokio::time::sleep(FAR);
        tokio::pin!(sleep);
        let mut armed = Mono(u64::MAX);
        loop {
            while let Some(command) = out.pop_front() {
                self.carry_out(command, &mut hands, &mut out).await;
            }
            let deadline = self.member.client().machine.deadline();
            if deadline != armed {
                armed = deadline;
                let wait = deadline.since(clock::now()).duration().min(FAR);
                sleep.as_mut().reset(Instant::now() + wait);
            }
            tokio::select! {
                biased;
                order = orders.recv() => match order {
                    Some(order) => self.tell(order, &mut out),
                    None => return,
                },
                dialled = ready(&mut hands.dialling) => {
                    hands.dialling = None;
                    match dialled {
                        Ok(socket) => {
                            let epoch = self.member.client().epoch();
                            hands.socket = Some((socket, epoch));
                            self.tell(Event::Upgraded, &mut out);
                        }
                        Err(refusal) => self.tell(Event::Refused(refusal), &mut out),
                    }
                }
                fetched = ready(&mut hands.fetching) => {
                    hands.fetching = None;
                    match fetched {
                        Ok(token) => self.tell(Event::Token(token), &mut out),
                        Err(refusal) => self.tell(Event::NoToken(refusal), &mut out),
                    }
                }
                (message, epoch) = next(&mut hands.socket) => self.received(message, epoch, &mut out),
                () = &mut sleep => {
                    armed = Mono(u64::MAX);
                    self.tell(Event::Tick, &mut out);
                }
            }
        }
    }

    fn received(
        &self,
        message: Option<Result<Message, tokio_websockets::Error>>,
        epoch: u64,
        out: &mut VecDeque<Command>,
    ) {
        let message = match message {
            Some(Ok(message)) => message,
            Some(Err(error)) => return self.tell(Event::Lost(error.to_string()), out),
            None => return self.tell(Event::Lost("closed by the other side".to_owned()), out),
        };
        if let Some(frame) = Frame::of(&message) {
            self.with(out, |client, now, common, commands| {
                client.receive(now, epoch, &frame, common, commands);
            });
        } else if let Some((code, reason)) = message.as_close() {
            let reason = match reason {
                "" => format!("closed with {}", u16::from(code)),
                reason => reason.to_owned(),
            };
            let refusal = Refusal {
                reason,
                ..Refusal::default()
            };
            self.tell(Event::Denied(refusal), out);
        } else {
            self.tell(Event::Received, out);
        }
    }

    fn tell(&self, event: Event, out: &mut VecDeque<Command>) {
        self.with(out, |client, now, common, commands| {
            client.handle(now, event, common, commands);
        });
    }

    fn with(
        &self,
        out: &mut VecDeque<Command>,
        act: impl FnOnce(&mut Client, Mono, &Common, &mut Vec<Command>),
    ) {
        let mut commands = Vec::new();
        let mut client = self.member.client();
        let before = client.machine.state() == State::Live;
        act(&mut client, clock::now(), &self.common, &mut commands);
        let after = client.machine.state() == State::Live;
        // Under the client's lock, so that the count never says other than the clients do.
        if before != after {
            self.live.moved(after);
        }
        drop(client);
        out.extend(commands);
    }

    async fn carry_out(&self, command: Command, hands: &mut Hands, out: &mut VecDeque<Command>) {
        match command {
            Command::FetchToken(ttl) => {
                let tokens = self.tokens.clone();
                let wish = Wish {
                    org: self.org.clone(),
                    user: User::Client(self.member.client().id),
                    scopes: vec![SCOPE_SUBSCRIBE.to_owned()],
                    streams: self.streams.clone(),
                    ttl,
                };
                hands.fetching = Some(Box::pin(async move { tokens.fetch(&wish).await }));
            }
            Command::Dial(mut upgrade) => {
                let (id, epoch) = {
                    let client = self.member.client();
                    (client.id, client.epoch())
                };
                upgrade.headers.push((CLIENT_HEADER, id.to_string()));
                let nonce = u64::from(id.0) << 32 | epoch;
                let endpoint = Arc::clone(&self.endpoint);
                hands.dialling = Some(Box::pin(
                    async move { dial(&endpoint, &upgrade, nonce).await },
                ));
            }
            Command::Send(frames) => {
                let Some((socket, _)) = &mut hands.socket else {
                    return;
                };
                match tokio::time::timeout(STUCK, send(socket, frames)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(why)) => self.tell(Event::Lost(why), out),
                    Err(_) => {
                        tracing::debug!(client = %self.member.client().id, "a send did not get through");
                    }
                }
            }
            Command::Close => {
                hands.dialling = None;
                if let Some((socket, epoch)) = hands.socket.take() {
                    let (member, common) = (Arc::clone(&self.member), Arc::clone(&self.common));
                    tokio::spawn(farewell(socket, epoch, member, common));
                }
            }
            Command::Drop => {
                hands.dialling = None;
                hands.socket = None;
            }
        }
    }
}

/// Closes a connection; the client still hears what comes on it until the lane has closed it too.
async fn farewell(mut socket: Socket, epoch: u64, member: Arc<Member>, common: Arc<Common>) {
    let polite = async {
        // Not `close`, which reads, and throws away, what comes before the other side's Close.
        let close = Message::close(Some(CloseCode::NORMAL_CLOSURE), "");
        if socket.send(close).await.is_ok() {
            while let Some(Ok(message)) = socket.next().await {
                if let Some(frame) = Frame::of(&message) {
                    let mut nothing = Vec::new();
                    member
                        .client()
                        .receive(clock::now(), epoch, &frame, &common, &mut nothing);
                }
            }
        }
    };
    let _ = tokio::time::timeout(FAREWELL, polite).await;
}

async fn ready<T>(pending: &mut Pending<T>) -> Result<T, Refusal> {
    match pending {
        Some(pending) => pending.await,
        None => std::future::pending().await,
    }
}

async fn next(
    socket: &mut Option<(Socket, u64)>,
) -> (Option<Result<Message, tokio_websockets::Error>>, u64) {
    match socket {
        Some((socket, epoch)) => (socket.next().await, *epoch),
        None => std::future::pending().await,
    }
}
