//! A whole frame, as it came or as it was made.

use super::scanner::Header;

/// The opcodes that have a meaning (RFC 6455, section 11.8).
pub(crate) mod opcode {
    pub(crate) const CONTINUATION: u8 = 0;
    pub(crate) const TEXT: u8 = 1;
    pub(crate) const BINARY: u8 = 2;
    pub(crate) const CLOSE: u8 = 8;
    pub(crate) const PING: u8 = 9;
    pub(crate) const PONG: u8 = 10;
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// What it says of itself. Its length may be more than there is of the payload.
    pub(crate) header: Header,
    /// The header's bytes; empty when they are those that the header is written with.
    raw: Vec<u8>,
    /// As on the wire.
    pub(crate) payload: Vec<u8>,
    /// Whether what is missing of the payload is filled up.
    pub(crate) is_padded: bool,
}

impl Frame {
    /// A frame of which the header has come.
    pub(crate) fn begun(header: Header, raw: &[u8]) -> Self {
        Self {
            header,
            raw: raw.to_vec(),
            payload: Vec::new(),
            is_padded: false,
        }
    }

    /// A last fragment with this payload, masked by that key.
    pub(crate) fn new(opcode: u8, plain: &[u8], mask: Option<[u8; 4]>) -> Self {
        let mut frame = Self {
            header: Header {
                fin: true,
                rsv: 0,
                opcode,
                mask,
                length: 0,
            },
            raw: Vec::new(),
            payload: Vec::new(),
            is_padded: false,
        };
        frame.set_payload(plain);
        frame
    }

    /// Has the header written anew.
    pub(crate) fn header_mut(&mut self) -> &mut Header {
        self.raw.clear();
        &mut self.header
    }

    /// Gives it another payload, masked by its key.
    pub(crate) fn set_payload(&mut self, plain: &[u8]) {
        self.payload = plain.to_vec();
        mask(self.header.mask, 0, &mut self.payload);
        self.header_mut().length = plain.len() as u64;
    }

    /// The payload without its mask.
    pub(crate) fn plain(&self) -> Vec<u8> {
        let mut plain = self.payload.clone();
        mask(self.header.mask, 0, &mut plain);
        plain
    }

    /// Has the length written in 8 bytes, whatever it is.
    pub(crate) fn lengthen_header(&mut self) {
        self.raw = write(&self.header, 127);
    }

    /// All of its bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head();
        bytes.extend(&self.payload);
        bytes
    }

    /// The header's bytes.
    pub(crate) fn head(&self) -> Vec<u8> {
        if !self.raw.is_empty() {
            return self.raw.clone();
        }
        write(
            &self.header,
            match self.header.length {
                short @ 0..=125 => u8::try_from(short).unwrap_or(125),
                126..=0xffff => 126,
                _ => 127,
            },
        )
    }
}

/// A header of which the length is given by these seven bits.
fn write(header: &Header, seven: u8) -> Vec<u8> {
    let mut bytes = vec![
        u8::from(header.fin) << 7 | header.rsv << 4 | header.opcode,
        u8::from(header.mask.is_some()) << 7 | seven,
    ];
    let length = header.length.to_be_bytes();
    match seven {
        126 => bytes.extend(&length[6..]),
        127 => bytes.extend(length),
        _ => {}
    }
    bytes.extend(header.mask.into_iter().flatten());
    bytes
}

/// Masks, or unmasks, bytes that are at that offset of a payload.
pub(crate) fn mask(key: Option<[u8; 4]>, at: u64, bytes: &mut [u8]) {
    let Some(mut key) = key else { return };
    key.rotate_left(usize::try_from(at % 4).unwrap_or(0));
    for (byte, key) in bytes.iter_mut().zip(key.into_iter().cycle()) {
        *byte ^= key;
    }
}
