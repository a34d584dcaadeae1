//! JSON over HTTP/1.1: the protocol between conductor, agents and children.
//!
//! Errors travel as `{"error": "…", "status": N}` with that status.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::door::{Caller, Door, TurnedAway};
use crate::peer::{Peer, Stream};
use crate::tls;

pub use hyper::{Method, StatusCode, header};

/// The longest answer that is read. Reports of a large shard are some megabytes.
const ANSWER_LIMIT: usize = 256 << 20;

/// The longest request that a control API reads.
pub const REQUEST_LIMIT: usize = 16 << 20;

/// The longest request that is read of somebody who is not known: it lies in memory before anybody has asked who sends
/// it.
pub const STRANGER_LIMIT: usize = 64 << 10;

/// A request's body has to be there so long after its head: a body that never ends holds a connection, and what has
/// come of it, for as long as somebody likes.
const BODY_WITHIN: Duration = Duration::from_secs(5);

/// A request as a handler sees it.
#[derive(Debug)]
pub struct Request {
    /// `GET`, `POST` and so on.
    pub method: Method,
    /// The path, percent-encoded as it came.
    pub path: String,
    /// The query, without the `?`.
    pub query: String,
    /// The headers.
    pub headers: header::HeaderMap,
    /// The body.
    pub body: Bytes,
    /// Who sends it.
    pub caller: Caller,
}

impl Request {
    /// The path's segments: `/faults/f1` is `["faults", "f1"]`, so that handlers can match on
    /// `(method.as_str(), segments.as_slice())`.
    #[must_use]
    pub fn segments(&self) -> Vec<&str> {
        self.path
            .split('/')
            .filter(|segment| !segment.is_empty())
            .collect()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// 400 with what is wrong and where.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body).map_err(|error| {
            Failure::new(
                StatusCode::BAD_REQUEST,
                format!("bad request body: {error}"),
            )
        })
    }
}

/// A part of a path or a query, percent-decoded.
#[must_use]
pub fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let escaped = (*first == b'%')
            .then(|| tail.get(..2))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: header::HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Response {
    /// 200 with a JSON body.
    ///
    /// # Errors
    /// 500 when the value has no JSON form.
    pub fn json(value: &impl Serialize) -> Reply {
        let body = serde_json::to_vec(value)
            .map_err(|error| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
        let mut headers = header::HeaderMap::new();
        headers.insert(
            CONTENT_TYPE,
            header::HeaderValue::from_static("application/json"),
        );
        Ok(Self {
            status: StatusCode::OK,
            headers,
            body: body.into(),
        })
    }

    /// 200 with `{}`.
    ///
    /// # Errors
    /// None; the type is that of every handler.
    pub fn empty() -> Reply {
        Self::json(&serde_json::json!({}))
    }

    /// With another status.
    #[must_use]
    pub const fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// With one more header. A value that is not valid in a header is left out.
    #[must_use]
    pub fn with_header(mut self, name: header::HeaderName, value: &str) -> Self {
        if let Ok(value) = value.parse() {
            self.headers.insert(name, value);
        }
        self
    }
}

/// A refusal.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The status.
    pub status: StatusCode,
    /// What is wrong and what to do.
    pub message: String,
}

impl Failure {
    /// A refusal with a status and a text.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    /// 404 for a route that does not exist.
    #[must_use]
    pub fn no_route(request: &Request) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            format!("no route {} {}", request.method, request.path),
        )
    }
}

/// What a handler answers.
pub type Reply = Result<Response, Failure>;

/// Reads a request's body: at most `limit` bytes, within five seconds.
///
/// # Errors
/// 408 for one that takes longer, 413 for a longer one, 400 for one that breaks off.
pub async fn read_body(body: Incoming, limit: usize) -> Result<Bytes, Failure> {
    let read = tokio::time::timeout(BODY_WITHIN, Limited::new(body, limit).collect()).await;
    match read {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Failure::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is longer than {limit} bytes"),
        )),
        Ok(Err(error)) => Err(Failure::new(
            StatusCode::BAD_REQUEST,
            format!("the body could not be read: {error}"),
        )),
        Err(_) => Err(Failure::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body did not come within {BODY_WITHIN:?}"),
        )),
    }
}

