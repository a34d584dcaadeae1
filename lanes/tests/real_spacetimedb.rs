//! The client, publisher and final reader against a real `SpacetimeDB` server, unchanged. Runs where
//! `FAULTLANE_SPACETIMEDB` names the server's binary.

#[path = "real_spacetimedb/open_world.rs"]
mod open_world;
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
use model::anomaly::Anomaly;
use model::event::Origin;
use model::ids::Lane;
use model::profile::Profile;
use model::quantity::Span;
use model::shard::{ShardConfig, TokenSource};
use model::target::{Access, Names, Promise, Table, Wire};
use rig::{DEADLINE, Rig};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

const MODULE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../deploy/spacetimedb/module.wasm"
);
const STREAMS: [&str; 2] = ["runtime.run.real.events", "runtime.worker.real.lifecycle"];
const CLIENTS: u32 = 8;
/// The server writes to disk every 500 ms; what is older survives a kill.
const ON_DISK: Duration = Duration::from_millis(1_500);

/// A server with the sync module, and the configuration of shards that speak to it.
struct Real {
    binary: String,
    folder: tempfile::TempDir,
    addr: SocketAddr,
    http: Client,
    token: String,
    server: Child,
    base: ShardConfig,
}

impl Real {
    /// Starts a server with that `config.toml`. `None`, said aloud, where there is none to start.
    async fn start(
        test: &str,
        config: &str,
        change: impl FnOnce(&mut ShardConfig),
    ) -> Option<Self> {
        let module = std::fs::read(MODULE).unwrap();
        Self::start_with(&module, test, config, change).await
    }

    /// The same with another module.
    async fn start_with(
        module: &[u8],
        test: &str,
        config: &str,
        change: impl FnOnce(&mut ShardConfig),
    ) -> Option<Self> {
        let Ok(binary) = std::env::var("FAULTLANE_SPACETIMEDB") else {
            // Not eprintln!, which the test runner would keep to itself.
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: {test}: set FAULTLANE_SPACETIMEDB to the path of spacetimedb-standalone \
                 (deploy/spacetimedb/install.sh) to run the client against a real server"
            );
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        if !config.is_empty() {
            std::fs::create_dir(folder.path().join("data")).unwrap();
            std::fs::write(folder.path().join("data/config.toml"), config).unwrap();
        }
        let addr = free_address();
        let server = start(&binary, addr, folder.path()).await;
        let http = Client::new(addr);
        let identity: serde_json::Value = http.post("/v1/identity", &(), DEADLINE).await.unwrap();
        let token = identity["token"].as_str().unwrap().to_owned();
        let mut base = ShardConfig {
            ordinal: 0,
            origin: Origin {
                run: "real".to_owned(),
                seed: 7,
                padding: 32,
            },
            lane: Lane::Spacetime,
            access: Access::plain(addr, addr),
            promise: Promise::strict(Span::ZERO),
            tokens: TokenSource::service(token_service(token.clone()), "s", "acme"),
            profile: Profile::embedded(),
            stream_budgets: [].into(),
            clients: None,
            publish: None,
            probes: None,
            defect: None,
        };
        change(&mut base);
        let peer = Self {
            binary,
            folder,
            addr,
            http,
            token,
            server,
            base,
        };
        peer.publish_module(module).await;
        Some(peer)
    }

    /// Publisher and clients that have been started, with events delivered.
    async fn rig(&self) -> Rig {
        let mut rig = Rig::new(
            &self.base,
            rig::publish(&STREAMS, &self.token),
            rig::clients(CLIENTS, &STREAMS),
        );
        rig.start().await;
        self.more(&mut rig).await;
        rig
    }

    /// Waits until all are live and further events have been delivered.
    async fn more(&self, rig: &mut Rig) {
        let before = rig.tick().await.1.delivered;
        rig.until("all live, with more events delivered", |_, clients| {
            clients.live == CLIENTS && clients.delivered > before + u64::from(CLIENTS) * 20
        })
        .await;
    }

    async fn kill(&mut self) {
        self.server.kill().await.unwrap();
    }

    async fn start_again(&mut self) {
        self.server = start(&self.binary, self.addr, self.folder.path()).await;
    }

    /// Copies the data of a server that is down, from one folder to another in place of what was there.
    fn copy_data(&self, from: &str, to: &str) {
        let (from, to) = (self.folder.path().join(from), self.folder.path().join(to));
        let _ = std::fs::remove_dir_all(&to);
        let copied = std::process::Command::new("cp")
            .arg("-a")
            .args([from, to])
            .status();
        assert!(copied.unwrap().success());
    }

