//! Counts what passes, and finds the frames in it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::plane::{Handle, Plane};
use crate::tap::Way;
use crate::websocket::{Event, Tracker};

/// The counts of one direction.
#[derive(Debug)]
pub(crate) struct Meter {
    /// The stream's offset at which frames begin, once it is known.
    pub(crate) frames_from: Option<u64>,
    plane: Arc<Plane>,
    handle: Arc<Handle>,
    way: Way,
    passed: u64,
    scanner: Tracker,
    /// Whole frames that were not counted in the status yet.
    frames: u64,
}

impl Meter {
    pub(super) fn new(plane: Arc<Plane>, handle: Arc<Handle>, way: Way) -> Self {
        Self {
            frames_from: None,
            plane,
            handle,
            way,
            passed: 0,
            scanner: Tracker::default(),
            frames: 0,
        }
    }

    pub(super) const fn way(&self) -> Way {
        self.way
    }

    /// They were read, whatever becomes of them.
    pub(super) fn receive(&self, bytes: &[u8]) {
        let received = self.plane.counters.received(self.way);
        received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }

    /// Bytes passed on.
    pub(crate) const fn passed(&self) -> u64 {
        self.passed
    }

    /// Whether nobody looks at what passes.
    pub(super) const fn is_blind(&self) -> bool {
        self.frames_from.is_none()
    }

    /// So many came and so many of them were passed on, which nobody looks at.
    pub(super) fn pass_unseen(&mut self, came: usize, gone: usize) {
        let (came, gone) = (came as u64, gone as u64);
        let counters = &self.plane.counters;
        counters
            .received(self.way)
            .fetch_add(came, Ordering::Relaxed);
        counters.bytes(self.way).fetch_add(gone, Ordering::Relaxed);
        self.handle.passed.fetch_add(gone, Ordering::Release);
        self.passed += gone;
    }

    /// They were passed on.
    pub(super) fn pass(&mut self, bytes: &[u8]) {
        let count = bytes.len() as u64;
        self.plane
            .counters
            .bytes(self.way)
            .fetch_add(count, Ordering::Relaxed);
        self.handle.passed.fetch_add(count, Ordering::Release);
        if let Some(from) = self.frames_from {
            let skip = offset(from.saturating_sub(self.passed), bytes.len());
            self.scan(&bytes[skip..]);
        }
        self.passed += count;
    }

    fn scan(&mut self, mut bytes: &[u8]) {
        while let Some(event) = self.scanner.next(&mut bytes) {
            if self.scanner.at_boundary() {
                self.frames += 1;
            }
            if let Some(tap) = &self.plane.tap {
                match event {
                    Event::Header(header) => tap.header(self.handle.ordinal, self.way, &header),
                    Event::Payload(piece) => tap.payload(self.handle.ordinal, self.way, piece),
                }
            }
        }
    }

    /// Counts the frames that passed in the status: to be called once the connection is known to be a WebSocket.
    pub(crate) fn publish_frames(&mut self) {
        if self.frames > 0 {
            let total = self.plane.counters.frames(self.way);
            total.fetch_add(std::mem::take(&mut self.frames), Ordering::Relaxed);
        }
    }

    /// How far the frames are when these bytes, which are to pass next, have passed; `None` where none are to begin in
    /// them.
    pub(super) fn ahead(&self, pieces: [&[u8]; 2]) -> Option<Tracker> {
        let mut skip = self.frames_from?.saturating_sub(self.passed);
        let mut scanner = self.scanner.clone();
        for piece in pieces {
            let from = offset(skip, piece.len());
            skip -= from as u64;
            let mut rest = &piece[from..];
            while scanner.next(&mut rest).is_some() {}
        }
        (skip == 0).then_some(scanner)
    }

    /// Where frames begin among bytes that are to pass next, as an offset in them; `None` when some passed already.
    pub(super) fn frames_ahead(&self) -> Option<usize> {
        let ahead = self.frames_from?.checked_sub(self.passed)?;
        usize::try_from(ahead).ok()
    }

    /// The first boundary between frames among bytes that are to pass next, as an offset in them.
    pub(super) fn boundary(&self, pieces: [&[u8]; 2]) -> Option<usize> {
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        let from = self.frames_from?.saturating_sub(self.passed);
        if from > 0 {
            return usize::try_from(from).ok().filter(|from| *from <= length);
        }
        let mut scanner = self.scanner.clone();
        if scanner.at_boundary() {
            return Some(0);
        }
        let mut before = 0;
        for piece in pieces {
            let mut rest = piece;
            while scanner.next(&mut rest).is_some() {
                if scanner.at_boundary() {
                    return Some(before + piece.len() - rest.len());
                }
            }
            before += piece.len();
        }
        None
    }
}

fn offset(from: u64, length: usize) -> usize {
    usize::try_from(from).map_or(length, |from| from.min(length))
}
