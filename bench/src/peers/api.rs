//! Toxiproxy's API, which faultlane has too: a proxy with at most one toxic, and one that ends TLS.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use host::http::{Client, Method};
use model::target::TlsIdentity;
use serde_json::{Value, json};

const TIMEOUT: Duration = Duration::from_secs(5);
/// The proxy that has toxics.
pub(super) const PLAIN: &str = "plain";
pub(super) const TLS: &str = "tls";
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
    pub(super) async fn create_proxy(
        &self,
        name: &str,
        upstream: SocketAddr,
        identity: Option<&TlsIdentity>,
    ) -> io::Result<SocketAddr> {
        let mut proxy = json!({"name": name, "listen": "127.0.0.1:0", "upstream": upstream});
        if let Some(TlsIdentity { chain_pem, key_pem }) = identity {
            proxy["tls"] = json!({"certificate": chain_pem, "key": key_pem});
        }
        let made: Value = self.post("/proxies", &proxy).await?;
        let listen = made["listen"].as_str().and_then(|addr| addr.parse().ok());
        listen.ok_or_else(|| io::Error::other(format!("no address in {made}")))
    }

    /// For what comes from the sink.
    pub(crate) async fn add_toxic(&self, kind: &str, attributes: &Value) -> io::Result<()> {
        let toxic =
            json!({"name": TOXIC, "type": kind, "stream": "downstream", "attributes": attributes});
        let path = format!("/proxies/{PLAIN}/toxics");
        self.post(&path, &toxic).await.map(drop)
    }

    pub(crate) async fn remove_toxic(&self) -> io::Result<()> {
        let path = format!("/proxies/{PLAIN}/toxics/{TOXIC}");
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