/// Serves a control API until `shutdown`, then lets the requests under way finish for up to a second. The listener is
/// bound by the caller. A panic in a handler closes that connection only.
pub async fn serve<H, F>(listener: TcpListener, shutdown: CancellationToken, handler: H)
where
    H: Fn(Request) -> F + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    serve_within(listener, shutdown, REQUEST_LIMIT, handler).await;
}

/// As [`serve`], for requests of at most `limit` bytes.
pub async fn serve_within<H, F>(
    listener: TcpListener,
    shutdown: CancellationToken,
    limit: usize,
    handler: H,
) where
    H: Fn(Request) -> F + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    serve_at(Door::Open(listener), shutdown, limit, handler, |_| {}).await;
}

/// As [`serve_within`], at any door. `turned_away` hears of those who were not let in.
pub async fn serve_at<H, F, A>(
    door: Door,
    shutdown: CancellationToken,
    limit: usize,
    handler: H,
    turned_away: A,
) where
    H: Fn(Request) -> F + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
    A: Fn(TurnedAway) + Send + Sync + 'static,
{
    let (handler, turned_away) = (Arc::new(handler), Arc::new(turned_away));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = door.knock() => accepted,
        };
        let knock = match accepted {
            Ok(knock) => knock,
            Err(error) => {
                // Out of descriptors, mostly: to wait is all that can be done.
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (handler, shutdown) = (Arc::clone(&handler), shutdown.clone());
        let turned_away = Arc::clone(&turned_away);
        connections.spawn(async move {
            let entered = tokio::select! {
                entered = knock.enter() => entered,
                () = shutdown.cancelled() => return,
            };
            let (stream, caller) = match entered {
                Ok(entered) => entered,
                Err(stranger) => return turned_away(stranger),
            };
            let service = service_fn(move |request| {
                let (handler, caller) = (Arc::clone(&handler), caller.clone());
                async move { Ok::<_, Infallible>(answer(request, caller, limit, &*handler).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service);
            let mut connection = std::pin::pin!(connection);
            tokio::select! {
                ended = connection.as_mut() => if let Err(error) = ended { tracing::debug!(%error, "connection ended"); },
                () = shutdown.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    if tokio::time::timeout(Duration::from_secs(1), connection).await.is_err() {
                        tracing::warn!("a request outlived the shutdown by a second and was cut off");
                    }
                }
            }
        });
    }
    connections.close();
    connections.wait().await;
}

async fn answer<H, F>(
    request: hyper::Request<Incoming>,
    caller: Caller,
    limit: usize,
    handler: &H,
) -> hyper::Response<Full<Bytes>>
where
    H: Fn(Request) -> F,
    F: Future<Output = Reply>,
{
    let (parts, body) = request.into_parts();
    let reply = match read_body(body, limit).await {
        Ok(body) => {
            handler(Request {
                method: parts.method,
                path: parts.uri.path().to_owned(),
                query: parts.uri.query().unwrap_or_default().to_owned(),
                headers: parts.headers,
                body,
                caller,
            })
            .await
        }
        Err(failure) => Err(failure),
    };
    let reply = reply.unwrap_or_else(|failure| {
        let body = serde_json::json!({"error": failure.message, "status": failure.status.as_u16()});
        let mut headers = header::HeaderMap::new();
        headers.insert(
            CONTENT_TYPE,
            header::HeaderValue::from_static("application/json"),
        );
        Response {
            status: failure.status,
            headers,
            body: body.to_string().into(),
        }
    });
    let mut response = hyper::Response::new(Full::new(reply.body));
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    response
}

/// A call that had no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection, or it broke: whether the call had an effect is unknown unless `connected` is false.
    #[error("{call}: {reason}")]
    Broken {
        /// Method, address and path, without the query.
        call: String,
        /// Why.
        reason: String,
        /// Whether the request may have reached the other side.
        connected: bool,
    },
    /// No answer in time.
    #[error("{call}: no answer within {after:?}")]
    TimedOut {
        /// Method, address and path, without the query.
        call: String,
        /// How long it waited.
        after: Duration,
    },
    /// An answer with an error status.
    #[error("{call}: {status} {message}")]
    Refused {
        /// Method, address and path, without the query.
        call: String,
        /// The status.
        status: StatusCode,
        /// The `error` of the body, or the body.
        message: String,
    },
    /// A body that is not what was expected.
    #[error("{call}: the answer is not what was expected: {reason}")]
    Garbled {
        /// Method, address and path, without the query.
        call: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// A client of one server: keeps its idle connections; calls may overlap. Clones share the connections.
#[derive(Clone)]
pub struct Client {
    peer: Arc<Peer>,
    idle: Arc<Mutex<Vec<SendRequest<Full<Bytes>>>>>,
    answer_limit: usize,
    headers: header::HeaderMap,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the server at `addr`, in plain text; connects when it is first used.
    #[must_use]
    pub fn new(addr: SocketAddr) -> Self {
        Self::of(Arc::new(Peer::plain(addr)))
    }

    /// A client of that server, by TLS where it speaks it; connects when it is first used.
    #[must_use]
    pub fn of(peer: Arc<Peer>) -> Self {
        Self {
            peer,
            idle: Arc::default(),
            answer_limit: ANSWER_LIMIT,
            headers: header::HeaderMap::new(),
        }
    }

    /// The same for a server that is not known so well: no answer of more than so many bytes is read.
    #[must_use]
    pub fn with_answer_limit(self, answer_limit: usize) -> Self {
        Self {
            answer_limit,
            ..self
        }
    }

    /// The same, and every request bears one more header.
    #[must_use]
    pub fn with_header(mut self, name: header::HeaderName, value: header::HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// The server's address. Of one that is reached through a unix socket it says nothing.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.peer.addr()
    }

    /// What errors call a call. Without the query, which may hold a credential.
    fn name_of(&self, method: &Method, path: &str) -> String {
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        format!("{method} {}{path}", self.peer.shown())
    }

    /// `GET path`, and its JSON answer.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        timeout: Duration,
    ) -> Result<T, CallError> {
        self.call(Method::GET, path, &(), timeout).await
    }

    /// `POST path` with a JSON body (`&()` for none), and its JSON answer.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        timeout: Duration,
    ) -> Result<T, CallError> {
        self.call(Method::POST, path, body, timeout).await
    }

    /// Any method with a JSON body (`&()` for none), and its JSON answer. A status other than 2xx is an error.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
        timeout: Duration,
    ) -> Result<T, CallError> {
        let call = self.name_of(&method, path);
        let body = serde_json::to_vec(body).map_err(|error| CallError::Garbled {
            call: call.clone(),
            reason: error.to_string(),
        })?;
        let body = if body == b"null" {
            Bytes::new()
        } else {
            body.into()
        };
        let response = self
            .send(
                method,
                path,
                &[("content-type", "application/json")],
                body,
                timeout,
            )
            .await?;
        if !response.status.is_success() {
            let message = serde_json::from_slice::<serde_json::Value>(&response.body)
                .ok()
                .and_then(|body| body["error"].as_str().map(str::to_owned))
                .unwrap_or_else(|| String::from_utf8_lossy(&response.body).into_owned());
            return Err(CallError::Refused {
                call,
                status: response.status,
                message,
            });
        }
        serde_json::from_slice(&response.body).map_err(|error| CallError::Garbled {
            call,
            reason: error.to_string(),
        })
    }

    /// One request with headers of the caller's and whatever answer it has, of any status.
    ///
    /// # Errors
    /// [`CallError::Broken`] and [`CallError::TimedOut`].
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
        timeout: Duration,
    ) -> Result<Response, CallError> {
        let call = || self.name_of(&method, path);
        let broken = |error: &(dyn std::error::Error + 'static), connected| CallError::Broken {
            call: call(),
            reason: tls::reason(error),
            connected,
        };
        let mut builder = hyper::Request::builder()
            .method(&method)
            .uri(self.peer.path(path))
            .header(HOST, self.peer.host());
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        for (name, value) in &self.headers {
            builder = builder.header(name, value);
        }
        let own = |name: &str| {
            headers
                .iter()
                .any(|(own, _)| own.eq_ignore_ascii_case(name))
        };
        for (name, value) in self.peer.headers(own) {
            builder = builder.header(name, value);
        }
        let request = builder
            .body(Full::new(body))
            .map_err(|error| broken(&error, false))?;
        let exchange = async {
            let mut sender = self
                .connection()
                .await
                .map_err(|error| broken(&*error, false))?;
            let response = sender
                .send_request(request)
                .await
                .map_err(|error| broken(&error, !error.is_canceled()))?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, self.answer_limit)
                .collect()
                .await
                .map_err(|error| broken(&*error, true))?;
            self.idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(sender);
            Ok(Response {
                status: parts.status,
                headers: parts.headers,
                body: body.to_bytes(),
            })
        };
        tokio::time::timeout(timeout, exchange)
            .await
            .unwrap_or_else(|_| {
                Err(CallError::TimedOut {
                    call: call(),
                    after: timeout,
                })
            })
    }

    async fn connection(
        &self,
    ) -> Result<SendRequest<Full<Bytes>>, Box<dyn std::error::Error + Send + Sync>> {
        loop {
            let Some(mut sender) = self
                .idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop()
            else {
                break;
            };
            // A connection that the server has closed meanwhile says so here, before anything is sent on it.
            if !sender.is_closed() && sender.ready().await.is_ok() {
                return Ok(sender);
            }
        }
        if let Some(socket) = self.peer.socket() {
            return shake(UnixStream::connect(socket).await?).await;
        }
        // A future for each, so that the connection of a plain client is no larger than it needs.
        match self.peer.connect().await? {
            Stream::Plain(stream) => shake(stream).await,
            Stream::Tls(stream) => shake(stream).await,
        }
    }
}

