//! Reset: both sockets of a connection are closed with RST. What was under way is lost, as it is when a host dies. It
//! does not wait for a hold to end.

use std::collections::BTreeMap;

use tokio::net::TcpStream;

use super::{Bites, get, named};

/// Makes the close of a socket an RST.
pub(crate) fn reset_on_close(stream: &TcpStream) {
    if let Err(error) = stream.set_zero_linger() {
        tracing::debug!(%error, "a connection is closed with FIN instead of RST");
    }
}

pub(super) fn figures(bites: &Bites) -> BTreeMap<String, u64> {
    named([("connections_reset", get(&bites.total))])
}
