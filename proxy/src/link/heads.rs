//! What happens to the head of a stream while it waits.

use std::ops::Range;

use host::clock;
use model::instant::Mono;

use super::Link;
use crate::websocket::{HeadEdit, rewrite};

impl Link {
    /// Edits a head that is there in the stream; tells where it ends now, if that changed anything. A head of which a
    /// part has passed, or was dropped, stays as it is. `did` is told which edits found what they are about.
    pub(crate) fn rewrite<'e>(
        &mut self,
        head: &Range<u64>,
        edits: impl IntoIterator<Item = &'e HeadEdit>,
        did: impl FnMut(usize),
    ) -> Option<u64> {
        let mut edits = edits.into_iter().peekable();
        edits.peek()?;
        let at = self.waiting(head)?;
        let after = rewrite(&self.queue.copy(at.clone()), edits, did)?;
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

    /// Whether nothing can be written now because of a head.
    pub(super) fn is_shut(&self) -> bool {
        self.withheld || self.not_before > Mono(0)
    }

    /// Whether the instant is still to come before which nothing is written; it is waited for then.
    pub(super) fn waits_for_its_time(&mut self) -> bool {
        let waits = self.not_before > Mono(0) && self.not_before > clock::now();
        if waits {
            self.wants.until = Some(self.not_before);
        } else {
            self.not_before = Mono(0);
        }
        waits
    }

    /// Bytes that may still be written.
    pub(super) fn left_before_the_stop(&self) -> usize {
        self.stops_at.map_or(usize::MAX, |stop| {
            usize::try_from(stop.saturating_sub(self.meter.passed())).unwrap_or(usize::MAX)
        })
    }

    /// Where in the queue a part of the stream is, if all of it is there.
    fn waiting(&self, part: &Range<u64>) -> Option<Range<usize>> {
        let passed = self.meter.passed();
        let at = |offset: u64| usize::try_from(offset.checked_sub(passed)?).ok();
        let (start, end) = (at(part.start)?, at(part.end)?);
        (start < end && end <= self.queue.len()).then_some(start..end)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use host::timer::Timer;
    use proptest::prelude::*;

    use super::*;
    use crate::plane::Plane;
    use crate::tap::Way;

    const HEAD: &[u8] = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nA: 1\r\nB: 2\r\n\r\n";
    const FRAMES: &[u8] = b"frames";

    proptest! {
        #[test]
        fn a_head_is_rewritten_however_it_came_and_only_before_it_goes(
            chunk in 1..80_usize,
            value in prop::option::of("[a-z]{0,90}"),
            gone in 0..2_usize,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let _guard = runtime.enter();
            let plane = Plane::new(Timer::start().unwrap(), None);
            let handle = plane.enter(0);
            let mut link = Link::new(Arc::clone(&plane), handle, Way::Upstream);
            for chunk in [HEAD, FRAMES].concat().chunks(chunk) {
                link.enqueue(chunk);
            }
            let end = HEAD.len() as u64;
            link.meter.frames_from = Some(end);
            link.meter.pass(&HEAD[..gone]);
            link.queue.consume(gone);
            let edit = HeadEdit::Header { name: "a".to_owned(), value };
            let now = link.rewrite(&(0..end), [&edit], |_| {});
            let expected = rewrite(HEAD, [&edit], |_| {}).filter(|_| gone == 0);
            prop_assert_eq!(now, expected.as_ref().map(|head| head.len() as u64));
            prop_assert_eq!(link.meter.frames_from, now.or(Some(end)));
            let expected = expected.unwrap_or_else(|| HEAD[gone..].to_vec());
            prop_assert_eq!(link.queue.pieces().concat(), [&expected, FRAMES].concat());
        }
    }
}
