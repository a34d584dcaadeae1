//! Peers that leave a connection which is stopped, and not read from therefore.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{Interest, ReadBuf, Ready};
use tokio::net::TcpStream;

use crate::side::Side;

type Errs<'s> = Pin<Box<dyn Future<Output = io::Result<Ready>> + Send + 's>>;

/// Looks after sockets that nobody reads. It wakes for nothing that waits in them, only for a peer that has gone.
pub(super) struct Watch<'s> {
    /// Those that say so themselves if they break.
    unread: Vec<(&'s TcpStream, Errs<'s>)>,
    /// Both, if nothing has been read of either that waits here.
    pair: Option<[&'s TcpStream; 2]>,
}

impl<'s> Watch<'s> {
    /// Over the sides of which nothing is read. `is_idle` where nothing that was read waits to be passed on.
    pub(super) fn over(
        client: &'s Side,
        reads_client: bool,
        upstream: Option<&'s Side>,
        reads_upstream: bool,
        is_idle: bool,
    ) -> Self {
        let client_side = Some(client).filter(|_| !reads_client);
        let upstream_side = upstream.filter(|_| !reads_upstream);
        let sides = client_side.into_iter().chain(upstream_side);
        let unread = sides.map(|side| {
            let errs: Errs<'s> = Box::pin(side.tcp().ready(Interest::ERROR));
            (side.tcp(), errs)
        });
        // What rustls has read and not handed out cannot be seen from here.
        let pair = upstream
            .filter(|_| is_idle)
            .and_then(|upstream| Some([client.plain()?, upstream.plain()?]));
        Self {
            unread: unread.collect(),
            pair,
        }
    }

    /// Ready when a peer has gone: with an error where it has reset, without one where both have ended and nothing of
    /// what they sent waits. The end of one alone says nothing: it may still listen.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        for (socket, errs) in &mut self.unread {
            if errs.as_mut().poll(cx).is_ready() {
                let error = socket.take_error().ok().flatten();
                let error = error.unwrap_or_else(|| io::ErrorKind::ConnectionReset.into());
                return Poll::Ready(Err(error));
            }
        }
        let Some(pair) = self.pair else {
            return Poll::Pending;
        };
        // Both are asked, so that the later end wakes too.
        let [client, upstream] = pair.map(|socket| has_ended(socket, cx));
        if client && upstream {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }
}

/// Whether the end is the next that there is to read.
fn has_ended(socket: &TcpStream, cx: &mut Context<'_>) -> bool {
    let mut next = [0];
    matches!(
        socket.poll_peek(cx, &mut ReadBuf::new(&mut next)),
        Poll::Ready(Ok(0))
    )
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::socket::pair;

    async fn side() -> (TcpStream, Side) {
        let (peer, near) = pair().await;
        (peer, Side::Plain(near))
    }

    #[tokio::test]
    async fn what_waits_unread_keeps_nobody_awake() {
        let ((mut client, near), (mut lane, far)) = (side().await, side().await);
        client.write_all(b"request").await.unwrap();
        client.shutdown().await.unwrap();
        lane.write_all(b"answer").await.unwrap();
        near.tcp().readable().await.unwrap();
        far.tcp().readable().await.unwrap();
        let mut watch = Watch::over(&near, false, Some(&far), false, true);
        let mut polls = 0;
        let gone = poll_fn(|cx| {
            polls += 1;
            watch.poll(cx)
        });
        let gone = tokio::time::timeout(Duration::from_millis(50), gone).await;
        assert!(gone.is_err());
        assert!(polls < 5, "{polls} polls");
        lane.set_zero_linger().unwrap();
        drop(lane);
        assert!(poll_fn(|cx| watch.poll(cx)).await.is_err());
    }
}
