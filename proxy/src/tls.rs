//! TLS that ends here and begins anew: sans-IO by rustls, driven by the same non-blocking reads and writes as plain
//! sockets are, so that a fault holds, delays or cuts the one as it does the other.

use std::io::{self, Read, Write};
use std::sync::Arc;

use host::tls::{Connector, ServerName, TlsError, server, server_name};
use model::role::ProxyTls;
use rustls::{Connection, ServerConfig, ServerConnection};
use tokio::net::TcpStream;

use crate::side::Side;

/// How TLS is ended and begun.
#[derive(Debug)]
pub(crate) struct Terminator {
    server: Arc<ServerConfig>,
    upstream: Option<Connector>,
    server_name: Option<ServerName<'static>>,
}

impl Terminator {
    pub(crate) fn new(settings: &ProxyTls) -> Result<Self, TlsError> {
        let name = settings.server_name.as_deref();
        Ok(Self {
            server: server(&settings.identity, settings.client_ca_pem.as_deref())?,
            upstream: settings.upstream.as_ref().map(Connector::new).transpose()?,
            server_name: name.map(server_name).transpose()?,
        })
    }

    /// The client's side. Its handshake is a part of reading from it.
    pub(crate) fn accept(&self, tcp: TcpStream) -> io::Result<Side> {
        let server = ServerConnection::new(Arc::clone(&self.server)).map_err(io::Error::other)?;
        Ok(Side::Tls(Box::new(Tls::new(tcp, server.into()))))
    }

    /// The lane's side, for a client that asked for that host.
    pub(crate) async fn connect(
        &self,
        tcp: TcpStream,
        asked_for: Option<String>,
    ) -> io::Result<Side> {
        let Some(connector) = &self.upstream else {
            return Ok(Side::Plain(tcp));
        };
        let name = match (&self.server_name, asked_for) {
            (Some(name), _) => name.clone(),
            (None, Some(asked_for)) => server_name(&asked_for)?,
            (None, None) => ServerName::from(tcp.peer_addr()?.ip()),
        };
        let (tcp, client) = connector.connect(name, tcp).await?.into_inner();
        Ok(Side::Tls(Box::new(Tls::new(tcp, client.into()))))
    }
}

/// A socket with TLS on it.
pub(crate) struct Tls {
    tcp: TcpStream,
    session: Connection,
    torn: bool,
    goodbye: bool,
}

impl Tls {
    const fn new(tcp: TcpStream, session: Connection) -> Self {
        Self {
            tcp,
            session,
            torn: false,
            goodbye: false,
        }
    }

    pub(crate) const fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    pub(crate) fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    self.torn = true;
                    return Ok(0);
                }
                read => return read,
            }
            let read = self.session.read_tls(&mut Wire(&self.tcp))?;
            if read == 0 && self.session.is_handshaking() {
                let text = "left in the middle of the TLS handshake";
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, text));
            }
            let processed = self.session.process_new_packets();
            // The handshake's next flight, or the alert that says what was wrong. A peer that has gone meanwhile says
            // so when it is read from.
            let _ = self.settle();
            processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
    }

    /// Takes nothing while something encrypted waits, so that no more than 64 KiB (rustls's limit) ever do.
    pub(crate) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.settle()? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let taken = self.session.writer().write(bytes)?;
        self.settle()?;
        Ok(taken)
    }

    pub(crate) fn settle(&mut self) -> io::Result<bool> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Wire(&self.tcp)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                written => drop(written?),
            }
        }
        Ok(true)
    }

    pub(crate) fn owes(&self) -> bool {
        self.session.wants_write()
    }

    pub(crate) fn is_shaking_hands(&self) -> bool {
        self.session.is_handshaking()
    }

    pub(crate) fn asked_for(&self) -> Option<&str> {
        match &self.session {
            Connection::Server(server) => server.server_name(),
            Connection::Client(_) => None,
        }
    }

    pub(crate) const fn is_torn(&self) -> bool {
        self.torn
    }

    pub(crate) fn say_goodbye(&mut self) {
        if !std::mem::replace(&mut self.goodbye, true) {
            self.session.send_close_notify();
        }
    }
}

/// A socket as rustls reads and writes it.
struct Wire<'a>(&'a TcpStream);

impl Read for Wire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Link;
    use crate::plane::Plane;
    use crate::tap::Way;
    use host::tls::Authority;
    use model::target::TlsClient;
    use tokio::io::AsyncWriteExt;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = host::net::listen(([127, 0, 0, 1], 0).into()).unwrap();
        let addr = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(addr), listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    #[tokio::test]
    async fn what_is_encrypted_and_not_taken_yet_is_waited_for() {
        let authority = Authority::ephemeral("test").unwrap();
        let terminator = Terminator::new(&ProxyTls {
            identity: authority.issue(&["localhost"]).unwrap(),
            client_ca_pem: None,
            upstream: None,
            server_name: None,
        })
        .unwrap();
        let trusting = Connector::new(&TlsClient {
            ca_pem: Some(authority.pem()),
            identity: None,
        })
        .unwrap();
        let (near, far) = pair().await;
        let mut client = terminator.accept(far).unwrap();
        let name = server_name("localhost").unwrap();
        let connecting = tokio::spawn(async move { trusting.connect(name, near).await });
        while client.is_shaking_hands() {
            client.tcp().readable().await.unwrap();
            let read = client.try_read(&mut [0; 16]);
            assert_eq!(read.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
        // Never read from.
        let _stalled = connecting.await.unwrap().unwrap();

        let (mut lane, far) = pair().await;
        let mut lanes = Side::Plain(far);
        let plane = Plane::new(host::timer::Timer::start().unwrap(), None);
        let handle = plane.enter(0);
        let mut link = Link::new(plane, handle, Way::Downstream);
        while !client.owes() {
            assert!(!link.wants.write, "everything has been taken");
            lane.write_all(&[7; 16 << 10]).await.unwrap();
            lanes.tcp().readable().await.unwrap();
            link.pump(Some(&mut lanes), Some(&mut client)).unwrap();
        }
        assert!(link.wants.write);
    }
}
