//! Accepts connections.

use std::future::poll_fn;
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use host::clock;
use rustix::net::{SocketFlags, accept_with};
use socket2::SockRef;
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::Connection;
use crate::plane::{Plane, Seat};
use crate::threads::{self, Carrier};
use crate::upstream::Upstream;

/// How long connections may take to end once they are told to.
const GRACE: Duration = Duration::from_millis(1_500);
/// How long to wait with accepting when that failed.
const AGAIN: Duration = Duration::from_millis(20);

/// Accepts until `shutdown`, then closes every connection and waits until they are gone.
///
/// # Errors
/// As [`accept`].
pub(crate) async fn serve(
    data: tokio::net::TcpListener,
    plane: &Arc<Plane>,
    upstream: Arc<Upstream>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let connections = TaskTracker::new();
    let data = data.into_std()?;
    accept(&data, plane, &upstream, &connections, &shutdown)?;
    shutdown.cancelled().await;
    close(&data);
    plane.end();
    drain(&connections).await;
    Ok(())
}

/// Accepts on every thread until `stop`. It takes no time to stop: no connection leads to this upstream that was not
/// there before [`Plane::end`] is called after it. The listener is of no runtime: its own would be woken by every
/// connection to find nothing to do.
///
/// # Errors
/// There are no threads, or no descriptors for them to accept from.
pub(crate) fn accept(
    data: &TcpListener,
    plane: &Arc<Plane>,
    upstream: &Arc<Upstream>,
    connections: &TaskTracker,
    stop: &CancellationToken,
) -> io::Result<()> {
    // Linux hands it down to what is accepted.
    SockRef::from(data).set_tcp_nodelay(true)?;
    let threads = threads::all()?;
    // Before any of them accepts: what fails here leaves nobody who goes on.
    let shares = threads.iter().map(|_| data.try_clone());
    let shares: Vec<_> = shares.collect::<io::Result<_>>()?;
    for (carrier, data) in threads.iter().zip(shares) {
        let (plane, upstream) = (Arc::clone(plane), Arc::clone(upstream));
        let (connections, stop) = (connections.clone(), stop.clone());
        carrier.spawn(async move {
            match host::fd::watched(data) {
                Ok(data) => accept_on(carrier, data, plane, upstream, &connections, stop).await,
                Err(error) => tracing::error!(%error, "a thread does not accept"),
            }
        });
    }
    Ok(())
}

/// Has the kernel refuse connections from now on, whoever else still has this listener.
pub(crate) fn close(data: &TcpListener) {
    if let Err(error) = SockRef::from(data).shutdown(Shutdown::Both) {
        tracing::debug!(%error, "shut a listener down");
    }
}

/// Accepts on this thread until `stop`.
async fn accept_on(
    carrier: &'static Carrier,
    data: AsyncFd<TcpListener>,
    plane: Arc<Plane>,
    upstream: Arc<Upstream>,
    connections: &TaskTracker,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = next(&data, &plane) => accepted,
        };
        match accepted {
            Ok((client, ordinal, Seat::Elsewhere)) => {
                plane.hand_over(client, ordinal, &upstream, &stop);
            }
            Ok((client, ordinal, Seat::Here(seat))) => {
                let (carrier, load) = carrier.assign();
                let (plane, upstream) = (Arc::clone(&plane), Arc::clone(&upstream));
                let stop = stop.clone();
                carrier.spawn(connections.track_future(async move {
                    match tokio::net::TcpStream::from_std(client) {
                        Ok(client) => {
                            let client = upstream.accept(client);
                            let connection = Connection::new(client, plane, upstream, ordinal);
                            // One that came before everything was told to end knows it by itself.
                            if !stop.is_cancelled() {
                                connection.run().await;
                            }
                        }
                        Err(error) => tracing::warn!(%error, "a connection cannot begin"),
                    }
                    // Its descriptors are free only now.
                    drop((seat, load));
                }));
            }
            Err(error) => {
                // Descriptors are counted, so this is the host's limit, mostly: to wait is all that can be done.
                tracing::warn!(%error, "accept failed");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(AGAIN) => {}
                }
            }
        }
    }
}

/// The next connection and its number, once there is room for it. There is one for each listener and thread at most that
/// waits for room.
async fn next(data: &AsyncFd<TcpListener>, plane: &Plane) -> io::Result<(TcpStream, u64, Seat)> {
    let (client, ordinal) = poll_fn(|cx| {
        loop {
            let mut ready = ready!(data.poll_read_ready(cx))?;
            // Other threads accept from the same listener: numbers are in the order of the accepts.
            let _order = plane.accepting();
            let accepted = ready.try_io(|data| {
                let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
                Ok(accept_with(data.get_ref(), flags)?)
            });
            if let Ok(accepted) = accepted {
                let number =
                    |client: OwnedFd| (client.into(), plane.counters.arrived(clock::now()));
                return Poll::Ready(accepted.map(number));
            }
        }
    })
    .await?;
    Ok((client, ordinal, plane.seat().await))
}

/// Waits until connections are gone that have been told to end.
pub(crate) async fn drain(connections: &TaskTracker) {
    connections.close();
    if tokio::time::timeout(GRACE, connections.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            left = connections.len(),
            "connections outlived the shutdown"
        );
    }
}
