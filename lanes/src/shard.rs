//! A fleet shard: a process with a slice of the clients, a publisher, probes, or any of them, driven over HTTP/JSON as
//! `model::shard` says.
//!
//! ```text
//! member   one client and its driver     fleet    the slice: start, tick, finish
//! expiry   the fault token_expiry        report   what the slice saw
//! kept     the clients to be explained
//! ```

mod expiry;
mod fleet;
mod kept;
mod member;
mod report;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::try_join_all;
use host::faults::Leased;
use host::harness::Gauge;
use host::http::{Failure, Reply, Request, Response, StatusCode};
use host::peer::Reach;
use host::timer::Timer;
use host::{child, clock, http, net};
use model::histogram::Micros;
use model::ids::StreamId;
use model::quantity::Rate;
use model::schedule::Schedule;
use model::shard::{
    Cursors, Finish, Harness, PublishConfig, ShardConfig, ShardReport, ShardStatus, Start, Tick,
};
use tokio_util::sync::CancellationToken;

use self::expiry::Expiries;
use self::fleet::{Fleet, budgets, lock, retentions};
use crate::clean_up::Cleaner;
use crate::final_read::Reader;
use crate::lane::Kind;
use crate::oneshot::Asked;
use crate::probes::{Probes, Setting};
use crate::publisher::{Press, Publisher};
use crate::store::Store;
use crate::token_client::TokenClient;

/// The stale-cursor probes need a stream that moves on quickly, whatever the scenario's rate is.
const STALE_RATE: f64 = 10.0;
/// The rival's canary.
const RIVAL_RATE: f64 = 2.0;
/// A probe's question is answered in milli-seconds, or it is not.
const PROBE_WITHIN: Duration = Duration::from_millis(1_500);
/// A stream read to its end.
const READ_WITHIN: Duration = Duration::from_secs(6);

/// Runs a shard until `shutdown`.
///
/// # Errors
/// The control listener could not be had, or stdout is closed.
pub async fn main(config: ShardConfig, shutdown: CancellationToken) -> io::Result<()> {
    let listener = net::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let control = listener.local_addr()?;
    let shard = Shard::new(config)?;
    child::announce("shard", control, &[])?;
    shard.serve(listener, shutdown).await;
    Ok(())
}

/// A shard's parts.
#[derive(Debug)]
pub struct Shard {
    config: ShardConfig,
    reach: Reach,
    tokens: TokenClient,
    fleet: Option<Arc<Fleet>>,
    publisher: Option<Publisher>,
    probes: Option<Arc<Probes>>,
    expiries: Arc<Leased<Expiries>>,
    gauge: Gauge,
    timer: Timer,
    send_lag: Arc<Mutex<Micros>>,
    started: Mutex<bool>,
    /// Where the trial began: see [`Start`].
    begun: Mutex<Cursors>,
    /// Ends the probes.
    finished: CancellationToken,
}

impl Shard {
    /// Makes the parts; nothing runs yet.
    ///
    /// # Errors
    /// No descriptor is left for a timer, or the lane cannot be reached by its settings: see `host::peer::PeerError`.
    pub fn new(config: ShardConfig) -> io::Result<Arc<Self>> {
        let timer = Timer::start()?;
        let reach = Reach::of(&config.access)?;
        let tokens = TokenClient::new(&config.tokens, config.lane, config.profile.refresh_lead)?;
        let send_lag = Arc::default();
        let fleet = config
            .clients
            .clone()
            .map(|clients| Arc::new(Fleet::new(&config, &reach, &tokens, clients)));
        let publisher = config.publish.as_ref().map(|publish| {
            Publisher::new(Press {
                origin: config.origin.clone(),
                store: store(&config, &reach, &publish.secret),
                timer: timer.clone(),
                send_lag: Arc::clone(&send_lag),
                stop: CancellationToken::new(),
            })
        });
        let probes = config.probes.clone().map(|probes| {
            Probes::new(Setting {
                asked: asked(&config, &reach, PROBE_WITHIN),
                store: store(&config, &reach, secret(&config)),
                tokens: tokens.clone(),
                source: config.tokens.clone(),
                promise: config.promise.clone(),
                defect: config.defect,
                config: probes,
            })
        });
        Ok(Arc::new(Self {
            expiries: Leased::new(Expiries::new(fleet.clone())),
            fleet,
            publisher,
            probes,
            gauge: Gauge::default(),
            timer,
            send_lag,
            started: Mutex::new(false),
            begun: Mutex::default(),
            finished: CancellationToken::new(),
            reach,
            tokens,
            config,
        }))
    }

