//! A message on its way through the editor, and what becomes of it.

use std::sync::Arc;

use model::quantity::Span;

use super::frame::{Frame, mask};
use super::scanner::Header;
use crate::tap::Way;
use crate::twists::Verdict;

/// What the first header of a message says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct First {
    /// The message's number in its direction.
    pub(crate) index: u64,
    pub(crate) opcode: u8,
    /// It is the only frame.
    pub(crate) fin: bool,
    pub(crate) rsv: u8,
}

impl First {
    pub(crate) const fn new(index: u64, header: &Header) -> Self {
        Self {
            index,
            opcode: header.opcode,
            fin: header.fin,
            rsv: header.rsv,
        }
    }

    pub(crate) const fn is_control(&self) -> bool {
        self.opcode & 8 != 0
    }

    /// Whether its payload is compressed (RFC 7692), so that nobody here can read it.
    pub(crate) const fn is_compressed(&self) -> bool {
        self.rsv & 4 != 0
    }
}

/// A message as toxics change it, and what else they ask for.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) way: Way,
    /// Its frames; none while they pass without being gathered.
    pub(crate) frames: Vec<Frame>,
    /// It does not pass.
    pub(crate) is_dropped: bool,
    /// It waits so much longer.
    pub(crate) hold: Span,
    /// It waits for others to pass it.
    pub(crate) behind: Option<Behind>,
    /// It passes so many times more.
    pub(crate) copies: usize,
    /// Frames that go before it.
    pub(crate) before: Vec<Frame>,
    /// Bytes of whole frames that go after it.
    pub(crate) after: Vec<Arc<Vec<u8>>>,
    /// The connection ends after it.
    pub(crate) end: Option<Verdict>,
}

/// For what a message that is held back waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Behind {
    /// By the toxic of this number.
    pub(crate) uid: u64,
    /// So many messages,
    pub(crate) messages: u64,
    /// but not longer than that.
    pub(crate) limit: Option<Span>,
}

impl Outgoing {
    pub(crate) const fn new(way: Way, frames: Vec<Frame>) -> Self {
        Self {
            way,
            frames,
            is_dropped: false,
            hold: Span::ZERO,
            behind: None,
            copies: 0,
            before: Vec::new(),
            after: Vec::new(),
            end: None,
        }
    }

    /// Whether it passes as if nobody had looked at it.
    pub(super) fn is_plain(&self) -> bool {
        !self.is_dropped && self.hold == Span::ZERO && self.tail().next().is_none()
    }

    /// A new frame has to be masked where it goes to a server.
    pub(crate) fn mask(&self, key: [u8; 4]) -> Option<[u8; 4]> {
        (self.way == Way::Upstream).then_some(key)
    }

    /// All of its payload, without masks.
    pub(crate) fn plain(&self) -> Vec<u8> {
        plain(&self.frames)
    }

    /// What goes out for it.
    pub(super) fn outs(&self) -> Vec<Out> {
        let mut outs = Vec::new();
        for frame in &self.before {
            encode(frame, self.hold, &mut outs);
        }
        if !self.is_dropped {
            let mut copy = Vec::new();
            for frame in &self.frames {
                encode(frame, self.hold, &mut copy);
            }
            if self.copies > 0 && !copy.is_empty() {
                outs.push(Out::Again {
                    outs: Arc::new(copy),
                    times: self.copies + 1,
                });
            } else {
                outs.append(&mut copy);
            }
        }
        outs.extend(self.tail());
        outs
    }

    /// What goes out after it.
    pub(super) fn tail(&self) -> impl Iterator<Item = Out> + '_ {
        let after = self.after.iter().map(|bytes| Out::Bytes {
            bytes: Arc::clone(bytes),
            hold: self.hold,
        });
        after.chain(self.end.map(Out::End))
    }
}

/// The payload of a message in these frames, without masks.
pub(super) fn plain(frames: &[Frame]) -> Vec<u8> {
    frames.iter().flat_map(Frame::plain).collect()
}

/// Something that goes out.
#[derive(Debug, Clone)]
pub(crate) enum Out {
    /// Bytes that wait so much longer than others.
    Bytes {
        /// The bytes.
        bytes: Arc<Vec<u8>>,
        /// How much longer.
        hold: Span,
    },
    /// The same several times, which is unfolded only when it goes.
    Again {
        /// What.
        outs: Arc<Vec<Out>>,
        /// How often, once at least.
        times: usize,
    },
    /// Padding of a payload.
    Filler(Filler),
    /// The connection ends when everything before has gone out.
    End(Verdict),
}

impl Out {
    /// Bytes of it that take memory.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Bytes { bytes, .. } => bytes.len(),
            Self::Again { outs, .. } => size(outs),
            Self::Filler(_) | Self::End(_) => 0,
        }
    }

    /// Has it wait so much longer than others.
    pub(super) fn wait(&mut self, longer: Span) {
        match self {
            Self::Bytes { hold, .. } | Self::Filler(Filler { hold, .. }) => *hold = longer,
            Self::Again { outs, .. } => {
                for out in Arc::make_mut(outs) {
                    out.wait(longer);
                }
            }
            Self::End(_) => {}
        }
    }
}

/// Bytes that fill a payload up, which are made only when they go.
#[derive(Debug, Clone)]
pub(crate) struct Filler {
    byte: u8,
    mask: Option<[u8; 4]>,
    /// Where in the payload the next ones are, and how many are left.
    at: u64,
    left: u64,
    pub(super) hold: Span,
}

impl Filler {
    /// Some of the next bytes, at most so many.
    pub(super) fn take(&mut self, most: usize) -> Vec<u8> {
        let count = usize::try_from(self.left).map_or(most, |left| left.min(most));
        let mut bytes = vec![self.byte; count];
        mask(self.mask, self.at, &mut bytes);
        self.at += count as u64;
        self.left -= count as u64;
        bytes
    }

    pub(super) const fn is_used_up(&self) -> bool {
        self.left == 0
    }
}

/// What a frame or something else that is kept takes besides its bytes.
pub(super) const OVERHEAD: usize = 128;

/// What these take.
pub(super) fn size(outs: &[Out]) -> usize {
    outs.iter().map(|out| out.size() + OVERHEAD).sum()
}

/// Adds a frame, to the bytes before it where that can be.
pub(super) fn encode(frame: &Frame, hold: Span, outs: &mut Vec<Out>) {
    if let Some(Out::Bytes { bytes, hold: same }) = outs.last_mut()
        && *same == hold
        && let Some(bytes) = Arc::get_mut(bytes)
    {
        bytes.extend(frame.bytes());
    } else {
        let bytes = Arc::new(frame.bytes());
        outs.push(Out::Bytes { bytes, hold });
    }
    let there = frame.payload.len() as u64;
    if frame.is_padded && frame.header.length > there {
        outs.push(Out::Filler(Filler {
            // Space: a text stays one, and so does JSON.
            byte: b' ',
            mask: frame.header.mask,
            at: there,
            left: frame.header.length - there,
            hold,
        }));
    }
}
