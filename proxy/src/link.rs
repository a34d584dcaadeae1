//! One direction of a connection: read, sniff, queue, write.

mod editing;
mod heads;
mod meter;

use std::io;
use std::sync::Arc;

use host::clock;
use model::instant::Mono;
use model::quantity::Span;

use self::editing::Editing;
use self::meter::Meter;
use crate::faults::Shape;
use crate::pacing::{Pacer, SLICE};
use crate::passthrough::{READ, read_once, write_some};
use crate::plane::{Handle, Plane};
use crate::queue::ReleaseQueue;
use crate::side::Side;
use crate::splice::{Spliced, splice_once};
use crate::tap::Way;
use crate::twists::{Twists, Verdict};
use crate::websocket::{Head, Sniffer};

/// Bytes that may wait in one direction under a delay: about 20 MB/s at 50 ms.
pub(crate) const IN_FLIGHT: usize = 1 << 20;
/// Reads in one go, before other connections have their turn.
const TURNS: usize = 8;
/// Writes in one go; a toxic can make many of few bytes.
const WRITES: usize = 64;

/// What a link waits for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wants {
    /// Bytes from the reading side.
    pub(crate) read: bool,
    /// Room at the writing side.
    pub(crate) write: bool,
    /// An instant.
    pub(crate) until: Option<Mono>,
}

/// How a turn ended.
#[derive(Debug)]
pub(crate) enum Turn {
    /// It waits; see [`Link::wants`].
    Waits,
    /// There may be more to do at once.
    Again,
    /// The stream's head is known. The bytes are queued, so that the caller can decide on them first.
    Head(Head),
}

/// One direction.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct Link {
    pub(crate) wants: Wants,
    /// Nothing is written.
    pub(crate) withheld: bool,
    /// Nothing is written before this instant.
    pub(crate) not_before: Mono,
    /// Neither a byte of the stream from this one on is written, nor its end.
    pub(crate) stops_at: Option<u64>,
    /// The other direction is finished: the end of this one is the connection's.
    pub(crate) is_last: bool,
    /// The caller looks for a frame boundary after each read: no byte may go out unseen.
    pub(crate) stepwise: bool,
    pub(crate) meter: Meter,
    /// Chunks that were delayed and waits for the pace since the caller last took them.
    pub(crate) delayed: u64,
    pub(crate) waits: u64,
    /// The connection is to end.
    pub(crate) verdict: Option<Verdict>,
    sniffer: Option<Sniffer>,
    /// The last read took as much as one can.
    is_bulky: bool,
    queue: ReleaseQueue,
    shape: Shape,
    pacer: Pacer,
    /// Chunks read.
    chunks: u64,
    /// The reading side has ended, then.
    ended: Option<Mono>,
    /// Its delays let the end go on at this instant at the earliest.
    release_end: Mono,
    /// It ended without the goodbye that TLS says; so does the writing side then.
    torn: bool,
    tail: Tail,
    editing: Editing,
    /// How the editor ends the connection, once the queue is empty.
    last: Option<Verdict>,
}

/// How far the end of a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    /// It goes on.
    Open,
    /// What is queued is the last that goes out; FIN is not passed on.
    Cut,
    /// FIN was passed on.
    Finished,
}

impl Link {
    pub(crate) fn new(plane: Arc<Plane>, handle: Arc<Handle>, way: Way) -> Self {
        let sniffer = Some(Sniffer::new(way, handle.identify_by.clone()));
        Self {
            wants: Wants::default(),
            withheld: false,
            not_before: Mono(0),
            stops_at: None,
            is_last: false,
            stepwise: false,
            meter: Meter::new(plane, handle, way),
            delayed: 0,
            waits: 0,
            verdict: None,
            sniffer,
            is_bulky: false,
            queue: ReleaseQueue::default(),
            shape: Shape::default(),
            pacer: Pacer::default(),
            chunks: 0,
            ended: None,
            release_end: Mono(0),
            torn: false,
            tail: Tail::Open,
            editing: Editing::default(),
            last: None,
        }
    }

