//! Sockets, with as few calls of the kernel as it takes.

use std::io;
use std::net::SocketAddr;

use rustix::io::{Errno, read};
use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, connect as call, send, socket_with, sockopt,
};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// A read of more than this is one of many: by the time that it has been passed on there is more.
const SMALL: usize = 4 << 10;

/// Reads what there is; 0 at the end of the stream. A small read that did not fill the buffer has emptied the socket: it
/// is not read again before the kernel says that more has come. (A read also stops short of TCP's urgent mark: what lies
/// behind one is passed on with what comes next.)
pub(crate) fn try_read(tcp: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut last = None;
    let result = tcp.try_io(Interest::READABLE, || {
        let count = read(tcp, &mut *buffer)?;
        if count == 0 || count == buffer.len() || count > SMALL {
            return Ok(count);
        }
        // What comes from here on is known to the runtime by an event that is newer than the one it forgets now.
        last = Some(count);
        Err(io::ErrorKind::WouldBlock.into())
    });
    last.map_or(result, Ok)
}

/// Writes what the kernel takes now, whatever the runtime knows of the socket; `None` when it takes nothing or the socket
/// is broken, which the runtime is going to say.
pub(crate) fn write_now(tcp: &TcpStream, bytes: &[u8]) -> Option<usize> {
    send(tcp, bytes, SendFlags::NOSIGNAL).ok()
}

/// Connects, without Nagle's delay. Where `speaks`, bytes follow at once: the last word of the handshake goes with them.
pub(crate) async fn connect(addr: SocketAddr, speaks: bool) -> io::Result<TcpStream> {
    let family = match addr {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    if speaks {
        sockopt::set_tcp_quickack(&socket, false)?;
    }
    // Over loopback the lane has accepted by the time that the kernel says it is under way: asked again it says so.
    let mut is_there = false;
    for _ in 0..2 {
        match call(&socket, &addr) {
            Ok(()) => is_there = true,
            Err(Errno::INPROGRESS) => continue,
            Err(Errno::ALREADY) => {}
            Err(error) => return Err(error.into()),
        }
        break;
    }
    let tcp = TcpStream::from_std(socket.into())?;
    if !is_there {
        tcp.writable().await?;
        if let Some(error) = tcp.take_error()? {
            return Err(error);
        }
    }
    Ok(tcp)
}

/// Two ends of a connection.
#[cfg(test)]
pub(crate) async fn pair() -> (TcpStream, TcpStream) {
    let listener = host::net::listen(([127, 0, 0, 1], 0).into()).unwrap();
    let addr = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(addr), listener.accept());
    (near.unwrap(), far.unwrap().0)
}
