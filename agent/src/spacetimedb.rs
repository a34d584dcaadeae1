//! `faultlane spacetimedb`: a real `SpacetimeDB` server as a node of a drill. The server runs under guard, in a folder
//! of its own, with the sync module published to it; this process gives it the manners of a child: configuration on
//! stdin, one ready line, a status, an end when stdin ends. Node faults hit the server itself, whose process the ready
//! line names.
//!
//! The server says nothing of its port when it takes a free one: that is read from `/proc`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use host::http::{Client, Failure, Method, Response};
use host::{child, http, net};
use model::ids::StreamId;
use model::role::{LaneStatus, SpacetimedbConfig};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::guard::Guarded;
use crate::procfs;

/// The sync module, the project's own copy.
const MODULE: &[u8] = include_bytes!("../../deploy/spacetimedb/module.wasm");
/// A server that is there answers in milli-seconds; one that replays a long log takes its time.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const READY_WITHIN: Duration = Duration::from_secs(9);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Runs a server until `shutdown` or until it ends by itself; the code to exit with, as [`crate::guard`] has it.
///
/// # Errors
/// The server cannot be started, does not become ready, or does not take the module.
pub async fn main(
    config: SpacetimedbConfig,
    program: &Path,
    shutdown: CancellationToken,
) -> io::Result<u8> {
    write_settings(&config)?;
    let mut guarded = Guarded::start(program.as_os_str(), &arguments(&config), to_log())?;
    let pid = guarded.pid();
    let server = Arc::new(tokio::select! {
        () = guarded.ended() => {
            let code = guarded.reap()?;
            return Err(io::Error::other(format!(
                "{} ended with {code} before it was ready; what it said stands above",
                program.display()
            )));
        }
        found = Server::find(pid, config.database.clone()) => found?,
    });
    server.publish_module().await?;

    let listener = net::listen((Ipv4Addr::LOCALHOST, 0).into())?;
    let control = listener.local_addr()?;
    let answering = Arc::clone(&server);
    let stop = CancellationToken::new();
    let serving = tokio::spawn(http::serve(listener, stop.clone(), move |request| {
        let server = Arc::clone(&answering);
        async move {
            match (request.method.as_str(), request.path.as_str()) {
                ("GET", "/status") => Response::json(&server.status().await?),
                _ => Err(Failure::no_route(&request)),
            }
        }
    }));
    child::announce_node("lane", control, &[("data", server.addr)], pid)?;
    tokio::select! {
        () = guarded.ended() => {}
        () = shutdown.cancelled() => guarded.terminate().await,
    }
    stop.cancel();
    serving.abort();
    guarded.reap()
}

/// What is written on stdout would be taken for the ready line.
fn to_log() -> Stdio {
    Stdio::from(io::stderr())
}

fn arguments(config: &SpacetimedbConfig) -> Vec<OsString> {
    let folder = &config.data_dir;
    vec![
        "start".into(),
        "--listen-addr".into(),
        config.listen.to_string().into(),
        "--data-dir".into(),
        folder.join("data").into(),
        "--jwt-key-dir".into(),
        folder.join("keys").into(),
    ]
}

fn write_settings(config: &SpacetimedbConfig) -> io::Result<()> {
    let named = |path: &Path, error: &io::Error| {
        io::Error::new(error.kind(), format!("{}: {error}", path.display()))
    };
    let data = config.data_dir.join("data");
    for folder in [&data, &config.data_dir.join("keys")] {
        std::fs::create_dir_all(folder).map_err(|error| named(folder, &error))?;
    }
    let path = data.join("config.toml");
    let text = format!(
        "[websocket]\nping-interval = \"{}\"\nidle-timeout = \"{}\"\n",
        config.ping, config.idle
    );
    std::fs::write(&path, text).map_err(|error| named(&path, &error))
}

/// A server that answers.
#[derive(Debug)]
struct Server {
    pid: u32,
    addr: SocketAddr,
    http: Client,
    database: String,
}

