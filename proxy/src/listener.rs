//! Accepts connections.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use host::clock;
use socket2::SockRef;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::Connection;
use crate::plane::Plane;
use crate::threads;
use crate::upstream::Upstream;

/// How long connections may take to end once they are told to.
const GRACE: Duration = Duration::from_millis(1_500);
/// How long to wait with accepting when that failed.
const AGAIN: Duration = Duration::from_millis(20);

/// Accepts until `shutdown`, then closes every connection and waits until they are gone.
pub(crate) async fn serve(
    data: TcpListener,
    plane: &Arc<Plane>,
    upstream: Arc<Upstream>,
    shutdown: CancellationToken,
) {
    let connections = TaskTracker::new();
    match accept(data, Arc::clone(plane), upstream, &connections, shutdown).await {
        Ok(data) => drop(data),
        Err(error) => tracing::error!(%error, "nothing is accepted"),
    }
    plane.end();
    drain(&connections).await;
}

/// Accepts on every thread until `shutdown`, and gives the listener back. The connections go on.
///
/// # Errors
/// There are no threads, or no descriptors for them to accept from.
pub(crate) async fn accept(
    data: TcpListener,
    plane: Arc<Plane>,
    upstream: Arc<Upstream>,
    connections: &TaskTracker,
    shutdown: CancellationToken,
) -> io::Result<TcpListener> {
    // Linux hands it down to what is accepted.
    SockRef::from(&data).set_tcp_nodelay(true)?;
    // Out of this runtime, which would be woken by every connection to find nothing to do.
    let data = data.into_std()?;
    let mut accepting = JoinSet::new();
    for thread in threads::all()? {
        let data = data.try_clone()?;
        let (plane, upstream) = (Arc::clone(&plane), Arc::clone(&upstream));
        let (connections, shutdown) = (connections.clone(), shutdown.clone());
        let accept = async move {
            accept_here(
                TcpListener::from_std(data)?,
                plane,
                upstream,
                &connections,
                shutdown,
            )
            .await;
            Ok::<_, io::Error>(())
        };
        accepting.spawn_on(accept, thread);
    }
    while let Some(ended) = accepting.join_next().await {
        ended.map_err(io::Error::other)??;
    }
    TcpListener::from_std(data)
}

/// Accepts on this thread until `shutdown`.
async fn accept_here(
    data: TcpListener,
    plane: Arc<Plane>,
    upstream: Arc<Upstream>,
    connections: &TaskTracker,
    shutdown: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = data.accept() => accepted,
        };
        match accepted {
            Ok((client, _)) => {
                let ordinal = plane.counters.arrived(clock::now());
                match upstream.accept(client) {
                    Ok(client) => {
                        let (plane, upstream) = (Arc::clone(&plane), Arc::clone(&upstream));
                        let connection = Connection::new(client, plane, upstream, ordinal);
                        connections.spawn(connection.run());
                    }
                    Err(error) => tracing::warn!(%error, "TLS cannot begin"),
                }
            }
            Err(error) => {
                // Out of descriptors, mostly: to wait is all that can be done.
                tracing::warn!(%error, "accept failed");
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(AGAIN) => {}
                }
            }
        }
    }
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
