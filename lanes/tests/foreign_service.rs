//! Client, publisher, probes and final reader against a service that shares no line with them: the khala lane in another
//! language (tests/service), behind TLS with a private authority and a path prefix.

#[path = "support/rig.rs"]
mod rig;
#[path = "../../tests/service/start.rs"]
mod service;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use host::clock;
use host::http::{Client, Failure, Method, Request, Response, StatusCode};
use host::peer::{Peer, Reach};
use host::tls::Authority;
use model::criteria::Phase;
use model::event::Origin;
use model::fault::{Fault, FaultOrder, FaultView, TokenExpiry};
use model::ids::Lane;
use model::instant::Mono;
use model::profile::Profile;
use model::quantity::{Share, Span};
use model::shard::{Episode, EpisodeFault, ProbesConfig, ShardConfig, TokenSource};
use model::target::{Access, Promise, TlsClient, TokenChecks};
use rig::Rig;
use serde_json::{Value, json};
use service::{PUBLISH_SECRET, SESSION_SECRET, Service};
use tokio_util::sync::CancellationToken;

const HOST: &str = "sync.example.test";
const PREFIX: &str = "/eu";
const STREAMS: [&str; 2] = ["runtime.run.1.events", "runtime.worker.w1.lifecycle"];
const STALE: &str = "runtime.run.stale.events";
const RIVAL: &str = "runtime.run.rival.events";
const CLIENTS: u32 = 6;
/// The contract's.
const SKEW: Span = Span::from_secs(30);

/// Few, small clocks, so that a test takes seconds.
fn profile() -> Profile {
    Profile {
        heartbeat: Span::from_millis(300),
        read_idle: Span::from_secs(1),
        connect_timeout: Span::from_secs(2),
        backoff_base: Span::from_millis(50),
        backoff_cap: Span::from_millis(400),
        stable_after: Span::from_millis(300),
        ..Profile::embedded()
    }
}

struct Target {
    _folder: tempfile::TempDir,
    service: Service,
    lane: Arc<Peer>,
    base: ShardConfig,
    /// Whether the desk is closed.
    closed: Arc<AtomicBool>,
    stop: CancellationToken,
}

impl Target {
    fn new(skew: Span, further: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ca = Authority::ephemeral("of the service").unwrap();
        let identity = ca.issue(&[HOST]).unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let (cert, key, data) = (path("cert.pem"), path("key.pem"), path("data"));
        std::fs::write(&cert, &identity.chain_pem).unwrap();
        std::fs::write(&key, &identity.key_pem).unwrap();
        let org = format!("acme={},{},{STALE}", STREAMS[0], STREAMS[1]);
        let rival = format!("rival={RIVAL}");
        let window = format!("{STALE}=12:3");
        let seconds = skew.as_micros().div_ceil(1_000_000).to_string();
        let fixed = [
            "--cert", &cert, "--key", &key, "--data", &data, "--prefix", PREFIX, "--org", &org,
            "--skew", &seconds, "--org", &rival, "--window", &window, "--tick", "0.25", "--idle",
            "1",
        ];
        let service = Service::start(&[&fixed, further].concat());
        let access = Access {
            authority: Some(HOST.to_owned()),
            path_prefix: PREFIX.to_owned(),
            tls: Some(TlsClient {
                ca_pem: Some(ca.pem()),
                identity: None,
            }),
            ..Access::plain(service.addr, service.addr)
        };
        let lane = Reach::of(&access).unwrap().direct;
        let stop = CancellationToken::new();
        let closed = Arc::new(AtomicBool::new(false));
        let base = ShardConfig {
            ordinal: 0,
            origin: Origin {
                run: "foreign".to_owned(),
                seed: 7,
                padding: 32,
            },
            lane: Lane::Khala,
            access,
            promise: Promise {
                token_checks: TokenChecks {
                    revocation: false,
                    ..TokenChecks::STRICT
                },
                ..Promise::strict(skew)
            },
            tokens: TokenSource {
                addr: desk(Arc::clone(&lane), Arc::clone(&closed), stop.clone()),
                session_secret: SESSION_SECRET.to_owned(),
                org: "acme".to_owned(),
            },
            profile: profile(),
            stream_budgets: [(STALE.to_owned(), (12, 3))].into(),
            clients: None,
            publish: None,
            probes: Some(ProbesConfig {
                every: Span::from_millis(500),
                stale_stream: STALE.to_owned(),
                rival_org: "rival".to_owned(),
                rival_stream: RIVAL.to_owned(),
            }),
            defect: None,
        };
        Self {
            _folder: folder,
            service,
            lane,
            base,
            closed,
            stop,
        }
    }

