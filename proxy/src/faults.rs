//! The rules in force, and what they mean for one connection.

mod bandwidth;
mod hold;
mod latency;
mod refuse;
mod refuse_upgrade;
mod reset;
mod ws_close;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use host::clock;
use model::decide;
use model::fault::{Fault, FaultOrder, Observation};
use model::instant::Mono;
use model::quantity::Span;

pub(crate) use self::bandwidth::Pace;
pub(crate) use self::latency::Delay;
pub(crate) use self::refuse_upgrade::{Refusal, check as check_refusal};
pub(crate) use self::reset::reset_on_close;
use crate::decisions::Decisions;
use crate::plane::{Handle, Identity};
use crate::tap::Way;
use crate::tls::Handshake;
use crate::toxics::edit::Edit;
use crate::toxics::{On, Settings, Slots, Toxic};
use crate::twists::Twists;
use crate::upgrade::Upgrade;

/// The rules of one generation.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    /// Counts the changes.
    pub(crate) generation: u64,
    /// In the order in which they were asked for.
    pub(crate) list: Vec<Arc<Rule>>,
}

/// A fault in force.
#[derive(Debug)]
pub(crate) struct Rule {
    /// What its decisions hang on, together with the seed.
    pub(crate) id: String,
    pub(crate) seed: u64,
    pub(crate) cause: Cause,
    /// The generation that it came with: connections accepted in it or later are new ones.
    pub(crate) generation: u64,
    pub(crate) bites: Bites,
    log: Option<Decisions>,
}

/// Who asked for a fault.
#[derive(Debug)]
pub(crate) enum Cause {
    /// A drill, under a lease.
    Ordered(FaultOrder),
    /// A drill, under a lease: one of the toxics.
    Leased(Box<Toxic>),
    /// A user of the standalone proxy's API.
    Toxic(Box<Toxic>),
}

/// What a rule was seen to do. Which of these count depends on the fault.
#[derive(Debug)]
pub(crate) struct Bites {
    /// Connections that it bit, each once.
    total: AtomicU64,
    /// The first of them, in micro-seconds of the monotonic clock.
    first: AtomicU64,
    /// Of `total`: connections that were accepted after the fault began.
    pub(crate) connects: AtomicU64,
    /// Chunks delayed, or waits of a paced link.
    pub(crate) chunks: AtomicU64,
    /// Bytes passed on when none should have been, of holds that are over.
    pub(crate) leaked: AtomicU64,
    /// What a toxic did: pieces that it cut, bits that it turned over, messages that it dropped.
    pub(crate) acts: AtomicU64,
    /// Close frames that the client's socket took, or refusals with Retry-After.
    pub(crate) messages: AtomicU64,
    /// Messages that a toxic could not act on, or not look into.
    pub(crate) spared: AtomicU64,
    /// Connections that have been told to close and have not closed yet.
    pub(crate) pending: AtomicU64,
    /// Connections that it may have been meant for, but which are TLS that passes through.
    pub(crate) opaque: AtomicU64,
    /// Connections that had not taken the fault on when the injection stopped waiting for them.
    pub(crate) unconfirmed: AtomicU64,
}

impl Default for Bites {
    fn default() -> Self {
        Self {
            total: AtomicU64::new(0),
            first: AtomicU64::new(u64::MAX),
            connects: AtomicU64::new(0),
            chunks: AtomicU64::new(0),
            acts: AtomicU64::new(0),
            leaked: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            spared: AtomicU64::new(0),
            pending: AtomicU64::new(0),
            opaque: AtomicU64::new(0),
            unconfirmed: AtomicU64::new(0),
        }
    }
}

impl Rule {
    /// # Errors
    /// The settings of a toxic are wrong: see [`check`].
    pub(crate) fn new(order: FaultOrder, generation: u64) -> Result<Self, String> {
        let (id, seed) = (order.id.clone(), order.seed);
        let cause = match &order.fault {
            Fault::Toxic(settings) => {
                Cause::Leased(Box::new(Toxic::leased(&order, settings, generation)?))
            }
            _ => Cause::Ordered(order),
        };
        Ok(Self::with(id, seed, cause, generation, None))
    }

