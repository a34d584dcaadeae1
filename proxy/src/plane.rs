//! What all connections of a proxy share.

use std::collections::HashMap;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use futures_util::task::AtomicWaker;
use host::clock;
use host::timer::Timer;
use model::ids::ClientId;
use model::quantity::Span;
use tokio::sync::SemaphorePermit;
use tokio_util::sync::CancellationToken;

use crate::crew::{Crew, Relay};
use crate::decisions::Decisions;
use crate::faults::{Effects, Rule, Rules, Stage};
use crate::identity::{IdentifyBy, Identities, Subject};
use crate::seats::seats;
use crate::status::Counters;
use crate::tap::FrameTap;
use crate::toxics::Slots;
use crate::upstream::Upstream;

/// How often a change looks whether the connections have taken it on.
const LOOK_EVERY: Span = Span::from_micros(300);

/// The rules, the connections and the counters.
#[derive(Debug)]
pub(crate) struct Plane {
    pub(crate) timer: Timer,
    pub(crate) tap: Option<Arc<dyn FrameTap>>,
    pub(crate) counters: Counters,
    pub(crate) identities: Identities,
    /// Where toxics write down what they decide.
    pub(crate) decisions: Option<Decisions>,
    rules: Mutex<Arc<Rules>>,
    /// That of `rules`, to be seen without the lock.
    generation: AtomicU64,
    handles: Mutex<HashMap<u64, Arc<Handle>>>,
    /// Connections that were accepted in an earlier generation end.
    ended: AtomicU64,
    /// Held while a connection is accepted and counted.
    accepting: Mutex<()>,
    /// Where the connections are, when they are in other processes.
    relay: Option<Relay>,
}

/// Room for one more connection.
pub(crate) enum Seat {
    Here(SemaphorePermit<'static>),
    /// In another process.
    Elsewhere,
}

impl Plane {
    pub(crate) fn new(timer: Timer, tap: Option<Arc<dyn FrameTap>>) -> Arc<Self> {
        Arc::new(Self::with(timer, tap, None, None))
    }

    /// One whose toxics write down what they decide.
    pub(crate) fn with_log(timer: Timer, decisions: Option<Decisions>) -> Arc<Self> {
        Arc::new(Self::with(timer, None, decisions, None))
    }

    /// One whose connections workers have.
    pub(crate) fn manned(timer: Timer, crew: &Arc<Crew>) -> Arc<Self> {
        Arc::new_cyclic(|plane| Self::with(timer, None, None, Some(crew.enlist(plane.clone()))))
    }

    fn with(
        timer: Timer,
        tap: Option<Arc<dyn FrameTap>>,
        decisions: Option<Decisions>,
        relay: Option<Relay>,
    ) -> Self {
        Self {
            timer,
            tap,
            counters: Counters::default(),
            identities: Identities::default(),
            decisions,
            rules: Mutex::default(),
            generation: AtomicU64::new(0),
            handles: Mutex::default(),
            ended: AtomicU64::new(0),
            accepting: Mutex::default(),
            relay,
        }
    }

    /// One who accepts at a time.
    pub(crate) fn accepting(&self) -> MutexGuard<'_, ()> {
        self.accepting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room for a connection.
    pub(crate) async fn seat(&self) -> Seat {
        match &self.relay {
            None => Seat::Here(seats().take().await),
            Some(relay) => {
                relay.room().await;
                Seat::Elsewhere
            }
        }
    }

    /// Hands a connection over to a worker. What depends on the order in which connections come is decided here.
    /// One that comes after the listener was to `stop` is closed: nobody would tell it to end.
    pub(crate) fn hand_over(
        &self,
        client: TcpStream,
        ordinal: u64,
        upstream: &Upstream,
        stop: &CancellationToken,
    ) {
        self.relayed(|relay, rules, _| {
            if stop.is_cancelled() {
                return;
            }
            let mut slots = Slots::default();
            if !rules.list.is_empty() {
                let stage = Stage {
                    born: rules.generation,
                    seen: rules.generation,
                    accepted: clock::now(),
                    is_dialled: false,
                };
                Effects::of(rules, &Arc::new(Handle::new(ordinal)), stage, &mut slots);
            }
            relay.hand_over(client, ordinal, upstream.to_string(), &slots);
        });
    }

