//! Accepts connections.

use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use host::clock;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::Connection;
use crate::plane::{Plane, Seat};
use crate::threads;
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
    data: TcpListener,
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
    data: &std::net::TcpListener,
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
    for (thread, data) in threads.iter().zip(shares) {
        let (plane, upstream) = (Arc::clone(plane), Arc::clone(upstream));
        let (connections, stop) = (connections.clone(), stop.clone());
        thread.spawn(async move {
            match TcpListener::from_std(data) {
                Ok(data) => accept_here(data, plane, upstream, &connections, stop).await,
                Err(error) => tracing::error!(%error, "a thread does not accept"),
            }
        });
    }
    Ok(())
}

/// Has the kernel refuse connections from now on, whoever else still has this listener.
pub(crate) fn close(data: &std::net::TcpListener) {
    if let Err(error) = SockRef::from(data).shutdown(Shutdown::Both) {
        tracing::debug!(%error, "shut a listener down");
    }
}

/// Accepts on this thread until `stop`.
async fn accept_here(
    data: TcpListener,
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
            Ok((client, ordinal, seat)) => {
                let Seat::Here(seat) = seat else {
                    plane.hand_over(client, ordinal, &upstream, &stop);
                    continue;
                };
                let client = upstream.accept(client);
                let (plane, upstream) = (Arc::clone(&plane), Arc::clone(&upstream));
                let connection = Connection::new(client, plane, upstream, ordinal);
                // One that came before everything was told to end knows it by itself.
                if stop.is_cancelled() {
                    return;
                }
                let running = connection.run();
                connections.spawn(async move {
                    running.await;
                    drop(seat);
                });
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

/// The next connection and its number, once there is room for it. There is one for each listener and thread at most that waits for room.
async fn next(data: &TcpListener, plane: &Plane) -> io::Result<(TcpStream, u64, Seat)> {
    let (client, ordinal) = poll_fn(|cx| {
        // Other threads accept from the same listener: numbers are in the order of the accepts.
        let _order = plane.accepting();
        let (client, _) = ready!(data.poll_accept(cx))?;
        Poll::Ready(io::Result::Ok((
            client,
            plane.counters.arrived(clock::now()),
        )))
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
