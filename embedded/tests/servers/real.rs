//! A real `SpacetimeDB` server, where `FAULTLANE_SPACETIMEDB` names its binary.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use host::http::{Client, Method};
use tokio::process::{Child, Command};

use crate::support::PATIENCE;

const MODULE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../deploy/spacetimedb/module.wasm"
);

/// A server that runs until it is dropped.
pub(crate) struct Real {
    pub(crate) addr: SocketAddr,
    http: Client,
    _server: Child,
    _folder: tempfile::TempDir,
}

/// Starts it; `None`, said aloud, where there is none.
pub(crate) async fn start(test: &str) -> Option<Real> {
    let Ok(binary) = std::env::var("FAULTLANE_SPACETIMEDB") else {
        // Not eprintln!, which the test runner would keep to itself.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: {test}: set FAULTLANE_SPACETIMEDB to the path of spacetimedb-standalone \
             (deploy/spacetimedb/install.sh) to probe a real server"
        );
        return None;
    };
    let folder = tempfile::tempdir().unwrap();
    // Free a moment ago: the server binds it itself and does not say which port it took.
    let addr = {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.local_addr().unwrap()
    };
    let server = Command::new(binary)
        .args(["start", "--listen-addr", &addr.to_string(), "--data-dir"])
        .arg(folder.path().join("data"))
        .arg("--jwt-key-dir")
        .arg(folder.path().join("keys"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let http = Client::new(addr);
    let began = tokio::time::Instant::now();
    while http
        .send(Method::GET, "/v1/ping", &[], bytes::Bytes::new(), PATIENCE)
        .await
        .is_err()
    {
        assert!(began.elapsed() < PATIENCE, "no answer on {addr}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Some(Real {
        addr,
        http,
        _server: server,
        _folder: folder,
    })
}

impl Real {
    /// Publishes the sync module as a database.
    pub(crate) async fn publish_module(&self, database: &str, token: &str) {
        let module = std::fs::read(MODULE).unwrap();
        let path = format!("/v1/database/{database}");
        self.send(
            Method::PUT,
            &path,
            "application/octet-stream",
            module,
            token,
        )
        .await;
    }

    /// Calls a reducer.
    pub(crate) async fn call(&self, database: &str, reducer: &str, arguments: String, token: &str) {
        let path = format!("/v1/database/{database}/call/{reducer}");
        let body = arguments.into_bytes();
        self.send(Method::POST, &path, "application/json", body, token)
            .await;
    }

    async fn send(&self, method: Method, path: &str, kind: &str, body: Vec<u8>, token: &str) {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("content-type", kind)];
        let answer = self
            .http
            .send(method, path, &headers, body.into(), PATIENCE)
            .await
            .unwrap();
        assert!(answer.status.is_success(), "{path}: {answer:?}");
    }
}
