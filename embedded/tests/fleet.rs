//! The fleet against the embedded servers, over real sockets: clean runs are clean, and planted defects are found.

#[path = "fleet/clock.rs"]
mod clock_skew;
#[path = "fleet/open_world.rs"]
mod open_world;
#[path = "../../lanes/tests/support/rig.rs"]
mod rig;
#[path = "fleet/tls.rs"]
mod tls;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use host::clock;
use host::http::Client;
use model::anomaly::Anomaly;
use model::criteria::Phase;
use model::defect::Defect;
use model::event::Origin;
use model::fault::{Fault, FaultOrder, FaultView, TokenExpiry};
use model::ids::Lane;
use model::probe::{ProbesConfig, Rival, StaleStream};
use model::profile::Profile;
use model::quantity::{Rate, Share, Span};
use model::role::{LaneConfig, TokensConfig};
use model::shard::{
    Burst, Episode, EpisodeFault, FinalRead, Ledger, PublishConfig, ShardConfig, ShardReport,
    TokenSource,
};
use model::target::{Access, Promise, Wire};
use rig::{DEADLINE, Rig};
use tokio_util::sync::CancellationToken;

const STREAMS: [&str; 2] = ["runtime.run.1.events", "runtime.worker.w1.lifecycle"];
const STALE: &str = "runtime.run.stale.events";
const RIVAL: &str = "runtime.run.rival.events";
const CLIENTS: u32 = 6;
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

struct Target {
    _folder: tempfile::TempDir,
    lane: embedded::lane::Running,
    config: LaneConfig,
    stop: CancellationToken,
    tokens: CancellationToken,
    tokens_control: Client,
    base: ShardConfig,
}

fn stale() -> StaleStream {
    StaleStream {
        stream: STALE.to_owned(),
        retention: 12,
        replay_budget: 3,
    }
}

/// Few, small clocks, so that a test takes seconds.
fn profile() -> Profile {
    Profile {
        heartbeat: Span::from_millis(300),
        server_tick: Span::from_millis(250),
        heartbeat_timeout: Span::from_secs(1),
        read_idle: Span::from_secs(1),
        connect_timeout: Span::from_secs(1),
        backoff_base: Span::from_millis(50),
        backoff_cap: Span::from_millis(400),
        stable_after: Span::from_millis(300),
        refresh_lead: Span::from_millis(500),
        ..Profile::embedded()
    }
}

impl Target {
    /// `token_limit` is the token service's rate and burst.
    fn new(lane: Lane, defect: Option<Defect>, token_limit: Option<(f64, u32)>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let owned = |streams: &[&str]| streams.iter().map(|stream| (*stream).to_owned()).collect();
        let mut acme: Vec<String> = owned(&STREAMS);
        acme.push(STALE.to_owned());
        let key_file = folder.path().join("keys.json");
        let tokens = CancellationToken::new();
        let issuer = embedded::tokens::start(
            TokensConfig {
                listen: ANY_PORT,
                key_file: key_file.clone(),
                session_secret: "session".to_owned(),
                ttl: Span::from_secs(120),
                ttl_limits: (Span::from_secs(1), Span::from_secs(900)),
                refresh_lead: profile().refresh_lead,
                skew: Span::ZERO,
                rate: token_limit.map(|(rate, _)| Rate::per_second(rate)),
                burst: token_limit.map_or(0, |(_, burst)| burst),
                tenants: [
                    ("acme".to_owned(), acme),
                    ("rival".to_owned(), vec![RIVAL.to_owned()]),
                ]
                .into(),
                defect,
            },
            tokens.clone(),
        )
        .unwrap();
        let StaleStream {
            stream,
            retention,
            replay_budget,
        } = stale();
        let budgets = [(stream, (retention, replay_budget))];
        let config = LaneConfig {
            lane,
            listen: ANY_PORT,
            data_dir: folder.path().join("lane"),
            profile: profile(),
            strict: true,
            accept_rate: None,
            database: "sync".to_owned(),
            issuer: format!("http://{}", issuer.data),
            key_file,
            publish_secret: "publish".to_owned(),
            stream_budgets: budgets.clone().into(),
            defect,
        };
        let stop = CancellationToken::new();
        let lane_server = embedded::lane::start(config.clone(), stop.clone()).unwrap();
        let base = ShardConfig {
            ordinal: 0,
            origin: Origin {
                run: "test".to_owned(),
                seed: 7,
                padding: 32,
            },
            lane,
            access: Access::plain(lane_server.data, lane_server.data),
            promise: Promise::strict(Span::ZERO),
            tokens: TokenSource::service(issuer.data, "session", "acme"),
            profile: profile(),
            stream_budgets: budgets.into(),
            clients: None,
            publish: None,
            probes: Some(ProbesConfig {
                every: Span::from_millis(500),
                stream: STALE.to_owned(),
                stale: Some(stale()),
                rival: Some(Rival {
                    org: "rival".to_owned(),
                    stream: RIVAL.to_owned(),
                }),
                operations: None,
                expect: BTreeMap::new(),
            }),
            defect,
        };
        Self {
            _folder: folder,
            lane: lane_server,
            config: LaneConfig {
                listen: ANY_PORT,
                ..config
            },
            stop,
            tokens,
            tokens_control: Client::new(issuer.control),
            base,
        }
    }

