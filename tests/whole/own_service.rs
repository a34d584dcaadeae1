//! Somebody's own service: the khala lane in another language, behind TLS with a private authority, drilled by a target
//! file. Its mistakes are told with their place and a remedy, and the page that leads there is run as it stands.

mod mistakes;
mod page;

use std::fs;
use std::path::Path;

use host::tls::Authority;
use model::target::TlsIdentity;

use crate::service::{self, PUBLISH_SECRET, SESSION_SECRET, Service};
use crate::support::{Finished, faultlane, machine};

const HOST: &str = "sync.example.com";

/// `{addr}` is where the service listens.
const TARGET: &str = r#"name: own
lanes:
  khala:
    url: wss://sync.example.com/eu
    dial: {addr}
    tls: { ca: ca.pem }
    publish:
      path: /internal/sync/append
      secret: "${PUBLISH_SECRET}"
tokens:
  http:
    url: https://localhost:{port}/eu/api/sync/token
    ca: ca.pem
    headers:
      content-type: application/json
      authorization: "Bearer ${SYNC_SESSION}"
    body: '{"scopes": {scopes}, "streams": {streams}, "ttl_seconds": {ttl_seconds}, "device_id": "{identity}"}'
    token_field: data.token
    expires_field: data.expires_at
streams:
  pattern: "runtime.run.drill-{n}.events"
  count: 12
promise:
  expiry_enforcement: live
  skew: 30s
  acknowledged: durable
  world: closed
  authorization: enforced
  token_checks: { not_before: true, revocation: false, max_age: 1h }
  profile: { heartbeat: 500ms, read_idle: 1500ms, connect_timeout: 3s, backoff_cap: 1s, stable_after: 1s }
limits:
  migration_buffer: 100ms
  storm_target: 30s
  fallback_threshold: 1%
  rollback_slo: 5m
"#;

/// The service, and a folder with what a newcomer has: the authority's certificate.
struct Own {
    folder: tempfile::TempDir,
    ca: Authority,
    service: Service,
}

impl Own {
    /// `None`, said aloud, where there is no Python.
    fn start(test: &str) -> Option<Self> {
        if !service::is_there(test) {
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let ca = Authority::ephemeral("of somebody").expect("an authority");
        fs::write(folder.path().join("ca.pem"), ca.pem()).expect("the file");
        let identity = ca.issue(&[HOST, "localhost"]).expect("a certificate");
        let service = with_certificate(folder.path(), "service", &identity);
        Some(Self {
            folder,
            ca,
            service,
        })
    }

    /// The target file as it has to be.
    fn target(&self) -> String {
        TARGET
            .replace("{addr}", &self.service.addr.to_string())
            .replace("{port}", &self.service.addr.port().to_string())
    }

    /// The target file with something else in it.
    fn with(&self, from: &str, to: &str) -> String {
        let good = self.target();
        assert!(good.contains(from), "the target file has no `{from}`");
        good.replacen(from, to, 1)
    }

    /// Writes the target file and runs faultlane beside it.
    fn run(&self, target: &str, args: &[&str]) -> Finished {
        fs::write(self.folder.path().join("target.yaml"), target).expect("the file");
        let mut command = faultlane(args);
        command
            .current_dir(self.folder.path())
            .env("PUBLISH_SECRET", PUBLISH_SECRET)
            .env("SYNC_SESSION", SESSION_SECRET);
        Finished::from(command.output().expect("faultlane starts"))
    }
}

/// Another service of that name with a certificate of its own.
fn with_certificate(folder: &Path, name: &str, identity: &TlsIdentity) -> Service {
    let file = |kind: &str, text: &str| {
        let path = folder.join(format!("{name}-{kind}.pem"));
        fs::write(&path, text).expect("the file");
        path.to_str().expect("UTF-8").to_owned()
    };
    let (cert, key) = (
        file("cert", &identity.chain_pem),
        file("key", &identity.key_pem),
    );
    let data = folder.join(format!("{name}-data"));
    let data = data.to_str().expect("UTF-8");
    let org = "acme=runtime.run.drill-*";
    Service::start(&[
        "--cert",
        &cert,
        "--key",
        &key,
        "--data",
        data,
        "--prefix",
        "/eu",
        "--org",
        org,
        "--origin",
        "https://sync.example.com",
    ])
}

/// Few clients, and bounds that a busy machine keeps too: what is tried here is whether such a service can be drilled.
const SMALL: [&str; 6] = [
    "--clients",
    "20",
    "--set",
    "bounds.detect.p99=8s",
    "--set",
    "limits.delivery_p95=8s",
];

fn drill(scenario: &str) {
    let Some(own) = Own::start(&format!("a_drill_of_{scenario}")) else {
        return;
    };
    let _machine = machine();
    let args = ["run", scenario, "--target", "target.yaml"];
    let target = own.target();
    own.run(&target, &[&args[..], &SMALL].concat())
        .expect_code(0);
}

#[test]
fn a_partition_of_ones_own_service_is_a_go() {
    drill("partition");
}

#[test]
fn a_reconnect_storm_of_ones_own_service_is_a_go() {
    drill("reconnect-storm");
}
