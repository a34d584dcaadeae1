//! HTTP in front of a lane, and the upgrade to WebSocket. The handshake is made here, with hyper, so that path, token
//! and rate are looked at before it is answered, and a refusal has its status, headers and body.

use std::convert::Infallible;
use std::future::Future;
use std::io::Cursor;
use std::pin::Pin;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use host::door::Caller;
use host::http::{
    Failure, Reply, Request, Response, STRANGER_LIMIT, StatusCode, header, read_body,
};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, CONTENT_TYPE, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use lanes::token::{DenyReason, Refusal};
use sha1::{Digest, Sha1};
use tokio::io::{AsyncReadExt, Chain, Join};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_websockets::{Limits, ServerBuilder, WebSocketStream};

/// The longest request body, and the longest message of a client: a real server's.
const MESSAGE_LIMIT: usize = 32 << 20;

/// A client's socket. What hyper had read beyond the handshake comes first.
pub(crate) type Socket = WebSocketStream<Join<Chain<Cursor<Bytes>, OwnedReadHalf>, OwnedWriteHalf>>;

type Session = Box<dyn FnOnce(Socket) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// What a lane answers.
pub(crate) enum Answer {
    /// An ordinary answer.
    Plain(Response),
    /// 101, and then the session.
    Upgrade {
        /// The subprotocol to echo.
        protocol: Option<&'static str>,
        /// What to do with the socket.
        session: Session,
    },
}

impl Answer {
    /// 101, and then a session.
    pub(crate) fn upgrade<F>(
        protocol: Option<&'static str>,
        session: impl FnOnce(Socket) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::Upgrade {
            protocol,
            session: Box::new(|socket| Box::pin(session(socket))),
        }
    }
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self::Plain(reply.unwrap_or_else(|failure| refusal(failure.status, &failure.message)))
    }
}

/// A lane as the front sees it.
pub(crate) trait Lane: Send + Sync + 'static {
    /// Whether a bearer is known, so that a request of it may be long.
    fn knows(&self, bearer: Option<&str>) -> bool;

    /// Answers a request.
    fn answer(self: Arc<Self>, request: Request) -> impl Future<Output = Answer> + Send;
}

/// An answer other than the wanted one. Boxed, because it is seldom and large.
pub(crate) type Refused = Box<Response>;

/// `{"error": …}` with a status.
pub(crate) fn refusal(status: StatusCode, error: &str) -> Response {
    let body = Refusal {
        error: error.to_owned(),
    };
    let body = serde_json::to_vec(&body).expect("a text has a JSON form");
    with_body(status, "application/json", body)
}

/// The refusal of a token.
pub(crate) fn denied(reason: DenyReason) -> Response {
    let status = StatusCode::from_u16(reason.status()).expect("401 and 403 are statuses");
    refusal(status, reason.name())
}

/// A text with a status.
pub(crate) fn text(status: StatusCode, body: &str) -> Response {
    with_body(
        status,
        "text/plain; charset=utf-8",
        body.as_bytes().to_vec(),
    )
}

/// 503 with Retry-After, for more upgrades than the lane accepts.
pub(crate) fn too_many() -> Response {
    refusal(StatusCode::SERVICE_UNAVAILABLE, "accept_rate_exceeded")
        .with_header(header::RETRY_AFTER, "1")
}

fn with_body(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response {
    let mut headers = header::HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    Response {
        status,
        headers,
        body: body.into(),
    }
}

/// A parameter of a query, percent-decoded.
pub(crate) fn parameter(query: &str, name: &str) -> Option<String> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| host::http::decoded(value))
}

/// The `Bearer` token of a request.
pub(crate) fn bearer(request: &Request) -> Option<&str> {
    bearer_in(&request.headers)
}