    /// The rows that a statement finds, as the server answers it to its owner.
    async fn sql(&self, statement: &str) -> serde_json::Value {
        let bearer = format!("Bearer {}", self.token);
        let path = format!("/v1/database/{}/sql", self.base.access.names.database);
        let headers = [("authorization", bearer.as_str())];
        let body = statement.to_owned().into();
        let answer = self
            .http
            .send(Method::POST, &path, &headers, body, DEADLINE)
            .await
            .unwrap();
        assert!(answer.status.is_success(), "{statement}: {answer:?}");
        let answer: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        answer[0]["rows"].clone()
    }

    async fn publish_module(&self, module: &[u8]) {
        let bearer = format!("Bearer {}", self.token);
        let path = format!("/v1/database/{}", self.base.access.names.database);
        let headers = [("authorization", bearer.as_str())];
        let answer = self
            .http
            .send(
                Method::PUT,
                &path,
                &headers,
                module.to_vec().into(),
                DEADLINE,
            )
            .await
            .unwrap();
        assert!(answer.status.is_success(), "{answer:?}");
    }
}

async fn clients_resume_after_a_kill(test: &str, wire: Wire) {
    let Some(mut peer) = Real::start(test, "", |base| base.access.wire = wire).await else {
        return;
    };
    let mut rig = peer.rig().await;
    let ledger = rig.stop_publishing().await;
    // Not a synchronisation: the server says nothing when it has written.
    tokio::time::sleep(ON_DISK).await;

    let t0 = clock::now();
    peer.kill().await;
    rig.until("all noticed", |_, clients| clients.live == 0)
        .await;
    let th = clock::now();
    peer.start_again().await;
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
}

#[tokio::test]
async fn clients_resume_on_a_real_server_that_was_killed_with_json() {
    let test = "clients_resume_on_a_real_server_that_was_killed_with_json";
    clients_resume_after_a_kill(test, Wire::Json).await;
}

#[tokio::test]
async fn clients_resume_on_a_real_server_that_was_killed_with_bsatn() {
    let test = "clients_resume_on_a_real_server_that_was_killed_with_bsatn";
    clients_resume_after_a_kill(test, Wire::Bsatn).await;
}

/// The names of another service, each as long as the module's own: they are put in its place within the module.
const OTHER_NAMES: [(&str, &str); 6] = [
    ("sync_event", "feed_entry"),
    ("stream_head", "feed_newest"),
    ("stream_id", "feed_name"),
    ("head_seq", "last_one"),
    ("idempotency_key", "client_entry_id"),
    ("payload_json", "body_as_text"),
];

fn renamed(name: &str) -> String {
    OTHER_NAMES
        .iter()
        .fold(name.to_owned(), |name, (own, other)| {
            name.replace(own, other)
        })
}

fn other_names() -> Names {
    let mut names = Names::default();
    for column in &mut names.events.columns {
        column.name = renamed(&column.name);
    }
    for column in &mut names.heads.columns {
        column.name = renamed(&column.name);
    }
    Names {
        database: "other".to_owned(),
        events: Table {
            name: renamed(&names.events.name),
            ..names.events
        },
        heads: Table {
            name: renamed(&names.heads.name),
            ..names.heads
        },
        publish: renamed(&names.publish),
        arguments: names.arguments,
    }
}

fn other_module() -> Vec<u8> {
    let mut module = std::fs::read(MODULE).unwrap();
    for (own, other) in OTHER_NAMES {
        assert_eq!(own.len(), other.len());
        let mut found = false;
        for at in 0..module.len() - own.len() {
            if module[at..].starts_with(own.as_bytes()) {
                module[at..at + own.len()].copy_from_slice(other.as_bytes());
                found = true;
            }
        }
        assert!(found, "the module has no `{own}`");
    }
    module
}

async fn a_service_with_other_names_is_drilled_alike(test: &str, wire: Wire) {
    let described = |base: &mut ShardConfig| {
        base.access.wire = wire;
        base.access.names = other_names();
    };
    let Some(peer) = Real::start_with(&other_module(), test, "", described).await else {
        return;
    };
    let rig = peer.rig().await;
    let ledger = rig.stop_publishing().await;
    let (publisher, clients, read) = rig.finish(&ledger, Span::from_secs(5)).await;
    rig::assert_clean(&ledger, &publisher, &clients, &read);
    rig.end().await;
}

