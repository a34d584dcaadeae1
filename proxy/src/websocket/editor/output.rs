//! What goes out of the editor, and when.

use std::sync::Arc;

use model::instant::Mono;
use model::quantity::Span;

use super::super::message::{Behind, OVERHEAD, Out, size};
use super::{Current, Data, Deferred, Editor, Held, LIMIT};
use crate::toxics::edit::Edit;
use crate::twists::Verdict;

/// Padding that is made in one go.
const FILL: usize = 16 << 10;

impl Editor {
    /// Passes bytes on.
    pub(super) fn pass(&mut self, bytes: &[u8], hold: Span) {
        if bytes.is_empty() || self.is_over {
            return;
        }
        self.made += bytes.len();
        if let Some(Out::Bytes {
            bytes: last,
            hold: same,
        }) = self.out.back_mut()
            && *same == hold
            && let Some(last) = Arc::get_mut(last)
        {
            last.extend(bytes);
            return;
        }
        let bytes = Arc::new(bytes.to_vec());
        self.made += OVERHEAD;
        self.out.push_back(Out::Bytes { bytes, hold });
    }

    /// Passes these on; nothing comes after an end.
    pub(super) fn out_all(&mut self, outs: impl IntoIterator<Item = Out>) {
        for out in outs {
            if self.is_over {
                return;
            }
            self.is_over = matches!(out, Out::End(_));
            self.made += out.size() + OVERHEAD;
            self.out.push_back(out);
            if self.is_over {
                self.rest.clear();
            }
        }
    }

    /// Passes on what belongs between two messages or frames, if need be later.
    pub(super) fn emit(&mut self, deferred: Deferred) {
        if self.admits(deferred.is_control) {
            self.out_all(deferred.outs);
        } else {
            self.deferred.push(deferred);
        }
    }

    /// Whether something can stand where what goes out is.
    fn admits(&self, is_control: bool) -> bool {
        let is_in_message = match &self.data {
            Some(Data::Raw) => true,
            Some(Data::Passing(message)) => !message.is_dropped,
            Some(Data::Gathered(_)) | None => false,
        };
        let is_in_frame = match &self.frame {
            Current::Raw | Current::Passing { is_data: false, .. } => true,
            Current::Passing { is_data: true, .. } => is_in_message,
            Current::Between | Current::Gathered { .. } => false,
        };
        !is_in_frame && (is_control || !is_in_message)
    }

    /// Whether a message is under way of which nothing goes out.
    fn is_skipping(&self) -> bool {
        matches!(&self.data, Some(Data::Passing(message)) if message.is_dropped)
    }

    /// Passes on what has waited for the end of a message or a frame, if this is one.
    pub(super) fn settle(&mut self) {
        for deferred in std::mem::take(&mut self.deferred) {
            self.emit(deferred);
        }
    }

    /// Holds a message back; what waited longest goes where too much is held.
    pub(super) fn hold_back(&mut self, now: Mono, behind: Behind, waiting: Deferred) {
        self.held.push(Held {
            uid: behind.uid,
            size: size(&waiting.outs),
            waiting,
            messages: behind.messages,
            until: behind.limit.map(|limit| now + limit),
        });
        while self.held.iter().map(|held| held.size).sum::<usize>() > LIMIT {
            let first = self.held.remove(0);
            self.emit(first.waiting);
        }
    }

    /// A message has gone by, unless it was dropped.
    pub(super) fn passed(&mut self, is_dropped: bool) {
        if is_dropped {
            return;
        }
        for held in &mut self.held {
            held.messages = held.messages.saturating_sub(1);
        }
        self.let_go(|held, _| held.messages == 0);
    }

    /// No longer holds back those for which this holds.
    pub(super) fn let_go(&mut self, goes: impl Fn(&Held, &[Edit]) -> bool) {
        let mut at = 0;
        while at < self.held.len() {
            if goes(&self.held[at], &self.edits) {
                let held = self.held.remove(at);
                self.emit(held.waiting);
            } else {
                at += 1;
            }
        }
    }

    /// It is `now`.
    pub(crate) fn tick(&mut self, now: Mono) {
        self.let_go(|held, _| held.until.is_some_and(|until| until <= now));
    }

    /// When it wants to know the time again.
    pub(crate) fn next_tick(&self) -> Option<Mono> {
        self.held.iter().filter_map(|held| held.until).min()
    }

    /// Nothing comes any more: what is kept goes out.
    pub(crate) fn finish(&mut self) {
        self.let_go(|_, _| true);
        if matches!(self.data, Some(Data::Gathered(_))) {
            self.stop_gathering();
        }
        match std::mem::replace(&mut self.frame, Current::Raw) {
            Current::Gathered { frame, .. } => {
                self.pass(&frame.head(), Span::ZERO);
                self.pass(&frame.payload, Span::ZERO);
            }
            Current::Between if !self.is_skipping() => {
                let begun = self.tracker.begun().to_vec();
                self.pass(&begun, Span::ZERO);
                let deferred = std::mem::take(&mut self.deferred);
                self.out_all(deferred.into_iter().flat_map(|deferred| deferred.outs));
            }
            // In the middle of a frame nothing could be told from it.
            Current::Between | Current::Raw | Current::Passing { .. } => {}
        }
        self.deferred.clear();
    }

    /// Whether something is to go out.
    pub(crate) fn owes(&self) -> bool {
        !self.out.is_empty()
    }

    /// Whether nothing that comes matters any more.
    pub(crate) const fn is_over(&self) -> bool {
        self.is_over
    }

    /// Forgets what was to go out.
    pub(crate) fn discard(&mut self, now: Mono) {
        while self.owes() {
            self.out.clear();
            self.taken = 0;
            self.go_on(now);
        }
    }

    /// Hands over what goes out next, at most so many bytes of it; an end by itself.
    pub(crate) fn hand_over(
        &mut self,
        now: Mono,
        room: usize,
        take: impl FnOnce(&[u8], Span),
    ) -> Option<Verdict> {
        let verdict = self.hand_over_first(room, take);
        self.go_on(now);
        verdict
    }

    fn hand_over_first(&mut self, room: usize, take: impl FnOnce(&[u8], Span)) -> Option<Verdict> {
        if let Some(Out::Again { outs, times }) = self.out.front_mut() {
            let outs = Arc::clone(outs);
            *times -= 1;
            if *times == 0 {
                self.out.pop_front();
            }
            for out in outs.iter().rev() {
                self.out.push_front(out.clone());
            }
        }
        match self.out.front_mut() {
            Some(Out::Bytes { bytes, hold }) => {
                let rest = &bytes[self.taken..];
                let some = &rest[..rest.len().min(room)];
                take(some, *hold);
                self.taken += some.len();
                if self.taken == bytes.len() {
                    self.taken = 0;
                    self.out.pop_front();
                }
            }
            Some(Out::Filler(filler)) => {
                take(&filler.take(room.min(FILL)), filler.hold);
                if filler.is_used_up() {
                    self.out.pop_front();
                }
            }
            Some(Out::End(verdict)) => {
                let verdict = *verdict;
                self.out.pop_front();
                return Some(verdict);
            }
            Some(Out::Again { .. }) | None => {}
        }
        None
    }
}
