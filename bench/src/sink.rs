//! The server behind every peer. The first byte of a connection is its role; see [`crate::load::Role`].

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{MsgFlags, recv};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::load::{MESSAGE, Role};
use crate::peers::NAMES;

/// What is asked for at once when bytes are only counted, or written at once.
const PIECE: usize = 1 << 20;

/// Below what Linux gives to outgoing connections unless it is told otherwise.
const SERVICES: std::ops::Range<u16> = 24_000..24_100;

/// Serves until `shutdown`, on a listener for each peer: so the ports that are left over by one peer's connections are
/// not missed by another's.
///
/// # Errors
/// A listener cannot be bound, or stdout is closed.
pub async fn main(shutdown: CancellationToken) -> io::Result<()> {
    let mut listen = Vec::new();
    for name in NAMES {
        let listener = listen_as_a_service()?;
        listen.push((name, listener.local_addr()?));
        tokio::spawn(accept(listener));
    }
    host::child::announce("sink", listen[0].1, &listen)?;
    shutdown.cancelled().await;
    Ok(())
}

/// On a port that the kernel gives to no outgoing connection, as services have: none of the peers' own is in the way.
fn listen_as_a_service() -> io::Result<TcpListener> {
    let on = |port| host::net::listen((Ipv4Addr::LOCALHOST, port).into());
    let free = SERVICES.into_iter().find_map(|port| on(port).ok());
    free.map_or_else(|| on(0), Ok)
}

async fn accept(listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(async move {
                    // A peer that has gone is the end of its connection and of nothing else.
                    let _ = serve(stream).await;
                });
            }
            Err(error) => eprintln!("accept: {error}"),
        }
    }
}

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut first = [0; MESSAGE];
    let read = stream.read(&mut first).await?;
    match first[..read].first().copied().map(Role::of) {
        None => Ok(()),
        Some(Some(Role::Echo)) => echo(stream, first, read).await,
        Some(Some(Role::Drain)) => drain(stream, read).await,
        Some(Some(Role::Source)) => source(stream).await,
        Some(None) => Err(io::Error::other("no role")),
    }
}

async fn echo(mut stream: TcpStream, mut buffer: [u8; MESSAGE], mut read: usize) -> io::Result<()> {
    while read > 0 {
        stream.write_all(&buffer[..read]).await?;
        read = stream.read(&mut buffer).await?;
    }
    Ok(())
}

/// Counts what comes, and says how much it was when it ends.
async fn drain(mut stream: TcpStream, first: usize) -> io::Result<()> {
    let mut total = first as u64;
    loop {
        let read = stream
            .async_io(Interest::READABLE, || discard(&stream))
            .await?;
        if read == 0 {
            break;
        }
        total += read as u64;
    }
    stream.write_all(&total.to_le_bytes()).await?;
    stream.shutdown().await
}

/// Takes bytes without looking at them: the kernel does not copy what is truncated, so the sink costs little.
fn discard(stream: &TcpStream) -> io::Result<usize> {
    thread_local! {
        static NOWHERE: std::cell::RefCell<Vec<u8>> = std::cell::RefCell::new(vec![0; PIECE]);
    }
    NOWHERE.with_borrow_mut(|nowhere| Ok(recv(stream.as_raw_fd(), nowhere, MsgFlags::MSG_TRUNC)?))
}

async fn source(mut stream: TcpStream) -> io::Result<()> {
    let piece = vec![b'.'; PIECE];
    loop {
        stream.write_all(&piece).await?;
    }
}