    fn rig(&self) -> Rig {
        Rig::new(
            &self.base,
            rig::publish(&STREAMS, "publish"),
            rig::clients(CLIENTS, &STREAMS),
        )
    }

    /// Stops the lane, and starts it again where it was.
    async fn restart(&mut self) {
        let addr = self.lane.data;
        self.stop.cancel();
        (&mut self.lane.ended).await.unwrap();
        self.stop = CancellationToken::new();
        let config = LaneConfig {
            listen: addr,
            ..self.config.clone()
        };
        self.lane = embedded::lane::start(config, self.stop.clone()).unwrap();
    }

    async fn end(self) {
        self.stop.cancel();
        self.tokens.cancel();
        self.lane.ended.await.unwrap();
    }
}

type Reports = (Ledger, ShardReport, ShardReport, FinalRead);

/// All live, with 20 events delivered to each; then a restart of the lane; then all whole.
async fn through_a_restart(lane: Lane, wire: Wire, defect: Option<Defect>) -> Reports {
    let mut target = Target::new(lane, defect, None);
    target.base.access.wire = wire;
    let mut rig = target.rig();
    rig.start().await;
    live(&mut rig).await;
    let t0 = clock::now();
    target.restart().await;
    rig.tell(t0, Some(clock::now())).await;
    rig.until("all whole", |_, clients| {
        clients.affected == CLIENTS && clients.recovered == CLIENTS
    })
    .await;
    // The stale-cursor probes need a stream that is long enough, and the defects have their chosen seqs.
    let began = clock::now();
    // A clean run is to see every probe answered; a planted one, those that find its defect.
    let lasts = Span::from_millis(if defect.is_none() { 5_500 } else { 2_500 });
    rig.until("enough published", |publisher, _| {
        publisher.published.1 > 60 * STREAMS.len() as u64 && clock::now().since(began) > lasts
    })
    .await;
    let ledger = rig.stop_publishing().await;
    let (publisher, clients, read) = rig.finish(&ledger, Span::from_secs(3)).await;
    rig.end().await;
    target.end().await;
    (ledger, publisher, clients, read)
}

async fn live(rig: &mut Rig) {
    rig.until("all live, with events delivered", |_, clients| {
        clients.live == CLIENTS && clients.delivered > u64::from(CLIENTS) * 20
    })
    .await;
}

