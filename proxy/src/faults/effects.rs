//! What the rules in force mean for one connection.

use std::sync::Arc;

use model::fault::Fault;
use model::instant::Mono;
use model::quantity::Span;

use super::{Cause, Delay, Pace, Refusal, Rule, Rules};
use crate::plane::{Handle, Identity};
use crate::tap::Way;
use crate::tls::Handshake;
use crate::toxics::edit::Edit;
use crate::toxics::{On, Slots};
use crate::twists::Twists;
use crate::upgrade::Upgrade;

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
    /// Toxics that have some bytes wait and not others.
    pub(crate) stalled_by: Vec<Arc<Rule>>,
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
        !self.stalled_by.is_empty()
    }

    /// Whether everything that has bytes wait here does so there too.
    pub(crate) fn lives_on_in(&self, other: &Self) -> bool {
        let of = |shape: &Self| -> Vec<Arc<Rule>> {
            let delays = shape.delays.iter().map(|delay| &delay.rule);
            delays.chain(&shape.stalled_by).cloned().collect()
        };
        let there = of(other);
        let lives = |rule: &Arc<Rule>| there.iter().any(|other| Arc::ptr_eq(rule, other));
        of(self).iter().all(lives)
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
