//! Reads the heads of an HTTP request and its response from copies of their bytes while these pass by.

use std::sync::Arc;

use model::ids::{CLIENT_HEADER, ClientId};

use super::query;
use crate::identity::{IdentifyBy, LONGEST};
use crate::tap::Way;

/// A head longer than this is not looked at: the connection then passes as bytes that nobody understands.
pub(crate) const HEAD_LIMIT: usize = 16 << 10;
const MOST_HEADERS: usize = 100;

/// What a request's head said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Request {
    /// Whose it is, where it says so.
    pub(crate) client: Option<ClientId>,
    /// Whether it asks for a WebSocket.
    pub(crate) upgrade: bool,
    /// The client's id, where it was looked for and is there.
    pub(crate) id: Option<Arc<str>>,
}

/// What was found at the beginning of one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Head {
    /// A request whose head ends after so many bytes of the stream.
    Request(Request, u64),
    /// A final response, or 101.
    Response {
        /// The status.
        status: u16,
        /// Whether it carries Retry-After.
        retry_after: bool,
        /// Where its head is in the stream: not at the beginning where informational responses came before it.
        start: u64,
        end: u64,
    },
    /// A TLS client's greeting.
    Tls,
    /// Nothing that this reads: too long, or not HTTP/1.
    Unreadable,
}

/// Collects the bytes of one direction until its head is known.
#[derive(Debug)]
pub(crate) struct Sniffer {
    way: Way,
    identify_by: Option<Arc<IdentifyBy>>,
    bytes: Vec<u8>,
    /// Bytes of informational responses that came before.
    skipped: u64,
    /// An incomplete head is parsed again only when it is this long: byte by byte, it would cost its square.
    try_at: usize,
}

impl Sniffer {
    pub(crate) const fn new(way: Way, identify_by: Option<Arc<IdentifyBy>>) -> Self {
        Self {
            way,
            identify_by,
            bytes: Vec::new(),
            skipped: 0,
            try_at: 1,
        }
    }

    /// Takes the next bytes of the stream; `Some` once the head is known, and then the sniffer has done its work.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) -> Option<Head> {
        loop {
            let room = HEAD_LIMIT - self.bytes.len();
            let (now, later) = bytes.split_at(bytes.len().min(room));
            let head = self.take(now);
            if head.is_some() || later.is_empty() {
                return head;
            }
            // Informational responses have made room.
            bytes = later;
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Option<Head> {
        let from = self.bytes.len().saturating_sub(3);
        self.bytes.extend(bytes);
        if self.way == Way::Upstream {
            match looks_like_hello(&self.bytes) {
                Some(true) => return Some(Head::Tls),
                Some(false) => {}
                None => return None,
            }
        }
        let mut complete = has_blank_line(&self.bytes[from..]);
        loop {
            if !complete && self.bytes.len() < self.try_at && self.bytes.len() < HEAD_LIMIT {
                return None;
            }
            let parsed = match self.way {
                Way::Upstream => parse_request(&self.bytes, self.identify_by.as_deref()),
                Way::Downstream => parse_response(&self.bytes),
            };
            match parsed {
                Parsed::Partial if self.bytes.len() < HEAD_LIMIT => {
                    self.try_at = self.bytes.len() * 2;
                    return None;
                }
                Parsed::Partial | Parsed::Unreadable => return Some(Head::Unreadable),
                Parsed::Request(request, length) => {
                    return Some(Head::Request(request, self.skipped + length as u64));
                }
                // 100 Continue and its like announce nothing: the response proper is still to come.
                Parsed::Response(100 | 102..200, _, length) => {
                    self.bytes.drain(..length);
                    self.skipped += length as u64;
                    self.try_at = 1;
                    if self.bytes.is_empty() {
                        return None;
                    }
                    complete = has_blank_line(&self.bytes);
                }
                Parsed::Response(status, retry_after, length) => {
                    return Some(Head::Response {
                        status,
                        retry_after,
                        start: self.skipped,
                        end: self.skipped + length as u64,
                    });
                }
            }
        }
    }
}

enum Parsed {
    Partial,
    Unreadable,
    Request(Request, usize),
    Response(u16, bool, usize),
}

/// Whether a stream begins with a TLS record that holds a `ClientHello` (RFC 8446, sections 5.1 and 4); `None` while
/// that cannot be told.
fn looks_like_hello(bytes: &[u8]) -> Option<bool> {
    const RECORD_HANDSHAKE: u8 = 22;
    const CLIENT_HELLO: u8 = 1;
    // Type, version (3, minor), length in two bytes; then the message's type.
    let expected = [
        Some(RECORD_HANDSHAKE),
        Some(3),
        None,
        None,
        None,
        Some(CLIENT_HELLO),
    ];
    let fits = bytes
        .iter()
        .zip(expected)
        .all(|(byte, expected)| expected.is_none_or(|expected| *byte == expected));
    (!fits || bytes.len() >= expected.len()).then_some(fits)
}

fn has_blank_line(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|pair| pair == b"\n\n") || bytes.windows(3).any(|three| three == b"\n\r\n")
}

