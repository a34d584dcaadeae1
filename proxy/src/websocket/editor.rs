//! Edits the frames of one direction: bytes in, and what goes out in their place. It can be switched on and off at any
//! byte. A frame that began before it was switched on passes as it is, and what no toxic takes passes byte for byte.
//!
//! A message that is decided on by its first header passes while it comes. One whose payload matters is gathered until
//! it is whole, up to [`LIMIT`].

mod intake;
mod output;
#[cfg(any(fuzzing, test))]
pub(crate) mod rig;
#[cfg(test)]
mod tests;
mod unit;

use std::collections::VecDeque;

use model::instant::Mono;
use model::quantity::Span;

use self::unit::{Decided, Unit};
use super::frame::Frame;
use super::message::{First, Outgoing};
use super::scanner::Header;
use super::tracker::Tracker;
use crate::tap::Way;
use crate::toxics::edit::Edit;
use crate::twists::{Lasting, resume};

pub(crate) use super::message::Out;

/// The most that is gathered of one message, and the most that messages which are held back take together.
pub(crate) const LIMIT: usize = 1 << 20;

/// The editor of one direction of one connection.
#[derive(Debug)]
pub(crate) struct Editor {
    way: Way,
    edits: Vec<Edit>,
    /// Of what comes in.
    tracker: Tracker,
    frame: Current,
    /// The data message that is under way.
    data: Option<Data>,
    /// The control frame that is being gathered.
    control: Option<Unit>,
    /// Messages that wait for others to pass them.
    held: Vec<Held>,
    /// What waits for the end of what is passing.
    deferred: Vec<Deferred>,
    /// What came in and has not been looked at; there is none unless something is to go out.
    rest: Vec<u8>,
    out: VecDeque<Out>,
    /// What was put into `out` since it was empty.
    made: usize,
    /// How much of the first of `out` has been taken.
    taken: usize,
    /// The connection is to end: nothing that comes matters any more.
    is_over: bool,
}

/// What becomes of the frame that is coming in.
#[derive(Debug)]
enum Current {
    /// None is.
    Between,
    /// It passes, and is not looked at.
    Raw,
    /// It passes as its message does.
    Passing { is_data: bool, is_last: bool },
    /// It is gathered.
    Gathered { frame: Frame, is_data: bool },
}

/// What becomes of a data message.
#[derive(Debug)]
enum Data {
    Raw,
    Passing(Box<Outgoing>),
    Gathered(Box<Unit>),
}

/// A message that is held back.
#[derive(Debug)]
struct Held {
    uid: u64,
    waiting: Deferred,
    size: usize,
    /// How many messages are still to pass it.
    messages: u64,
    until: Option<Mono>,
}

/// What may not go out in the middle of something else.
#[derive(Debug)]
struct Deferred {
    /// It may stand between the fragments of a message.
    is_control: bool,
    outs: Vec<Out>,
}

impl Editor {
    /// Begins where the scanner of what came before is.
    pub(crate) fn new(way: Way, tracker: Tracker) -> Self {
        Self {
            way,
            edits: Vec::new(),
            tracker,
            frame: Current::Between,
            data: None,
            control: None,
            held: Vec::new(),
            deferred: Vec::new(),
            rest: Vec::new(),
            out: VecDeque::new(),
            made: 0,
            taken: 0,
            is_over: false,
        }
    }

    /// Obeys these from the next message on.
    pub(crate) fn set(&mut self, edits: Vec<Edit>) {
        if self.is_idle() {
            self.frame = if self.tracker.at_boundary() {
                Current::Between
            } else {
                Current::Raw
            };
            self.data = self.tracker.is_fragmented().then_some(Data::Raw);
        }
        let before = std::mem::replace(&mut self.edits, edits);
        resume(&mut self.edits, before);
        self.let_go(|held, edits| edits.iter().all(|edit| edit.uid() != held.uid));
        if let Some(Data::Gathered(unit)) = &self.data
            && !unit.interests(&self.edits)
        {
            self.stop_gathering();
        }
        if self.edits.is_empty() {
            self.let_the_rest_pass();
        }
        self.act_at_once();
    }

