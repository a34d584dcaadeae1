//! Where a control API lets its callers in, and what is known of them then: nothing over an address of this host, a user
//! over a unix socket, a certificate over TLS.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::target::TlsIdentity;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::TlsAcceptor;

use crate::net::BACKLOG;
use crate::tls::{self, Certified, TlsError};

/// Whoever takes longer to shake hands has something else in mind.
const SHAKE_WITHIN: Duration = Duration::from_secs(5);

/// Who sends a request, as far as the connection tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Somebody who can reach the address.
    Anybody,
    /// A user of this host, through a unix socket.
    User(u32),
    /// The holder of a certificate that one of the trusted authorities has issued, and the address it calls from.
    Certified(Arc<Certified>, SocketAddr),
}

/// A way in.
pub enum Door {
    /// For everybody who can reach the address. Off loopback that is nobody's business but the binder's.
    Open(TcpListener),
    /// For the users whom the socket's mode lets in.
    Socket(UnixListener),
    /// For those who have a certificate.
    Certified(TcpListener, TlsAcceptor),
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open(_) => "Open",
            Self::Socket(_) => "Socket",
            Self::Certified(..) => "Certified",
        })
    }
}

/// Somebody who was not let in.
#[derive(Debug)]
pub struct TurnedAway {
    /// Where from.
    pub from: SocketAddr,
    /// Why.
    pub reason: String,
}

pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection before it is known whose.
pub(crate) enum Knock {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(TcpStream, SocketAddr, TlsAcceptor),
}

impl Door {
    /// A door for those to whom an authority of `client_ca_pem` has issued a certificate.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn certified(
        listener: TcpListener,
        identity: &TlsIdentity,
        client_ca_pem: &str,
    ) -> Result<Self, TlsError> {
        let config = tls::server(identity, Some(client_ca_pem))?;
        Ok(Self::Certified(listener, config.into()))
    }

    /// A socket at `path` that only this process's user and root can open (mode 0600). One that an earlier process has
    /// left there is removed.
    ///
    /// # Errors
    /// Something else is there, or somebody listens on it; the error names it.
    pub fn socket(path: &Path) -> io::Result<Self> {
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        make_way(path).map_err(named)?;
        let listen = || {
            let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
            socket.bind(&socket2::SockAddr::unix(path)?)?;
            // Nobody can connect before it listens, so that nobody comes in while the mode is still a wider one.
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
            socket.listen(i32::try_from(BACKLOG).unwrap_or(i32::MAX))?;
            socket.set_nonblocking(true)?;
            UnixListener::from_std(socket.into())
        };
        listen().map(Self::Socket).map_err(named)
    }

    /// The address that it listens on, where that is one of a network.
    #[must_use]
    pub fn addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Socket(_) => None,
            Self::Open(listener) | Self::Certified(listener, _) => listener.local_addr().ok(),
        }
    }

    pub(crate) async fn knock(&self) -> io::Result<Knock> {
        match self {
            Self::Socket(listener) => Ok(Knock::Unix(listener.accept().await?.0)),
            Self::Open(listener) => {
                let (stream, _) = listener.accept().await?;
                let _ = stream.set_nodelay(true);
                Ok(Knock::Tcp(stream))
            }
            Self::Certified(listener, acceptor) => {
                let (stream, from) = listener.accept().await?;
                let _ = stream.set_nodelay(true);
                Ok(Knock::Tls(stream, from, acceptor.clone()))
            }
        }
    }
}

impl Knock {
    /// Finds out who it is.
    pub(crate) async fn enter(self) -> Result<(Box<dyn Io>, Caller), TurnedAway> {
        match self {
            Self::Tcp(stream) => Ok((Box::new(stream), Caller::Anybody)),
            Self::Unix(stream) => {
                // One whose user the kernel does not tell has gone.
                let user = stream.peer_cred().map(|peer| Caller::User(peer.uid()));
                Ok((Box::new(stream), user.unwrap_or(Caller::Anybody)))
            }
            Self::Tls(stream, from, acceptor) => {
                let away = |reason: String| TurnedAway { from, reason };
                let shaken = tokio::time::timeout(SHAKE_WITHIN, acceptor.accept(stream))
                    .await
                    .map_err(|_| away(format!("no TLS handshake within {SHAKE_WITHIN:?}")))?
                    .map_err(|error| away(tls::reason(&error)))?;
                let chain = shaken.get_ref().1.peer_certificates().unwrap_or_default();
                let leaf = chain
                    .first()
                    .ok_or_else(|| away("no certificate was presented".to_owned()))?;
                let certified = Certified::read(leaf).map_err(away)?;
                Ok((
                    Box::new(shaken),
                    Caller::Certified(Arc::new(certified), from),
                ))
            }
        }
    }
}

/// Removes a socket on which nobody listens any more.
fn make_way(path: &Path) -> io::Result<()> {
    let there = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    if !there.file_type().is_socket() {
        let text = "something that is no socket is there; remove it, or choose another path";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        let text = "another process listens there; end that one, or choose another path";
        return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
    }
    std::fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_its_users_own_and_takes_the_place_of_a_dead_one_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        let door = Door::socket(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let taken = Door::socket(&path).unwrap_err().to_string();
        assert!(taken.contains("another process listens"), "{taken}");
        drop(door);
        Door::socket(&path).unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "mine").unwrap();
        let other = Door::socket(&file).unwrap_err().to_string();
        assert!(other.contains("no socket"), "{other}");
        assert_eq!(std::fs::read(&file).unwrap(), b"mine");
    }
}