/// A publisher that does not wait for each answer loses track of none when the connection breaks among them.
#[tokio::test(flavor = "multi_thread")]
async fn bursts_are_settled_across_a_restart() {
    let mut target = Target::new(Lane::Spacetime, None, None);
    let publish = PublishConfig {
        burst: Some(Burst {
            events: 40,
            every: Span::from_millis(100),
        }),
        ..rig::publish(&STREAMS, "publish")
    };
    let mut rig = Rig::new(&target.base, publish, rig::clients(CLIENTS, &STREAMS));
    rig.start().await;
    live(&mut rig).await;
    let t0 = clock::now();
    target.restart().await;
    rig.tell(t0, Some(clock::now())).await;
    rig.until("all whole", |_, clients| clients.recovered == CLIENTS)
        .await;
    let ledger = rig.stop_publishing().await;
    let (publisher, clients, read) = rig.finish(&ledger, Span::from_secs(5)).await;
    rig.end().await;
    target.end().await;
    rig::assert_clean(&ledger, &publisher, &clients, &read);
    let burst = &ledger.streams[STREAMS[0]];
    assert_eq!(burst.invoked.len() % 40, 0, "whole bursts only");
    assert!(burst.invoked.len() > 2 * ledger.streams[STREAMS[1]].invoked.len());
    assert_eq!(burst.acknowledged_at.len() as u64, burst.invoked.len());
}