    /// Nobody is interested any more: what can pass unseen does.
    fn let_the_rest_pass(&mut self) {
        self.control = None;
        if let Current::Gathered { frame, .. } = &mut self.frame {
            let begun = frame.bytes();
            self.frame = Current::Passing {
                is_data: false,
                is_last: true,
            };
            self.pass(&begun, Span::ZERO);
        }
        if matches!(&self.data, Some(Data::Passing(message)) if message.is_plain()) {
            self.data = Some(Data::Raw);
        }
        self.pass_begun_header();
    }

    /// Toxics that do not wait for a message.
    fn act_at_once(&mut self) {
        let index = self.tracker.next_index();
        for at in 0..self.edits.len() {
            if self.is_over || !self.edits[at].is_at_once() {
                continue;
            }
            let mut nothing = Outgoing::new(self.way, Vec::new());
            self.edits[at].act(index, &mut nothing);
            // A Close frame may stand between fragments, and a message may never end.
            self.emit(Deferred {
                is_control: true,
                outs: nothing.outs(),
            });
        }
    }

    /// Without anything to do nothing shall be kept, be it the beginning of a header.
    fn pass_begun_header(&mut self) {
        let is_free =
            matches!(self.frame, Current::Between) && matches!(self.data, None | Some(Data::Raw));
        if self.edits.is_empty() && is_free && !self.tracker.begun().is_empty() {
            let begun = self.tracker.begun().to_vec();
            self.pass(&begun, Span::ZERO);
            self.frame = Current::Raw;
        }
    }

    /// Whether bytes can pass beside it, if it is shown them by [`Self::watch`].
    pub(crate) fn is_idle(&self) -> bool {
        self.edits.is_empty()
            && matches!(self.data, None | Some(Data::Raw))
            && (matches!(self.frame, Current::Raw)
                || matches!(self.frame, Current::Between) && self.tracker.begun().is_empty())
            && self.held.is_empty()
            && self.deferred.is_empty()
            && self.out.is_empty()
            && !self.is_over
    }

    /// Looks at bytes that pass beside it.
    pub(crate) fn watch(&mut self, mut bytes: &[u8]) {
        while self.tracker.next(&mut bytes).is_some() {}
        self.frame = Current::Raw;
    }

    fn header(&mut self, header: &Header, taken: &[u8]) {
        if matches!(self.frame, Current::Raw) {
            self.pass(taken, Span::ZERO);
            if !header.is_control() {
                self.data = self.tracker.is_fragmented().then_some(Data::Raw);
            }
            return;
        }
        let frame = Frame::begun(*header, self.tracker.last_header());
        let first = First::new(self.tracker.index(), header);
        if header.is_control() {
            let unit = Unit::new(first, &mut self.edits);
            // It may not overtake the fragments before it.
            let matters =
                unit.interests(&self.edits) || matches!(self.data, Some(Data::Gathered(_)));
            if matters && header.length <= LIMIT as u64 {
                self.control = Some(unit);
                self.frame = Current::Gathered {
                    frame,
                    is_data: false,
                };
            } else {
                unit.spare(&self.edits);
                self.stop_gathering();
                self.pass(&frame.head(), Span::ZERO);
                self.frame = Current::Passing {
                    is_data: false,
                    is_last: true,
                };
            }
            return;
        }
        if header.opcode != 0 || self.data.is_none() {
            self.begin_data(first);
        }
        self.fragment(frame);
    }

    fn begin_data(&mut self, first: First) {
        if matches!(self.data, Some(Data::Gathered(_))) {
            // A new message in the middle of another is illegal, and for the peer to judge.
            self.stop_gathering();
        }
        let unit = Unit::new(first, &mut self.edits);
        self.data = Some(if unit.needs_all(&self.edits) {
            Data::Gathered(Box::new(unit))
        } else {
            Data::Passing(Box::new(unit.decide_early(self.way, &mut self.edits)))
        });
    }

