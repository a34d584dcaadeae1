//! What comes into the editor, and how much of it is taken at a time.

use model::instant::Mono;
use model::quantity::Span;

use super::super::scanner::Event;
use super::{Current, Editor, LIMIT};

impl Editor {
    /// Takes what came in at `now`. Few bytes can become many: what is beyond that waits until all has gone out.
    pub(crate) fn push(&mut self, now: Mono, bytes: &[u8]) {
        if self.rest.is_empty() {
            self.consume(now, bytes);
        } else {
            self.rest.extend(bytes);
        }
    }

    /// Takes what has waited, if nothing is to go out.
    pub(super) fn go_on(&mut self, now: Mono) {
        if self.out.is_empty() {
            self.made = 0;
            let rest = std::mem::take(&mut self.rest);
            if !rest.is_empty() {
                self.consume(now, &rest);
            }
        }
    }

    fn consume(&mut self, now: Mono, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.is_over {
            if self.made > LIMIT {
                self.rest = bytes.to_vec();
                return;
            }
            let before = bytes;
            let event = self.tracker.next(&mut bytes);
            let taken = &before[..before.len() - bytes.len()];
            match event {
                None if matches!(self.frame, Current::Raw) => self.pass(taken, Span::ZERO),
                None => {}
                Some(Event::Header(header)) => self.header(&header, taken),
                Some(Event::Payload(piece)) => self.payload(piece),
            }
            if event.is_some() && self.tracker.at_boundary() {
                self.frame_ended(now);
            }
        }
        self.pass_begun_header();
    }
}
