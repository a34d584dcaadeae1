//! A server as its clients reach it: what is dialled apart from what is said there.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::header::{HeaderName, HeaderValue};
use hyper::http::uri::{Authority, PathAndQuery};
use model::target::Access;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::tls::{Connector, ServerName, TlsError, server_name};

/// A server, made ready for any number of connections.
#[derive(Clone)]
pub struct Peer {
    addr: SocketAddr,
    /// What is dialled in the place of the address.
    socket: Option<PathBuf>,
    host: String,
    path_prefix: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    tls: Option<(Connector, ServerName<'static>)>,
}

// By hand: a derived form would print headers, and one of them may be a secret.
impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer")
            .field("addr", &self.addr)
            .field("host", &self.host)
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

/// Something that a server cannot be reached with.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// Not what `Host` and SNI can say.
    #[error("authority `{0}` is not a host or host:port; write it like sync.example.com:8443")]
    Authority(String),
    /// Not what can stand before a path.
    #[error("path prefix `{0}` is not a path; write it like /staging")]
    PathPrefix(String),
    /// Not what can stand in a request. Its value may be a secret and is not shown.
    #[error(
        "header `{0}`: its name or value may not stand in a request; both are one line of visible ASCII"
    )]
    Header(String),
    /// Its TLS settings are of no use.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl From<PeerError> for io::Error {
    fn from(error: PeerError) -> Self {
        Self::new(io::ErrorKind::InvalidInput, error)
    }
}

impl Peer {
    /// A server in plain text that is called as it is dialled.
    #[must_use]
    pub fn plain(addr: SocketAddr) -> Self {
        Self {
            addr,
            socket: None,
            host: addr.to_string(),
            path_prefix: String::new(),
            headers: Vec::new(),
            tls: None,
        }
    }

    /// A process of this host, through its unix socket. [`super::http::Client`] reaches it; it has no address.
    #[must_use]
    pub fn socket_at(path: &Path) -> Self {
        Self {
            socket: Some(path.to_owned()),
            host: "localhost".to_owned(),
            ..Self::plain((Ipv4Addr::UNSPECIFIED, 0).into())
        }
    }

    /// A server by TLS whose certificate has to bear `name`.
    ///
    /// # Errors
    /// It is no name.
    pub fn secured(addr: SocketAddr, name: &str, connector: Connector) -> Result<Self, PeerError> {
        Ok(Self {
            tls: Some((connector, server_name(name)?)),
            ..Self::plain(addr)
        })
    }

    /// The lane at that one of its addresses, by that TLS.
    fn of(access: &Access, addr: SocketAddr, tls: Option<Connector>) -> Result<Self, PeerError> {
        let host = access.authority.clone().unwrap_or_else(|| addr.to_string());
        let wrong = || PeerError::Authority(host.clone());
        let authority: Authority = host.parse().map_err(|_| wrong())?;
        if authority.as_str().contains('@') {
            return Err(wrong());
        }
        let name = server_name(authority.host())?;
        let path_prefix = access.path_prefix.trim_end_matches('/').to_owned();
        let is_path = |text: &str| {
            text.starts_with('/') && !text.contains('?') && text.parse::<PathAndQuery>().is_ok()
        };
        if !path_prefix.is_empty() && !is_path(&path_prefix) {
            return Err(PeerError::PathPrefix(path_prefix));
        }
        let header = |(name, value): &(String, String)| match (name.parse(), value.parse()) {
            (Ok(name), Ok(value)) => Ok((name, value)),
            _ => Err(PeerError::Header(name.clone())),
        };
        Ok(Self {
            addr,
            socket: None,
            path_prefix,
            headers: access
                .headers
                .iter()
                .map(header)
                .collect::<Result<_, _>>()?,
            tls: tls.map(|connector| (connector, name)),
            host,
        })
    }

    /// What is dialled.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The unix socket that is dialled instead, where there is one.
    pub(crate) fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// What errors call it.
    pub(crate) fn shown(&self) -> String {
        match &self.socket {
            Some(socket) => socket.display().to_string(),
            None => self.addr.to_string(),
        }
    }

    /// What `Host` says.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// A path of the lane's own as it is asked for here.
    #[must_use]
    pub fn path(&self, path: &str) -> String {
        format!("{}{path}", self.path_prefix)
    }

    /// Further headers of a request, without those that it has already.
    pub fn headers<'a>(
        &'a self,
        own: impl Fn(&str) -> bool + 'a,
    ) -> impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)> {
        let further = self.headers.iter().map(|(name, value)| (name, value));
        further.filter(move |(name, _)| !own(name.as_str()))
    }

    /// Connects, and shakes hands where it speaks TLS. It waits as long as the server does: the caller has the clock.
    ///
    /// # Errors
    /// What failed; of TLS the remedy too.
    pub async fn connect(&self) -> io::Result<Stream> {
        let stream = TcpStream::connect(self.addr).await?;
        stream.set_nodelay(true)?;
        Ok(match &self.tls {
            None => Stream::Plain(stream),
            Some((connector, name)) => {
                Stream::Tls(Box::new(connector.connect(name.clone(), stream).await?))
            }
        })
    }
}

/// A lane's two addresses. Those who share it share one TLS configuration for each.
#[derive(Debug, Clone)]
pub struct Reach {
    /// Where fleet clients connect.
    pub endpoint: Arc<Peer>,
    /// Where publishers, probes and the final reader connect.
    pub direct: Arc<Peer>,
}

impl Reach {
    /// Of a lane.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub fn of(access: &Access) -> Result<Self, PeerError> {
        let direct = access.tls.as_ref().map(Connector::new).transpose()?;
        let endpoint = match &access.endpoint_tls {
            Some(own) => Some(Connector::new(own)?),
            None => direct.clone(),
        };
        Ok(Self {
            endpoint: Arc::new(Peer::of(access, access.endpoint, endpoint)?),
            direct: Arc::new(Peer::of(access, access.direct, direct)?),
        })
    }
}

/// A connection to a [`Peer`].
#[derive(Debug)]
pub enum Stream {
    /// In plain text.
    Plain(TcpStream),
    /// By TLS. Boxed, so that a plain one is not as large.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests;