    /// A frame of the data message under way begins.
    fn fragment(&mut self, frame: Frame) {
        if let Some(Data::Gathered(unit)) = &self.data
            && frame.header.length.saturating_add(unit.size as u64) > LIMIT as u64
        {
            self.stop_gathering();
        }
        let is_last = frame.header.fin;
        match &self.data {
            Some(Data::Gathered(_)) => {
                self.frame = Current::Gathered {
                    frame,
                    is_data: true,
                };
            }
            Some(Data::Passing(message)) => {
                let (hold, is_dropped) = (message.hold, message.is_dropped);
                if !is_dropped {
                    self.pass(&frame.head(), hold);
                }
                self.frame = Current::Passing {
                    is_data: true,
                    is_last,
                };
            }
            Some(Data::Raw) | None => {
                self.pass(&frame.head(), Span::ZERO);
                self.data = (!is_last).then_some(Data::Raw);
                self.frame = Current::Raw;
            }
        }
    }

    fn payload(&mut self, piece: &[u8]) {
        match (&mut self.frame, &self.data) {
            (Current::Gathered { frame, .. }, _) => frame.payload.extend(piece),
            (Current::Passing { is_data: true, .. }, Some(Data::Passing(message))) => {
                if !message.is_dropped {
                    let hold = message.hold;
                    self.pass(piece, hold);
                }
            }
            _ => self.pass(piece, Span::ZERO),
        }
    }

    fn frame_ended(&mut self, now: Mono) {
        match std::mem::replace(&mut self.frame, Current::Between) {
            Current::Between | Current::Raw => {}
            Current::Passing {
                is_data: true,
                is_last: true,
            } => {
                if let Some(Data::Passing(message)) = self.data.take() {
                    self.out_all(message.tail());
                    self.passed(message.is_dropped);
                }
            }
            Current::Passing { is_data, .. } => {
                if !is_data {
                    self.passed(false);
                }
            }
            Current::Gathered {
                frame,
                is_data: true,
            } => {
                let is_last = frame.header.fin;
                if let Some(Data::Gathered(unit)) = &mut self.data {
                    unit.add(frame);
                }
                if !is_last {
                    self.bound_gathering();
                } else if let Some(Data::Gathered(unit)) = self.data.take() {
                    self.conclude(now, *unit);
                }
            }
            Current::Gathered { frame, .. } => {
                if let Some(mut unit) = self.control.take() {
                    unit.add(frame);
                    self.conclude(now, unit);
                }
            }
        }
        self.settle();
    }

    /// A message is whole.
    fn conclude(&mut self, now: Mono, unit: Unit) {
        let is_control = unit.first.is_control();
        let Decided {
            between,
            outs,
            is_dropped,
            behind,
        } = unit.decide(self.way, &mut self.edits);
        let ends = outs.iter().any(|out| matches!(out, Out::End(_)));
        match (&mut self.data, behind) {
            (_, Some(behind)) if !ends && !is_dropped => {
                self.out_all(between);
                self.hold_back(now, behind, Deferred { is_control, outs });
                return;
            }
            (Some(Data::Gathered(unit)), _) if is_control && !ends => {
                unit.add_between(outs);
                self.bound_gathering();
            }
            _ => {
                self.out_all(between);
                self.out_all(outs);
            }
        }
        self.passed(is_dropped);
    }

    /// Frames cost memory, however little is in them.
    fn bound_gathering(&mut self) {
        if matches!(&self.data, Some(Data::Gathered(unit)) if unit.size > LIMIT) {
            self.stop_gathering();
        }
    }

    /// Passes what was gathered of a data message and lets the rest follow.
    fn stop_gathering(&mut self) {
        let gathered = self.data.take_if(|data| matches!(data, Data::Gathered(_)));
        let Some(Data::Gathered(unit)) = gathered else {
            return;
        };
        let (message, outs) = unit.give_up(self.way, &mut self.edits);
        self.out_all(outs);
        match std::mem::replace(&mut self.frame, Current::Between) {
            Current::Gathered {
                frame,
                is_data: true,
            } => {
                if !message.is_dropped {
                    self.pass(&frame.head(), message.hold);
                    self.pass(&frame.payload, message.hold);
                }
                self.frame = Current::Passing {
                    is_data: true,
                    is_last: frame.header.fin,
                };
            }
            other => self.frame = other,
        }
        self.data = Some(Data::Passing(Box::new(message)));
    }
}
