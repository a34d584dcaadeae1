//! What fuzzing tries to refute: properties of everything that reads bytes from outside. `fuzz/` has the targets; the tests
//! here keep the properties alive without a fuzzer, and hold what fuzzers found.

use model::instant::Mono;

use crate::tap::Way;
pub use crate::toxiproxy::fuzzing::bodies;
use crate::websocket::rig::{Rig, busy, edit, idle, pieces};
use crate::websocket::{Event, Head, Header, Scanner, Sniffer};

/// The first byte says how long the pieces are in which the others come.
fn chunked(bytes: &[u8]) -> (usize, &[u8]) {
    bytes
        .split_first()
        .map_or((1, bytes), |(size, rest)| (usize::from(*size).max(1), rest))
}

fn frames(bytes: &[u8], chunk: usize) -> (Vec<(Header, Vec<u8>)>, bool) {
    let mut scanner = Scanner::default();
    let mut frames: Vec<(Header, Vec<u8>)> = Vec::new();
    for mut chunk in bytes.chunks(chunk) {
        while let Some(event) = scanner.next(&mut chunk) {
            match event {
                Event::Header(header) => frames.push((header, Vec::new())),
                Event::Payload(piece) => {
                    assert!(!piece.is_empty());
                    let (_, payload) = frames.last_mut().expect("a header comes first");
                    payload.extend_from_slice(piece);
                }
            }
        }
        assert!(chunk.is_empty(), "every byte is taken");
    }
    (frames, scanner.at_boundary())
}

/// Frames are found alike in one piece, byte by byte and in any other pieces, and their payloads are as long as they say.
pub fn scanner(bytes: &[u8]) {
    let (chunk, bytes) = chunked(bytes);
    let (found, whole) = frames(bytes, bytes.len().max(1));
    assert_eq!(frames(bytes, 1), (found.clone(), whole));
    assert_eq!(frames(bytes, chunk), (found.clone(), whole));
    for (at, (header, payload)) in found.iter().enumerate() {
        let length = payload.len() as u64;
        assert!(
            length == header.length || at + 1 == found.len() && !whole && length < header.length
        );
    }
}

/// The first bytes say which toxics there are, how the others are cut, and where toxics come and go. Toxics do the same
/// however a stream is cut; it passes those that take nothing byte for byte, even while they come and go.
pub fn editor(bytes: &[u8]) {
    let Some((&[which, more, cut, change], bytes)) = bytes.split_first_chunk() else {
        return;
    };
    let way = if change & 1 == 0 {
        Way::Upstream
    } else {
        Way::Downstream
    };
    let chosen = |toxics: Vec<_>, bits: u8| {
        let toxics = toxics.into_iter().enumerate();
        let some = toxics.filter(|(at, _)| bits >> (at % 8) & 1 == 1);
        some.map(|(_, toxic)| toxic).collect::<Vec<_>>()
    };
    let (idle, mut toxics) = (chosen(idle(), more), chosen(busy(), which));
    let sizes = [usize::from(cut).max(1), usize::from(cut % 7) + 1];
    assert!(
        edit(way, &idle, bytes, &sizes) == (bytes.to_vec(), None),
        "{idle:?}"
    );
    toxics.extend(idle.clone());
    let whole = edit(way, &toxics, bytes, &[usize::MAX]);
    assert!(edit(way, &toxics, bytes, &sizes) == whole, "{toxics:?}");

    let every = usize::from(change >> 1) + 1;
    for (toxics, takes) in [(idle, false), (toxics, true)] {
        let mut rig = Rig::new(way);
        for (at, piece) in pieces(bytes, &sizes).into_iter().enumerate() {
            if at % every == 0 {
                rig.set(if at / every % 2 == 0 { &toxics } else { &[] });
            }
            rig.push(piece);
            rig.tick(Mono(1 + at as u64));
        }
        rig.finish();
        assert!(takes || rig.out == bytes, "{toxics:?}");
    }
}

fn head(way: Way, bytes: &[u8], chunk: usize) -> Option<Head> {
    let mut sniffer = Sniffer::new(way, None);
    bytes.chunks(chunk).find_map(|chunk| sniffer.push(chunk))
}

/// The head of a stream is found alike in any pieces. That there is none may be noticed later in small ones, as an incomplete
/// head is not parsed with every byte.
pub fn sniff(bytes: &[u8]) {
    let (chunk, bytes) = chunked(bytes);
    for way in [Way::Upstream, Way::Downstream] {
        let whole = head(way, bytes, bytes.len().max(1));
        for chunk in [1, chunk] {
            let found = head(way, bytes, chunk);
            let late = found.is_none() && whole == Some(Head::Unreadable);
            assert!(
                late || found == whole,
                "{way:?} by {chunk}: {found:?}, not {whole:?}"
            );
        }
        if let Some(Head::Request(_, end) | Head::Response { end, .. }) = whole {
            let end = usize::try_from(end).expect("it is in memory");
            assert!(end <= bytes.len());
            // What comes behind a head is not a part of it.
            assert_eq!(head(way, &bytes[..end], end), whole);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Pieces of what the parsers look for.
    fn text() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(&b"GET / HTTP/1.1\r\n"[..]),
            Just(&b"HTTP/1.1 100 Continue\r\n\r\n"[..]),
            Just(&b"HTTP/1.1 101 Switching Protocols\r\n"[..]),
            Just(&b"Upgrade: websocket\r\n"[..]),
            Just(&b"Retry-After: 2\r\n"[..]),
            Just(&b"\r\n"[..]),
            Just(&b"\n"[..]),
            Just(&b"\x16\x03\x01\x02\x00\x01"[..]),
            Just(&b"x"[..]),
        ];
        let pieces = prop::collection::vec(piece, 0..9);
        (any::<u8>(), pieces)
            .prop_map(|(size, pieces)| [&[size], pieces.concat().as_slice()].concat())
    }

    #[test]
    fn what_fuzzers_found_is_mended() {
        // A fragment of 2^64 - 1 bytes behind one that is gathered: its length and theirs together were none.
        let all = 0xff;
        editor(&[
            all, 0, 237, 247, 0, 0, 0, all, all, all, all, all, all, all, all, all, all, 0, 0, 251,
        ]);
        let fragments = [&[1, 1, b'a', 0x80, 127][..], &[all; 8], b"abc"].concat();
        for toxics in 1..=all {
            editor(&[&[toxics, 0, 1, 1], &fragments[..]].concat());
        }
    }

    proptest! {
        #[test]
        fn the_properties_hold_for_what_is_nearly_http(bytes in text()) {
            sniff(&bytes);
        }

        #[test]
        fn the_properties_hold_for_arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            scanner(&bytes);
            editor(&bytes);
            sniff(&bytes);
            bodies(&bytes);
        }

        #[test]
        fn the_properties_hold_for_what_is_nearly_json(which in 0..5_u8, body in r#"[\[\{]{0,2}("(name|type|attributes|latency|rate)":("?(latency|corrupt)"?|-?[0-9e.]{1,9}|\{|null),?){0,4}[\}\]]{0,2}"#) {
            bodies(&[&[which], body.as_bytes()].concat());
        }
    }
}
