//! A message, and what the toxics say of it.

use std::sync::Arc;

use model::quantity::Span;

use super::super::frame::Frame;
use super::super::message::{Behind, First, OVERHEAD, Out, Outgoing, encode, plain, size};
use crate::tap::Way;
use crate::toxics::edit::{Edit, Look};
use crate::twists::Lasting;

/// A message that is being gathered.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) first: First,
    /// What each toxic that may be interested said at the first header.
    looks: Vec<(u64, Look)>,
    frames: Vec<Frame>,
    /// Bytes that it takes.
    pub(super) size: usize,
    /// What came between its frames, and before which of them.
    between: Vec<(usize, Vec<Out>)>,
}

/// What becomes of a whole message.
#[derive(Debug)]
pub(super) struct Decided {
    /// What came between its frames, where that does not matter any more.
    pub(super) between: Vec<Out>,
    pub(super) outs: Vec<Out>,
    pub(super) is_dropped: bool,
    pub(super) behind: Option<Behind>,
}

impl Unit {
    pub(super) fn new(first: First, edits: &mut [Edit]) -> Self {
        let looks = edits
            .iter_mut()
            .map(|edit| (edit.uid(), edit.look(&first)))
            .filter(|(_, look)| *look != Look::No)
            .collect();
        Self {
            first,
            looks,
            frames: Vec::new(),
            size: 0,
            between: Vec::new(),
        }
    }

    /// Whether a toxic that is still there may do something about it.
    pub(super) fn interests(&self, edits: &[Edit]) -> bool {
        edits.iter().any(|edit| self.look_of(edit).is_some())
    }

    /// Whether it has to be whole before it can go on.
    pub(super) fn needs_all(&self, edits: &[Edit]) -> bool {
        edits.iter().any(|edit| match self.look_of(edit) {
            None => false,
            Some(Look::Yes) => edit.needs_all(),
            Some(_) => true,
        })
    }

    fn look_of(&self, edit: &Edit) -> Option<Look> {
        let mut looks = self.looks.iter();
        looks
            .find(|(uid, _)| *uid == edit.uid())
            .map(|(_, look)| *look)
    }

    pub(super) fn add(&mut self, frame: Frame) {
        self.size += frame.payload.len() + OVERHEAD;
        self.frames.push(frame);
    }

    pub(super) fn add_between(&mut self, outs: Vec<Out>) {
        self.size += size(&outs);
        self.between.push((self.frames.len(), outs));
    }

    /// Has it decided on by those that need no more than its first header; the others let it be.
    pub(super) fn decide_early(&self, way: Way, edits: &mut [Edit]) -> Outgoing {
        let mut message = Outgoing::new(way, Vec::new());
        for edit in edits {
            match self.look_of(edit) {
                Some(Look::Yes) if edit.needs_all() => edit.spare(self.first.index, "too long"),
                Some(Look::Yes) if !message.is_dropped => {
                    edit.act(self.first.index, &mut message);
                }
                Some(Look::Maybe) => edit.spare(self.first.index, "too long"),
                _ => {}
            }
        }
        message
    }

    /// All that are interested let it be.
    pub(super) fn spare(&self, edits: &[Edit]) {
        for edit in edits {
            if matches!(self.look_of(edit), Some(Look::Yes | Look::Maybe)) {
                edit.spare(self.first.index, "too long");
            }
        }
    }

    /// Stops gathering: what becomes of it, and what goes out of what there is.
    pub(super) fn give_up(self, way: Way, edits: &mut [Edit]) -> (Outgoing, Vec<Out>) {
        let message = self.decide_early(way, edits);
        let mut outs = if message.is_dropped {
            self.between
                .into_iter()
                .flat_map(|(_, outs)| outs)
                .collect()
        } else {
            self.untouched()
        };
        for out in &mut outs {
            out.wait(message.hold);
        }
        (message, outs)
    }

    /// It is whole: what becomes of it.
    pub(super) fn decide(mut self, way: Way, edits: &mut [Edit]) -> Decided {
        let looks_into = |(_, look): &(u64, Look)| *look == Look::Maybe;
        let payload = self
            .looks
            .iter()
            .any(looks_into)
            .then(|| plain(&self.frames));
        let is_memorable = !self.first.is_control() && edits.iter().any(Edit::remembers);
        let memory = is_memorable.then(|| {
            Arc::new(
                self.frames
                    .iter()
                    .flat_map(Frame::bytes)
                    .collect::<Vec<_>>(),
            )
        });
        let mut message = Outgoing::new(way, std::mem::take(&mut self.frames));
        let mut is_changed = false;
        for edit in edits.iter_mut() {
            let Some(look) = self.look_of(edit) else {
                continue;
            };
            let takes = match look {
                Look::Yes => true,
                Look::Maybe => {
                    let payload = payload.as_deref().unwrap_or_default();
                    edit.takes(&self.first, payload)
                }
                Look::No | Look::Remember => false,
            };
            if takes && !message.is_dropped {
                is_changed |= edit.act(self.first.index, &mut message);
            }
        }
        if let Some(memory) = memory {
            for edit in edits.iter_mut().filter(|edit| edit.remembers()) {
                edit.remember(&memory);
            }
        }
        if is_changed {
            Decided {
                outs: message.outs(),
                is_dropped: message.is_dropped,
                behind: message.behind,
                between: self
                    .between
                    .into_iter()
                    .flat_map(|(_, outs)| outs)
                    .collect(),
            }
        } else {
            self.frames = message.frames;
            Decided {
                outs: self.untouched(),
                is_dropped: false,
                behind: None,
                between: Vec::new(),
            }
        }
    }

    /// Its frames, with what came between them.
    fn untouched(self) -> Vec<Out> {
        let mut outs = Vec::new();
        let mut between = self.between.into_iter().peekable();
        for (at, frame) in self.frames.iter().enumerate() {
            while let Some((_, others)) = between.next_if(|(before, _)| *before <= at) {
                outs.extend(others);
            }
            encode(frame, Span::ZERO, &mut outs);
        }
        outs.extend(between.flat_map(|(_, others)| others));
        outs
    }
}
