//! Bytes that were read and not yet written, and until when they wait.

use std::collections::VecDeque;

use model::instant::Mono;

/// An emptied queue gives back its memory when it held more than this.
const KEPT: usize = 16 << 10;

/// Bytes in order, in chunks of which each has an instant before which it may not go.
#[derive(Debug, Default)]
pub(crate) struct ReleaseQueue {
    bytes: VecDeque<u8>,
    /// Release and length of each chunk; the releases do not decrease.
    chunks: VecDeque<(Mono, usize)>,
}

impl ReleaseQueue {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Appends bytes that go at `release` at the earliest, and after everything before them.
    pub(crate) fn push(&mut self, release: Mono, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.bytes.extend(bytes);
        match self.chunks.back_mut() {
            Some((last, length)) if *last >= release => *length += bytes.len(),
            _ => self.chunks.push_back((release, bytes.len())),
        }
    }

    /// When the first bytes may go.
    pub(crate) fn next_release(&self) -> Option<Mono> {
        self.chunks.front().map(|(release, _)| *release)
    }

    /// Bytes that may go at `now`, as many as lie in one piece.
    pub(crate) fn due(&self, now: Mono) -> &[u8] {
        let due: usize = self
            .chunks
            .iter()
            .take_while(|(release, _)| *release <= now)
            .map(|(_, length)| length)
            .sum();
        let first = self.bytes.as_slices().0;
        &first[..due.min(first.len())]
    }

    /// All bytes, in two pieces.
    pub(crate) fn pieces(&self) -> [&[u8]; 2] {
        let (first, second) = self.bytes.as_slices();
        [first, second]
    }

    /// Removes bytes from the front.
    pub(crate) fn consume(&mut self, mut count: usize) {
        self.bytes.drain(..count);
        while let Some((_, length)) = self.chunks.front_mut() {
            if *length > count {
                *length -= count;
                break;
            }
            count -= *length;
            self.chunks.pop_front();
        }
        if self.bytes.is_empty() && self.bytes.capacity() > KEPT {
            *self = Self::default();
        }
    }

    /// Keeps only so many bytes.
    pub(crate) fn truncate(&mut self, mut count: usize) {
        self.bytes.truncate(count);
        self.chunks.retain_mut(|(_, length)| {
            *length = (*length).min(count);
            count -= *length;
            *length > 0
        });
    }

    /// Lets everything go at once.
    pub(crate) fn release_all(&mut self) {
        if !self.bytes.is_empty() {
            self.chunks.clear();
            self.chunks.push_back((Mono(0), self.bytes.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_leave_in_order_and_never_early(
            pushes in prop::collection::vec((0_u64..100, 1_usize..50), 0..20),
            takes in prop::collection::vec(1_usize..40, 1..10),
        ) {
            let mut queue = ReleaseQueue::default();
            let (mut sent, mut earliest) = (Vec::new(), Vec::new());
            let mut last = 0;
            for (release, length) in pushes {
                last = last.max(release);
                let bytes: Vec<u8> = (0..length).map(|n| u8::try_from((sent.len() + n) % 251).unwrap()).collect();
                queue.push(Mono(release), &bytes);
                earliest.extend(std::iter::repeat_n(last, length));
                sent.extend(bytes);
            }
            let (mut got, mut takes) = (Vec::new(), takes.into_iter().cycle());
            for now in 0..=100 {
                loop {
                    let due = queue.due(Mono(now));
                    let take = due.len().min(takes.next().unwrap());
                    if take == 0 {
                        break;
                    }
                    prop_assert!(earliest[got.len()..got.len() + take].iter().all(|at| *at <= now));
                    got.extend_from_slice(&due[..take]);
                    queue.consume(take);
                }
                prop_assert!(queue.next_release().is_none_or(|at| at.0 > now));
            }
            prop_assert_eq!(got, sent);
            prop_assert!(queue.is_empty() && queue.chunks.is_empty());
        }

        #[test]
        fn truncating_keeps_the_front(lengths in prop::collection::vec(1_usize..9, 0..9), keep in 0_usize..60) {
            let mut queue = ReleaseQueue::default();
            for (at, length) in lengths.iter().enumerate() {
                queue.push(Mono(at as u64), &vec![7; *length]);
            }
            let expected = keep.min(queue.len());
            queue.truncate(keep);
            prop_assert_eq!(queue.len(), expected);
            prop_assert_eq!(queue.chunks.iter().map(|(_, length)| length).sum::<usize>(), expected);
        }
    }
}
