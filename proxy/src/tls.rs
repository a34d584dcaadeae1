//! TLS that ends here and begins anew: sans-IO by rustls, driven by the same non-blocking reads and writes as plain
//! sockets are, so that a fault holds, delays or cuts the one as it does the other.

mod certificates;
mod greeting;

use std::io::{self, Read, Write};
use std::sync::Arc;

use host::tls::{Connector, ServerName, TlsError, server_name};
use model::role::ProxyTls;
use model::target::TlsClient;
use rustls::Connection;
use socket2::SockRef;
use tokio::net::TcpStream;

pub(crate) use self::certificates::{Certificates, Issuer};
use self::greeting::Greeting;
pub(crate) use self::greeting::Handshake;
use crate::side::Side;

/// How TLS is ended and begun.
#[derive(Debug)]
pub(crate) struct Terminator {
    certificates: Arc<Certificates>,
    upstream: Option<Connector>,
    server_name: Option<ServerName<'static>>,
}

impl Terminator {
    /// As a drill wants it.
    pub(crate) fn new(settings: &ProxyTls) -> Result<Self, TlsError> {
        let issuer = Arc::new(Issuer::new(settings.client_ca_pem.clone()));
        let certificates = Certificates::own(&settings.identity, issuer)?;
        let name = settings.server_name.as_deref();
        Self::with(certificates, settings.upstream.as_ref(), name)
    }

    /// One that shows these certificates, and begins TLS anew where `upstream` is given.
    pub(crate) fn with(
        certificates: Certificates,
        upstream: Option<&TlsClient>,
        name: Option<&str>,
    ) -> Result<Self, TlsError> {
        Ok(Self {
            certificates: Arc::new(certificates),
            upstream: upstream.map(Connector::new).transpose()?,
            server_name: name.map(server_name).transpose()?,
        })
    }

    /// The client's side. Its handshake is a part of reading from it.
    pub(crate) fn accept(&self, tcp: TcpStream) -> Side {
        let greeting = Greeting::new(Arc::clone(&self.certificates));
        let session = Session::Greeting(Box::new(greeting));
        Side::Tls(Box::new(Tls::new(tcp, session)))
    }

    /// Whether the lane is spoken to by TLS too.
    pub(crate) const fn begins_anew(&self) -> bool {
        self.upstream.is_some()
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
        // Dropped in the middle, as when the connection is reset, it ends with RST.
        tcp.set_zero_linger()?;
        let (tcp, client) = connector.connect(name, tcp).await?.into_inner();
        SockRef::from(&tcp).set_linger(None)?;
        Ok(Side::Tls(Box::new(Tls::new(
            tcp,
            Session::Open(client.into()),
        ))))
    }
}

/// A socket with TLS on it.
pub(crate) struct Tls {
    tcp: TcpStream,
    session: Session,
    torn: bool,
    goodbye: bool,
}

/// How far it is.
#[expect(
    clippy::large_enum_variant,
    reason = "a greeting is soon over, and what holds the session is boxed"
)]
enum Session {
    /// What the client is shown has not been chosen yet.
    Greeting(Box<Greeting>),
    Open(Connection),
}

impl Tls {
    const fn new(tcp: TcpStream, session: Session) -> Self {
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

    /// How the handshake is to go, as long as it has not been decided.
    pub(crate) fn shake_hands(&mut self, handshake: Handshake) {
        if let Session::Greeting(greeting) = &mut self.session {
            greeting.handshake = handshake;
        }
    }

    pub(crate) fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let session = match &mut self.session {
                Session::Open(session) => session,
                Session::Greeting(greeting) => {
                    self.session = Session::Open(greeting.greet(&self.tcp)?);
                    self.process()?;
                    continue;
                }
            };
            match session.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    self.torn = true;
                    return Ok(0);
                }
                read => return read,
            }
            let read = session.read_tls(&mut Wire(&self.tcp))?;
            if read == 0 && session.is_handshaking() {
                return Err(left());
            }
            self.process()?;
        }
    }

    /// Looks at what was read from the wire.
    fn process(&mut self) -> io::Result<()> {
        let Session::Open(session) = &mut self.session else {
            return Ok(());
        };
        let processed = session.process_new_packets();
        // The handshake's next flight, or the alert that says what was wrong. A peer that has gone meanwhile says
        // so when it is read from.
        let _ = self.settle();
        processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(())
    }

    /// Takes nothing while something encrypted waits, so that no more than 64 KiB (rustls's limit) ever do.
    pub(crate) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.settle()? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let Session::Open(session) = &mut self.session else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let taken = session.writer().write(bytes)?;
        self.settle()?;
        Ok(taken)
    }

    pub(crate) fn settle(&mut self) -> io::Result<bool> {
        let Session::Open(session) = &mut self.session else {
            return Ok(true);
        };
        while session.wants_write() {
            match session.write_tls(&mut Wire(&self.tcp)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                written => drop(written?),
            }
        }
        Ok(true)
    }

    pub(crate) fn owes(&self) -> bool {
        matches!(&self.session, Session::Open(session) if session.wants_write())
    }

    pub(crate) fn is_shaking_hands(&self) -> bool {
        match &self.session {
            Session::Greeting(_) => true,
            Session::Open(session) => session.is_handshaking(),
        }
    }

    pub(crate) fn asked_for(&self) -> Option<&str> {
        match &self.session {
            Session::Open(Connection::Server(server)) => server.server_name(),
            Session::Open(Connection::Client(_)) | Session::Greeting(_) => None,
        }
    }

    pub(crate) const fn is_torn(&self) -> bool {
        self.torn
    }

    pub(crate) fn say_goodbye(&mut self) {
        if let Session::Open(session) = &mut self.session
            && !std::mem::replace(&mut self.goodbye, true)
        {
            session.send_close_notify();
        }
    }
}

/// The client went away before there was a session.
fn left() -> io::Error {
    let text = "left in the middle of the TLS handshake";
    io::Error::new(io::ErrorKind::ConnectionAborted, text)
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
    use crate::socket::pair;
    use crate::tap::Way;
    use host::tls::Authority;
    use tokio::io::AsyncWriteExt;

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
        let mut client = terminator.accept(far);
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
