//! Toxiproxy's API, which faultlane has too: one proxy with at most one toxic.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use host::http::{Client, Method};
use serde_json::{Value, json};

const TIMEOUT: Duration = Duration::from_secs(5);
const PROXY: &str = "bench";
const TOXIC: &str = "toxic";

/// A peer's API.
#[derive(Debug)]
pub(crate) struct Api {
    client: Client,
}

impl Api {
    pub(super) fn new(addr: SocketAddr) -> Self {
        Self {
            client: Client::new(addr),
        }
    }

    /// Where the proxy listens.
    pub(super) async fn create_proxy(&self, upstream: SocketAddr) -> io::Result<SocketAddr> {
        let proxy = json!({"name": PROXY, "listen": "127.0.0.1:0", "upstream": upstream});
        let made: Value = self.post("/proxies", &proxy).await?;
        let listen = made["listen"].as_str().and_then(|addr| addr.parse().ok());
        listen.ok_or_else(|| io::Error::other(format!("no address in {made}")))
    }

    /// For what comes from the sink.
    pub(crate) async fn add_toxic(&self, kind: &str, attributes: &Value) -> io::Result<()> {
        let toxic =
            json!({"name": TOXIC, "type": kind, "stream": "downstream", "attributes": attributes});
        let path = format!("/proxies/{PROXY}/toxics");
        self.post(&path, &toxic).await.map(drop)
    }

    pub(crate) async fn remove_toxic(&self) -> io::Result<()> {
        let path = format!("/proxies/{PROXY}/toxics/{TOXIC}");
        let sent = self
            .client
            .send(Method::DELETE, &path, &[], Bytes::new(), TIMEOUT);
        let answer = sent.await.map_err(io::Error::other)?;
        if answer.status.is_success() {
            Ok(())
        } else {
            Err(io::Error::other(format!(
                "DELETE {path}: {}",
                answer.status
            )))
        }
    }

    async fn post(&self, path: &str, body: &Value) -> io::Result<Value> {
        let answer = self.client.post(path, body, TIMEOUT).await;
        answer.map_err(io::Error::other)
    }
}
