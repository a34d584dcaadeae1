//! Dialling: TCP, TLS and the WebSocket upgrade. The handshake is made here, because a refusal's status, Retry-After and
//! body all matter; tokio-websockets takes over what was accepted.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, Bytes, BytesMut};
use host::peer::{Peer, Stream};
use host::tls;
use model::quantity::Span;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_websockets::{ClientBuilder, WebSocketStream};

use crate::client::machine::Refusal;

/// The longest head of an answer that is read, and the longest body of a refusal.
const LIMIT: usize = 16 << 10;
/// What every upgrade says, which no further header may say again.
const OWN_HEADERS: [&str; 6] = [
    "host",
    "connection",
    "upgrade",
    "sec-websocket-version",
    "sec-websocket-key",
    "sec-websocket-protocol",
];
/// RFC 6455, section 1.3.
const ACCEPT_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What is asked for in an upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// Path and query.
    pub path: String,
    /// The subprotocol, which the server has to echo.
    pub subprotocol: Option<&'static str>,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
}

/// An open WebSocket.
pub type Socket = WebSocketStream<Prefixed>;

/// Connects and upgrades. It waits as long as the server does: the caller has the clock.
///
/// # Errors
/// The refusal; one without a status where there was no answer.
pub async fn dial(peer: &Peer, upgrade: &Upgrade, nonce: u64) -> Result<Socket, Refusal> {
    let addr = peer.addr();
    let refusal = |what: &str, reason: &str| Refusal {
        reason: format!("{what} {addr}: {reason}"),
        ..Refusal::default()
    };
    let broken = |what: &str, error: &(dyn Error + 'static)| refusal(what, &tls::reason(error));
    let mut stream = peer
        .connect()
        .await
        .map_err(|error| broken("connect to", &error))?;
    // The key only shows that the server read the request; it need not be secret.
    let key = STANDARD.encode(u128::from(nonce).to_be_bytes());
    let asking = async {
        stream
            .write_all(request(peer, upgrade, &key).as_bytes())
            .await?;
        stream.flush().await
    };
    let asked = asking.await;
    let mut answer = BytesMut::with_capacity(1_024);
    let head = loop {
        if let Some(head) = parse_head(&answer).map_err(|error| refusal("upgrade by", &error))? {
            break head;
        }
        if answer.len() > LIMIT {
            return Err(refusal("upgrade by", "the answer's head is too long"));
        }
        // Read even when the request did not get through: what the server said before it closed tells why.
        match (stream.read_buf(&mut answer).await, &asked) {
            (Ok(1..), _) => {}
            (Err(error), _) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(broken("upgrade by", &error));
            }
            (_, Err(error)) => return Err(broken("write to", error)),
            (Ok(0), _) => return Err(refusal("upgrade by", "closed without an answer")),
            (Err(error), _) => return Err(broken("upgrade by", &error)),
        }
    };
    answer.advance(head.length);
    if head.status != 101 {
        let reason = refusal_body(&mut stream, &mut answer, &head).await;
        return Err(Refusal {
            status: Some(head.status),
            reason,
            retry_after: head.retry_after,
        });
    }
    let expected = STANDARD.encode(Sha1::digest(format!("{key}{ACCEPT_GUID}")));
    if head.accept.as_deref() != Some(&*expected) {
        return Err(refusal(
            "upgrade by",
            "Sec-WebSocket-Accept does not fit the key",
        ));
    }
    if head.subprotocol.as_deref() != upgrade.subprotocol {
        let echoed = head.subprotocol.unwrap_or_default();
        return Err(refusal(
            "upgrade by",
            &format!("subprotocol `{echoed}`, not the one asked for"),
        ));
    }
    let stream = Prefixed {
        prefix: answer.freeze(),
        stream,
    };
    Ok(ClientBuilder::new().take_over(stream))
}

fn request(peer: &Peer, upgrade: &Upgrade, key: &str) -> String {
    use std::fmt::Write as _;
    let mut text = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n",
        peer.path(&upgrade.path),
        peer.host()
    );
    if let Some(subprotocol) = upgrade.subprotocol {
        let _ = write!(text, "Sec-WebSocket-Protocol: {subprotocol}\r\n");
    }
    for (name, value) in &upgrade.headers {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    let own = |name: &str| {
        OWN_HEADERS.contains(&name)
            || upgrade
                .headers
                .iter()
                .any(|(own, _)| own.eq_ignore_ascii_case(name))
    };
    for (name, value) in peer.headers(own) {
        if let Ok(value) = value.to_str() {
            let _ = write!(text, "{name}: {value}\r\n");
        }
    }
    text.push_str("\r\n");
    text
}