    /// A toxic in force; `proxy` is its proxy's name, `log` takes what it decides.
    pub(crate) fn toxic(
        proxy: &str,
        seed: u64,
        toxic: Toxic,
        generation: u64,
        log: Option<Decisions>,
    ) -> Self {
        let id = format!("{proxy}/{}", toxic.name);
        Self::with(id, seed, Cause::Toxic(Box::new(toxic)), generation, log)
    }

    /// One that has bitten nothing yet.
    pub(crate) fn with(
        id: String,
        seed: u64,
        cause: Cause,
        generation: u64,
        log: Option<Decisions>,
    ) -> Self {
        Self {
            id,
            seed,
            cause,
            generation,
            bites: Bites::default(),
            log,
        }
    }

    /// Whether it takes a connection; `None` as long as its client is not known. A connection that names no client
    /// is decided on by its ordinal, as the subject `connection-7`.
    pub(crate) fn takes(&self, handle: &Handle) -> Option<bool> {
        let share = match &self.cause {
            Cause::Ordered(order) => order.share,
            Cause::Leased(toxic) | Cause::Toxic(toxic) => toxic.toxicity,
        };
        let (seed, id) = (self.seed, &self.id);
        let ratio = share.as_ratio();
        if ratio >= 1.0 {
            return Some(true);
        }
        if ratio <= 0.0 {
            return Some(false);
        }
        match &self.cause {
            Cause::Leased(toxic) if !toxic.is_of_the_handshake() => {}
            Cause::Ordered(_) => {}
            Cause::Leased(toxic) | Cause::Toxic(toxic) => {
                let subject = toxic.subject(handle)?.to_string();
                return Some(decide::unit(seed, id, &subject, 0) < ratio);
            }
        }
        match handle.identity() {
            Identity::Unread => None,
            Identity::Client(client) => Some(decide::selected(seed, id, client, share)),
            Identity::Anonymous => {
                let subject = format!("connection-{}", handle.ordinal);
                Some(decide::unit(seed, id, &subject, 0) < ratio)
            }
        }
    }

    /// Whether it is the toxic of this number.
    fn is_toxic(&self, uid: u64) -> bool {
        matches!(&self.cause, Cause::Leased(toxic) | Cause::Toxic(toxic) if toxic.uid == uid)
    }

    /// Where its decisions are written down.
    pub(crate) const fn log(&self) -> Option<&Decisions> {
        self.log.as_ref()
    }

    /// It bit a connection that it had not bitten before.
    pub(crate) fn bite(&self) {
        self.bites.total.fetch_add(1, Ordering::Relaxed);
        self.bites
            .first
            .fetch_min(clock::now().0, Ordering::Relaxed);
    }

    /// What it was seen to do, with a look at the open connections.
    pub(crate) fn observe<'h>(&self, open: impl Iterator<Item = &'h Handle>) -> Observation {
        let mut figures = match &self.cause {
            Cause::Ordered(order) => self.figures(&order.fault, open),
            Cause::Leased(_) | Cause::Toxic(_) => named([
                ("connections_bitten", get(&self.bites.total)),
                ("acts", get(&self.bites.acts)),
                ("messages_spared", get(&self.bites.spared)),
            ]),
        };
        for (name, counter) in [
            ("connections_opaque", &self.bites.opaque),
            ("connections_unconfirmed", &self.bites.unconfirmed),
        ] {
            let count = get(counter);
            if count > 0 {
                figures.insert(name.to_owned(), count);
            }
        }
        let first = get(&self.bites.first);
        Observation {
            bitten: get(&self.bites.total),
            observed: (first != u64::MAX).then_some(Mono(first)),
            figures,
        }
    }

    fn figures<'h>(
        &self,
        fault: &Fault,
        open: impl Iterator<Item = &'h Handle>,
    ) -> BTreeMap<String, u64> {
        match fault {
            Fault::Latency(_) => latency::figures(&self.bites),
            Fault::Bandwidth(_) => bandwidth::figures(&self.bites),
            Fault::Hold(_) => hold::figures(self, open),
            Fault::Reset(_) => reset::figures(&self.bites),
            Fault::Refuse(_) => refuse::figures(&self.bites),
            Fault::WsClose(_) => ws_close::figures(&self.bites),
            Fault::RefuseUpgrade(_) => refuse_upgrade::figures(&self.bites),
            Fault::Toxic(_)
            | Fault::Kill(_)
            | Fault::Terminate(_)
            | Fault::Pause(_)
            | Fault::Restore(_)
            | Fault::TokenExpiry(_) => BTreeMap::new(),
        }
    }
}

