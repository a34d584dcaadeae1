//! A worker's own side: it serves the connections that it is given, under the rules that it is told.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use host::timer::Timer;
use serde::Deserialize;
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::wire::{Counts, Inbox, Order, Report, line, send, slots};
use crate::connection::Connection;
use crate::listener;
use crate::plane::Plane;
use crate::tap::Way;
use crate::toxics::Slots;
use crate::upstream::Upstream;

/// What a worker is told on its stdin before anything else.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Config {
    /// Which one it is, from 1 on.
    pub worker: usize,
}

/// A worker as a process: serves until `shutdown`, or until the socket that is its stdin ends.
///
/// # Errors
/// stdin is no socket, stdout is closed, or no descriptor is left for the timer.
pub async fn main(config: Config, shutdown: CancellationToken) -> io::Result<()> {
    let link = Arc::new(host::child::link()?);
    let timer = Timer::start()?;
    // Its parent asks it over the link; nobody else does.
    host::child::announce("proxy-worker", (Ipv4Addr::UNSPECIFIED, 0).into(), &[])?;
    tracing::debug!(worker = config.worker, "ready");
    let mut worker = Worker {
        timer,
        planes: BTreeMap::new(),
        upstreams: BTreeMap::new(),
        connections: TaskTracker::new(),
        ended: Arc::default(),
    };
    let served = match worker.serve(&link, &shutdown).await {
        // The parent went with something of this worker's unread.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
            ) =>
        {
            Ok(())
        }
        served => served,
    };
    drop(link);
    for plane in worker.planes.values() {
        plane.end();
    }
    listener::drain(&worker.connections).await;
    served
}

struct Worker {
    timer: Timer,
    planes: BTreeMap<u64, Arc<Plane>>,
    upstreams: BTreeMap<String, Arc<Upstream>>,
    connections: TaskTracker,
    ended: Arc<Ended>,
}

/// Connections that have ended since that was last reported.
#[derive(Debug, Default)]
struct Ended {
    count: AtomicU64,
    more: Notify,
}

/// Counts its connection when it goes, whatever has become of it.
struct Seat(Arc<Ended>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.count.fetch_add(1, Ordering::AcqRel);
        self.0.more.notify_one();
    }
}

impl Worker {
    async fn serve(
        &mut self,
        link: &Arc<UnixStream>,
        shutdown: &CancellationToken,
    ) -> io::Result<()> {
        let mut inbox = Inbox::new(Arc::clone(link));
        let ended = Arc::clone(&self.ended);
        loop {
            let order = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                order = inbox.next::<Order>() => order,
                () = ended.more.notified() => {
                    self.report(link, Report::default()).await?;
                    continue;
                }
            };
            let Some(order) = order? else { return Ok(()) };
            match order {
                Order::Rules {
                    plane,
                    generation,
                    ended,
                    rules,
                } => {
                    let plane = self.plane(plane);
                    let before = plane.rules();
                    let rules = rules.into_iter().map(|rule| rule.into_rule(&before));
                    plane.adopt(generation, ended, rules.collect::<io::Result<_>>()?);
                }
                Order::Forget { plane } => {
                    self.planes.remove(&plane);
                    self.upstreams
                        .retain(|_, upstream| Arc::strong_count(upstream) > 1);
                }
                Order::Serve {
                    plane,
                    ordinal,
                    upstream,
                    slots,
                } => self.admit(
                    plane,
                    ordinal,
                    upstream,
                    inbox.take_carried(),
                    self::slots(slots),
                ),
                Order::Answer { number } => {
                    let counts = self.planes.iter().map(|(id, plane)| (*id, count(plane)));
                    let report = Report {
                        answers: Some(number),
                        counts: counts.collect(),
                        ..Report::default()
                    };
                    self.report(link, report).await?;
                }
            }
        }
    }

    fn plane(&mut self, id: u64) -> Arc<Plane> {
        let timer = &self.timer;
        Arc::clone(
            self.planes
                .entry(id)
                .or_insert_with(|| Plane::new(timer.clone(), None)),
        )
    }

    async fn report(&self, link: &UnixStream, report: Report) -> io::Result<()> {
        let report = Report {
            ended: self.ended.count.swap(0, Ordering::AcqRel),
            ..report
        };
        send(link, &line(&report), None).await
    }

    /// Serves a connection, if it got here.
    fn admit(
        &mut self,
        plane: u64,
        ordinal: u64,
        upstream: String,
        client: Option<OwnedFd>,
        slots: Slots,
    ) {
        let seat = Seat(Arc::clone(&self.ended));
        let Some(client) = client else {
            tracing::warn!("no descriptor is left for a connection; it is closed");
            return;
        };
        let plane = self.plane(plane);
        let named = |upstream: String| Arc::new(Upstream::named(&upstream, None));
        let upstream = Arc::clone(
            self.upstreams
                .entry(upstream.clone())
                .or_insert_with(|| named(upstream)),
        );
        let client = TcpStream::from(client);
        let client = client
            .set_nonblocking(true)
            .and_then(|()| tokio::net::TcpStream::from_std(client))
            .map(|client| upstream.accept(client));
        match client {
            Ok(client) => {
                let connection =
                    Connection::new(client, plane, upstream, ordinal).with_slots(slots);
                self.connections.spawn(async move {
                    connection.run().await;
                    drop(seat);
                });
            }
            Err(error) => tracing::warn!(%error, "a connection cannot begin"),
        }
    }
}

fn count(plane: &Plane) -> Counts {
    let counters = &plane.counters;
    let both = |of: fn(&crate::status::Counters, Way) -> &AtomicU64| {
        let get = |way| of(counters, way).load(Ordering::Relaxed);
        (get(Way::Upstream), get(Way::Downstream))
    };
    Counts {
        received: both(crate::status::Counters::received),
        sent: both(crate::status::Counters::bytes),
        open: plane.open(),
    }
}
