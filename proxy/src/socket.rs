//! Sockets, with as few calls of the kernel as it takes.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::LazyLock;

use rustix::io::{Errno, read};
use rustix::net::{
    self, AddressFamily, SendFlags, SocketFlags, SocketType, send, socket_with, sockopt,
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
    let mut begun = net::connect(&socket, &addr);
    if begun == Err(Errno::INPROGRESS) {
        // Over loopback the lane has accepted by now. Asked again, the kernel says so.
        begun = net::connect(&socket, &addr);
    }
    let is_connected = match begun {
        Ok(()) => true,
        Err(Errno::ALREADY) => false,
        Err(error) => return Err(error.into()),
    };
    let tcp = TcpStream::from_std(socket.into())?;
    if !is_connected {
        tcp.writable().await?;
        if let Some(error) = tcp.take_error()? {
            return Err(error);
        }
    }
    if OUTGOING.contains(&addr.port()) && is_with_itself(&tcp)? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(tcp)
}

/// The ports that the kernel gives to outgoing connections; all where it does not say.
static OUTGOING: LazyLock<RangeInclusive<u16>> = LazyLock::new(|| {
    let said = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    said.ok()
        .and_then(|said| range(&said))
        .unwrap_or(0..=u16::MAX)
});

fn range(said: &str) -> Option<RangeInclusive<u16>> {
    let mut ends = said.split_whitespace().map(str::parse);
    match (ends.next(), ends.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Some(first..=last),
        _ => None,
    }
}

/// Where nobody listens on a port that the kernel also gives to outgoing connections, one may get that port for its own and
/// so meet itself (RFC 9293, section 3.5). It would keep the lane from coming back.
fn is_with_itself(tcp: &TcpStream) -> io::Result<bool> {
    Ok(tcp.local_addr()? == tcp.peer_addr()?)
}

/// Two ends of a connection.
#[cfg(test)]
pub(crate) async fn pair() -> (TcpStream, TcpStream) {
    let listener = host::net::listen(([127, 0, 0, 1], 0).into()).unwrap();
    let addr = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(addr), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_that_meets_itself_is_known() {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let addr = socket.local_addr().unwrap();
        let itself = socket.connect(addr).await.unwrap();
        assert!(is_with_itself(&itself).unwrap());
        assert!(OUTGOING.contains(&addr.port()), "{OUTGOING:?}");
        let (one, other) = pair().await;
        assert!(!is_with_itself(&one).unwrap() && !is_with_itself(&other).unwrap());
    }

    #[test]
    fn the_kernels_range_is_read_and_nonsense_is_none() {
        assert_eq!(range("32768\t60999\n"), Some(32_768..=60_999));
        for nonsense in ["", "32768", "x y", "32768 70000"] {
            assert_eq!(range(nonsense), None, "{nonsense}");
        }
    }

    #[tokio::test]
    async fn both_families_are_connected_and_a_port_without_a_listener_refuses() {
        for host in ["127.0.0.1", "::1"] {
            let addr = SocketAddr::new(host.parse().unwrap(), 0);
            let listener = host::net::listen(addr).unwrap();
            let addr = listener.local_addr().unwrap();
            for speaks in [true, false] {
                let tcp = connect(addr, speaks).await.unwrap();
                let (accepted, peer) = listener.accept().await.unwrap();
                assert_eq!(tcp.local_addr().unwrap(), peer);
                assert_eq!(write_now(&tcp, b"word"), Some(4));
                accepted.readable().await.unwrap();
                assert_eq!(try_read(&accepted, &mut [0; 9]).unwrap(), 4);
            }
            drop(listener);
            let error = connect(addr, true).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        }
    }
}