/// Whether a proxy can inject it as it is; `only_tls` when all that it sees is TLS which passes through.
///
/// # Errors
/// What is wrong with it and what to do.
pub(crate) fn check(fault: &Fault, only_tls: bool) -> Result<(), String> {
    match fault {
        Fault::WsClose(_) | Fault::RefuseUpgrade(_) if only_tls => Err(opaque(fault.name())),
        Fault::Toxic(toxic) if only_tls && toxic.kind.starts_with("ws_") => {
            Err(opaque(&toxic.kind))
        }
        Fault::Bandwidth(settings) => bandwidth::check(settings),
        Fault::WsClose(settings) => ws_close::check(settings),
        Fault::RefuseUpgrade(settings) => refuse_upgrade::check(settings.status),
        Fault::Toxic(settings) => Settings::of(settings).map(drop),
        Fault::Latency(_) | Fault::Hold(_) | Fault::Reset(_) | Fault::Refuse(_) => Ok(()),
        Fault::Kill(_)
        | Fault::Terminate(_)
        | Fault::Pause(_)
        | Fault::Restore(_)
        | Fault::TokenExpiry(_) => Err(format!(
            "`{}` is not a proxy's fault; its holder is {:?}, order it there",
            fault.name(),
            fault.holder()
        )),
    }
}

/// What is wrong with a fault of requests or frames where these cannot be seen.
fn opaque(name: &str) -> String {
    format!(
        "`{name}` needs to see requests and frames, and the connections are TLS that passes through; have the proxy \
         terminate TLS, or use a fault of TCP: latency, bandwidth, hold, reset or refuse"
    )
}

/// How far a connection is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stage {
    /// The generation of rules that it was accepted in, and the last one that it looked at.
    pub(crate) born: u64,
    pub(crate) seen: u64,
    pub(crate) accepted: Mono,
    /// Its lane is there, or on the way.
    pub(crate) is_dialled: bool,
}

/// What the rules in force mean for one connection.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// Held by these.
    pub(crate) hold: Vec<Arc<Rule>>,
    /// To be reset, now.
    pub(crate) reset: Option<Arc<Rule>>,
    /// To be closed with a Close frame, now.
    pub(crate) close: Option<Arc<Rule>>,
    /// Not to be let in.
    pub(crate) refuse: Option<Arc<Rule>>,
    /// Not to be upgraded.
    pub(crate) refuse_upgrade: Option<Refusal>,
    /// Client to lane.
    pub(crate) upstream: Shape,
    /// Lane to client.
    pub(crate) downstream: Shape,
    /// One direction is stopped by these.
    pub(crate) stopped: Vec<Arc<Rule>>,
    /// The lane is not dialled for before this instant, because of these.
    pub(crate) dial_at: Mono,
    pub(crate) late_for: Vec<Arc<Rule>>,
    /// The lane is never dialled for, by the toxic of this number.
    pub(crate) silent: Option<u64>,
    /// A toxic reads payloads, or makes them: what is compressed it would have to let be.
    pub(crate) reads_payload: bool,
    /// Something depends on a request that has not been read: nothing of it may go on before it has.
    pub(crate) undecided: bool,
    /// What toxics do to its upgrade.
    pub(crate) upgrade: Option<Box<Upgrade>>,
    /// How TLS begins with its client, where it ends here.
    pub(crate) handshake: Handshake,
    /// That is so because of these.
    pub(crate) greeted_by: Vec<Arc<Rule>>,
}

/// How one direction is slowed down.
#[derive(Debug, Default)]
pub(crate) struct Shape {
    /// The delays add up.
    pub(crate) delays: Vec<Delay>,
    /// The slowest counts.
    pub(crate) paces: Vec<Pace>,
    /// What only toxics do.
    pub(crate) twists: Option<Box<Twists>>,
    /// What toxics do to the frames of a WebSocket, in the order in which it is done.
    pub(crate) edits: Vec<Edit>,
    /// Some of these delay messages.
    pub(crate) delays_messages: bool,
}

impl Shape {
    pub(crate) const fn is_plain(&self) -> bool {
        self.delays.is_empty() && self.paces.is_empty() && self.twists.is_none()
    }

    /// Whether bytes may have to wait for an instant.
    pub(crate) fn is_late(&self) -> bool {
        !self.delays.is_empty() || self.stalls()
    }