fn bearer_in(headers: &header::HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

/// Serves a lane until `shutdown`; then every connection is dropped without a word, as when a real server ends.
pub(crate) async fn serve<L: Lane>(
    listener: TcpListener,
    lane: Arc<L>,
    shutdown: CancellationToken,
) {
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                let connection = connection(
                    stream,
                    Arc::clone(&lane),
                    shutdown.clone(),
                    connections.clone(),
                );
                connections.spawn(shutdown.clone().run_until_cancelled_owned(connection));
            }
            Err(error) => {
                // Out of descriptors, mostly: to wait is all that can be done.
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
    connections.close();
    connections.wait().await;
}

async fn connection<L: Lane>(
    stream: TcpStream,
    lane: Arc<L>,
    shutdown: CancellationToken,
    sessions: TaskTracker,
) {
    let service = service_fn(move |request| {
        let (lane, shutdown, sessions) = (Arc::clone(&lane), shutdown.clone(), sessions.clone());
        async move { Ok::<_, Infallible>(answer(request, lane, shutdown, sessions).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection ended");
    }
}

async fn answer<L: Lane>(
    request: hyper::Request<Incoming>,
    lane: Arc<L>,
    shutdown: CancellationToken,
    sessions: TaskTracker,
) -> hyper::Response<Full<Bytes>> {
    let (mut parts, body) = request.into_parts();
    let upgrade = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
    let limit = if lane.knows(bearer_in(&parts.headers)) {
        MESSAGE_LIMIT
    } else {
        STRANGER_LIMIT
    };
    let answer = match read_body(body, limit).await {
        Err(failure) => Answer::Plain(text(failure.status, &failure.message)),
        Ok(body) => {
            lane.answer(Request {
                method: parts.method,
                path: parts.uri.path().to_owned(),
                query: parts.uri.query().unwrap_or_default().to_owned(),
                headers: parts.headers.clone(),
                body,
                caller: Caller::Anybody,
            })
            .await
        }
    };
    let (protocol, session) = match answer {
        Answer::Plain(plain) => return written(plain),
        Answer::Upgrade { protocol, session } => (protocol, session),
    };
    let (Some(upgrade), Some(key)) = (upgrade, parts.headers.get(SEC_WEBSOCKET_KEY)) else {
        return written(no_websocket());
    };
    let mut response = hyper::Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept_of(key));
    if let Some(protocol) = protocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    sessions.spawn(shutdown.run_until_cancelled_owned(async move {
        match upgrade
            .await
            .map(hyper::upgrade::Upgraded::downcast::<TokioIo<TcpStream>>)
        {
            Ok(Ok(parts)) => {
                let (read, write) = parts.io.into_inner().into_split();
                let stream = tokio::io::join(Cursor::new(parts.read_buf).chain(read), write);
                let limits = Limits::default().max_payload_len(Some(MESSAGE_LIMIT));
                session(ServerBuilder::new().limits(limits).serve(stream)).await;
            }
            Ok(Err(_)) => tracing::error!("an upgraded connection is not a TCP stream"),
            Err(error) => tracing::debug!(%error, "a client left during the upgrade"),
        }
    }));
    response
}

/// Whether a request asks for a WebSocket.
///
/// # Errors
/// 426, as a real server answers.
pub(crate) fn wants_websocket(request: &Request) -> Result<(), Refused> {
    let is = |name: header::HeaderName, wanted: &str| {
        request.headers.get_all(name).iter().any(|value| {
            value.to_str().is_ok_and(|value| {
                value
                    .split(',')
                    .any(|part| part.trim().eq_ignore_ascii_case(wanted))
            })
        })
    };
    if is(CONNECTION, "upgrade")
        && is(UPGRADE, "websocket")
        && is(SEC_WEBSOCKET_VERSION, "13")
        && request.headers.contains_key(SEC_WEBSOCKET_KEY)
    {
        Ok(())
    } else {
        Err(Box::new(no_websocket()))
    }
}

fn no_websocket() -> Response {
    text(
        StatusCode::UPGRADE_REQUIRED,
        "This service requires use of the websocket protocol",
    )
}

fn accept_of(key: &HeaderValue) -> HeaderValue {
    let mut sum = Sha1::new();
    sum.update(key.as_bytes());
    sum.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    HeaderValue::from_str(&BASE64.encode(sum.finalize())).expect("base64 is valid in a header")
}

fn written(response: Response) -> hyper::Response<Full<Bytes>> {
    let mut written = hyper::Response::new(Full::new(response.body));
    *written.status_mut() = response.status;
    *written.headers_mut() = response.headers;
    written
}

/// 404 for a route that a lane does not have.
pub(crate) fn no_route(request: &Request) -> Answer {
    Answer::from(Err(Failure::no_route(request)))
}
