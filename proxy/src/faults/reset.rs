//! Reset: both sockets of a connection are closed with RST. What was under way is lost, as it is when a host dies. It
//! does not wait for a hold to end.

use std::collections::BTreeMap;

use rustix::net::connect_unspec;
use tokio::net::TcpStream;

use super::{Bites, get, named};

/// Sends RST, now: what a close costs beyond that can wait. `false` where it will be the close that sends it.
pub(crate) fn reset(stream: &TcpStream) -> bool {
    let is_sent = connect_unspec(stream).is_ok();
    if !is_sent {
        reset_on_close(stream);
    }
    is_sent
}

/// Makes the close of a socket an RST.
fn reset_on_close(stream: &TcpStream) {
    if let Err(error) = stream.set_zero_linger() {
        tracing::debug!(%error, "a connection is closed with FIN instead of RST");
    }
}

pub(super) fn figures(bites: &Bites) -> BTreeMap<String, u64> {
    named([("connections_reset", get(&bites.total))])
}