/// Percent-encodes what may not stand in a query's value.
#[must_use]
pub fn escape(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
        escaped
    })
}

async fn shake<S>(
    stream: S,
) -> Result<SendRequest<Full<Bytes>>, Box<dyn std::error::Error + Send + Sync>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::listen;

    const SECOND: Duration = Duration::from_secs(1);

    async fn echo(request: Request) -> Reply {
        match (request.method.as_str(), request.segments().as_slice()) {
            ("POST", ["echo"]) => Response::json(&request.json::<Vec<u32>>()?),
            _ => Err(Failure::no_route(&request)),
        }
    }

    #[tokio::test]
    async fn a_request_that_is_too_long_is_not_read_to_its_end() {
        let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
        let client = Client::new(listener.local_addr().unwrap());
        tokio::spawn(serve(listener, CancellationToken::new(), |_| async {
            Response::empty()
        }));
        let longest = Bytes::from(vec![b' '; REQUEST_LIMIT]);
        let send = async |body| client.send(Method::POST, "/", &[], body, 10 * SECOND).await;
        assert_eq!(send(longest).await.unwrap().status, 200);
        let longer = Bytes::from(vec![b' '; REQUEST_LIMIT + 1]);
        // Refused; or cut off, when that comes before the refusal is read.
        if let Ok(answer) = send(longer).await {
            assert_eq!(answer.status, 413);
        }
    }

    #[tokio::test]
    async fn calls_are_answered_and_refusals_carry_their_text() {
        let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
        let client = Client::new(listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(serve(listener, shutdown.clone(), echo));

        let answer: Vec<u32> = client.post("/echo", &[1, 2], SECOND).await.unwrap();
        assert_eq!(answer, [1, 2]);
        let refused = client
            .post::<Vec<u32>>("/echo", &"text", SECOND)
            .await
            .unwrap_err();
        assert!(
            matches!(
                refused,
                CallError::Refused {
                    status: StatusCode::BAD_REQUEST,
                    ..
                }
            ),
            "{refused}"
        );
        let missing = client
            .get::<()>("/nowhere", SECOND)
            .await
            .unwrap_err()
            .to_string();
        assert!(
            missing.contains("404") && missing.contains("/nowhere"),
            "{missing}"
        );

        shutdown.cancel();
        server.await.unwrap();
        let gone = client
            .get::<()>("/echo?code=s3cr3t", SECOND)
            .await
            .unwrap_err();
        assert!(!gone.to_string().contains("s3cr3t"), "{gone}");
        assert!(
            matches!(
                gone,
                CallError::Broken {
                    connected: false,
                    ..
                }
            ),
            "{gone}"
        );
    }
}