    pub(crate) const fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Slows the link down, or no longer: without a delay everything that waits for one goes at once.
    pub(crate) fn set_shape(&mut self, mut shape: Shape) {
        let now = clock::now();
        if !shape.is_late() {
            self.queue.release_all(now);
            self.release_end = Mono(0);
        } else if !shape.stalls() || !self.shape.lives_on_in(&shape) {
            let longest = shape.longest_delay();
            self.queue.wait_at_most(longest);
            let end = self.ended.unwrap_or_default() + longest;
            self.release_end = self.release_end.min(end);
        }
        if self.shape.paces.is_empty() && !shape.paces.is_empty() {
            self.pacer.stood(now);
        }
        if let Some(before) = self.shape.twists.take() {
            if Twists::has_lost(&before, shape.twists.as_deref()) {
                self.verdict = Some(Verdict::HangUp);
            }
            if let Some(twists) = &mut shape.twists {
                twists.resume(*before);
            }
        }
        let edits = std::mem::take(&mut shape.edits);
        self.shape = shape;
        self.set_edits(edits);
        if self.swallows() {
            self.queue.truncate(0);
        }
    }

    fn swallows(&self) -> bool {
        self.shape
            .twists
            .as_ref()
            .is_some_and(|twists| twists.swallows())
    }

    fn withholds(&self) -> bool {
        self.withheld
            || self
                .shape
                .twists
                .as_ref()
                .is_some_and(|twists| twists.withholds())
    }

    /// The end of the stream has been passed on, or it has come and is not to be.
    pub(crate) fn is_finished(&self) -> bool {
        self.tail == Tail::Finished || self.has_ended() && self.swallows()
    }

