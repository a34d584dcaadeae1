//! Reading from a socket with as few calls of the kernel as it takes.

use std::io;

use rustix::io::read;
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

/// Two ends of a connection.
#[cfg(test)]
pub(crate) async fn pair() -> (TcpStream, TcpStream) {
    let listener = host::net::listen(([127, 0, 0, 1], 0).into()).unwrap();
    let addr = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(addr), listener.accept());
    (near.unwrap(), far.unwrap().0)
}
