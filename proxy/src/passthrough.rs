//! The fast path of a link: what is read goes out at once. One buffer per thread serves all connections, for it is
//! empty again before another one has its turn; only what a slow peer leaves over is copied.

use std::cell::RefCell;
use std::io;

use crate::side::Side;
use crate::socket::write_now;

/// As much as one read takes.
pub(crate) const READ: usize = 64 << 10;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into_boxed_slice());
}

/// Reads once and hands on what was read; `None` when there is nothing to read now, an empty slice at the end of the
/// stream.
pub(crate) fn read_once<T>(
    from: &mut Side,
    then: impl FnOnce(&[u8]) -> io::Result<T>,
) -> io::Result<Option<T>> {
    BUFFER.with_borrow_mut(|buffer| match from.try_read(buffer) {
        Ok(count) => then(&buffer[..count]).map(Some),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    })
}

/// Writes what the peer takes now: 0 when it takes nothing. The `first` bytes go without the runtime having said that the
/// peer takes any, which it does only after its next look at the sockets.
pub(crate) fn write_some(to: &mut Side, bytes: &[u8], first: bool) -> io::Result<usize> {
    if first && let Some(written) = to.plain().and_then(|tcp| write_now(tcp, bytes)) {
        return Ok(written);
    }
    match to.try_write(bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        written => written,
    }
}
