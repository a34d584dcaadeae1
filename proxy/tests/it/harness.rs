//! A proxy with an upstream, and clients of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use host::http::Client;
use host::net::listen;
use model::fault::{Fault, FaultOrder, FaultView};
use model::ids::CLIENT_HEADER;
use model::quantity::{Share, Span};
use model::role::ProxyStatus;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_websockets::{ClientBuilder, ServerBuilder, WebSocketStream};

pub(crate) const SOON: Duration = Duration::from_secs(5);
pub(crate) const SEED: u64 = 7;

/// A proxy under test.
pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    pub(crate) api: Client,
    shutdown: CancellationToken,
    served: JoinHandle<std::io::Result<()>>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// A connection that is there before the proxy can have ended it. The runtime looks a little later, and takes a reset
/// that was quick for a connect that failed.
pub(crate) async fn connected(addr: SocketAddr) -> TcpStream {
    let connect = tokio::task::spawn_blocking(move || std::net::TcpStream::connect(addr));
    let stream = connect.await.unwrap().unwrap();
    stream.set_nonblocking(true).unwrap();
    TcpStream::from_std(stream).unwrap()
}

pub(crate) fn loopback() -> TcpListener {
    listen(([127, 0, 0, 1], 0).into()).unwrap()
}

impl Proxy {
    pub(crate) fn before(upstream: impl Into<proxy::Upstream>) -> Self {
        let (data, control) = (loopback(), loopback());
        let (addr, api) = (
            data.local_addr().unwrap(),
            Client::new(control.local_addr().unwrap()),
        );
        let shutdown = CancellationToken::new();
        let serving = proxy::serve(data, control, upstream.into(), shutdown.clone());
        let served = tokio::spawn(serving);
        Self {
            addr,
            api,
            shutdown,
            served,
        }
    }

    pub(crate) async fn end(mut self) {
        self.shutdown.cancel();
        within(&mut self.served).await.unwrap().unwrap();
    }

    pub(crate) async fn try_inject(&self, order: &FaultOrder) -> Result<FaultView, String> {
        self.api
            .post("/faults", order, SOON)
            .await
            .map_err(|error| error.to_string())
    }

    /// Injects `fault` for all clients as `id`.
    pub(crate) async fn inject(&self, id: &str, fault: Fault) -> FaultView {
        self.try_inject(&order(id, fault)).await.unwrap()
    }

    pub(crate) async fn look(&self, id: &str) -> FaultView {
        self.api.get(&format!("/faults/{id}"), SOON).await.unwrap()
    }

    pub(crate) async fn undo(&self, id: &str) -> FaultView {
        let path = format!("/faults/{id}");
        self.api
            .call(host::http::Method::DELETE, &path, &(), SOON)
            .await
            .unwrap()
    }

    pub(crate) async fn status(&self) -> ProxyStatus {
        self.api.get("/status", SOON).await.unwrap()
    }

