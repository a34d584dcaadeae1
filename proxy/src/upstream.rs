//! The lane behind a proxy, and how a connection gets there.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use host::tls::TlsError;
use model::role::ProxyConfig;
use tokio::net::TcpStream;

use crate::side::Side;
use crate::socket::connect;
use crate::status::Counters;
use crate::tap::Way;
use crate::tls::Terminator;

/// How long the lane may take to accept a connection, and as long again for TLS.
const DIAL: Duration = Duration::from_secs(5);

/// Where connections go, and whether TLS ends on the way.
#[derive(Debug)]
pub struct Upstream {
    addr: Addr,
    tls: Option<Arc<Terminator>>,
}

/// What is dialled.
#[derive(Debug)]
enum Addr {
    Socket(SocketAddr),
    /// `host:port`, asked for anew with every connection.
    Name(String),
}

impl Addr {
    /// The name of the lane's host, where it is known by one.
    fn host(&self) -> Option<String> {
        match self {
            Self::Socket(_) => None,
            Self::Name(name) => name.rsplit_once(':').map(|(host, _)| host.to_owned()),
        }
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(addr) => addr.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl From<SocketAddr> for Upstream {
    /// Bytes pass as they are, TLS too.
    fn from(addr: SocketAddr) -> Self {
        Self {
            addr: Addr::Socket(addr),
            tls: None,
        }
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.addr.fmt(f)
    }
}

impl Upstream {
    /// As configured.
    ///
    /// # Errors
    /// TLS cannot be terminated with these certificates, keys and names.
    pub fn of(config: &ProxyConfig) -> Result<Self, TlsError> {
        let tls = config.tls.as_ref().map(Terminator::new).transpose()?;
        Ok(Self {
            addr: Addr::Socket(config.upstream),
            tls: tls.map(Arc::new),
        })
    }

    /// What `host:port` stands for when a connection comes. Without TLS that ends here, bytes pass as they are.
    pub(crate) fn named(name: &str, tls: Option<Arc<Terminator>>) -> Self {
        let addr = name
            .parse()
            .map_or_else(|_| Addr::Name(name.to_owned()), Addr::Socket);
        // As Go dials an address without a host.
        let addr = match addr {
            Addr::Name(port) if port.starts_with(':') => Addr::Name(format!("localhost{port}")),
            addr => addr,
        };
        Self { addr, tls }
    }

    /// Whether TLS ends here.
    pub(crate) const fn ends_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// A client's side of a connection.
    pub(crate) fn accept(&self, client: TcpStream) -> Side {
        match &self.tls {
            None => Side::Plain(client),
            Some(terminator) => terminator.accept(client),
        }
    }

    /// The lane's side, for a client that asked for that host by TLS. Where the client `speaks`, what it said follows at
    /// once.
    pub(crate) async fn dial(
        &self,
        asked_for: Option<String>,
        speaks: bool,
        counters: &Counters,
    ) -> io::Result<Side> {
        let begins_tls = self.tls.as_ref().is_some_and(|tls| tls.begins_anew());
        let speaks = speaks || begins_tls;
        let addr = &self.addr;
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("dial the lane at {addr}: {error}"))
        };
        let connect = async {
            match addr {
                Addr::Socket(addr) => connect(*addr, speaks).await,
                Addr::Name(name) => any_of(tokio::net::lookup_host(name).await?, speaks).await,
            }
        };
        let tcp = tokio::time::timeout(DIAL, connect)
            .await
            .map_err(|_| named(io::ErrorKind::TimedOut.into()))?
            .map_err(named)?;
        let Some(terminator) = &self.tls else {
            return Ok(Side::Plain(tcp));
        };
        let asked_for = asked_for.or_else(|| self.addr.host());
        let shaken = tokio::time::timeout(DIAL, Box::pin(terminator.connect(tcp, asked_for)))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        shaken.map_err(named).inspect_err(|error| {
            counters.tls_failed(Way::Upstream, &error.to_string());
        })
    }
}

/// Connects to the first of a name's addresses that accepts; the last one's error where none does.
async fn any_of(addrs: impl Iterator<Item = SocketAddr>, speaks: bool) -> io::Result<TcpStream> {
    let mut refused = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for addr in addrs {
        match connect(addr, speaks).await {
            Ok(tcp) => return Ok(tcp),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_host_is_this_host() {
        assert_eq!(Upstream::named(":4000", None).to_string(), "localhost:4000");
        let v6 = Upstream::named("[::1]:4000", None);
        assert_eq!(v6.to_string(), "[::1]:4000");
    }
}
