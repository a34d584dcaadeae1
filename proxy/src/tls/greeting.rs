//! The first word of a client: it says which host is wanted, and only then is it chosen what the client is shown.

use std::io;
use std::sync::Arc;

use rustls::server::{Accepted, Acceptor};
use rustls::{Connection, ServerConnection};
use tokio::net::TcpStream;

use super::certificates::{Certificates, Flaws};
use super::{Wire, left};

/// What a client may say after its `ClientHello` without having been answered: an alert, if anything.
const MORE: usize = 4 << 10;

/// How a client's handshake goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Handshake {
    /// What is wrong with the certificate.
    pub(crate) flaws: Flaws,
    /// Nothing is answered.
    pub(crate) stalls: bool,
}

/// A client that has not been answered.
pub(super) struct Greeting {
    pub(super) handshake: Handshake,
    certificates: Arc<Certificates>,
    acceptor: Acceptor,
    hello: Option<Accepted>,
    /// What came behind the hello while nothing was answered.
    more: Vec<u8>,
}

impl Greeting {
    pub(super) fn new(certificates: Arc<Certificates>) -> Self {
        Self {
            handshake: Handshake::default(),
            certificates,
            acceptor: Acceptor::default(),
            hello: None,
            more: Vec::new(),
        }
    }

    /// The session with the client, as soon as it has said its hello and is to be answered: `WouldBlock` before that.
    pub(super) fn greet(&mut self, tcp: &TcpStream) -> io::Result<Connection> {
        let hello = loop {
            match self.hello.take() {
                Some(hello) if !self.handshake.stalls => break hello,
                Some(hello) => {
                    self.hello = Some(hello);
                    self.watch(tcp)?;
                }
                None => self.hear(tcp)?,
            }
        };
        let asked = match hello.client_hello().server_name() {
            Some(name) => name.to_ascii_lowercase(),
            // Who asks for no name has an address, and that is what was dialled unless somebody translates it.
            None => tcp.local_addr()?.ip().to_canonical().to_string(),
        };
        let config = self.certificates.config(&asked, self.handshake.flaws)?;
        let session = hello.into_connection(config);
        let mut session: ServerConnection = session.map_err(|(error, mut alert)| {
            let _ = alert.write(&mut Wire(tcp));
            io::Error::new(io::ErrorKind::InvalidData, error)
        })?;
        let mut more = self.more.as_slice();
        while !more.is_empty() && session.read_tls(&mut more)? > 0 {
            let processed = session.process_new_packets();
            processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
        Ok(session.into())
    }

    /// Reads more of the hello.
    fn hear(&mut self, tcp: &TcpStream) -> io::Result<()> {
        if self.acceptor.read_tls(&mut Wire(tcp))? == 0 {
            return Err(left());
        }
        self.hello = self.acceptor.accept().map_err(|(error, mut alert)| {
            let _ = alert.write(&mut Wire(tcp));
            io::Error::new(io::ErrorKind::InvalidData, error)
        })?;
        Ok(())
    }

    /// Looks whether a client that is not answered is still there.
    fn watch(&mut self, tcp: &TcpStream) -> io::Result<()> {
        let mut buffer = [0; MORE];
        let read = tcp.try_read(&mut buffer)?;
        if read == 0 || self.more.len() + read > MORE {
            return Err(left());
        }
        self.more.extend_from_slice(&buffer[..read]);
        Ok(())
    }
}