    /// Serves the control API until `shutdown`.
    pub async fn serve(
        self: Arc<Self>,
        listener: tokio::net::TcpListener,
        shutdown: CancellationToken,
    ) {
        let leases = tokio::spawn(Arc::clone(&self.expiries).enforce(shutdown.clone()));
        let watched = Arc::clone(&self);
        let watch = tokio::spawn(async move { watched.gauge.watch(&watched.timer).await });
        let answering = Arc::clone(&self);
        http::serve(listener, shutdown, move |request| {
            let shard = Arc::clone(&answering);
            async move { shard.answer(request).await }
        })
        .await;
        self.finished.cancel();
        watch.abort();
        if let Some(fleet) = &self.fleet {
            fleet.close().await;
        }
        let _ = leases.await;
    }

    async fn answer(self: Arc<Self>, request: Request) -> Reply {
        match (request.method.as_str(), request.segments().as_slice()) {
            ("GET", ["heads"]) => Response::json(&self.heads().await?),
            ("POST", ["start"]) => {
                self.start(request.json()?)?;
                Response::empty()
            }
            ("POST", ["tick"]) => Response::json(&self.tick(request.json()?)),
            ("PUT", ["episode"]) => {
                let episode = request.json()?;
                if let Some(fleet) = &self.fleet {
                    fleet.episode(episode);
                }
                Response::empty()
            }
            (_, ["faults", ..]) => self.expiries.route(&request).await,
            ("POST", ["publish", "stop"]) => {
                let publisher = self
                    .publisher
                    .as_ref()
                    .ok_or_else(|| no_part("publisher"))?;
                publisher.stop().await;
                Response::json(&publisher.ledger())
            }
            ("POST", ["final-read"]) => {
                let (org, origin) = (&self.config.tokens.org, &self.config.origin);
                let (streams, world) = (self.read_streams(), self.config.promise.world);
                Response::json(&self.reader()?.read(org, &streams, origin, world).await)
            }
            ("POST", ["clean-up"]) => {
                if let Some(publisher) = &self.publisher {
                    publisher.stop().await;
                }
                let cleaner = Cleaner {
                    reader: self.reader()?,
                    mark: self.config.origin.run.clone(),
                    submitted: self.submitted(),
                };
                Response::json(&cleaner.clean_up(&self.written_streams()).await)
            }
            ("POST", ["finish"]) => Response::json(&self.finish(&request.json()?).await),
            _ => Err(Failure::no_route(&request)),
        }
    }