impl Server {
    /// Waits until the process listens and answers.
    async fn find(pid: u32, database: String) -> io::Result<Self> {
        let look = async {
            loop {
                if let [addr] = procfs::listening_on(pid)[..] {
                    let http = Client::new(addr);
                    let ping = http.send(Method::GET, "/v1/ping", &[], Bytes::new(), ANSWER_WITHIN);
                    if ping.await.is_ok() {
                        return Self {
                            pid,
                            addr,
                            http,
                            database,
                        };
                    }
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::time::timeout(READY_WITHIN, look).await.map_err(|_| {
            io::Error::new(
                io::ErrorKind::TimedOut,
                format!(
                    "the server (process {pid}) does not answer on any port after {READY_WITHIN:?}"
                ),
            )
        })
    }

    fn path(&self, tail: &str) -> String {
        format!("/v1/database/{}{tail}", self.database)
    }

    /// Publishes the module where the database is not there yet. One that was there stays as it is: a restart is a
    /// restart, and a republish would be another failure.
    async fn publish_module(&self) -> io::Result<()> {
        let send = async |method, path: &str, bearer: Option<&str>, body: &'static [u8]| {
            let bearer = bearer.map(|token| format!("Bearer {token}"));
            let headers: Vec<_> = bearer
                .iter()
                .map(|text| ("authorization", text.as_str()))
                .collect();
            self.http
                .send(method, path, &headers, body.into(), ANSWER_WITHIN)
                .await
                .map_err(io::Error::other)
        };
        if send(Method::GET, &self.path(""), None, b"")
            .await?
            .status
            .is_success()
        {
            return Ok(());
        }
        let identity = send(Method::POST, "/v1/identity", None, b"").await?;
        let token = serde_json::from_slice::<Value>(&identity.body)
            .ok()
            .and_then(|body| body["token"].as_str().map(str::to_owned))
            .ok_or_else(|| {
                io::Error::other("/v1/identity gave no token to publish the module with")
            })?;
        let answer = send(Method::PUT, &self.path(""), Some(&token), MODULE).await?;
        if answer.status.is_success() {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "the module was not taken: {} {}",
            answer.status,
            String::from_utf8_lossy(&answer.body)
        )))
    }

    async fn status(&self) -> Result<LaneStatus, Failure> {
        let heads = self.sql("SELECT * FROM stream_head").await?;
        let mut status = LaneStatus {
            pid: self.pid,
            ..LaneStatus::default()
        };
        status.heads = by_stream(&heads);
        for stream in status.heads.keys() {
            let quoted = stream.replace('\'', "''");
            let count =
                format!("SELECT COUNT(*) AS n FROM sync_event WHERE stream_id = '{quoted}'");
            let held = self.sql(&count).await?;
            let held = held.first().and_then(|row| row[0].as_u64()).unwrap_or(0);
            status.held.insert(stream.clone(), held);
        }
        Ok(status)
    }

    async fn sql(&self, query: &str) -> Result<Vec<Value>, Failure> {
        let failed =
            |why: String| Failure::new(http::StatusCode::BAD_GATEWAY, format!("{query}: {why}"));
        let path = self.path("/sql");
        let body = query.to_owned().into();
        let answer = self
            .http
            .send(Method::POST, &path, &[], body, ANSWER_WITHIN)
            .await
            .map_err(|error| failed(error.to_string()))?;
        let results: Value = serde_json::from_slice(&answer.body)
            .map_err(|_| failed(String::from_utf8_lossy(&answer.body).into_owned()))?;
        results[0]["rows"]
            .as_array()
            .cloned()
            .ok_or_else(|| failed("no rows".to_owned()))
    }
}

fn by_stream(heads: &[Value]) -> BTreeMap<StreamId, u64> {
    heads
        .iter()
        .filter_map(|row| Some((row[0].as_str()?.to_owned(), row[1].as_u64()?)))
        .collect()
}
