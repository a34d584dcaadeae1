//! Accepts connections.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use host::clock;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::Connection;
use crate::plane::{Plane, Seat};
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
    let data = accept(data, Arc::clone(plane), upstream, &connections, shutdown).await;
    drop(data);
    plane.end();
    drain(&connections).await;
}

/// Accepts until `shutdown`, and gives the listener back. The connections go on.
pub(crate) async fn accept(
    data: TcpListener,
    plane: Arc<Plane>,
    upstream: Arc<Upstream>,
    connections: &TaskTracker,
    shutdown: CancellationToken,
) -> TcpListener {
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return data,
            accepted = next(&data, &plane) => accepted,
        };
        match accepted {
            Ok((client, seat)) => {
                let ordinal = plane.counters.arrived(clock::now());
                let Seat::Here(seat) = seat else {
                    plane.hand_over(client, ordinal, &upstream);
                    continue;
                };
                let client = upstream.accept(client);
                let (plane, upstream) = (Arc::clone(&plane), Arc::clone(&upstream));
                let connection = Connection::new(client, plane, upstream, ordinal);
                connections.spawn(async move {
                    connection.run().await;
                    drop(seat);
                });
            }
            Err(error) => {
                // Descriptors are counted, so this is the host's limit, mostly: to wait is all that can be done.
                tracing::warn!(%error, "accept failed");
                tokio::select! {
                    () = shutdown.cancelled() => return data,
                    () = tokio::time::sleep(AGAIN) => {}
                }
            }
        }
    }
}

/// The next connection, for which there is room.
async fn next(data: &TcpListener, plane: &Plane) -> io::Result<(TcpStream, Seat)> {
    let seat = plane.seat().await;
    let (client, _) = data.accept().await?;
    Ok((client, seat))
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