    fn rig(&self) -> Rig {
        Rig::new(
            &self.base,
            rig::publish(&STREAMS, PUBLISH_SECRET),
            rig::clients(CLIENTS, &STREAMS),
        )
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Where shards ask for tokens: it has the service's session, and knows by the credential which organisation asks.
fn desk(lane: Arc<Peer>, closed: Arc<AtomicBool>, stop: CancellationToken) -> SocketAddr {
    let listener = host::net::listen(([127, 0, 0, 1], 0).into()).unwrap();
    let addr = listener.local_addr().unwrap();
    let service = Client::of(lane);
    tokio::spawn(host::http::serve(
        listener,
        stop,
        move |request: Request| {
            let (service, closed) = (service.clone(), closed.load(Relaxed));
            async move {
                if closed {
                    let why = "sync_token_unavailable";
                    return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, why));
                }
                if request.path != lanes::token::SYNC_TOKEN_PATH {
                    return Err(Failure::no_route(&request));
                }
                let credential = request.headers["authorization"].to_str().unwrap();
                let credential = credential.strip_prefix("Bearer ").unwrap();
                let session = lanes::token::Session::of(SESSION_SECRET, credential).unwrap();
                let mut body: Value = request.json()?;
                body["org"] = json!(session.org);
                let bearer = format!("Bearer {SESSION_SECRET}");
                let answer = service
                    .send(
                        Method::POST,
                        &request.path,
                        &[("authorization", &bearer)],
                        body.to_string().into(),
                        Duration::from_secs(2),
                    )
                    .await
                    .map_err(|error| Failure::new(StatusCode::BAD_GATEWAY, error.to_string()))?;
                let body: Value = serde_json::from_slice(&answer.body).unwrap();
                if answer.status.is_success() {
                    Response::json(&body)
                } else {
                    let error = body["error"].as_str().unwrap_or_default();
                    Err(Failure::new(answer.status, error))
                }
            }
        },
    ));
    addr
}

