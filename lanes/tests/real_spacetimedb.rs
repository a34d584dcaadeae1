//! The client, publisher and final reader against a real `SpacetimeDB` server, unchanged. Runs where
//! `FAULTLANE_SPACETIMEDB` names the server's binary.

#[path = "support/rig.rs"]
mod rig;

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use host::clock;
use host::http::{Client, Failure, Method, Request, Response};
use lanes::token::{SPACETIME_TOKEN_PATH, TokenAnswer, TokenGrant};
use model::event::Origin;
use model::ids::Lane;
use model::profile::Profile;
use model::quantity::Span;
use model::shard::{ShardConfig, TokenSource};
use model::target::{Access, Promise};
use rig::{DEADLINE, Rig};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

const MODULE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../deploy/spacetimedb/module.wasm"
);
const DATABASE: &str = "sync";
const STREAMS: [&str; 2] = ["runtime.run.real.events", "runtime.worker.real.lifecycle"];
const CLIENTS: u32 = 8;
/// The server writes to disk every 500 ms; what is older survives a kill.
const ON_DISK: Duration = Duration::from_millis(1_500);

#[tokio::test]
async fn clients_resume_on_a_real_server_that_was_killed() {
    let Ok(binary) = std::env::var("FAULTLANE_SPACETIMEDB") else {
        // Not eprintln!, which the test runner would keep to itself.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: clients_resume_on_a_real_server_that_was_killed: set FAULTLANE_SPACETIMEDB to the path of \
             spacetimedb-standalone (deploy/spacetimedb/install.sh) to run the client against a real server"
        );
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let addr = free_address();
    let mut server = start(&binary, addr, folder.path()).await;
    let http = Client::new(addr);
    let identity: serde_json::Value = http.post("/v1/identity", &(), DEADLINE).await.unwrap();
    let token = identity["token"].as_str().unwrap().to_owned();
    publish_module(&http, &token).await;
    let tokens = token_service(token.clone());

    let base = ShardConfig {
        ordinal: 0,
        origin: Origin {
            run: "real".to_owned(),
            seed: 7,
            padding: 32,
        },
        lane: Lane::Spacetime,
        access: Access::plain(addr, addr),
        promise: Promise::strict(Span::ZERO),
        tokens: TokenSource {
            addr: tokens,
            session_secret: "s".to_owned(),
            org: "acme".to_owned(),
        },
        profile: Profile::embedded(),
        stream_budgets: [].into(),
        clients: None,
        publish: None,
        probes: None,
        defect: None,
    };
    let mut rig = Rig::new(
        &base,
        rig::publish(&STREAMS, &token),
        rig::clients(CLIENTS, &STREAMS),
    );
    rig.start().await;
    rig.until("all live, with events delivered", |_, clients| {
        clients.live == CLIENTS && clients.delivered > u64::from(CLIENTS) * 20
    })
    .await;
    let ledger = rig.stop_publishing().await;
    // Not a synchronisation: the server says nothing when it has written.
    tokio::time::sleep(ON_DISK).await;

    let t0 = clock::now();
    server.kill().await.unwrap();
    rig.until("all noticed", |_, clients| clients.live == 0)
        .await;
    let th = clock::now();
    let server = start(&binary, addr, folder.path()).await;
    rig.tell(t0, Some(th)).await;
    rig.until("all whole", |_, clients| {
        clients.affected == CLIENTS && clients.recovered == CLIENTS
    })
    .await;

    let (publisher, clients, read) = rig.finish(&ledger, Span::from_secs(5)).await;
    rig::assert_clean(&ledger, &publisher, &clients, &read);
    assert!(clients.censored.is_empty());
    for phase in clients.phases.values() {
        assert_eq!(
            (phase.histogram.count(), phase.censored),
            (u64::from(CLIENTS), 0)
        );
    }
    rig.end().await;
    drop(server);
}

/// An address that was free a moment ago: the server binds it itself and does not say which port it took.
fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}

async fn start(binary: &str, addr: SocketAddr, folder: &Path) -> Child {
    let server = Command::new(binary)
        .arg("start")
        .args(["--listen-addr", &addr.to_string(), "--data-dir"])
        .arg(folder.join("data"))
        .arg("--jwt-key-dir")
        .arg(folder.join("keys"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let began = tokio::time::Instant::now();
    let client = Client::new(addr);
    while client
        .send(Method::GET, "/v1/ping", &[], bytes::Bytes::new(), DEADLINE)
        .await
        .is_err()
    {
        assert!(
            began.elapsed() < DEADLINE,
            "the server does not answer on {addr}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server
}

async fn publish_module(http: &Client, token: &str) {
    let module = std::fs::read(MODULE).unwrap();
    let bearer = format!("Bearer {token}");
    let path = format!("/v1/database/{DATABASE}");
    let answer = http
        .send(
            Method::PUT,
            &path,
            &[("authorization", &bearer)],
            module.into(),
            DEADLINE,
        )
        .await
        .unwrap();
    assert!(answer.status.is_success(), "{answer:?}");
}

/// Hands out the server's own token: it issues them itself and takes no others without an issuer.
fn token_service(token: String) -> SocketAddr {
    let listener = host::net::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let addr = listener.local_addr().unwrap();
    let answer = move |request: Request| {
        let now = clock::unix_micros() / 1_000_000;
        let grant = TokenGrant {
            token: token.clone(),
            token_type: "Bearer".to_owned(),
            transport: "spacetime_ws".to_owned(),
            expires_in: 600,
            refresh_after_in: 570,
            issued_at: now,
            refresh_after: now + 570,
            expires_at: now + 600,
            issuer: "localhost".to_owned(),
            audience: "spacetimedb".to_owned(),
            subject: "test".to_owned(),
            scopes: Vec::new(),
            granted_topics: Vec::new(),
            granted_streams: Vec::new(),
            kid: String::new(),
            token_id: String::new(),
            session_id: String::new(),
            device_id: String::new(),
        };
        async move {
            if request.path == SPACETIME_TOKEN_PATH {
                Response::json(&TokenAnswer { data: grant })
            } else {
                Err(Failure::no_route(&request))
            }
        }
    };
    tokio::spawn(host::http::serve(
        listener,
        CancellationToken::new(),
        answer,
    ));
    addr
}
