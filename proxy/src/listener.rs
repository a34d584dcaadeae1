//! Accepts connections.

use std::sync::Arc;
use std::time::Duration;

use host::clock;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::Connection;
use crate::plane::Plane;

/// How long connections may take to end once they are told to.
const GRACE: Duration = Duration::from_millis(1_500);

/// Accepts until `shutdown`, then closes every connection and waits until they are gone.
pub(crate) async fn accept(data: TcpListener, plane: Arc<Plane>, shutdown: CancellationToken) {
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = data.accept() => accepted,
        };
        match accepted {
            Ok((client, _)) => {
                let ordinal = plane.counters.arrived(clock::now());
                match plane.upstream.accept(client) {
                    Ok(client) => {
                        let connection = Connection::new(client, Arc::clone(&plane), ordinal);
                        connections.spawn(connection.run());
                    }
                    Err(error) => tracing::warn!(%error, "TLS cannot begin"),
                }
            }
            Err(error) => {
                // Out of descriptors, mostly: to wait is all that can be done.
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    drop(data);
    plane.end();
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
