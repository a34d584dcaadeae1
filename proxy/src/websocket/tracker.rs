//! Counts the messages of one direction while their frames are scanned.

use super::scanner::{Event, Header, Scanner};

/// The scanner of one direction that knows which message a frame is of. A message is a data message with all its
/// fragments, or a control frame.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tracker {
    scanner: Scanner,
    /// Messages begun.
    messages: u64,
    /// More fragments of the last data message are to come.
    fragmented: bool,
}

impl Tracker {
    /// As [`Scanner::next`].
    pub(crate) fn next<'b>(&mut self, bytes: &mut &'b [u8]) -> Option<Event<'b>> {
        let event = self.scanner.next(bytes);
        if let Some(Event::Header(header)) = &event {
            self.count(header);
        }
        event
    }

    const fn count(&mut self, header: &Header) {
        if header.is_control() {
            self.messages += 1;
            return;
        }
        // A continuation of nothing, which is illegal, counts as a message.
        if header.opcode != 0 || !self.fragmented {
            self.messages += 1;
        }
        self.fragmented = !header.fin;
    }

    pub(crate) const fn at_boundary(&self) -> bool {
        self.scanner.at_boundary()
    }

    /// Whether the data message whose header came last has further fragments.
    pub(crate) const fn is_fragmented(&self) -> bool {
        self.fragmented
    }

    /// The message that was begun last, counted from 0. There has to be one.
    pub(crate) const fn index(&self) -> u64 {
        self.messages - 1
    }

    /// The message that will be begun next.
    pub(crate) const fn next_index(&self) -> u64 {
        self.messages
    }

    /// The bytes of the header that is not whole yet.
    pub(crate) fn begun(&self) -> &[u8] {
        self.scanner.begun()
    }

    /// The bytes of the header that was found last.
    pub(crate) fn last_header(&self) -> &[u8] {
        self.scanner.last_header()
    }
}
