//! What a toxic does to the messages of a WebSocket: which it takes, what it does to those, and what it has counted.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::Arc;

use super::draws::Draws;
use super::selector::Selector;
use super::{Acts, On};
use crate::faults::Effects;
use crate::twists::Lasting;
use crate::websocket::{First, LIMIT, Outgoing};

/// Decisions about one message, each with a number of its own: so many.
const SLOTS: u64 = 1 << 20;
/// That on whether a share takes it; those of what is done to it come after.
const SHARE: u64 = 0;

/// What a toxic does to a message that it takes.
pub(crate) trait Act: Debug + Send + Sync {
    /// Does it; `None` where that is not possible, otherwise what was done.
    fn act(&self, message: &mut Outgoing, turn: &Turn<'_>) -> Option<&'static str>;

    /// Whether a message of this kind can be meant. What is not named by an `opcode` has to be data, unless it says
    /// otherwise.
    fn suits(&self, first: &First, is_named: bool) -> bool {
        is_named || !first.is_control()
    }

    /// Whether it needs the whole message.
    fn needs_all(&self) -> bool {
        true
    }

    /// Whether it reads or makes a payload, which it cannot where that is compressed.
    fn reads_payload(&self) -> bool {
        false
    }

    /// Whether a compressed message that comes after one that it takes cannot be read: compression may refer to what
    /// came before (RFC 7692, section 7.1.1).
    fn breaks_compression(&self) -> bool {
        false
    }

    /// Whether it has messages wait.
    fn delays(&self) -> bool {
        false
    }

    /// Whether it acts when it comes, without a message, if no message is selected.
    fn is_momentary(&self) -> bool {
        false
    }

    /// How many data messages it has to remember.
    fn remembers(&self) -> usize {
        0
    }
}

/// What an act may know beside the message.
#[derive(Debug)]
pub(crate) struct Turn<'e> {
    /// The toxic's number.
    pub(super) uid: u64,
    index: u64,
    draws: &'e Draws,
    memory: &'e VecDeque<Arc<Vec<u8>>>,
}

impl Turn<'_> {
    /// A whole number below `limit`: the decision `slot` about the message.
    pub(super) fn below(&self, slot: u64, limit: u64) -> u64 {
        self.draws.below(draw(self.index, slot + 1), limit)
    }

    /// A masking key.
    pub(super) fn key(&self, slot: u64) -> [u8; 4] {
        let key = self.below(slot, 1 << 32);
        u32::try_from(key).unwrap_or(u32::MAX).to_be_bytes()
    }

    /// The data message so many before this one, as it came.
    pub(super) fn earlier(&self, back: usize) -> Option<&Arc<Vec<u8>>> {
        self.memory.get(self.memory.len().checked_sub(back)?)
    }
}

const fn draw(index: u64, slot: u64) -> u64 {
    index.wrapping_mul(SLOTS).wrapping_add(slot % SLOTS)
}

/// What a toxic says at a message's first header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// It lets it be.
    No,
    /// It only wants to remember it.
    Remember,
    /// It takes it.
    Yes,
    /// That depends on the payload.
    Maybe,
}

/// One toxic on one direction of one connection.
#[derive(Debug)]
pub(crate) struct Edit {
    uid: u64,
    selector: Selector,
    act: Box<dyn Act>,
    draws: Draws,
    acts: Acts,
    /// Messages that matched, apart from those that are only counted off.
    matched: u64,
    /// Data messages as they came, the last one last; and their bytes.
    memory: VecDeque<Arc<Vec<u8>>>,
    remembered: usize,
}

impl On<'_> {
    /// Has it act on the messages that `selector` takes.
    pub(super) fn edit<A: Act + Clone + 'static>(
        &self,
        selector: &Selector,
        act: &A,
        effects: &mut Effects,
    ) {
        effects.reads_payload |=
            selector.reads_payload() || act.reads_payload() || act.breaks_compression();
        for way in self.ways() {
            let shape = effects.shape(way);
            if act.delays() {
                shape.stalled_by.push(Arc::clone(self.rule));
            }
            shape.edits.push(Edit::new(
                self.toxic.uid,
                selector.clone(),
                Box::new(act.clone()),
                self.draws(way),
                self.acts(),
            ));
        }
    }
}

impl Edit {
    pub(super) const fn new(
        uid: u64,
        selector: Selector,
        act: Box<dyn Act>,
        draws: Draws,
        acts: Acts,
    ) -> Self {
        Self {
            uid,
            selector,
            act,
            draws,
            acts,
            matched: 0,
            memory: VecDeque::new(),
            remembered: 0,
        }
    }

    /// Looks at a message's first header.
    pub(crate) fn look(&mut self, first: &First) -> Look {
        let is_named = self.selector.names(first);
        let may = is_named != Some(false) && self.act.suits(first, is_named == Some(true));
        let reads = self.selector.reads_payload();
        let look = if !may {
            Look::No
        } else if first.is_compressed() && (reads || self.act.reads_payload()) {
            self.spare(first.index, "compressed");
            Look::No
        } else if reads {
            Look::Maybe
        } else if self.counts_off(first) {
            Look::Yes
        } else {
            Look::No
        };
        if look == Look::No && self.remembers() && !first.is_control() {
            Look::Remember
        } else {
            look
        }
    }

    /// Whether it takes a message with this payload.
    pub(crate) fn takes(&mut self, first: &First, payload: &[u8]) -> bool {
        self.selector.finds(payload) && self.counts_off(first)
    }

    /// Of those that match, whether it is its turn.
    fn counts_off(&mut self, first: &First) -> bool {
        self.matched += 1;
        self.selector.counts(self.matched)
            && self
                .selector
                .share()
                .is_none_or(|share| self.draws.unit(draw(first.index, SHARE)) < share)
    }

    /// Does what it does to a message; whether it did anything.
    pub(crate) fn act(&self, index: u64, message: &mut Outgoing) -> bool {
        let turn = Turn {
            uid: self.uid,
            index,
            draws: &self.draws,
            memory: &self.memory,
        };
        let done = self.act.act(message, &turn);
        if let Some(what) = done {
            self.acts.act(1);
            self.draws.fired(index, what);
        }
        done.is_some()
    }

    /// It has to let a message be.
    pub(crate) fn spare(&self, index: u64, why: &'static str) {
        self.draws.spared(index, why);
    }

    pub(crate) fn needs_all(&self) -> bool {
        self.act.needs_all()
    }

    pub(crate) fn is_at_once(&self) -> bool {
        self.act.is_momentary() && self.selector.is_empty()
    }

    pub(crate) fn remembers(&self) -> bool {
        self.act.remembers() > 0
    }

    /// Remembers a message, at the price of the oldest.
    pub(crate) fn remember(&mut self, bytes: &Arc<Vec<u8>>) {
        self.remembered += bytes.len();
        self.memory.push_back(Arc::clone(bytes));
        while self.memory.len() > self.act.remembers() || self.remembered > LIMIT {
            let oldest = self.memory.pop_front();
            self.remembered -= oldest.map_or(0, |oldest| oldest.len());
        }
    }
}

impl Lasting for Edit {
    fn uid(&self) -> u64 {
        self.uid
    }

    fn resume(&mut self, before: Self) {
        self.matched = before.matched;
        self.memory = before.memory;
        self.remembered = before.remembered;
    }
}
