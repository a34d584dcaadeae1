//! TLS, which a peer ends and the load speaks: one certificate for all of them.

use std::io;
use std::net::SocketAddr;

use host::tls::{Authority, Connector, server_name};
use model::target::{TlsClient, TlsIdentity};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::load::connect;

const HOST: &str = "bench.example.com";

/// What peers show.
pub(super) struct Certificate {
    pub(super) identity: TlsIdentity,
    connector: Connector,
}

impl Certificate {
    pub(super) fn issue() -> io::Result<Self> {
        let authority = Authority::ephemeral("faultlane bench")?;
        let trusted = TlsClient {
            ca_pem: Some(authority.pem()),
            identity: None,
        };
        Ok(Self {
            identity: authority.issue(&[HOST])?,
            connector: Connector::new(&trusted)?,
        })
    }

    /// By a peer that listens there.
    pub(super) fn shown_at(&self, addr: SocketAddr) -> Tls {
        Tls {
            addr,
            connector: self.connector.clone(),
        }
    }
}

/// Where a peer ends TLS.
#[derive(Debug)]
pub(crate) struct Tls {
    addr: SocketAddr,
    connector: Connector,
}

impl Tls {
    pub(crate) async fn connect(&self) -> io::Result<TlsStream<TcpStream>> {
        let stream = connect(self.addr).await?;
        self.connector.connect(server_name(HOST)?, stream).await
    }
}