    /// The reading side has ended.
    pub(crate) const fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// Nothing that was read waits to be passed on.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && !self.owes()
    }

    /// Something waits to be passed on, and for nothing but the other side.
    pub(crate) fn is_eager(&self) -> bool {
        self.shape.is_plain()
            && !self.queue.is_empty()
            && !self.withholds()
            && self.not_before == Mono(0)
    }

    /// The stream's head is not known yet.
    pub(crate) const fn is_sniffing(&self) -> bool {
        self.sniffer.is_some()
    }

    /// Gives up on the stream's head.
    pub(crate) fn stop_sniffing(&mut self) {
        self.sniffer = None;
    }

    /// Passes on what it can. A side that is not there yet is waited for.
    pub(crate) fn pump(
        &mut self,
        from: Option<&mut Side>,
        to: Option<&mut Side>,
    ) -> io::Result<Turn> {
        self.wants = Wants::default();
        if self
            .shape
            .twists
            .as_ref()
            .is_some_and(|twists| twists.is_dead)
        {
            return Ok(Turn::Waits);
        }
        let turn = self.pass(from, to)?;
        if let Some(verdict) = self.last_word() {
            self.verdict = Some(verdict);
        }
        if let Some(tick) = self.next_tick() {
            self.wait_until(tick);
        }
        self.judge();
        Ok(turn)
    }

    /// Asks the toxics whether they end the connection.
    fn judge(&mut self) {
        let Some(twists) = &mut self.shape.twists else {
            return;
        };
        match twists.judge(clock::now(), !self.queue.is_empty(), self.ended.is_some()) {
            Ok(verdict) => self.verdict = Some(verdict),
            Err(None) => {}
            Err(Some(at)) => self.wait_until(at),
        }
    }

    fn wait_until(&mut self, at: Mono) {
        self.wants.until = Some(self.wants.until.map_or(at, |until| until.min(at)));
    }

    fn pass(&mut self, mut from: Option<&mut Side>, to: Option<&mut Side>) -> io::Result<Turn> {
        let withheld = self.waits_for_its_time() || self.withholds();
        let mut to = to.filter(|_| !withheld);
        for _ in 0..TURNS {
            if let Some(to) = to.as_deref_mut()
                && !self.flush(to)?
            {
                return Ok(Turn::Again);
            }
            if self.unload() {
                continue;
            }
            let Some(from) = from.as_deref_mut().filter(|_| self.has_room()) else {
                return Ok(Turn::Waits);
            };
            let fast = to.as_deref_mut().filter(|_| {
                self.shape.is_plain()
                    && self.queue.is_empty()
                    && !self.stepwise
                    && !self.is_editing()
            });
            if let Some(to) = fast.as_deref().filter(|_| self.is_bulky)
                && let Some(moved) = self.splice(from, to)
            {
                if moved? {
                    continue;
                }
                self.wants.read = true;
                return Ok(Turn::Waits);
            }
            let read = read_once(from, |bytes| {
                self.is_bulky = bytes.len() == READ;
                self.take(bytes, fast)
            })?;
            self.torn = from.is_torn();
            match read {
                None => {
                    self.wants.read = true;
                    return Ok(Turn::Waits);
                }
                Some(Some(head)) => return Ok(Turn::Head(head)),
                Some(None) if self.stepwise => return Ok(Turn::Again),
                Some(None) => {}
            }
        }
        Ok(Turn::Again)
    }

    /// Moves bytes that nobody looks at; `false` when there are none now. `None` where they have to be looked at.
    fn splice(&mut self, from: &Side, to: &Side) -> Option<io::Result<bool>> {
        let (from, to) = (from.plain()?, to.plain()?);
        if self.sniffer.is_some() || !self.meter.is_blind() {
            return None;
        }
        let Spliced { gone, left } = match splice_once(from, to) {
            Ok(None) => return Some(Ok(false)),
            Ok(Some(spliced)) => spliced,
            Err(error) => return Some(Err(error)),
        };
        let came = gone + left.len();
        self.is_bulky = came >= READ;
        if came == 0 {
            return Some(self.take(&[], None).map(|_| true));
        }
        self.chunks += 1;
        self.meter.pass_unseen(came, gone);
        self.queue.push(Mono(0), Mono(0), &left);
        Some(Ok(true))
    }

    fn has_room(&self) -> bool {
        self.ended.is_none()
            && self.stops_at.is_none()
            && self.tail == Tail::Open
            && !self.owes()
            && !self.is_ending()
            && self.queue.len() < self.bound()
    }

    /// Bytes up to which more are taken.
    fn bound(&self) -> usize {
        if self.shape.is_late() && !self.wants.write {
            IN_FLIGHT
        } else if self.shape.is_late() {
            // What waits for the peer instead of its time is not worth the memory.
            READ
        } else if let Some(rate) = self.shape.rate() {
            // Two slices, so that the line never waits for the reader.
            let slices = rate.saturating_mul(2 * SLICE.as_micros()) / 1_000_000;
            usize::try_from(slices).map_or(IN_FLIGHT, |slices| slices.clamp(READ, IN_FLIGHT))
        } else if self.shape.is_plain() && !self.is_shut() && !self.stepwise && !self.is_editing() {
            1
        } else {
            READ
        }
    }

    /// Takes bytes that were read; none is the end of the stream.
    fn take(&mut self, bytes: &[u8], fast: Option<&mut Side>) -> io::Result<Option<Head>> {
        if bytes.is_empty() {
            self.ended = Some(clock::now());
            if let Some(editor) = self.editor() {
                editor.finish();
            }
            self.release_end = self.release();
            return Ok(self.sniffer.take().map(|_| Head::Unreadable));
        }
        self.meter.receive(bytes);
        if let Some(editor) = self.editor() {
            editor.push(clock::now(), bytes);
            return Ok(None);
        }
        self.bypass(bytes);
        let head = self
            .sniffer
            .as_mut()
            .and_then(|sniffer| sniffer.push(bytes));
        if head.is_some() {
            self.sniffer = None;
        }
        let mut rest = bytes;
        if let (Some(to), None) = (fast, &head) {
            let written = write_some(to, bytes, self.meter.passed() == 0)?;
            let (gone, left) = bytes.split_at(written);
            self.meter.pass(gone);
            rest = left;
        }
        if rest.is_empty() {
            self.chunks += 1;
            return Ok(head);
        }
        self.enqueue(rest);
        Ok(head)
    }

    /// Has a chunk that was read just now wait for its turn.
    fn enqueue(&mut self, bytes: &[u8]) {
        let release = self.release();
        let now = if self.shape.is_plain() {
            Mono(0)
        } else {
            clock::now()
        };
        match &mut self.shape.twists {
            None => self.queue.push(now, release, bytes),
            Some(twists) if twists.swallows() => twists.swallow(now),
            Some(twists) => twists.enqueue(&mut self.queue, now, release, bytes),
        }
        self.chunks += 1;
    }

    /// When a chunk that was read just now may go.
    fn release(&mut self) -> Mono {
        if self.shape.delays.is_empty() {
            return Mono(0);
        }
        let chunk = self.chunks;
        let delays = self.shape.delays.iter().map(|delay| {
            let span = delay.of(chunk);
            delay.fired(chunk, span);
            span
        });
        let wait = delays.fold(Span::ZERO, Span::plus);
        self.delayed += u64::from(wait > Span::ZERO);
        clock::now() + wait
    }

    /// Writes what can be written; `false` when there is more to write at once.
    fn flush(&mut self, to: &mut Side) -> io::Result<bool> {
        self.wants = Wants::default();
        let done = !to.settle()? || self.drain(to)?;
        self.wants.write |= to.owes();
        Ok(done)
    }

    /// When FIN may go on.
    fn fin(&self) -> Option<Mono> {
        let twists = self.shape.twists.as_ref();
        let after = twists.map_or(Span::ZERO, |twists| twists.close_after());
        self.ended.map(|ended| self.release_end.max(ended) + after)
    }

    fn drain(&mut self, to: &mut Side) -> io::Result<bool> {
        let mut writes = 0;
        while let Some(next) = self.queue.next_release() {
            if writes == WRITES {
                return Ok(false);
            }
            writes += 1;
            let now = clock::now();
            let due = self.queue.due(now);
            if due.is_empty() {
                self.wants.until = Some(next);
                return Ok(true);
            }
            let mut some = due.len();
            some = some.min(self.left_before_the_stop());
            if some == 0 {
                return Ok(true);
            }
            if let Some(twists) = &mut self.shape.twists {
                match twists.allowance(now, some) {
                    Ok(most) => some = most,
                    Err(until) => {
                        self.wants.until = until;
                        return Ok(true);
                    }
                }
            }
            let (rate, since) = (self.shape.rate(), self.queue.since());
            if let Some(rate) = rate {
                if rate == 0 {
                    self.waits += 1;
                    return Ok(true);
                }
                match self.pacer.allowance(now, rate, some, since) {
                    Ok(most) => some = most,
                    Err(until) => {
                        self.waits += 1;
                        self.wants.until = Some(until);
                        return Ok(true);
                    }
                }
            }
            let written = write_some(to, &due[..some], self.meter.passed() == 0)?;
            if rate.is_some() && written < some {
                self.pacer.stood(now);
            }
            if written == 0 {
                self.wants.write = true;
                return Ok(true);
            }
            self.meter.pass(&due[..written]);
            self.queue.consume(written);
            if let Some(rate) = rate {
                self.pacer.spend(rate, written, since);
            }
            if let Some(twists) = &mut self.shape.twists {
                twists.spend(now, written, self.queue.is_empty());
            }
        }
        if self.stops_at.is_some() {
            return Ok(true);
        }
        if let Some(fin) = self
            .fin()
            .filter(|_| self.tail == Tail::Open && !self.owes())
        {
            if fin > clock::now() {
                if let Some(twists) = &mut self.shape.twists {
                    twists.end();
                }
                self.wants.until = Some(fin);
            } else {
                match to.finish(self.torn, self.is_last) {
                    Ok(false) => self.wants.write = true,
                    // A peer that has gone meanwhile says so when it is read from.
                    Ok(true) | Err(_) => self.tail = Tail::Finished,
                }
            }
        }
        Ok(true)
    }

    /// Cuts the stream off behind the frame that is being passed on, if that frame's end is queued or it ended with
    /// the last byte that went out; `false` when its end is not here yet.
    pub(crate) fn cut_at_boundary(&mut self) -> bool {
        let at = self.meter.boundary(self.queue.pieces());
        if let Some(at) = at {
            self.queue.truncate(at);
            self.tail = Tail::Cut;
        }
        at.is_some()
    }

    /// Everything before the cut has gone out.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.tail == Tail::Cut && self.queue.is_empty()
    }

    /// The reading side has ended, and everything that it sent has gone out.
    pub(crate) fn is_drained(&self) -> bool {
        self.ended.is_some() && self.queue.is_empty()
    }
}