fn parse_request(bytes: &[u8], identify_by: Option<&IdentifyBy>) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Partial) => Parsed::Partial,
        Err(_) => Parsed::Unreadable,
        Ok(httparse::Status::Complete(length)) => {
            let value = |name: &str| {
                request
                    .headers
                    .iter()
                    .find(|header| header.name.eq_ignore_ascii_case(name))
                    .and_then(|header| std::str::from_utf8(header.value).ok())
            };
            let upgrade =
                value("upgrade").is_some_and(|what| what.eq_ignore_ascii_case("websocket"));
            let client = value(CLIENT_HEADER).and_then(|id| id.parse().ok());
            let id = identify_by.and_then(|by| match by {
                IdentifyBy::Header(name) => value(name).map(str::to_owned),
                IdentifyBy::Query(name) => query::value(request.path?.as_bytes(), name),
            });
            let id = id.filter(|id| !id.is_empty() && id.len() <= LONGEST);
            let request = Request {
                client,
                upgrade,
                id: id.map(Into::into),
            };
            Parsed::Request(request, length)
        }
    }
}

fn parse_response(bytes: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(bytes) {
        Ok(httparse::Status::Partial) => Parsed::Partial,
        Err(_) => Parsed::Unreadable,
        Ok(httparse::Status::Complete(length)) => {
            let retry_after = response
                .headers
                .iter()
                .any(|header| header.name.eq_ignore_ascii_case("retry-after"));
            response.code.map_or(Parsed::Unreadable, |status| {
                Parsed::Response(status, retry_after, length)
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UPGRADE: &[u8] =
        b"GET /sync HTTP/1.1\r\nHost: x\r\nUpgrade: WebSocket\r\nX-Faultlane-Client: c0042\r\n\r\n";

    fn sniff(way: Way, bytes: &[u8], chunk: usize) -> Option<Head> {
        let mut sniffer = Sniffer::new(way, None);
        bytes.chunks(chunk).find_map(|chunk| sniffer.push(chunk))
    }

    proptest! {
        #[test]
        fn any_chunking_finds_the_same_head(chunk in 1..90_usize) {
            let bytes = [UPGRADE, b"\x81\x00"].concat();
            let request = Request { client: Some(ClientId(42)), upgrade: true, id: None };
            prop_assert_eq!(
                sniff(Way::Upstream, &bytes, chunk),
                Some(Head::Request(request, UPGRADE.len() as u64))
            );
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), chunk in 1..40_usize) {
            let _ = (sniff(Way::Upstream, &bytes, chunk), sniff(Way::Downstream, &bytes, chunk));
        }
    }

    #[test]
    fn an_informational_response_is_passed_over() {
        let early = b"HTTP/1.1 100 Continue\r\n\r\n";
        let last = b"HTTP/1.1 503 Busy\r\nRetry-After: 2\r\n\r\n";
        let both = [&early[..], last].concat();
        for chunk in 1..both.len() {
            assert_eq!(
                sniff(Way::Downstream, &both, chunk),
                Some(Head::Response {
                    status: 503,
                    retry_after: true,
                    start: early.len() as u64,
                    end: both.len() as u64
                })
            );
        }
    }

    #[test]
    fn many_informational_responses_in_one_piece_are_passed_over() {
        let early = b"HTTP/1.1 102 Processing\r\n\r\n".repeat(2 * HEAD_LIMIT / 27);
        let both = [early.as_slice(), b"HTTP/1.1 101 \r\n\r\n"].concat();
        for chunk in [64, HEAD_LIMIT, both.len()] {
            let head = sniff(Way::Downstream, &both, chunk);
            let Some(Head::Response {
                status: 101, end, ..
            }) = head
            else {
                panic!("by {chunk}: {head:?}");
            };
            assert_eq!(end, both.len() as u64);
        }
    }

    #[test]
    fn a_client_hello_is_known_in_any_pieces_and_nothing_else_is_taken_for_one() {
        let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
        for chunk in 1..hello.len() {
            assert_eq!(sniff(Way::Upstream, hello, chunk), Some(Head::Tls));
        }
        // A server's, and a greeting that is not whole.
        assert_eq!(sniff(Way::Downstream, hello, 64), Some(Head::Unreadable));
        assert_eq!(sniff(Way::Upstream, &hello[..5], 64), None);
        assert!(matches!(
            sniff(Way::Upstream, UPGRADE, 1),
            Some(Head::Request(..))
        ));
    }

    #[test]
    fn a_client_is_named_where_it_was_asked_to_be() {
        let head = b"GET /sync?client=a%20b&x HTTP/1.1\r\nX-Client: device-7\r\nX-Long: ";
        let head = [&head[..], &vec![b'x'; LONGEST + 1], b"\r\nX-None:\r\n\r\n"].concat();
        for (by, id) in [
            (IdentifyBy::Header("x-client".to_owned()), Some("device-7")),
            (IdentifyBy::Query("client".to_owned()), Some("a b")),
            (IdentifyBy::Query("x".to_owned()), None),
            (IdentifyBy::Header("x-none".to_owned()), None),
            (IdentifyBy::Header("x-long".to_owned()), None),
        ] {
            let head = Sniffer::new(Way::Upstream, Some(Arc::new(by))).push(&head);
            let Some(Head::Request(request, _)) = head else {
                panic!("a request");
            };
            assert_eq!(request.id.as_deref(), id);
        }
    }

    #[test]
    fn what_is_no_head_is_given_up() {
        assert_eq!(
            sniff(Way::Upstream, b"\x16\x03\x01 not http", 64),
            Some(Head::Unreadable)
        );
        let endless = [&b"GET / HTTP/1.1\r\nX: "[..], &vec![b'a'; HEAD_LIMIT]].concat();
        for chunk in [1_000, 100_000] {
            assert_eq!(
                sniff(Way::Upstream, &endless, chunk),
                Some(Head::Unreadable)
            );
        }
    }
}