async fn a_restart_is_survived(lane: Lane, wire: Wire) {
    let (ledger, publisher, clients, read) = through_a_restart(lane, wire, None).await;
    rig::assert_clean(&ledger, &publisher, &clients, &read);
    assert_eq!((clients.affected, clients.censored.len()), (CLIENTS, 0));
    for phase in Phase::ALL {
        let report = &clients.phases[&phase];
        assert_eq!(
            (report.histogram.count(), report.censored),
            (u64::from(CLIENTS), 0),
            "{phase}"
        );
    }
    assert!(clients.storm.replayed >= clients.storm.missed && clients.storm.missed > 0);
    let probed: Vec<_> = publisher
        .probes
        .iter()
        .map(|tally| (tally.probe.as_str(), tally.met))
        .collect();
    let refused = publisher
        .probes
        .iter()
        .filter(|tally| tally.expected.starts_with("refused"));
    assert!(refused.count() >= 30, "{probed:?}");
    let boundaries = probed
        .iter()
        .filter(|(probe, _)| probe.starts_with("cursor/"));
    assert_eq!(boundaries.count(), 10, "{probed:?}");
    assert!(
        probed.iter().all(|(_, met)| *met > 0),
        "{:?}",
        publisher.probes
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_is_survived_on_khala() {
    a_restart_is_survived(Lane::Khala, Wire::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_is_survived_on_spacetime() {
    a_restart_is_survived(Lane::Spacetime, Wire::Json).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_is_survived_on_spacetime_in_binary() {
    a_restart_is_survived(Lane::Spacetime, Wire::Bsatn).await;
}

async fn an_expiry_storm(lane: Lane, defect: Option<Defect>) -> Reports {
    // The clients' first tokens and the common ones are within what is issued; their renewal is not.
    let mut target = Target::new(lane, defect, Some((1.0, 12)));
    target.base.probes = None;
    let mut rig = target.rig();
    rig.start().await;
    live(&mut rig).await;
    let settings = TokenExpiry {
        after: Span::from_millis(4_500),
        spread: Span::from_secs(2),
    };
    let order = FaultOrder {
        id: "f1-token_expiry".to_owned(),
        fault: Fault::TokenExpiry(settings),
        node: None,
        share: Share::ALL,
        seed: 7,
        lease: Span::from_secs(20),
    };
    let view: FaultView = rig.clients.post("/faults", &order).await;
    let episode = Episode {
        t0: view.injected.asked,
        th: Some(view.injected.asked),
        faults: vec![EpisodeFault {
            id: order.id.clone(),
            fault: order.fault.clone(),
            share: order.share,
        }],
    };
    rig.tell_episode(&episode).await;
    let over = view.injected.asked + Span::from_millis(4_500);
    rig.until("over", |_, _| clock::now() > over).await;
    rig.until("all whole", |_, clients| {
        clients.recovered == clients.affected && clients.live == CLIENTS
    })
    .await;
    let view: FaultView = rig.clients.get("/faults/f1-token_expiry").await;
    assert!(!view.active);
    // The first client takes its token on well within the spread, long before anybody looks.
    assert!(view.injected.width() < Span::from_secs(2), "{view:?}");
    let healed = view.healed.unwrap();
    assert!(
        healed.asked > view.injected.asked + Span::from_secs(3),
        "{view:?}"
    );
    let now = (clock::now(), clock::unix_micros());
    let expires = view.observation.figures["expires_unix"] * 1_000_000;
    let ago = Span::from_micros(now.1.saturating_sub(expires));
    let apart = ago
        .as_micros()
        .abs_diff(now.0.since(healed.asked).as_micros());
    assert!(
        apart < 50_000,
        "healed when the tokens expired: {apart} µs apart"
    );
    assert!(
        view.observation.bitten >= u64::from(CLIENTS) / 2,
        "{view:?}"
    );
    assert!(
        view.observation.figures["expired_while_live"] > 0,
        "{view:?}"
    );
    let ledger = rig.stop_publishing().await;
    let (publisher, clients, read) = rig.finish(&ledger, Span::from_secs(3)).await;
    assert_eq!(
        clients.phases[&Phase::Recovery].histogram.count(),
        u64::from(clients.affected)
    );
    rig.end().await;
    target.end().await;
    (ledger, publisher, clients, read)
}

async fn an_expiry_storm_is_survived(lane: Lane) {
    let (ledger, publisher, clients, read) = an_expiry_storm(lane, None).await;
    rig::assert_clean(&ledger, &publisher, &clients, &read);
    assert!(clients.affected > 0);
    assert_eq!(
        clients.storm.retry_after_given,
        clients.storm.retry_after_obeyed
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expiry_storm_is_survived_on_khala() {
    an_expiry_storm_is_survived(Lane::Khala).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expiry_storm_is_survived_on_spacetime() {
    an_expiry_storm_is_survived(Lane::Spacetime).await;
}

/// A machine that is too busy publishes too late for what some defects need: then it is tried again.
const TRIES: usize = 3;

async fn is_found(lane: Lane, defect: Defect, anomaly: Anomaly) {
    let mut found = Vec::new();
    for _ in 0..TRIES {
        let (_, publisher, clients, _) = match defect {
            Defect::DeliverAfterExpiry | Defect::ServeAfterClose => {
                an_expiry_storm(lane, Some(defect)).await
            }
            _ => tokio::time::timeout(
                DEADLINE,
                through_a_restart(lane, Wire::default(), Some(defect)),
            )
            .await
            .unwrap(),
        };
        let mut findings = publisher.findings;
        findings.merge(&clients.findings);
        if findings.count(anomaly) > 0 {
            return;
        }
        let counts = findings.iter();
        found = counts
            .map(|(anomaly, tally)| (anomaly, tally.count))
            .collect();
    }
    panic!("{defect} on {lane}, {TRIES} times: {found:?}");
}

/// Some at a time: a machine that is too busy publishes too late for what the defects need.
const AT_ONCE: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn planted_defects_are_found_online() {
    let cases = [
        (Defect::SkipSeq, Anomaly::Gap),
        (Defect::AlterContent, Anomaly::Divergence),
        (Defect::ApplyTwice, Anomaly::DuplicateApply),
        (Defect::GapLivelock, Anomaly::Gap),
        (Defect::DeliverAfterExpiry, Anomaly::Leak),
        (Defect::AcceptWrongScope, Anomaly::UnauthorizedSuccess),
        (Defect::IgnoreStaleCursor, Anomaly::StaleCursor),
        (Defect::ExpiredCalledInvalid, Anomaly::WrongReason),
        (Defect::ServeAfterClose, Anomaly::Zombie),
        (Defect::DeliverTwice, Anomaly::DuplicateDelivery),
        (Defect::SwapBatches, Anomaly::Reorder),
        (Defect::OverReplay, Anomaly::OverReplay),
        (Defect::DeliverPhantom, Anomaly::Phantom),
    ];
    for some in cases.chunks(AT_ONCE / Lane::ALL.len()) {
        let running: Vec<_> = some
            .iter()
            .flat_map(|(defect, anomaly)| Lane::ALL.map(|lane| is_found(lane, *defect, *anomaly)))
            .map(tokio::spawn)
            .collect();
        for case in running {
            case.await.expect("the case says what was found instead");
        }
    }
}