#[derive(Debug, Default)]
struct Head {
    status: u16,
    length: usize,
    content_length: Option<usize>,
    chunked: bool,
    retry_after: Option<Span>,
    accept: Option<String>,
    subprotocol: Option<String>,
}

fn parse_head(bytes: &[u8]) -> Result<Option<Head>, String> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(format!("not an HTTP answer: {error}")),
    };
    let mut head = Head {
        status: response.code.unwrap_or(0),
        length,
        ..Head::default()
    };
    for header in response.headers.iter() {
        let Ok(value) = std::str::from_utf8(header.value) else {
            continue;
        };
        let value = value.trim();
        match header.name.to_ascii_lowercase().as_str() {
            "content-length" => head.content_length = value.parse().ok(),
            "transfer-encoding" => head.chunked = value.eq_ignore_ascii_case("chunked"),
            "retry-after" => head.retry_after = retry_after(value),
            "sec-websocket-accept" => head.accept = Some(value.to_owned()),
            "sec-websocket-protocol" => head.subprotocol = Some(value.to_owned()),
            _ => {}
        }
    }
    Ok(Some(head))
}

/// Retry-After in whole seconds. The form with a date is not used by any target, and left out.
#[must_use]
pub fn retry_after(value: &str) -> Option<Span> {
    value.trim().parse().ok().map(Span::from_secs)
}

/// The reason in a refusal's body: the `error` of a JSON object, or its text.
async fn refusal_body(stream: &mut Stream, body: &mut BytesMut, head: &Head) -> String {
    // With neither a length nor chunks, what came along with the head has to do.
    let length = head.content_length.unwrap_or(0);
    loop {
        let whole = head.chunked.then(|| joined(body)).flatten();
        if let Some(whole) = whole {
            return reason_in(&whole);
        }
        let enough = if head.chunked {
            LIMIT
        } else {
            length.min(LIMIT)
        };
        if body.len() >= enough || !matches!(stream.read_buf(body).await, Ok(1..)) {
            return reason_in(body);
        }
    }
}

/// A body in chunks (RFC 9112, section 7.1) as one; `None` until the last of them is there.
fn joined(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let Ok(httparse::Status::Complete((start, size))) = httparse::parse_chunk_size(rest) else {
            return None;
        };
        if size == 0 {
            return Some(body);
        }
        let end = start.checked_add(usize::try_from(size).ok()?)?;
        body.extend_from_slice(rest.get(start..end)?);
        rest = rest.get(end + 2..)?;
    }
}

/// The reason that an error body gives: the `error` of a JSON object, or the first line of its text.
#[must_use]
pub fn reason_in(body: &[u8]) -> String {
    serde_json::from_slice::<serde_json::Value>(body)
        .ok()
        .and_then(|value| value["error"].as_str().map(str::to_owned))
        .unwrap_or_else(|| {
            let text = String::from_utf8_lossy(body);
            text.lines()
                .next()
                .unwrap_or_default()
                .chars()
                .take(200)
                .collect()
        })
}

/// A stream of which the first bytes have already been read: a server may send its first frame along with the 101.
#[derive(Debug)]
pub struct Prefixed {
    prefix: Bytes,
    stream: Stream,
}

