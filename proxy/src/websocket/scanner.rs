//! Finds the frames in a stream of bytes (RFC 6455, section 5.2). It judges nothing: reserved bits, unknown opcodes,
//! masks either way and lengths in more bytes than needed are reported as they are.

/// The longest header: 2 bytes, a length of 8, a mask of 4.
const LONGEST: usize = 14;

/// A frame's header, as it was on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The last fragment of its message.
    pub fin: bool,
    /// The three reserved bits, RSV1 the highest: 0 to 7.
    pub rsv: u8,
    /// 0 to 15.
    pub opcode: u8,
    /// The masking key, of a masked frame.
    pub mask: Option<[u8; 4]>,
    /// Payload bytes. A length with its highest bit set, which is illegal, is taken as the number that it is.
    pub length: u64,
}

impl Header {
    /// Whether it is of a control frame, which may stand between the fragments of a message.
    pub(crate) const fn is_control(&self) -> bool {
        self.opcode & 8 != 0
    }
}

/// What the scanner came upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'b> {
    /// A header is complete.
    Header(Header),
    /// A piece of the payload, never empty.
    Payload(&'b [u8]),
}

/// The scanner of one direction of one connection, from the first byte after the upgrade.
#[derive(Debug, Clone, Default)]
pub struct Scanner {
    header: [u8; LONGEST],
    /// Bytes of the header so far.
    have: usize,
    /// Bytes of the payload still to come.
    left: u64,
}

impl Scanner {
    /// Takes bytes off the front of `bytes` up to and including the next event; `None` once they are used up. A frame
    /// has ended when [`Self::at_boundary`] holds after an event.
    pub fn next<'b>(&mut self, bytes: &mut &'b [u8]) -> Option<Event<'b>> {
        if self.left > 0 && !bytes.is_empty() {
            let here = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
            let (piece, rest) = bytes.split_at(here);
            *bytes = rest;
            self.left -= here as u64;
            return Some(Event::Payload(piece));
        }
        while let Some((byte, rest)) = bytes.split_first() {
            self.header[self.have] = *byte;
            self.have += 1;
            *bytes = rest;
            if self.have >= 2 && self.have == self.header_length() {
                let header = self.parse();
                self.have = 0;
                self.left = header.length;
                return Some(Event::Header(header));
            }
        }
        None
    }

    /// Whether the last byte taken was the last of a frame, or none was taken yet.
    #[must_use]
    pub const fn at_boundary(&self) -> bool {
        self.have == 0 && self.left == 0
    }

    /// The bytes of the header that is not whole yet.
    pub(crate) fn begun(&self) -> &[u8] {
        &self.header[..self.have]
    }

    /// The bytes of the header that was found last.
    pub(crate) fn last_header(&self) -> &[u8] {
        &self.header[..self.header_length()]
    }

    /// By the first two bytes.
    const fn header_length(&self) -> usize {
        self.mask_at() + if self.header[1] & 0x80 == 0 { 0 } else { 4 }
    }

    const fn mask_at(&self) -> usize {
        match self.header[1] & 0x7f {
            126 => 4,
            127 => 10,
            _ => 2,
        }
    }

    fn parse(&self) -> Header {
        let [first, second, ..] = self.header;
        let mask_at = self.mask_at();
        let length = match second & 0x7f {
            short @ 0..=125 => u64::from(short),
            _ => self.header[2..mask_at]
                .iter()
                .fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        let mask = (second & 0x80 != 0).then(|| {
            let mut mask = [0; 4];
            mask.copy_from_slice(&self.header[mask_at..mask_at + 4]);
            mask
        });
        Header {
            fin: first & 0x80 != 0,
            rsv: first >> 4 & 7,
            opcode: first & 0x0f,
            mask,
            length,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What was found, whatever the chunking: headers with the payload that followed, and whether it was all of it.
    fn scan<'b>(chunks: impl IntoIterator<Item = &'b [u8]>) -> (Vec<(Header, Vec<u8>)>, bool) {
        let mut scanner = Scanner::default();
        let mut frames: Vec<(Header, Vec<u8>)> = Vec::new();
        for mut chunk in chunks {
            while let Some(event) = scanner.next(&mut chunk) {
                match event {
                    Event::Header(header) => frames.push((header, Vec::new())),
                    Event::Payload(piece) => frames.last_mut().unwrap().1.extend_from_slice(piece),
                }
            }
            assert!(chunk.is_empty());
        }
        (frames, scanner.at_boundary())
    }

    fn encode(header: &Header, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![u8::from(header.fin) << 7 | header.rsv << 4 | header.opcode];
        let masked = u8::from(header.mask.is_some()) << 7;
        match u16::try_from(payload.len()) {
            Ok(short @ 0..=125) => bytes.push(masked | u8::try_from(short).unwrap()),
            Ok(medium) => {
                bytes.push(masked | 0x7e);
                bytes.extend(medium.to_be_bytes());
            }
            Err(_) => {
                bytes.push(masked | 0x7f);
                bytes.extend((payload.len() as u64).to_be_bytes());
            }
        }
        bytes.extend(header.mask.into_iter().flatten());
        bytes.extend(payload);
        bytes
    }

    fn frame() -> impl Strategy<Value = (Header, Vec<u8>)> {
        let length = prop_oneof![0..3_usize, 120..130_usize, 65_530..65_540_usize];
        (
            any::<bool>(),
            0..8_u8,
            0..16_u8,
            any::<Option<[u8; 4]>>(),
            length,
        )
            .prop_map(|(fin, rsv, opcode, mask, length)| {
                let header = Header {
                    fin,
                    rsv,
                    opcode,
                    mask,
                    length: length as u64,
                };
                (header, vec![opcode; length])
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_chunking_gives_the_frames_that_were_sent(
            frames in prop::collection::vec(frame(), 0..5),
            sizes in prop::collection::vec(1..9_000_usize, 1..40),
        ) {
            let bytes: Vec<u8> = frames.iter().flat_map(|(header, payload)| encode(header, payload)).collect();
            let mut chunks = Vec::new();
            let (mut rest, mut sizes) = (bytes.as_slice(), sizes.into_iter().cycle());
            while !rest.is_empty() {
                let (chunk, after) = rest.split_at(sizes.next().unwrap().min(rest.len()));
                chunks.push(chunk);
                rest = after;
            }
            prop_assert_eq!(scan(chunks), (frames, true));
        }

        #[test]
        fn arbitrary_bytes_are_scanned_alike_in_one_piece_and_one_by_one(
            bytes in prop::collection::vec(any::<u8>(), 0..600)
        ) {
            prop_assert_eq!(scan([bytes.as_slice()]), scan(bytes.chunks(1)));
        }
    }

    #[test]
    fn an_absurd_length_is_waited_for() {
        let bytes = [&[0x82, 0x7f][..], &[0xff; 8], b"more"].concat();
        let (frames, whole) = scan([bytes.as_slice()]);
        assert_eq!(
            (frames[0].0.length, frames[0].1.as_slice(), whole),
            (u64::MAX, &b"more"[..], false)
        );
    }
}