    /// Does something that is to be in the order of the changes, where workers have the connections.
    pub(crate) fn relayed(&self, then: impl FnOnce(&Relay, &Rules, u64)) {
        if let Some(relay) = &self.relay {
            let rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
            then(relay, &rules, self.ended.load(Ordering::Acquire));
        }
    }

    /// Takes on what the plane of this worker's parent has.
    pub(crate) fn adopt(&self, generation: u64, ended: u64, list: Vec<Arc<Rule>>) {
        self.ended.store(ended, Ordering::Release);
        {
            let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
            *rules = Arc::new(Rules { generation, list });
            self.generation.store(generation, Ordering::Release);
        }
        for handle in self.handles().values() {
            handle.waker.wake();
        }
    }

    /// Whether its connections are in other processes.
    pub(crate) const fn is_relayed(&self) -> bool {
        self.relay.is_some()
    }

    /// Open connections; as last heard, where workers have them.
    pub(crate) fn open(&self) -> u64 {
        let elsewhere = self.relay.as_ref();
        let elsewhere = elsewhere.map_or(0, |relay| relay.open.load(Ordering::Relaxed));
        self.handles().len() as u64 + elsewhere
    }

    pub(crate) fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Changes the rules and wakes every connection; returns those that have to take the change on. `change` is told
    /// the generation that it makes.
    pub(crate) fn change(
        &self,
        change: impl FnOnce(&mut Vec<Arc<Rule>>, u64),
    ) -> (u64, Vec<Arc<Handle>>) {
        let generation = {
            let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
            let generation = rules.generation + 1;
            let mut list = rules.list.clone();
            change(&mut list, generation);
            *rules = Arc::new(Rules { generation, list });
            self.generation.store(generation, Ordering::Release);
            if let Some(relay) = &self.relay {
                relay.tell(&rules, self.ended.load(Ordering::Acquire));
            }
            generation
        };
        let handles: Vec<_> = self.handles().values().cloned().collect();
        for handle in &handles {
            handle.waker.wake();
        }
        (generation, handles)
    }

    /// Waits until all of these connections obey `generation` or are gone, for at most `limit`; returns how many do
    /// not.
    pub(crate) async fn obeyed(
        &self,
        generation: u64,
        mut handles: Vec<Arc<Handle>>,
        limit: Span,
    ) -> usize {
        let deadline = clock::now() + limit;
        loop {
            // One that does not is enough to go on waiting: looked at all together each time, thousands would keep a processor
            // from what they wait for.
            let obeys = |handle: &Arc<Handle>| handle.obeys.load(Ordering::Acquire) >= generation;
            while handles.last().is_some_and(obeys) {
                handles.pop();
            }
            let now = clock::now();
            if handles.is_empty() || now >= deadline {
                return handles.iter().filter(|handle| !obeys(handle)).count();
            }
            self.timer.sleep_until(now + LOOK_EVERY).await;
        }
    }

    /// Enters a connection.
    pub(crate) fn enter(&self, ordinal: u64) -> Arc<Handle> {
        let handle = Arc::new(Handle {
            identify_by: self.identities.by(),
            ..Handle::new(ordinal)
        });
        self.handles().insert(ordinal, Arc::clone(&handle));
        handle
    }

    /// Strikes a connection out: its sockets are closed, or pass nothing any more.
    pub(crate) fn leave(&self, handle: &Handle) {
        self.handles().remove(&handle.ordinal);
        handle.obeys.store(u64::MAX, Ordering::Release);
    }