impl AsyncRead for Prefixed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let take = self.prefix.len().min(buf.remaining());
        buf.put_slice(&self.prefix.split_to(take));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;
    use host::net::listen;
    use host::peer::Reach;
    use host::tls::Authority;
    use model::target::{Access, TlsClient};
    use tokio_rustls::TlsAcceptor;

    fn upgrade() -> Upgrade {
        Upgrade {
            path: "/v1".to_owned(),
            subprotocol: Some("v1.json"),
            headers: vec![("x-faultlane-client", "c0042".to_owned())],
        }
    }

    /// Answers one upgrade; `{accept}` stands for the right Sec-WebSocket-Accept. The request as it came.
    fn answer_once(
        answer: &'static str,
        more: &'static [u8],
    ) -> (Peer, tokio::task::JoinHandle<String>) {
        let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
        let addr = listener.local_addr().unwrap();
        let served = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            serve(stream, answer, more).await
        });
        (Peer::plain(addr), served)
    }

    async fn serve(
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
        answer: &str,
        more: &[u8],
    ) -> String {
        let mut request = BytesMut::new();
        while !request.ends_with(b"\r\n\r\n") {
            stream.read_buf(&mut request).await.unwrap();
        }
        let request = String::from_utf8(request.to_vec()).unwrap();
        let key = request
            .lines()
            .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))
            .unwrap();
        let accept = STANDARD.encode(Sha1::digest(format!("{key}{ACCEPT_GUID}")));
        let mut bytes = answer.replace("{accept}", &accept).into_bytes();
        bytes.extend_from_slice(more);
        stream.write_all(&bytes).await.unwrap();
        stream.flush().await.unwrap();
        request
    }

    const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                             Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: v1.json\r\n\r\n";

    #[tokio::test]
    async fn a_frame_that_comes_with_the_101_is_not_lost() {
        let (peer, served) = answer_once(SWITCHING, b"\x81\x02hi");
        let mut socket = dial(&peer, &upgrade(), 7).await.unwrap();
        let message = socket.next().await.unwrap().unwrap();
        assert_eq!(message.as_text(), Some("hi"));
        assert!(
            served
                .await
                .unwrap()
                .contains("x-faultlane-client: c0042\r\n")
        );
    }

    #[tokio::test]
    async fn a_refusal_tells_status_reason_and_when_to_come_back() {
        let (peer, _served) = answer_once(
            "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nContent-Length: 20\r\n\r\n{\"error\":\"too many\"}",
            b"",
        );
        let refusal = dial(&peer, &upgrade(), 7).await.unwrap_err();
        assert_eq!(
            refusal,
            Refusal {
                status: Some(503),
                reason: "too many".to_owned(),
                retry_after: Some(Span::from_secs(2)),
            }
        );
    }

    #[tokio::test]
    async fn a_reason_that_comes_in_chunks_is_put_together() {
        let (peer, _served) = answer_once(
            "HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"a\r\n{\"error\":\"\r\nf\r\ntoken_expired\"}\r\n0\r\n\r\n",
        );
        let refusal = dial(&peer, &upgrade(), 7).await.unwrap_err();
        assert_eq!(refusal.reason, "token_expired");
        for cut in [&b"a\r\n{\"err"[..], b"a\r\n", b"", b"ffffffffffffffff\r\nx"] {
            assert_eq!(joined(cut), None);
        }
    }

    #[tokio::test]
    async fn an_upgrade_that_is_none_is_refused() {
        let (peer, _served) = answer_once(
            "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: nonsense\r\n\r\n",
            b"",
        );
        let refusal = dial(&peer, &upgrade(), 7).await.unwrap_err();
        assert!(
            refusal.reason.contains("Sec-WebSocket-Accept"),
            "{refusal:?}"
        );
        let (peer, _served) = answer_once(
            "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {accept}\r\n\r\n",
            b"",
        );
        let refusal = dial(&peer, &upgrade(), 7).await.unwrap_err();
        assert!(refusal.reason.contains("subprotocol"), "{refusal:?}");
    }

    #[tokio::test]
    async fn a_lane_behind_tls_is_upgraded_as_configured_and_asks_for_the_clients_certificate() {
        let (ca, clients) = (
            Authority::ephemeral("test").unwrap(),
            Authority::ephemeral("clients").unwrap(),
        );
        let identity = ca.issue(&["sync.example.com"]).unwrap();
        let acceptor =
            TlsAcceptor::from(host::tls::server(&identity, Some(&clients.pem())).unwrap());
        let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
        let addr = listener.local_addr().unwrap();
        let served = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                if let Ok(stream) = acceptor.accept(stream).await {
                    return serve(stream, SWITCHING, b"\x81\x02hi").await;
                }
            }
        });
        let mut tls = TlsClient {
            ca_pem: Some(ca.pem()),
            identity: None,
        };
        let mut access = Access {
            authority: Some("sync.example.com".to_owned()),
            path_prefix: "/eu".to_owned(),
            headers: vec![
                ("Origin".to_owned(), "https://app.example.com".to_owned()),
                ("Upgrade".to_owned(), "never".to_owned()),
            ],
            tls: Some(tls.clone()),
            ..Access::plain(addr, addr)
        };
        let peer = Reach::of(&access).unwrap().endpoint;
        let refusal = dial(&peer, &upgrade(), 7).await.unwrap_err();
        let why = refusal.reason;
        assert!(why.contains("it requires a client certificate"), "{why}");
        assert!(why.contains(&addr.to_string()), "{why}");

        tls.identity = Some(clients.issue(&["fleet"]).unwrap());
        access.tls = Some(tls);
        let peer = Reach::of(&access).unwrap().endpoint;
        let mut socket = dial(&peer, &upgrade(), 7).await.unwrap();
        let message = socket.next().await.unwrap().unwrap();
        assert_eq!(message.as_text(), Some("hi"));
        let request = served.await.unwrap();
        assert!(request.starts_with("GET /eu/v1 HTTP/1.1\r\nHost: sync.example.com\r\n"));
        assert!(request.contains("origin: https://app.example.com\r\n"));
        assert!(!request.contains("never"), "{request}");
    }
}
