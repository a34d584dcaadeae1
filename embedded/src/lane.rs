//! `faultlane lane`: the process around a lane server. Its control API has one route, `GET /status`
//! ([`model::role::LaneStatus`]).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use host::http::{Failure, Response};
use model::ids::Lane;
use model::role::{LaneConfig, LaneStatus};
use model::target::TokenChecks;
use tokio_util::sync::CancellationToken;

use crate::auth::Verifier;
use crate::bucket::Bucket;
use crate::counters::Counters;
use crate::defect::Defects;
use crate::log::{Audience, Budget, Log, Settings};
use crate::{front, khala, spacetime};

/// A lane server that runs.
#[derive(Debug)]
pub struct Running {
    /// Where clients and publishers connect.
    pub data: SocketAddr,
    /// Its control API.
    pub control: SocketAddr,
    /// Ends after the shutdown, when everything is on disk.
    pub ended: tokio::task::JoinHandle<()>,
}

/// Runs a lane server until `shutdown`; says that it is ready on stdout.
///
/// # Errors
/// It cannot listen, or its log cannot be opened.
pub async fn main(config: LaneConfig, shutdown: CancellationToken) -> io::Result<()> {
    let running = start(config, shutdown)?;
    host::child::announce("lane", running.control, &[("data", running.data)])?;
    running.ended.await.map_err(io::Error::other)
}

/// Starts a lane server.
///
/// # Errors
/// It cannot listen, or its log cannot be opened.
pub fn start(config: LaneConfig, shutdown: CancellationToken) -> io::Result<Running> {
    match config.lane {
        Lane::Khala => run(khala::Khala::open(config)?, shutdown),
        Lane::Spacetime => run(spacetime::Spacetime::open(config)?, shutdown),
    }
}

/// What both lanes stand on.
#[derive(Debug)]
pub(crate) struct Ground<A: Audience> {
    pub(crate) config: LaneConfig,
    pub(crate) defects: Defects,
    pub(crate) counters: Arc<Counters>,
    pub(crate) log: Log<A>,
    accept: Option<Bucket>,
}

impl<A: Audience> Ground<A> {
    /// Opens the log of a lane. `trims` says whether streams lose what is beyond their retention.
    pub(crate) fn open(
        config: LaneConfig,
        defects: Defects,
        counters: Arc<Counters>,
        audience: A,
        trims: bool,
    ) -> io::Result<Self> {
        std::fs::create_dir_all(&config.data_dir).map_err(|error| {
            let folder = config.data_dir.display();
            io::Error::new(error.kind(), format!("data folder {folder}: {error}"))
        })?;
        let budget = |retention: u64, replay: u64| Budget {
            retention: if trims { retention.max(1) } else { u64::MAX },
            replay,
        };
        let settings = Settings {
            durability: defects.durability(config.strict),
            budget: budget(config.profile.retention, config.profile.replay_budget),
            own_budgets: config
                .stream_budgets
                .iter()
                .map(|(stream, (retention, replay))| (stream.clone(), budget(*retention, *replay)))
                .collect(),
        };
        let accept = config
            .accept_rate
            .map(|rate| Bucket::new(rate, rate.as_per_second() / 10.0));
        Ok(Self {
            log: Log::open(&config.data_dir.join("log.jsonl"), settings, audience)?,
            defects,
            counters,
            accept,
            config,
        })
    }

    /// Takes one from the accept rate.
    ///
    /// # Errors
    /// 503 with Retry-After.
    pub(crate) fn admit(&self, client: &str) -> Result<(), front::Refused> {
        let full = self
            .accept
            .as_ref()
            .is_some_and(|bucket| bucket.take(host::clock::now()).is_err());
        if full {
            tracing::info!(client, "refused: more upgrades than the accept rate allows");
            Counters::add(&self.counters.refused_rate, 1);
            return Err(Box::new(front::too_many()));
        }
        Ok(())
    }

    /// Whether a bearer is the publishers' secret.
    pub(crate) fn is_publisher(&self, bearer: Option<&str>) -> bool {
        // Nobody has an empty secret: it would let in whoever presents nothing.
        let secret = Some(&self.config.publish_secret).filter(|secret| !secret.is_empty());
        bearer.zip(secret).is_some_and(|(bearer, secret)| {
            let digest = |text: &str| <sha2::Sha256 as sha2::Digest>::digest(text.as_bytes());
            // Digests, so that the time of the comparison says nothing about the secret.
            digest(bearer) == digest(secret)
        })
    }

    /// Whether somebody may send long requests: the publishers, and everybody where nobody is asked.
    pub(crate) fn knows(&self, bearer: Option<&str>) -> bool {
        !self.config.strict || self.is_publisher(bearer)
    }

    fn status(&self) -> LaneStatus {
        let mut status = self.counters.status();
        status.heads = self
            .log
            .lock()
            .streams
            .iter()
            .map(|(name, stream)| (name.clone(), stream.head()))
            .collect();
        status
    }
}

/// A lane on its ground.
pub(crate) trait Grounded: front::Lane {
    type Audience: Audience;

    fn ground(&self) -> &Ground<Self::Audience>;

    fn verifier(&self) -> &Verifier;
}

/// What a lane looks at in tokens: with `strict`, everything.
pub(crate) const fn token_checks(strict: bool) -> TokenChecks {
    if strict {
        TokenChecks::STRICT
    } else {
        TokenChecks::NONE
    }
}

fn run<L: Grounded>(lane: L, shutdown: CancellationToken) -> io::Result<Running> {
    let listener = host::net::listen(lane.ground().config.listen)?;
    let control = host::net::listen(([127, 0, 0, 1], 0).into())?;
    let (data_addr, control_addr) = (listener.local_addr()?, control.local_addr()?);
    let lane = Arc::new(lane);
    let data = front::serve(listener, Arc::clone(&lane), shutdown.clone());
    let keeping = (Arc::clone(&lane), shutdown.clone());
    let keeping = async move { keeping.0.verifier().keep_up(keeping.1).await };
    let control = host::http::serve(control, shutdown, move |request| {
        let lane = Arc::clone(&lane);
        async move {
            match (request.method.as_str(), request.path.as_str()) {
                ("GET", "/status") => Response::json(&lane.ground().status()),
                _ => Err(Failure::no_route(&request)),
            }
        }
    });
    let ended = tokio::spawn(async move {
        tokio::join!(data, control, keeping);
    });
    Ok(Running {
        data: data_addr,
        control: control_addr,
        ended,
    })
}
