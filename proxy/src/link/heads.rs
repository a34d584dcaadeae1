//! What happens to the head of a stream while it waits.

use std::ops::Range;

use super::Link;
use crate::websocket::{Edit, rewrite};

impl Link {
    /// Edits a head that is there in the stream; tells where it ends now, if that changed anything. A head of which a
    /// part has passed, or was dropped, stays as it is.
    pub(crate) fn rewrite<'e>(
        &mut self,
        head: &Range<u64>,
        edits: impl IntoIterator<Item = &'e Edit>,
    ) -> Option<u64> {
        let mut edits = edits.into_iter().peekable();
        edits.peek()?;
        let at = self.waiting(head)?;
        let after = rewrite(&self.queue.copy(at.clone()), edits)?;
        self.queue.replace(at, &after);
        let end = head.start + after.len() as u64;
        if let Some(from) = &mut self.meter.frames_from {
            *from = end;
        }
        Some(end)
    }

    /// Has what was read before anybody knew whose it is go through the toxics that decide about that client, as if it
    /// had been read now. Nothing of it has passed, or it is too late.
    pub(crate) fn read_again(&mut self) {
        if self.meter.passed() > 0 || self.queue.is_empty() || self.shape.is_plain() {
            return;
        }
        let bytes = self.queue.copy(0..self.queue.len());
        self.queue.truncate(0);
        self.chunks = 0;
        self.enqueue(&bytes);
    }

    /// Where in the queue a part of the stream is, if all of it is there.
    fn waiting(&self, part: &Range<u64>) -> Option<Range<usize>> {
        let passed = self.meter.passed();
        let at = |offset: u64| usize::try_from(offset.checked_sub(passed)?).ok();
        let (start, end) = (at(part.start)?, at(part.end)?);
        (start < end && end <= self.queue.len()).then_some(start..end)
    }
}
