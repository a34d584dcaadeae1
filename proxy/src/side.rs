//! One of a connection's two sockets: as it is, or with TLS on it. Everything behind it sees plain bytes.

use std::io;
use std::net::Shutdown;

use socket2::SockRef;
use tokio::net::TcpStream;

use crate::passthrough::read_once;
use crate::socket;
use crate::tls::{Handshake, Tls};

/// Towards the client, or towards the lane.
pub(crate) enum Side {
    Plain(TcpStream),
    /// Boxed, so that a plain connection is not as large.
    Tls(Box<Tls>),
}

impl Side {
    /// What is waited for and reset.
    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.tcp(),
        }
    }

    /// The socket, where nothing is on it.
    pub(crate) fn plain(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(tcp) => Some(tcp),
            Self::Tls(_) => None,
        }
    }

    /// Reads what there is; 0 at the end of the stream. `WouldBlock` before there is anything.
    pub(crate) fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => socket::try_read(tcp, buffer),
            Self::Tls(tls) => tls.try_read(buffer),
        }
    }

    /// Writes what the peer takes now. `WouldBlock` when it takes nothing.
    pub(crate) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.try_write(bytes),
            Self::Tls(tls) => tls.try_write(bytes),
        }
    }

    /// Writes what TLS still has to say; `false` when the peer does not take all of it now.
    pub(crate) fn settle(&mut self) -> io::Result<bool> {
        match self {
            Self::Plain(_) => Ok(true),
            Self::Tls(tls) => tls.settle(),
        }
    }

    /// Whether TLS still has something to say.
    pub(crate) fn owes(&self) -> bool {
        matches!(self, Self::Tls(tls) if tls.owes())
    }

    /// How a client's handshake is to go, where there is one that has not been decided yet.
    pub(crate) fn shake_hands(&mut self, handshake: Handshake) {
        if let Self::Tls(tls) = self {
            tls.shake_hands(handshake);
        }
    }

    /// Whether nothing that a client says can be read yet.
    pub(crate) fn is_shaking_hands(&self) -> bool {
        matches!(self, Self::Tls(tls) if tls.is_shaking_hands())
    }

    /// The host that the client asked for in its `ClientHello`.
    pub(crate) fn asked_for(&self) -> Option<&str> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(tls) => tls.asked_for(),
        }
    }

    /// Whether the stream ended without TLS having been closed: its peer died, or somebody cut it.
    pub(crate) fn is_torn(&self) -> bool {
        matches!(self, Self::Tls(tls) if tls.is_torn())
    }

    /// Ends what is written: FIN, and `close_notify` before it unless the other stream was `torn`. `false` when that
    /// has to wait for the peer to take what was written before. Where the socket `is_closed` next, that says FIN.
    pub(crate) fn finish(&mut self, torn: bool, is_closed: bool) -> io::Result<bool> {
        if let Self::Tls(tls) = self {
            if !torn {
                tls.say_goodbye();
            }
            if !tls.settle()? {
                return Ok(false);
            }
        }
        if !is_closed {
            SockRef::from(self.tcp()).shutdown(Shutdown::Write)?;
        }
        Ok(true)
    }

    /// Writes a last message, and ends.
    pub(crate) async fn say_last(&mut self, mut message: &[u8]) -> io::Result<()> {
        loop {
            if message.is_empty() {
                match self.finish(false, false) {
                    Ok(false) => {}
                    Ok(true) => return Ok(()),
                    // The peer has taken the message and is gone already: there is nobody left to end with.
                    Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(()),
                    Err(error) => return Err(error),
                }
            } else {
                match self.try_write(message) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    written => {
                        message = &message[written?..];
                        continue;
                    }
                }
            }
            self.tcp().writable().await?;
        }
    }

    /// Reads until the peer ends, whatever it says.
    pub(crate) async fn outlast(&mut self) -> io::Result<()> {
        loop {
            match read_once(self, |bytes| Ok(bytes.len()))? {
                Some(0) => return Ok(()),
                // A peer that says much shall not keep others from their turn.
                Some(_) => tokio::task::yield_now().await,
                None => self.tcp().readable().await?,
            }
        }
    }
}