    fn start(self: &Arc<Self>, start: Start) -> Result<(), Failure> {
        if std::mem::replace(&mut *lock(&self.started), true) {
            return Err(Failure::new(
                StatusCode::CONFLICT,
                "the shard has been started",
            ));
        }
        if let (Some(publisher), Some(publish)) = (&self.publisher, &self.config.publish) {
            self.publish(publisher, publish);
        }
        if let Some(fleet) = &self.fleet {
            fleet.start(&start.cursors);
        }
        *lock(&self.begun) = start.cursors;
        if let Some(probes) = &self.probes {
            let running = Arc::clone(probes).run();
            let finished = self.finished.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = finished.cancelled() => {}
                    () = running => {}
                }
            });
        }
        Ok(())
    }

    fn publish(&self, publisher: &Publisher, publish: &PublishConfig) {
        let now = clock::now();
        let interval = publish.rate.interval().unwrap_or_default();
        let count = u32::try_from(publish.streams.len())
            .unwrap_or(u32::MAX)
            .max(1);
        for (place, stream) in (0..).zip(&publish.streams) {
            // The streams take turns, so that the load is even within the interval too.
            let schedule = Schedule {
                rate: publish.rate,
                burst: publish.burst.filter(|_| place == 0),
                first: now + (interval * place / count).into(),
            };
            publisher.write(stream.clone(), schedule, !self.is_for_probes(stream));
        }
        for (_, stream, rate) in self.probe_streams() {
            let schedule = Schedule {
                rate: Rate::per_second(rate),
                burst: None,
                first: now,
            };
            publisher.write(stream.clone(), schedule, false);
        }
    }

    /// What is published to for the probes alone: whose it is, its name, and how many events a second.
    fn probe_streams(&self) -> Vec<(&String, &StreamId, f64)> {
        let (Some(publish), Some(probes)) = (&self.config.publish, &self.config.probes) else {
            return Vec::new();
        };
        let org = &self.config.tokens.org;
        let stale = probes.stale.as_ref();
        let rival = probes.rival.as_ref();
        [
            stale.map(|stale| (org, &stale.stream, STALE_RATE)),
            rival.map(|rival| (&rival.org, &rival.stream, RIVAL_RATE)),
        ]
        .into_iter()
        .flatten()
        .filter(|(_, stream, _)| !publish.streams.contains(stream))
        .collect()
    }

    /// Every stream that is published to, and whose it is.
    fn written_streams(&self) -> Vec<(String, StreamId)> {
        let org = &self.config.tokens.org;
        let published = self.config.publish.iter();
        let published = published.flat_map(|publish| &publish.streams);
        published
            .map(|stream| (org, stream))
            .chain(
                self.probe_streams()
                    .into_iter()
                    .map(|(org, stream, _)| (org, stream)),
            )
            .map(|(org, stream)| (org.clone(), stream.clone()))
            .collect()
    }

    /// How many events were submitted to each of them.
    fn submitted(&self) -> BTreeMap<StreamId, u64> {
        let submitted = self.publisher.as_ref().map(Publisher::submitted);
        let submitted = submitted.unwrap_or_default();
        let count = |stream: &StreamId| submitted.get(stream).copied().unwrap_or(0);
        let streams = self.written_streams().into_iter();
        streams
            .map(|(_, stream)| (stream.clone(), count(&stream)))
            .collect()
    }

    /// The newest seq of every stream that is published to.
    async fn heads(&self) -> Result<Cursors, Failure> {
        let store = self.reader()?.store;
        let heads = self.written_streams().into_iter().map(|(_, stream)| {
            let store = store.clone();
            async move {
                match store.head(&stream).await {
                    Ok((head, _)) => Ok((stream, head)),
                    Err(error) => {
                        let text = format!("the head of `{stream}` could not be read: {error}");
                        Err(Failure::new(StatusCode::BAD_GATEWAY, text))
                    }
                }
            }
        });
        try_join_all(heads).await.map(Cursors::from_iter)
    }

    fn is_for_probes(&self, stream: &StreamId) -> bool {
        let Some(probes) = &self.config.probes else {
            return false;
        };
        let stale = probes.stale.as_ref().map(|stale| &stale.stream);
        let rival = probes.rival.as_ref().map(|rival| &rival.stream);
        stale == Some(stream) || rival == Some(stream)
    }

    fn tick(&self, tick: Tick) -> ShardStatus {
        let mut status = match &self.fleet {
            Some(fleet) => fleet.tick(tick),
            None => ShardStatus {
                at: clock::now(),
                ..ShardStatus::default()
            },
        };
        if let Some(probes) = &self.probes {
            status.safety += probes.safety();
        }
        if let Some(publisher) = &self.publisher {
            let book = publisher.book();
            status.published = book.counts();
            let (news, until) = book.news();
            status.acknowledged = news;
            status.complete_until = Some(until);
        }
        status
    }

    async fn finish(&self, finish: &Finish) -> ShardReport {
        self.finished.cancel();
        let mut report = match &self.fleet {
            Some(fleet) => {
                fleet.finish(finish).await;
                // Before the connections are closed: to close them is no loss.
                let report = fleet.report(finish);
                fleet.close().await;
                report
            }
            None => ShardReport::default(),
        };
        report.shard = self.config.ordinal;
        if let Some(probes) = &self.probes {
            let (tallies, findings) = probes.read();
            report.probes = tallies;
            report.findings.merge(&findings);
        }
        let (receive_lag, busiest) = self.gauge.read();
        report.harness = Harness {
            receive_lag,
            send_lag: lock(&self.send_lag).clone(),
            busiest,
        };
        report
    }

    /// What was published and is accounted for.
    fn read_streams(&self) -> Vec<StreamId> {
        let published = self
            .config
            .publish
            .iter()
            .flat_map(|publish| &publish.streams);
        published
            .filter(|stream| !self.is_for_probes(stream))
            .cloned()
            .collect()
    }

    fn reader(&self) -> Result<Reader, Failure> {
        if self.config.publish.is_none() {
            return Err(no_part("publisher"));
        }
        Ok(Reader {
            asked: asked(&self.config, &self.reach, READ_WITHIN),
            store: store(&self.config, &self.reach, secret(&self.config)),
            tokens: self.tokens.clone(),
            begun: lock(&self.begun).clone(),
            budgets: budgets(&self.config),
            retentions: retentions(&self.config),
        })
    }
}

fn asked(config: &ShardConfig, reach: &Reach, within: Duration) -> Asked {
    Asked {
        peer: Arc::clone(&reach.direct),
        kind: Kind::of(config.lane),
        access: Arc::new(config.access.clone()),
        within,
    }
}

fn store(config: &ShardConfig, reach: &Reach, secret: &str) -> Store {
    let direct = Arc::clone(&reach.direct);
    Store::new(config.lane, &config.access, direct, secret)
}

fn secret(config: &ShardConfig) -> &str {
    config
        .publish
        .as_ref()
        .map_or("", |publish| &publish.secret)
}

fn no_part(what: &str) -> Failure {
    Failure::new(StatusCode::NOT_FOUND, format!("this shard has no {what}"))
}
