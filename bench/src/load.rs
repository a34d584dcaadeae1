//! Connections to the sink, through a peer or not.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Bytes of a request, and of its answer.
pub(crate) const MESSAGE: usize = 64;

/// What the sink does with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Sends back what comes.
    Echo,
    /// Counts what comes until it ends, and answers the count in 8 bytes.
    Drain,
    /// Sends without end.
    Source,
}

impl Role {
    pub(crate) const fn byte(self) -> u8 {
        match self {
            Self::Echo => b'e',
            Self::Drain => b'd',
            Self::Source => b's',
        }
    }

    pub(crate) fn of(byte: u8) -> Option<Self> {
        let roles = [Self::Echo, Self::Drain, Self::Source];
        roles.into_iter().find(|role| role.byte() == byte)
    }
}

pub(crate) async fn connect_all(addr: SocketAddr, count: usize) -> io::Result<Vec<TcpStream>> {
    let mut streams = Vec::with_capacity(count);
    for _ in 0..count {
        streams.push(connect(addr).await?);
    }
    Ok(streams)
}

pub(crate) async fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A request and its answer.
pub(crate) async fn round_trip(stream: &mut TcpStream) -> io::Result<()> {
    // Nothing that could be the beginning of a request of HTTP.
    let mut message = [0; MESSAGE];
    message[0] = Role::Echo.byte();
    stream.write_all(&message).await?;
    let mut answer = [0; MESSAGE];
    stream.read_exact(&mut answer).await?;
    if answer == message {
        Ok(())
    } else {
        Err(io::Error::other("the answer is not what was asked for"))
    }
}

/// Waits for tasks of which each may fail.
pub(crate) async fn all<T: 'static>(
    tasks: Vec<tokio::task::JoinHandle<io::Result<T>>>,
) -> io::Result<Vec<T>> {
    let mut done = Vec::with_capacity(tasks.len());
    for task in tasks {
        done.push(task.await.map_err(io::Error::other)??);
    }
    Ok(done)
}
