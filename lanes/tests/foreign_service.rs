//! Client, publisher, probes and final reader against a service that shares no line with them: the khala lane in another
//! language (tests/service), behind TLS with a private authority and a path prefix.

#[path = "support/rig.rs"]
mod rig;
#[path = "../../tests/service/start.rs"]
mod service;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use host::clock;
use host::http::{Client, Method};
use host::peer::{Peer, Reach};
use host::tls::Authority;
use model::criteria::Phase;
use model::event::Origin;
use model::fault::{Fault, FaultOrder, FaultView, TokenExpiry};
use model::ids::Lane;
use model::instant::Mono;
use model::probe::{ProbesConfig, Rival, StaleStream};
use model::profile::Profile;
use model::quantity::{Share, Span};
use model::shard::{Episode, EpisodeFault, Issuer, ShardConfig, TokenSource};
use model::target::{Access, Promise, Secret, TlsClient, TokenChecks, TokenEndpoint};
use rig::Rig;
use serde_json::{Value, json};
use service::{PUBLISH_SECRET, SESSION_SECRET, Service};
use tokio::net::TcpStream;

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
        refresh_lead: Span::from_millis(500),
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
    /// Whether no tokens are to be had.
    shut: Arc<AtomicBool>,
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
        let shut = Arc::new(AtomicBool::new(false));
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
                issuer: Issuer::Http {
                    addr: door(service.addr, Arc::clone(&shut)),
                    endpoint: Box::new(endpoint(&ca)),
                },
                org: "acme".to_owned(),
                identities: None,
            },
            profile: profile(),
            stream_budgets: [(STALE.to_owned(), (12, 3))].into(),
            clients: None,
            publish: None,
            probes: Some(ProbesConfig {
                every: Span::from_millis(500),
                stream: STALE.to_owned(),
                stale: Some(StaleStream {
                    stream: STALE.to_owned(),
                    retention: 12,
                    replay_budget: 3,
                }),
                rival: Some(Rival {
                    org: "rival".to_owned(),
                    stream: RIVAL.to_owned(),
                }),
                operations: None,
                expect: BTreeMap::new(),
            }),
            defect: None,
        };
        Self {
            _folder: folder,
            service,
            lane,
            base,
            shut,
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

fn endpoint(ca: &Authority) -> TokenEndpoint {
    let body = r#"{"scopes": {scopes}, "streams": {streams}, "ttl_seconds": {ttl_seconds},
        "device_id": "{identity}", "org": "{tenant}"}"#;
    let bearer = Secret::new(format!("Bearer {SESSION_SECRET}"));
    TokenEndpoint {
        dial: String::new(),
        authority: HOST.to_owned(),
        path: format!("{PREFIX}/api/sync/token"),
        tls: Some(TlsClient {
            ca_pem: Some(ca.pem()),
            identity: None,
        }),
        method: "POST".to_owned(),
        headers: vec![("authorization".to_owned(), bearer)],
        body: Secret::new(body),
        token_field: "data.token".to_owned(),
        expires_field: Some("data.expires_at".to_owned()),
    }
}

/// A door before the service's token endpoint, which can be shut. What is said through it is TLS.
fn door(service: SocketAddr, shut: Arc<AtomicBool>) -> SocketAddr {
    let listener = host::net::listen(([127, 0, 0, 1], 0).into()).unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let shut = Arc::clone(&shut);
            tokio::spawn(async move {
                let mut service = TcpStream::connect(service).await?;
                tokio::select! {
                    copied = tokio::io::copy_bidirectional(&mut client, &mut service) => copied.map(drop),
                    () = until_shut(&shut) => Ok(()),
                }
            });
        }
    });
    addr
}

async fn until_shut(shut: &AtomicBool) {
    while !shut.load(Relaxed) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
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
    // Nobody can renew ahead: the service has to end the connections.
    target.shut.store(true, Relaxed);
    rig.until("all cut off", |_, clients| clients.live == 0)
        .await;
    target.shut.store(false, Relaxed);
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