    /// Whether some wait for no foreseeable time.
    pub(crate) fn stalls(&self) -> bool {
        self.delays_messages || self.twists.as_ref().is_some_and(|twists| twists.stalls())
    }

    /// The longest that a chunk can wait for its delays.
    pub(crate) fn longest_delay(&self) -> Span {
        let delays = self.delays.iter().map(Delay::longest);
        delays.fold(Span::ZERO, Span::plus)
    }

    pub(crate) fn twist(&mut self) -> &mut Twists {
        self.twists.get_or_insert_default()
    }

    /// Bytes per second.
    pub(crate) fn rate(&self) -> Option<u64> {
        self.paces.iter().map(|pace| pace.per_second).min()
    }
}

impl Effects {
    /// Momentary faults that came after what the connection has `seen` are for it. `slots` are those that it has taken.
    pub(crate) fn of(rules: &Rules, handle: &Arc<Handle>, stage: Stage, slots: &mut Slots) -> Self {
        let mut effects = Self::default();
        slots.keep(|uid| rules.list.iter().any(|rule| rule.is_toxic(uid)));
        for rule in &rules.list {
            let takes = rule.takes(handle);
            let order = match &rule.cause {
                Cause::Leased(toxic) | Cause::Toxic(toxic) => {
                    let waits = toxic.subject(handle).is_none() && toxic.settings.draws();
                    if takes.is_none() || takes == Some(true) && waits {
                        effects.undecided = true;
                        continue;
                    }
                    slots.rolled(rule, toxic, handle, takes == Some(true));
                    if takes == Some(true) {
                        let slots = &mut *slots;
                        let on = On {
                            rule,
                            toxic,
                            handle,
                            stage,
                        };
                        toxic.settings.take_hold(&on, slots, &mut effects);
                    }
                    continue;
                }
                Cause::Ordered(order) => order,
            };
            effects.undecided |= takes.is_none() && order.fault.ends_after().is_none();
            if takes != Some(true) {
                continue;
            }
            match &order.fault {
                Fault::Latency(settings) => {
                    for way in [Way::Upstream, Way::Downstream] {
                        if way.is_in(settings.direction) {
                            let delay = Delay::new(rule, settings, handle, way);
                            effects.shape(way).delays.push(delay);
                        }
                    }
                }
                Fault::Bandwidth(settings) => {
                    for way in [Way::Upstream, Way::Downstream] {
                        if way.is_in(settings.direction) {
                            effects.shape(way).paces.push(Pace::new(rule, settings));
                        }
                    }
                }
                Fault::Hold(_) => effects.hold.push(Arc::clone(rule)),
                Fault::Reset(_) if rule.generation > stage.seen => {
                    effects.reset = Some(Arc::clone(rule));
                }
                Fault::WsClose(_) if rule.generation > stage.seen => {
                    effects.close = Some(Arc::clone(rule));
                }
                Fault::Refuse(_) if rule.generation <= stage.born => {
                    effects.refuse = Some(Arc::clone(rule));
                }
                Fault::RefuseUpgrade(settings) => {
                    effects.undecided |= handle.identity() == Identity::Unread;
                    effects.refuse_upgrade = Some(Refusal::new(rule, settings));
                }
                _ => {}
            }
        }
        effects.undecided |= effects.reads_payload && handle.identity() == Identity::Unread;
        effects
    }

    pub(crate) const fn is_held(&self) -> bool {
        !self.hold.is_empty()
    }

    pub(crate) fn upgrade(&mut self) -> &mut Upgrade {
        self.upgrade.get_or_insert_default()
    }

    pub(crate) const fn shape(&mut self, way: Way) -> &mut Shape {
        match way {
            Way::Upstream => &mut self.upstream,
            Way::Downstream => &mut self.downstream,
        }
    }
}

/// The Close frame that a `ws_close` rule sends.
pub(crate) fn farewell(rule: &Rule) -> Vec<u8> {
    match &rule.cause {
        Cause::Ordered(FaultOrder {
            fault: Fault::WsClose(settings),
            ..
        }) => crate::websocket::close_frame(settings.code, &settings.reason),
        _ => Vec::new(),
    }
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Acquire)
}

fn named<const N: usize>(figures: [(&str, u64); N]) -> BTreeMap<String, u64> {
    figures
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}
