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

pub(crate) use self::bandwidth::Pace;
pub(crate) use self::latency::Delay;
pub(crate) use self::refuse_upgrade::Refusal;
pub(crate) use self::reset::reset_on_close;
use crate::plane::{Handle, Identity};
use crate::tap::Way;

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
    pub(crate) order: FaultOrder,
    /// The generation that it came with: connections accepted in it or later are new ones.
    pub(crate) generation: u64,
    pub(crate) bites: Bites,
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
    /// Close frames that the client's socket took, or refusals with Retry-After.
    pub(crate) messages: AtomicU64,
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
            leaked: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            pending: AtomicU64::new(0),
            opaque: AtomicU64::new(0),
            unconfirmed: AtomicU64::new(0),
        }
    }
}

impl Rule {
    pub(crate) fn new(order: FaultOrder, generation: u64) -> Self {
        Self {
            order,
            generation,
            bites: Bites::default(),
        }
    }

    /// Whether it takes a connection; `None` as long as its client is not known. A connection that names no client
    /// is decided on by its ordinal, as the subject `connection-7`.
    pub(crate) fn takes(&self, handle: &Handle) -> Option<bool> {
        let FaultOrder {
            seed, id, share, ..
        } = &self.order;
        let ratio = share.as_ratio();
        if ratio >= 1.0 {
            return Some(true);
        }
        if ratio <= 0.0 {
            return Some(false);
        }
        match handle.identity() {
            Identity::Unread => None,
            Identity::Client(client) => Some(decide::selected(*seed, id, client, *share)),
            Identity::Anonymous => {
                let subject = format!("connection-{}", handle.ordinal);
                Some(decide::unit(*seed, id, &subject, 0) < ratio)
            }
        }
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
        let mut figures = match &self.order.fault {
            Fault::Latency(_) => latency::figures(&self.bites),
            Fault::Bandwidth(_) => bandwidth::figures(&self.bites),
            Fault::Hold(_) => hold::figures(self, open),
            Fault::Reset(_) => reset::figures(&self.bites),
            Fault::Refuse(_) => refuse::figures(&self.bites),
            Fault::WsClose(_) => ws_close::figures(&self.bites),
            Fault::RefuseUpgrade(_) => refuse_upgrade::figures(&self.bites),
            Fault::Kill(_)
            | Fault::Terminate(_)
            | Fault::Pause(_)
            | Fault::Restore(_)
            | Fault::TokenExpiry(_) => BTreeMap::new(),
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
}

/// Whether a proxy can inject it as it is; `only_tls` when all that it sees is TLS which passes through.
///
/// # Errors
/// What is wrong with it and what to do.
pub(crate) fn check(fault: &Fault, only_tls: bool) -> Result<(), String> {
    match fault {
        Fault::WsClose(_) | Fault::RefuseUpgrade(_) if only_tls => Err(format!(
            "`{}` needs to see requests and frames, and the connections are TLS that passes through; have the proxy \
             terminate TLS, or use a fault of TCP: latency, bandwidth, hold, reset or refuse",
            fault.name()
        )),
        Fault::Bandwidth(settings) => bandwidth::check(settings),
        Fault::WsClose(settings) => ws_close::check(settings),
        Fault::RefuseUpgrade(settings) => refuse_upgrade::check(settings),
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
    /// Something depends on a request that has not been read: nothing of it may go on before it has.
    pub(crate) undecided: bool,
}

/// How one direction is slowed down.
#[derive(Debug, Default)]
pub(crate) struct Shape {
    /// The delays add up.
    pub(crate) delays: Vec<Delay>,
    /// The slowest counts.
    pub(crate) paces: Vec<Pace>,
}

impl Shape {
    pub(crate) const fn is_plain(&self) -> bool {
        self.delays.is_empty() && self.paces.is_empty()
    }

    /// Bytes per second.
    pub(crate) fn rate(&self) -> Option<u64> {
        self.paces.iter().map(|pace| pace.per_second).min()
    }
}

impl Effects {
    /// `born` is the generation that the connection was accepted in, `seen` the last one that it looked at: momentary
    /// faults that came later are for it.
    pub(crate) fn of(rules: &Rules, handle: &Handle, born: u64, seen: u64) -> Self {
        let mut effects = Self::default();
        for rule in &rules.list {
            let takes = rule.takes(handle);
            effects.undecided |= takes.is_none() && rule.order.fault.ends_after().is_none();
            if takes != Some(true) {
                continue;
            }
            match &rule.order.fault {
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
                Fault::Reset(_) if rule.generation > seen => {
                    effects.reset = Some(Arc::clone(rule));
                }
                Fault::WsClose(_) if rule.generation > seen => {
                    effects.close = Some(Arc::clone(rule));
                }
                Fault::Refuse(_) if rule.generation <= born => {
                    effects.refuse = Some(Arc::clone(rule));
                }
                Fault::RefuseUpgrade(settings) => {
                    effects.undecided |= handle.identity() == Identity::Unread;
                    effects.refuse_upgrade = Some(Refusal::new(rule, settings));
                }
                _ => {}
            }
        }
        effects
    }

    pub(crate) const fn is_held(&self) -> bool {
        !self.hold.is_empty()
    }

    const fn shape(&mut self, way: Way) -> &mut Shape {
        match way {
            Way::Upstream => &mut self.upstream,
            Way::Downstream => &mut self.downstream,
        }
    }
}

/// The Close frame that a `ws_close` rule sends.
pub(crate) fn farewell(rule: &Rule) -> Vec<u8> {
    match &rule.order.fault {
        Fault::WsClose(settings) => crate::websocket::close_frame(settings.code, &settings.reason),
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
