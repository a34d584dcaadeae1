//! The fault-injecting TCP/WebSocket data plane between clients and their lane.
//!
//! ```text
//! listener     accepts, counts arrivals, starts a connection; `threads` carry the connections
//! connection   one task: asks what the faults mean for it, dials, pumps both directions, ends
//! link         one direction: read, sniff, queue, write; `passthrough` and, for bulk, `splice` are its fast path
//! queue        bytes that wait, and until when; `pacing` how fast they may go
//! faults/      the rules in force and what they mean for one connection; one file per fault
//! toxics/      the toxics of the standalone proxy, which a drill can order too; one file each
//! twists       what toxics do to one direction beyond delaying and pacing it
//! upgrade      what toxics do to an upgrade
//! websocket/   frame scanner and editor, heads of requests and responses and how they are rewritten: sans-IO
//! identity     whom a connection of the standalone proxy belongs to; `decisions` the log of what toxics decided
//! plane        what all connections share: rules, registry, counters
//! api          the leased fault API and the status
//! toxiproxy/   the standalone proxy: named proxies, and Toxiproxy's API
//! upstream     the lane: how a connection gets there
//! side         one of the two sockets: plain, or with TLS on it; `tls` ends TLS and begins it anew
//! socket       how sockets are connected, read and written with few calls of the kernel
//! seats        how many connections a process has descriptors for; `crew` the processes that have more
//! tap          where a lane's decoder can listen
//! ```
//!
//! Bytes pass unchanged, illegal ones too: the scanner only looks, and messages are edited only where a toxic takes them.
//! A fault changes rules; every connection is woken, looks at the rules, and says which generation of them it obeys. No
//! change waits for data to flow.

mod api;
mod connection;
pub mod crew;
mod decisions;
mod faults;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod identity;
mod link;
mod listener;
mod pacing;
mod passthrough;
mod plane;
mod queue;
mod seats;
mod side;
mod socket;
mod splice;
mod status;
pub mod tap;
mod threads;
mod tls;
mod toxics;
pub mod toxiproxy;
mod twists;
mod upgrade;
mod upstream;
pub mod websocket;

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use host::timer::Timer;
use model::ids::CLIENT_HEADER;
use model::role::ProxyConfig;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::identity::IdentifyBy;
use crate::plane::Plane;
use crate::tap::FrameTap;
pub use crate::upstream::Upstream;

/// A proxy as a process: binds its listeners, announces itself as `proxy` with a `data` listener, and serves until
/// `shutdown`.
///
/// # Errors
/// A listener cannot be bound, TLS cannot be terminated as configured, stdout is closed, or no descriptor is left for the timer.
pub async fn main(config: ProxyConfig, shutdown: CancellationToken) -> io::Result<()> {
    let upstream = Upstream::of(&config)?;
    let data = host::net::listen(config.listen)?;
    let control = host::net::listen((Ipv4Addr::LOCALHOST, 0).into())?;
    host::child::announce(
        "proxy",
        control.local_addr()?,
        &[("data", data.local_addr()?)],
    )?;
    serve(data, control, upstream, shutdown).await
}

/// Passes connections accepted by `data` on to `upstream` and answers the fault API and `GET /status` on `control`,
/// until `shutdown`. Then every fault is undone and every connection is closed.
///
/// # Errors
/// No descriptor is left for the timer.
pub async fn serve(
    data: TcpListener,
    control: TcpListener,
    upstream: impl Into<Upstream>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    run(data, control, upstream.into(), None, shutdown).await
}

/// As [`serve`], with a listener for the WebSocket frames that pass.
///
/// # Errors
/// No descriptor is left for the timer.
pub async fn serve_tapped(
    data: TcpListener,
    control: TcpListener,
    upstream: impl Into<Upstream>,
    tap: Arc<dyn FrameTap>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    run(data, control, upstream.into(), Some(tap), shutdown).await
}

async fn run(
    data: TcpListener,
    control: TcpListener,
    upstream: Upstream,
    tap: Option<Arc<dyn FrameTap>>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let plane = Plane::new(Timer::start()?, tap);
    let ends_tls = upstream.ends_tls();
    plane
        .identities
        .set(IdentifyBy::Header(CLIENT_HEADER.to_owned()));
    let watched = Arc::clone(&plane);
    let canaries = threads::all()?.iter().map(|thread| {
        let watched = Arc::clone(&watched);
        thread.spawn(async move {
            let timer = threads::timer().unwrap_or_else(|| watched.timer.clone());
            watched.counters.gauge.watch(&timer).await;
        })
    });
    let canaries: Vec<_> = canaries.collect();
    let (served, ()) = tokio::join!(
        listener::serve(data, &plane, Arc::new(upstream), shutdown.clone()),
        api::serve(control, Arc::clone(&plane), ends_tls, shutdown),
    );
    for canary in canaries {
        canary.abort();
    }
    served
}
