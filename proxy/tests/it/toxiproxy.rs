//! The standalone proxy, by its HTTP API.

mod api;
mod decisions;
mod documented;
mod exactness;
mod leaving;
mod lifetimes;
mod own_toxics;
mod populate;
mod rewriting;
mod stalled;
mod tls;
mod toxics;
mod updates;
mod upgrades;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use host::http::{Client, Method, Response};
use proxy::crew::Crew;
use proxy::toxiproxy::{Server, Settings};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::harness::{SOON, connected, loopback};

/// A standalone proxy under test.
pub(crate) struct Api {
    pub(crate) client: Client,
    shutdown: CancellationToken,
}

impl Drop for Api {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Api {
    pub(crate) fn start() -> Self {
        Self::with(Settings {
            seed: 1,
            ..Settings::default()
        })
    }

    pub(crate) fn with(settings: Settings) -> Self {
        let listener = loopback();
        let client = Client::new(listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let ends = shutdown.clone();
        tokio::spawn(async move {
            // The same behaviour is expected of worker processes: the binary to start them from.
            let server = match std::env::var_os("FAULTLANE_WORKERS") {
                None => Server::new(settings),
                Some(program) => {
                    let crew = Crew::start(program.as_ref(), 2).await;
                    Server::manned(settings, crew.unwrap())
                }
            };
            server.unwrap().serve(listener, ends).await;
        });
        Self { client, shutdown }
    }

    /// A call with a body as it is: the answer as it is.
    pub(crate) async fn raw(&self, method: Method, path: &str, body: &str) -> Response {
        let body = body.to_owned().into();
        self.client
            .send(method, path, &[], body, SOON)
            .await
            .unwrap()
    }

    /// A call, its status, and its JSON (null where there is none).
    pub(crate) async fn call(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let response = self.raw(method, path, &body).await;
        let json = serde_json::from_slice(&response.body).unwrap_or_default();
        (response.status.as_u16(), json)
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        self.call(Method::GET, path, Value::Null).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.call(Method::POST, path, body).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> (u16, Value) {
        self.call(Method::PATCH, path, body).await
    }

    pub(crate) async fn delete(&self, path: &str) -> u16 {
        self.call(Method::DELETE, path, Value::Null).await.0
    }

    /// A proxy `p` before that upstream: where it listens.
    pub(crate) async fn proxy(&self, upstream: SocketAddr) -> SocketAddr {
        let body = json!({"name": "p", "listen": "127.0.0.1:0", "upstream": upstream.to_string()});
        let (status, proxy) = self.post("/proxies", body).await;
        assert_eq!(status, 201, "{proxy}");
        proxy["listen"].as_str().unwrap().parse().unwrap()
    }

    /// Adds a toxic to `p`.
    pub(crate) async fn toxic(&self, kind: &str, stream: &str, attributes: Value) -> Value {
        let body = json!({"type": kind, "stream": stream, "attributes": attributes});
        let (status, toxic) = self.post("/proxies/p/toxics", body).await;
        assert_eq!(status, 200, "{toxic}");
        toxic
    }
}

/// The error that was answered.
pub(crate) fn refused(status: u16, message: &str) -> (u16, Value) {
    (status, json!({"error": message, "status": status}))
}

pub(crate) async fn connect(addr: SocketAddr) -> TcpStream {
    let stream = connected(addr).await;
    stream.set_nodelay(true).unwrap();
    stream
}

/// That something took `expected`, and not more than `late` longer.
pub(crate) fn took(begun: Instant, expected: Duration, late: Duration) {
    let took = begun.elapsed();
    // A clock of milli-seconds is in between.
    assert!(
        took + Duration::from_millis(1) >= expected,
        "{took:?}, not {expected:?}"
    );
    assert!(took <= expected + late, "{took:?}, not {expected:?}");
}
