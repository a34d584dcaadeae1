//! Dialling: TCP and the WebSocket upgrade. The handshake is made here, because a refusal's status, Retry-After and
//! body all matter; tokio-websockets takes over what was accepted.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, Bytes, BytesMut};
use model::quantity::Span;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_websockets::{ClientBuilder, WebSocketStream};

use crate::client::machine::Refusal;

/// The longest head of an answer that is read, and the longest body of a refusal.
const LIMIT: usize = 16 << 10;
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
pub async fn dial(addr: SocketAddr, upgrade: &Upgrade, nonce: u64) -> Result<Socket, Refusal> {
    let broken = |what: &str, error: &dyn std::fmt::Display| Refusal {
        reason: format!("{what} {addr}: {error}"),
        ..Refusal::default()
    };
    let mut stream = TcpStream::connect(addr)
        .await
        .map_err(|error| broken("connect to", &error))?;
    stream
        .set_nodelay(true)
        .map_err(|error| broken("connect to", &error))?;
    // The key only shows that the server read the request; it need not be secret.
    let key = STANDARD.encode(u128::from(nonce).to_be_bytes());
    stream
        .write_all(request(addr, upgrade, &key).as_bytes())
        .await
        .map_err(|error| broken("write to", &error))?;
    let mut answer = BytesMut::with_capacity(1_024);
    let head = loop {
        if let Some(head) = parse_head(&answer).map_err(|error| broken("upgrade by", &error))? {
            break head;
        }
        if answer.len() > LIMIT {
            return Err(broken("upgrade by", &"the answer's head is too long"));
        }
        match stream.read_buf(&mut answer).await {
            Ok(0) => return Err(broken("upgrade by", &"closed without an answer")),
            Ok(_) => {}
            Err(error) => return Err(broken("upgrade by", &error)),
        }
    };
    answer.advance(head.length);
    if head.status != 101 {
        let reason = refusal_body(&mut stream, &mut answer, head.content_length).await;
        return Err(Refusal {
            status: Some(head.status),
            reason,
            retry_after: head.retry_after,
        });
    }
    let expected = STANDARD.encode(Sha1::digest(format!("{key}{ACCEPT_GUID}")));
    if head.accept.as_deref() != Some(&*expected) {
        return Err(broken(
            "upgrade by",
            &"Sec-WebSocket-Accept does not fit the key",
        ));
    }
    if head.subprotocol.as_deref() != upgrade.subprotocol {
        let echoed = head.subprotocol.unwrap_or_default();
        return Err(broken(
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

fn request(addr: SocketAddr, upgrade: &Upgrade, key: &str) -> String {
    use std::fmt::Write as _;
    let mut text = format!(
        "GET {} HTTP/1.1\r\nHost: {addr}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n",
        upgrade.path
    );
    if let Some(subprotocol) = upgrade.subprotocol {
        let _ = write!(text, "Sec-WebSocket-Protocol: {subprotocol}\r\n");
    }
    for (name, value) in &upgrade.headers {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    text.push_str("\r\n");
    text
}

#[derive(Debug, Default)]
struct Head {
    status: u16,
    length: usize,
    content_length: Option<usize>,
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
async fn refusal_body(
    stream: &mut TcpStream,
    body: &mut BytesMut,
    length: Option<usize>,
) -> String {
    // Without a length (chunked) what came along with the head has to do.
    let length = length.unwrap_or(0).min(LIMIT);
    while body.len() < length {
        match stream.read_buf(body).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => break,
        }
    }
    reason_in(body)
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
    stream: TcpStream,
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
    ) -> (SocketAddr, tokio::task::JoinHandle<String>) {
        let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
        let addr = listener.local_addr().unwrap();
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
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
            request
        });
        (addr, served)
    }

    #[tokio::test]
    async fn a_frame_that_comes_with_the_101_is_not_lost() {
        let (addr, served) = answer_once(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\
             Sec-WebSocket-Protocol: v1.json\r\n\r\n",
            b"\x81\x02hi",
        );
        let mut socket = dial(addr, &upgrade(), 7).await.unwrap();
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
        let (addr, _served) = answer_once(
            "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nContent-Length: 20\r\n\r\n{\"error\":\"too many\"}",
            b"",
        );
        let refusal = dial(addr, &upgrade(), 7).await.unwrap_err();
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
    async fn an_upgrade_that_is_none_is_refused() {
        let (addr, _served) = answer_once(
            "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: nonsense\r\n\r\n",
            b"",
        );
        let refusal = dial(addr, &upgrade(), 7).await.unwrap_err();
        assert!(
            refusal.reason.contains("Sec-WebSocket-Accept"),
            "{refusal:?}"
        );
        let (addr, _served) = answer_once(
            "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {accept}\r\n\r\n",
            b"",
        );
        let refusal = dial(addr, &upgrade(), 7).await.unwrap_err();
        assert!(refusal.reason.contains("subprotocol"), "{refusal:?}");
    }
}