    pub(crate) fn handles(&self) -> MutexGuard<'_, HashMap<u64, Arc<Handle>>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells every connection to end that there is.
    pub(crate) fn end(&self) {
        self.change(|_, generation| self.ended.store(generation, Ordering::Release));
    }

    /// Whether a connection that was accepted in that generation has to end.
    pub(crate) fn has_ended(&self, born: u64) -> bool {
        born < self.ended.load(Ordering::Acquire)
    }
}

/// Whom a connection belongs to, which decides whether a fault that takes a share of the clients takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    /// The request's head has not been read yet.
    Unread,
    /// The head names a client.
    Client(ClientId),
    /// There is no readable head or it names nobody: the connection stands for itself, by its ordinal.
    Anonymous,
}

/// A connection as others see it.
#[derive(Debug)]
pub(crate) struct Handle {
    /// Accepted connections are counted from 0.
    pub(crate) ordinal: u64,
    pub(crate) waker: AtomicWaker,
    /// The generation of rules that it obeys.
    pub(crate) obeys: AtomicU64,
    /// Bytes passed on, both ways together.
    pub(crate) passed: AtomicU64,
    /// `passed` when the present hold began; [`NOT_HELD`] outside of one.
    pub(crate) held_from: AtomicU64,
    identity: AtomicU64,
    /// The rules, by generation, that have bitten it.
    bitten: Mutex<Vec<u64>>,
    /// Where its request says to whom it belongs; without that, toxics take it for itself.
    pub(crate) identify_by: Option<Arc<IdentifyBy>>,
    /// The client that its request named.
    client: OnceLock<Subject>,
}

pub(crate) const NOT_HELD: u64 = u64::MAX;
const UNREAD: u64 = u64::MAX;
const ANONYMOUS: u64 = u64::MAX - 1;

impl Handle {
    pub(crate) const fn new(ordinal: u64) -> Self {
        Self {
            ordinal,
            waker: AtomicWaker::new(),
            obeys: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            held_from: AtomicU64::new(NOT_HELD),
            identity: AtomicU64::new(UNREAD),
            bitten: Mutex::new(Vec::new()),
            identify_by: None,
            client: OnceLock::new(),
        }
    }

    /// Counts the connection as one that the rule bit; `true` the first time that it did.
    pub(crate) fn bitten_by(&self, rule: &Rule) -> bool {
        let mut bitten = self.bitten.lock().unwrap_or_else(PoisonError::into_inner);
        let first = !bitten.contains(&rule.generation);
        if first {
            bitten.push(rule.generation);
            rule.bite();
        }
        first
    }

    pub(crate) fn identity(&self) -> Identity {
        match self.identity.load(Ordering::Relaxed) {
            UNREAD => Identity::Unread,
            ANONYMOUS => Identity::Anonymous,
            client => Identity::Client(ClientId(u32::try_from(client).unwrap_or(u32::MAX))),
        }
    }

    /// Whom toxics decide about; `None` as long as that is to be read.
    pub(crate) fn subject(&self) -> Option<Subject> {
        if self.identify_by.is_some() && self.identity() == Identity::Unread {
            return None;
        }
        let client = self.client.get().cloned();
        Some(client.unwrap_or(Subject::Connection(self.ordinal)))
    }

    /// It belongs to a client of the standalone proxy: to be called before [`Self::identify`].
    pub(crate) fn belongs_to(&self, client: Subject) {
        let _ = self.client.set(client);
    }

    pub(crate) fn identify(&self, client: Option<ClientId>) {
        let identity = client.map_or(ANONYMOUS, |ClientId(client)| u64::from(client));
        self.identity.store(identity, Ordering::Relaxed);
    }

    /// Bytes passed on since the present hold began, which is to be 0; `None` when it is not held.
    pub(crate) fn passed_while_held(&self) -> Option<u64> {
        match self.held_from.load(Ordering::Acquire) {
            NOT_HELD => None,
            from => Some(self.passed.load(Ordering::Acquire).saturating_sub(from)),
        }
    }
}