async fn live(rig: &mut Rig) {
    rig.until("all live, with events delivered", |_, clients| {
        clients.live == CLIENTS && clients.delivered > u64::from(CLIENTS) * 20
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_keeps_its_own_contract() {
    if !service::is_there("the_service_keeps_its_own_contract") {
        return;
    }
    let mut target = Target::new(SKEW, &[]);
    let service = Client::of(Arc::clone(&target.lane));
    let call = async |method, path: &str, bearer: &str, body: Value| {
        let bearer = format!("Bearer {bearer}");
        let answer = service
            .send(
                method,
                path,
                &[("authorization", &bearer)],
                body.to_string().into(),
                Duration::from_secs(5),
            )
            .await
            .unwrap();
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        (answer.status.as_u16(), body)
    };
    let append = async |index, expected| {
        let event = target.base.origin.event(STREAMS[0], index, Mono(index));
        let body = json!({
            "stream_id": event.stream, "idempotency_key": event.key, "payload_hash": event.payload_hash,
            "payload_json": event.payload_json, "expected_next_seq": expected,
        });
        call(Method::POST, "/internal/sync/append", PUBLISH_SECRET, body).await
    };
    let head = format!("/internal/sync/head?stream_id={}", STREAMS[0]);

    let fresh = |seq| (200, json!({"seq": seq, "duplicate": false}));
    assert_eq!(append(0, 1).await, fresh(1));
    assert_eq!(append(1, 0).await, fresh(2));
    assert_eq!(
        append(0, 9).await,
        (200, json!({"seq": 1, "duplicate": true})),
        "the key comes first"
    );
    assert_eq!(
        append(2, 2).await,
        (
            409,
            json!({"error": "sequence_conflict expected_next_seq=2 actual_next_seq=3"})
        )
    );
    for (path, bearer, status, error) in [
        (&*head, "", 401, "missing_token"),
        (&head, "wrong", 401, "unauthorized"),
        (&head, "a.b.c", 401, "invalid_signature"),
        ("/nowhere", PUBLISH_SECRET, 404, "there is no GET /nowhere"),
    ] {
        let (refused, body) = call(Method::GET, path, bearer, json!({})).await;
        assert_eq!((refused, body["error"].as_str()), (status, Some(error)));
    }
    for (asked, status, error) in [
        (json!({"scopes": ["sync.everything"]}), 422, "invalid_scope"),
        (json!({"streams": [RIVAL]}), 403, "forbidden_stream"),
        (
            json!({"streams": [STREAMS[0]], "org": "rival"}),
            403,
            "forbidden_stream",
        ),
    ] {
        let (refused, body) = call(Method::POST, "/api/sync/token", SESSION_SECRET, asked).await;
        assert_eq!((refused, body["error"].as_str()), (status, Some(error)));
    }
    let (refused, _) = call(Method::POST, "/api/sync/token", "wrong", json!({})).await;
    assert_eq!(refused, 401);

    let key = target.base.origin.key(STREAMS[0], 1);
    let remove = json!({"stream_id": STREAMS[0], "idempotency_keys": [key, "not-there"]});
    let removed = call(
        Method::POST,
        "/internal/sync/remove",
        PUBLISH_SECRET,
        remove,
    )
    .await;
    assert_eq!(removed, (200, json!({"removed": 1})));
    target.service.start_again();
    assert_eq!(
        call(Method::GET, &head, PUBLISH_SECRET, json!({})).await,
        (200, json!({"head": 2, "floor": 0})),
        "a seq that is taken is not used again"
    );
    assert_eq!(append(0, 0).await.1["duplicate"], true);
    assert_eq!(append(1, 3).await, fresh(3));
    let Target { service, .. } = &mut target;
    assert!(service.ends_with_its_stdin());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_is_survived_and_every_probe_is_answered() {
    if !service::is_there("a_kill_is_survived_and_every_probe_is_answered") {
        return;
    }
    let mut target = Target::new(SKEW, &[]);
    let mut rig = target.rig();
    rig.start().await;
    live(&mut rig).await;
    let t0 = clock::now();
    target.service.kill();
    let th = clock::now();
    target.service.start_again();
    rig.tell(t0, Some(th)).await;
    rig.until("all whole", |_, clients| {
        clients.affected == CLIENTS && clients.recovered == CLIENTS
    })
    .await;
    let began = clock::now();
    rig.until("enough published", |_, _| {
        clock::now().since(began) > Span::from_millis(6_500)
    })
    .await;
    let ledger = rig.stop_publishing().await;
    let (publisher, clients, read) = rig.finish(&ledger, Span::from_secs(3)).await;
    rig.end().await;
    rig::assert_clean(&ledger, &publisher, &clients, &read);
    let report = &clients.phases[&Phase::Recovery];
    assert_eq!(report.histogram.count(), u64::from(CLIENTS));
    let refused = publisher
        .probes
        .iter()
        .filter(|tally| tally.expected.starts_with("refused"));
    assert!(refused.count() >= 20, "{:?}", publisher.probes);
    let cursors = publisher
        .probes
        .iter()
        .filter(|tally| tally.probe.starts_with("cursor/"));
    assert_eq!(cursors.count(), 10, "{:?}", publisher.probes);
    for tally in &publisher.probes {
        assert!(tally.met > 0, "{tally:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_expire_together_end_their_connections_and_nothing_is_delivered_later() {
    if !service::is_there("tokens_that_expire_together_end_their_connections") {
        return;
    }
    let mut target = Target::new(Span::ZERO, &["--shortest-ttl", "1"]);
    target.base.probes = None;
    let mut rig = target.rig();
    rig.start().await;
    live(&mut rig).await;
    let order = FaultOrder {
        id: "f1-token_expiry".to_owned(),
        fault: Fault::TokenExpiry(TokenExpiry {
            after: Span::from_millis(3_500),
            spread: Span::from_millis(300),
        }),
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
    let aligned = async |rig: &Rig| {
        let view: FaultView = rig.clients.get("/faults/f1-token_expiry").await;
        view.observation.figures["tokens_aligned"] == u64::from(CLIENTS)
    };
    let began = clock::now();
    while !aligned(&rig).await {
        assert!(
            clock::now().since(began) < Span::from_secs(1),
            "not in time"
        );
        rig.tick().await;
    }
    // The service has clients renew a second after it issued a token. None can: it has to end the connections.
    target.closed.store(true, Relaxed);
    rig.until("all cut off", |_, clients| clients.live == 0)
        .await;
    target.closed.store(false, Relaxed);
    let over = view.injected.asked + Span::from_millis(4_500);
    rig.until("over, and all whole", |_, clients| {
        clock::now() > over && clients.recovered == clients.affected && clients.live == CLIENTS
    })
    .await;
    let view: FaultView = rig.clients.get("/faults/f1-token_expiry").await;
    let ledger = rig.stop_publishing().await;
    let (publisher, clients, read) = rig.finish(&ledger, Span::from_secs(3)).await;
    rig.end().await;
    rig::assert_clean(&ledger, &publisher, &clients, &read);
    assert!(
        view.observation.figures["expired_while_live"] == u64::from(CLIENTS),
        "{view:?}"
    );
}