    pub(crate) async fn tcp(&self) -> TcpStream {
        let stream = connected(self.addr).await;
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Sends an upgrade for a client (none: without the header) and returns the stream.
    pub(crate) async fn ask_upgrade(&self, client: Option<u32>) -> TcpStream {
        let mut stream = self.tcp().await;
        stream
            .write_all(upgrade_head(client).as_bytes())
            .await
            .unwrap();
        stream
    }

    /// A WebSocket of a client.
    pub(crate) async fn websocket(&self, client: u32) -> WebSocketStream<TcpStream> {
        let uri = format!("ws://{}/sync", self.addr);
        let builder = ClientBuilder::new()
            .uri(&uri)
            .unwrap()
            .add_header(
                CLIENT_HEADER.parse().unwrap(),
                format!("c{client:04}").parse().unwrap(),
            )
            .unwrap();
        within(builder.connect_on(self.tcp().await))
            .await
            .unwrap()
            .0
    }

    /// Waits until a look at the status satisfies.
    pub(crate) async fn until(&self, satisfied: impl Fn(&ProxyStatus) -> bool) -> ProxyStatus {
        let look = async {
            loop {
                let status = self.status().await;
                if satisfied(&status) {
                    return status;
                }
                tokio::task::yield_now().await;
            }
        };
        within(look).await
    }

    /// Waits until a look at a fault satisfies.
    pub(crate) async fn until_fault(
        &self,
        id: &str,
        satisfied: impl Fn(&FaultView) -> bool,
    ) -> FaultView {
        let look = async {
            loop {
                let view = self.look(id).await;
                if satisfied(&view) {
                    return view;
                }
                tokio::task::yield_now().await;
            }
        };
        within(look).await
    }
}

pub(crate) fn upgrade_head(client: Option<u32>) -> String {
    let client = client.map_or(String::new(), |n| format!("{CLIENT_HEADER}: c{n:04}\r\n"));
    format!(
        "GET /sync HTTP/1.1\r\nHost: lane\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{client}\r\n"
    )
}

/// An order for all clients with a lease that outlasts the test.
pub(crate) fn order(id: &str, fault: Fault) -> FaultOrder {
    FaultOrder {
        id: id.to_owned(),
        fault,
        node: None,
        share: Share::ALL,
        seed: SEED,
        lease: Span::from_secs(60),
    }
}

/// A fault as scenarios write it, as JSON.
pub(crate) fn fault(json: serde_json::Value) -> Fault {
    serde_json::from_value(json).unwrap()
}

pub(crate) fn figure(view: &FaultView, name: &str) -> u64 {
    view.observation.figures[name]
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future)
        .await
        .expect("it happens in time")
}

/// Serves each connection of a listener with a task.
pub(crate) fn upstream<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = loopback();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    addr
}

/// Sends back what it gets, and FIN for FIN.
pub(crate) fn echo() -> SocketAddr {
    upstream(|mut stream| async move {
        let (mut read, mut write) = stream.split();
        if tokio::io::copy(&mut read, &mut write).await.is_ok() {
            let _ = write.shutdown().await;
        }
    })
}

/// A WebSocket upstream that sends back each message.
pub(crate) fn websocket_echo() -> SocketAddr {
    upstream(|stream| async move {
        let Ok((_, mut socket)) = ServerBuilder::new().accept(stream).await else {
            return;
        };
        while let Some(Ok(message)) = socket.next().await {
            if !message.is_close() && socket.send(message).await.is_err() {
                return;
            }
        }
    })
}

/// An upstream that answers 101 to whatever comes and then sends `frames`, a piece at a time as `go` allows.
pub(crate) fn scripted(
    frames: &'static [&'static [u8]],
) -> (SocketAddr, Arc<tokio::sync::Semaphore>) {
    let go = Arc::new(tokio::sync::Semaphore::new(0));
    let gate = Arc::clone(&go);
    let addr = upstream(move |mut stream| {
        let gate = Arc::clone(&gate);
        async move {
            let mut head = [0; 4_096];
            let _ = stream.read(&mut head).await;
            let answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
            let _ = stream.write_all(answer).await;
            for frame in frames {
                gate.acquire().await.unwrap().forget();
                if stream.write_all(frame).await.is_err() {
                    return;
                }
            }
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        }
    });
    (addr, go)
}

/// Reads a response's head.
pub(crate) async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within(stream.read_u8()).await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Writes and expects the same back.
pub(crate) async fn round_trip(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).await.unwrap();
    let mut back = vec![0; text.len()];
    within(stream.read_exact(&mut back)).await.unwrap();
    assert_eq!(back, text);
}

/// Waits for the end of a connection: the error's kind where it did not end with FIN.
pub(crate) async fn ending(stream: &mut TcpStream) -> Result<Vec<u8>, std::io::ErrorKind> {
    let mut rest = Vec::new();
    match within(stream.read_to_end(&mut rest)).await {
        Ok(_) => Ok(rest),
        Err(error) => Err(error.kind()),
    }
}

/// Bytes that tell where they are in the stream.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let step = move |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..length).map(step).collect()
}
