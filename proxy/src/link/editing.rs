//! The link's editor of frames, which is there from the first toxic on that takes the connection's messages.

use host::clock;
use model::instant::Mono;

use super::Link;
use crate::toxics::edit::Edit;
use crate::twists::Verdict;
use crate::websocket::Editor;

/// How far it is with a link.
#[derive(Debug, Default)]
pub(super) enum Editing {
    /// Whether there will be frames is not known; toxics that wait for them.
    #[default]
    Unknown,
    Waiting(Vec<Edit>),
    /// There are frames, and nobody has edited them.
    Untouched,
    Begun(Box<Editor>),
}

impl Link {
    /// The connection is a WebSocket: frames begin where the meter says.
    pub(crate) fn begin_frames(&mut self) {
        let before = std::mem::replace(&mut self.editing, Editing::Untouched);
        let Editing::Waiting(edits) = before else {
            return;
        };
        // Frames that came with the head are in the queue.
        let queued = self.meter.frames_ahead();
        let came = queued.filter(|at| *at < self.queue.len());
        let came = came.map(|at| (self.queue.last_release(), self.queue.split_off(at)));
        self.set_edits(edits);
        if let (Some((release, bytes)), Editing::Begun(editor)) = (came, &mut self.editing) {
            let now = clock::now();
            editor.push(now, &bytes);
            self.unload_at(now, release);
        }
    }

    /// Has the editor obey these.
    pub(super) fn set_edits(&mut self, edits: Vec<Edit>) {
        match &mut self.editing {
            Editing::Begun(editor) => editor.set(edits),
            Editing::Untouched if !edits.is_empty() => {
                let ahead = self.meter.ahead(self.queue.pieces());
                let mut editor = Editor::new(self.meter.way(), ahead.unwrap_or_default());
                editor.set(edits);
                self.editing = Editing::Begun(Box::new(editor));
            }
            Editing::Untouched => {}
            Editing::Unknown | Editing::Waiting(_) if edits.is_empty() => {
                self.editing = Editing::Unknown;
            }
            Editing::Unknown | Editing::Waiting(_) => self.editing = Editing::Waiting(edits),
        }
    }

    /// The editor, when bytes have to go through it.
    pub(super) fn editor(&mut self) -> Option<&mut Editor> {
        match &mut self.editing {
            Editing::Begun(editor) if !editor.is_idle() => Some(editor),
            _ => None,
        }
    }

    /// Bytes pass beside the editor.
    pub(super) fn bypass(&mut self, bytes: &[u8]) {
        if let Editing::Begun(editor) = &mut self.editing {
            editor.watch(bytes);
        }
    }

    pub(super) fn is_editing(&self) -> bool {
        matches!(&self.editing, Editing::Begun(editor) if !editor.is_idle())
    }

    /// Whether the editor has something that has to go out before anything is read.
    pub(super) fn owes(&self) -> bool {
        matches!(&self.editing, Editing::Begun(editor) if editor.owes())
    }

    /// Whether the editor ends the connection, be it when all before has gone out.
    pub(super) fn is_ending(&self) -> bool {
        self.last.is_some() || matches!(&self.editing, Editing::Begun(editor) if editor.is_over())
    }

    /// How the connection ends now that all before has gone out.
    pub(super) fn last_word(&self) -> Option<Verdict> {
        self.last.filter(|_| self.queue.is_empty())
    }

    /// Queues what the editor has to say, as far as there is room; whether that was anything.
    pub(super) fn unload(&mut self) -> bool {
        let Some(editor) = self.editor() else {
            return false;
        };
        let now = clock::now();
        editor.tick(now);
        if !editor.owes() {
            return false;
        }
        let release = self.release();
        self.chunks += 1;
        self.unload_at(now, release)
    }

    fn unload_at(&mut self, now: Mono, release: Mono) -> bool {
        let bound = self.bound();
        let Editing::Begun(editor) = &mut self.editing else {
            return false;
        };
        if let Some(twists) = &mut self.shape.twists
            && twists.swallows()
        {
            twists.swallow(now);
            editor.discard(now);
            return false;
        }
        let before = self.queue.len();
        let (queue, twists) = (&mut self.queue, &mut self.shape.twists);
        while editor.owes() && queue.len() < bound && self.last.is_none() {
            let room = bound - queue.len();
            self.last = editor.hand_over(now, room, |bytes, hold| {
                let release = if hold.as_micros() > 0 {
                    release.max(now) + hold
                } else {
                    release
                };
                match twists {
                    None => queue.push(now, release, bytes),
                    Some(twists) => twists.enqueue(queue, now, release, bytes),
                }
            });
        }
        self.queue.len() > before || self.last.is_some()
    }

    /// When the editor has to be asked again.
    pub(super) fn next_tick(&self) -> Option<Mono> {
        match &self.editing {
            Editing::Begun(editor) => editor.next_tick(),
            _ => None,
        }
    }
}
