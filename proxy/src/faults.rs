//! The rules in force, whom they take and what they were seen to do; `effects` is what they mean for one connection.

mod bandwidth;
mod effects;
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
pub(crate) use self::effects::{Effects, Shape, Stage};
pub(crate) use self::latency::Delay;
pub(crate) use self::refuse_upgrade::{Refusal, check as check_refusal};
pub(crate) use self::reset::reset;
use crate::decisions::Decisions;
use crate::plane::{Handle, Identity};
use crate::toxics::{Settings, Toxic};

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
            // Toxics count by themselves; the others have other holders.
            _ => BTreeMap::new(),
        }
    }
}

/// Whether a proxy can inject it as it is; `only_tls` when all that it sees is TLS which passes through, `ends_tls` when
/// TLS ends at it.
///
/// # Errors
/// What is wrong with it and what to do.
pub(crate) fn check(fault: &Fault, only_tls: bool, ends_tls: bool) -> Result<(), String> {
    match fault {
        Fault::WsClose(_) | Fault::RefuseUpgrade(_) if only_tls => Err(opaque(fault.name())),
        Fault::Toxic(toxic) if only_tls && toxic.kind.starts_with("ws_") => {
            Err(opaque(&toxic.kind))
        }
        Fault::Bandwidth(settings) => bandwidth::check(settings),
        Fault::WsClose(settings) => ws_close::check(settings),
        Fault::RefuseUpgrade(settings) => refuse_upgrade::check(settings.status),
        Fault::Toxic(toxic) => Settings::of(toxic)?.check_tls(ends_tls),
        Fault::Latency(_) | Fault::Hold(_) | Fault::Reset(_) | Fault::Refuse(_) => Ok(()),
        _ => Err(format!(
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
