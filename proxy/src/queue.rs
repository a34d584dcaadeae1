//! Bytes that were read and not yet written, and until when they wait.

use std::collections::VecDeque;
use std::ops::Range;

use model::instant::Mono;
use model::quantity::Span;

/// An emptied queue gives back its memory when it held more than this.
const KEPT: usize = 16 << 10;

/// Bytes in order, in chunks of which each has an instant before which it may not go.
#[derive(Debug, Default)]
pub(crate) struct ReleaseQueue {
    bytes: VecDeque<u8>,
    /// The releases do not decrease.
    chunks: VecDeque<Chunk>,
}

#[derive(Debug)]
struct Chunk {
    arrived: Mono,
    release: Mono,
    length: usize,
}

impl ReleaseQueue {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Appends bytes that came at `arrived`, go at `release` at the earliest, and after everything before them.
    pub(crate) fn push(&mut self, arrived: Mono, release: Mono, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.bytes.extend(bytes);
        let length = bytes.len();
        match self.chunks.back_mut() {
            Some(last) if last.release >= release => last.length += length,
            _ => self.chunks.push_back(Chunk {
                arrived,
                release,
                length,
            }),
        }
    }

    /// When the first bytes may go.
    pub(crate) fn next_release(&self) -> Option<Mono> {
        self.chunks.front().map(|chunk| chunk.release)
    }

    /// Since when the first bytes could have gone.
    pub(crate) fn since(&self) -> Mono {
        let first = self.chunks.front();
        first.map_or(Mono(0), |chunk| chunk.arrived.max(chunk.release))
    }

    /// Bytes that may go at `now`, as many as lie in one piece.
    pub(crate) fn due(&self, now: Mono) -> &[u8] {
        let due: usize = self
            .chunks
            .iter()
            .take_while(|chunk| chunk.release <= now)
            .map(|chunk| chunk.length)
            .sum();
        let first = self.bytes.as_slices().0;
        &first[..due.min(first.len())]
    }

    /// All bytes, in two pieces.
    pub(crate) fn pieces(&self) -> [&[u8]; 2] {
        let (first, second) = self.bytes.as_slices();
        [first, second]
    }

    /// Turns bits of a byte over.
    pub(crate) fn flip(&mut self, at: usize, bits: u8) {
        self.bytes[at] ^= bits;
    }

    /// The bytes of a range.
    pub(crate) fn copy(&self, at: Range<usize>) -> Vec<u8> {
        self.bytes.range(at).copied().collect()
    }

    /// Puts other bytes in the place of a range that is not empty. They go when its last byte could have gone.
    pub(crate) fn replace(&mut self, at: Range<usize>, bytes: &[u8]) {
        let behind = self.bytes.split_off(at.end);
        self.bytes.truncate(at.start);
        self.bytes.extend(bytes);
        self.bytes.extend(behind);
        let mut from = 0;
        self.chunks.retain_mut(|chunk| {
            let to = from + chunk.length;
            chunk.length -= to.min(at.end).saturating_sub(at.start.max(from));
            if from < at.end && at.end <= to {
                chunk.length += bytes.len();
            }
            from = to;
            chunk.length > 0
        });
    }

    /// Removes bytes from the front.
    pub(crate) fn consume(&mut self, mut count: usize) {
        self.bytes.drain(..count);
        while let Some(chunk) = self.chunks.front_mut() {
            if chunk.length > count {
                chunk.length -= count;
                break;
            }
            count -= chunk.length;
            self.chunks.pop_front();
        }
        if self.bytes.is_empty() && self.bytes.capacity() > KEPT {
            *self = Self::default();
        }
    }

    /// When the last bytes may go.
    pub(crate) fn last_release(&self) -> Mono {
        self.chunks.back().map_or(Mono(0), |chunk| chunk.release)
    }

    /// Takes all bytes but so many out again.
    pub(crate) fn split_off(&mut self, at: usize) -> Vec<u8> {
        let bytes = self.bytes.range(at..).copied().collect();
        self.truncate(at);
        bytes
    }

    /// Keeps only so many bytes.
    pub(crate) fn truncate(&mut self, mut count: usize) {
        self.bytes.truncate(count);
        self.chunks.retain_mut(|chunk| {
            chunk.length = chunk.length.min(count);
            count -= chunk.length;
            chunk.length > 0
        });
    }

    /// Lets nothing wait longer than so long after it came.
    pub(crate) fn wait_at_most(&mut self, longest: Span) {
        for chunk in &mut self.chunks {
            chunk.release = chunk.release.min(chunk.arrived + longest);
        }
    }

    /// Lets everything go at once, as if it had come at `now`.
    pub(crate) fn release_all(&mut self, now: Mono) {
        if !self.bytes.is_empty() {
            self.chunks.clear();
            self.chunks.push_back(Chunk {
                arrived: now,
                release: Mono(0),
                length: self.bytes.len(),
            });
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
                queue.push(Mono(0), Mono(release), &bytes);
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
        fn what_is_replaced_goes_with_its_last_byte_and_the_rest_as_it_would_have(
            lengths in prop::collection::vec(1_usize..9, 1..9),
            from in 0_usize..60,
            count in 1_usize..60,
            by in 0_usize..20,
        ) {
            let mut queue = ReleaseQueue::default();
            let mut releases = Vec::new();
            for (at, length) in lengths.iter().enumerate() {
                queue.push(Mono(0), Mono(at as u64), &vec![7; *length]);
                releases.extend(std::iter::repeat_n((7, at as u64), *length));
            }
            let from = from.min(releases.len() - 1);
            let to = (from + count).min(releases.len());
            let goes = releases[to - 1].1;
            releases.splice(from..to, std::iter::repeat_n((9, goes), by));
            queue.replace(from..to, &vec![9; by]);
            let mut got = Vec::new();
            while let Some(release) = queue.next_release() {
                let due = queue.due(release).to_vec();
                got.extend(due.iter().map(|byte| (*byte, release.0)));
                queue.consume(due.len());
            }
            prop_assert_eq!(got, releases);
            prop_assert!(queue.is_empty());
        }

        #[test]
        fn truncating_keeps_the_front(lengths in prop::collection::vec(1_usize..9, 0..9), keep in 0_usize..60) {
            let mut queue = ReleaseQueue::default();
            for (at, length) in lengths.iter().enumerate() {
                queue.push(Mono(0), Mono(at as u64), &vec![7; *length]);
            }
            let expected = keep.min(queue.len());
            queue.truncate(keep);
            prop_assert_eq!(queue.len(), expected);
            prop_assert_eq!(queue.chunks.iter().map(|chunk| chunk.length).sum::<usize>(), expected);
        }
    }

    #[test]
    fn a_shorter_delay_holds_for_what_waits_already() {
        let mut queue = ReleaseQueue::default();
        queue.push(Mono(10), Mono(1_010), b"early");
        queue.push(Mono(900), Mono(1_900), b"late");
        queue.wait_at_most(Span::from_micros(50));
        assert_eq!(queue.due(Mono(60)), b"early");
        queue.consume(5);
        assert_eq!(queue.next_release(), Some(Mono(950)));
    }
}
