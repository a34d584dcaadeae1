//! The fast path of a bulky stream: from socket to socket through a pipe, without a copy. One pipe per thread serves all
//! connections, for it is empty again before another one has its turn: what the peer does not take now is read out of it.
//! So a link can begin and cease to splice between any two bytes.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// As much as one turn takes.
const PIECE: usize = 256 << 10;

/// The end that is read from, and the one that is written to.
type Pipe = (OwnedFd, OwnedFd);

thread_local! {
    static PIPE: RefCell<Option<Pipe>> = const { RefCell::new(None) };
}

/// What one turn did.
pub(crate) struct Spliced {
    /// Bytes that have gone out; none, with nothing in `left`, at the end of the stream.
    pub(crate) gone: usize,
    /// What came and was not taken.
    pub(crate) left: Vec<u8>,
}

/// Moves once what there is; `None` when there is nothing now.
pub(crate) fn splice_once(from: &TcpStream, to: &TcpStream) -> io::Result<Option<Spliced>> {
    PIPE.with_borrow_mut(|own| {
        // Not put back after an error: nobody knows what is in it.
        let pipe = own.take().map_or_else(open, Ok)?;
        let spliced = through(&pipe, from, to)?;
        *own = Some(pipe);
        Ok(spliced)
    })
}

fn open() -> io::Result<Pipe> {
    let pipe = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
    // Where it may not be as large it takes less at once.
    let _ = fcntl_setpipe_size(&pipe.1, PIECE);
    Ok(pipe)
}

fn through((out, into): &Pipe, from: &TcpStream, to: &TcpStream) -> io::Result<Option<Spliced>> {
    let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
    let came = from.try_io(Interest::READABLE, || {
        Ok(splice(from, None, into, None, PIECE, flags)?)
    });
    let came = match came {
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
        came => came?,
    };
    let mut gone = 0;
    while gone < came {
        let went = to.try_io(Interest::WRITABLE, || {
            Ok(splice(out, None, to, None, came - gone, flags)?)
        });
        match went {
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            went => gone += went?,
        }
    }
    let mut left = vec![0; came - gone];
    let mut rest = left.as_mut_slice();
    while !rest.is_empty() {
        let read = rustix::io::read(out, &mut *rest)?;
        rest = &mut rest[read..];
    }
    Ok(Some(Spliced { gone, left }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::pair;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn what_the_peer_does_not_take_is_left_in_order_and_the_end_is_seen() {
        let ((mut source, from), (to, mut sink)) = tokio::join!(pair(), pair());
        let sent: Vec<u8> = (0_u32..3 << 20).flat_map(u32::to_le_bytes).collect();
        let bytes = sent.clone();
        let sending = tokio::spawn(async move {
            source.write_all(&bytes).await.unwrap();
            source.shutdown().await.unwrap();
        });
        let (mut got, mut unread, mut lefts) = (Vec::new(), 0, 0);
        loop {
            from.readable().await.unwrap();
            let Some(Spliced { gone, left }) = splice_once(&from, &to).unwrap() else {
                continue;
            };
            unread += gone;
            lefts += usize::from(!left.is_empty());
            let is_over = gone == 0 && left.is_empty();
            // The sink reads nothing before it has to.
            if is_over || !left.is_empty() {
                let before = got.len();
                got.resize(before + unread, 0);
                sink.read_exact(&mut got[before..]).await.unwrap();
                unread = 0;
                got.extend(left);
            }
            if is_over {
                break;
            }
        }
        sending.await.unwrap();
        assert!(lefts > 0, "the sink was never full");
        assert!(got == sent);
    }
}