#[tokio::test]
async fn a_real_service_with_other_names_is_drilled_alike_with_json() {
    let test = "a_real_service_with_other_names_is_drilled_alike_with_json";
    a_service_with_other_names_is_drilled_alike(test, Wire::Json).await;
}

#[tokio::test]
async fn a_real_service_with_other_names_is_drilled_alike_with_bsatn() {
    let test = "a_real_service_with_other_names_is_drilled_alike_with_bsatn";
    a_service_with_other_names_is_drilled_alike(test, Wire::Bsatn).await;
}

/// The server gives up a connection from which it hears nothing: it sends no more and leaves the socket open.
#[tokio::test]
async fn clients_leave_connections_that_a_real_server_has_given_up() {
    let test = "clients_leave_connections_that_a_real_server_has_given_up";
    let config = "[websocket]\nping-interval = \"30s\"\nidle-timeout = \"1s\"\n";
    let quiet = |base: &mut ShardConfig| {
        base.profile.heartbeat = Span::from_secs(30);
        base.profile.read_idle = Span::from_millis(1_200);
    };
    let Some(peer) = Real::start(test, config, quiet).await else {
        return;
    };
    let mut rig = peer.rig().await;
    rig.until("each client connected three times", |_, clients| {
        clients.attempts >= u64::from(CLIENTS) * 3
    })
    .await;
    let ledger = rig.stop_publishing().await;
    let (publisher, clients, read) = rig.finish(&ledger, Span::from_secs(8)).await;
    rig::assert_clean(&ledger, &publisher, &clients, &read);
    rig.end().await;
}

/// After a republish the server answers every request on the open connections with `no such module`.
#[tokio::test]
async fn clients_connect_anew_after_a_real_servers_module_was_published_again() {
    let test = "clients_connect_anew_after_a_real_servers_module_was_published_again";
    let lively = |base: &mut ShardConfig| {
        base.profile.heartbeat = Span::from_millis(500);
        base.access.wire = Wire::Bsatn;
    };
    let Some(peer) = Real::start(test, "", lively).await else {
        return;
    };
    let mut rig = peer.rig().await;
    let before = rig.tick().await.1.attempts;
    let mut changed = std::fs::read(MODULE).unwrap();
    // A custom section, named `x`, with nothing in it: another module that does the same.
    changed.extend([0, 2, 1, b'x']);
    peer.publish_module(&changed).await;
    rig.until("each client connected once more", |_, clients| {
        clients.attempts >= before + u64::from(CLIENTS) && clients.live == CLIENTS
    })
    .await;
    peer.more(&mut rig).await;
    let ledger = rig.stop_publishing().await;
    let (publisher, clients, read) = rig.finish(&ledger, Span::from_secs(5)).await;
    rig::assert_clean(&ledger, &publisher, &clients, &read);
    rig.end().await;
}

/// The certain form of what a kill within the server's sync window does now and then.
#[tokio::test]
async fn clients_begin_anew_where_a_real_servers_head_went_back() {
    let test = "clients_begin_anew_where_a_real_servers_head_went_back";
    let Some(mut peer) = Real::start(test, "", |base| base.access.wire = Wire::Bsatn).await else {
        return;
    };
    let mut rig = peer.rig().await;
    peer.kill().await;
    peer.copy_data("data", "kept");
    peer.start_again().await;
    peer.more(&mut rig).await;
    // Nothing may be published behind the restore: once the head has overtaken their cursors, clients cannot tell.
    let ledger = rig.stop_publishing().await;
    peer.kill().await;
    rig.until("all noticed", |_, clients| clients.live == 0)
        .await;
    peer.copy_data("kept", "data");
    peer.start_again().await;
    rig.until("all live", |_, clients| clients.live == CLIENTS)
        .await;

    let (_, clients, read) = rig.finish(&ledger, Span::from_millis(200)).await;
    let rebootstraps = clients.rebootstraps;
    assert!(
        rebootstraps >= u64::from(CLIENTS),
        "{rebootstraps} rebootstraps"
    );
    // The first kill may have lost what was not yet on disk: seqs that were used again are a finding, and a true one.
    let mut found = clients.findings.iter().map(|(anomaly, _)| anomaly);
    assert!(
        found.all(|anomaly| anomaly == Anomaly::Divergence),
        "{:?}",
        clients.findings
    );
    for (stream, mark) in rig::marks(&ledger) {
        assert!(read.streams[&stream].head < mark, "{stream} went back");
    }
    rig.end().await;
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
