//! Somebody's own service: the khala lane in another language, behind TLS with a private authority, drilled by a target
//! file. Its mistakes are told with their place and a remedy, and the page that leads there is run as it stands.

mod mistakes;
mod page;
mod repeated_secrets;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use host::tls::Authority;
use model::target::TlsIdentity;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::service::{self, PUBLISH_SECRET, SESSION_SECRET, Service};
use crate::support::{Finished, Running, descendants, faultlane, machine, signal, until};

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
        Self::start_with(test, &[])
    }

    /// With further options of the service.
    fn start_with(test: &str, further: &[&str]) -> Option<Self> {
        if !service::is_there(test) {
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let ca = Authority::ephemeral("of somebody").expect("an authority");
        fs::write(folder.path().join("ca.pem"), ca.pem()).expect("the file");
        let identity = ca.issue(&[HOST, "localhost"]).expect("a certificate");
        let service = with_certificate(folder.path(), "service", &identity, further);
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
        Finished::from(self.command(args).output().expect("faultlane starts"))
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = faultlane(args);
        command
            .current_dir(self.folder.path())
            .env("PUBLISH_SECRET", PUBLISH_SECRET)
            .env("SYNC_SESSION", SESSION_SECRET);
        command
    }

    /// The target file for streams to which somebody else publishes too.
    fn in_an_open_world(&self) -> String {
        let target = self.with("world: closed", "world: open");
        let removal = "    clean_up: { path: /internal/sync/remove }\ntokens:";
        target.replacen("tokens:", removal, 1)
    }

    /// The service's own word: how many events of drills it has acknowledged, and how many events it has removed.
    fn published_and_removed(&self) -> (usize, usize) {
        let log = self.folder.path().join("service-data/log.jsonl");
        let log = fs::read_to_string(log).unwrap_or_default();
        // The last line may be half written.
        let whole = log.rfind('\n').map_or("", |end| &log[..end]);
        let records: Vec<Value> = whole
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        let ours = records.iter().filter(|record| {
            record["payload"]
                .as_str()
                .is_some_and(|payload| payload.contains("intended_us"))
        });
        let removed = records
            .iter()
            .filter_map(|record| record["remove"].as_array().map(Vec::len));
        (ours.count(), removed.sum())
    }
}

/// Another service of that name with a certificate of its own.
fn with_certificate(
    folder: &Path,
    name: &str,
    identity: &TlsIdentity,
    further: &[&str],
) -> Service {
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
    let fixed = [
        ["--cert", &cert],
        ["--key", &key],
        ["--data", data],
        ["--prefix", "/eu"],
        ["--org", "acme=runtime.run.drill-*"],
        ["--origin", "https://sync.example.com"],
    ];
    Service::start(&[fixed.as_flattened(), further].concat())
}

/// Few clients, and bounds that a busy machine keeps too: what is tried here is whether such a service can be drilled.
const SMALL: [&str; 14] = [
    "--clients",
    "20",
    "--set",
    "bounds.detect={p99: 12s}",
    "--set",
    "bounds.recovery={p99: 12s}",
    "--set",
    "limits.delivery_p95=12s",
    "--set",
    "bounds.time_to_steady=15s",
    "--set",
    "deadline=20s",
    "--output-dir",
    "evidence",
];

/// Drills the service; the row.
fn drill(own: &Own, target: &str, scenario: &str) -> Value {
    let _machine = machine();
    let args = ["run", scenario, "--target", "target.yaml"];
    own.run(target, &[&args[..], &SMALL].concat())
        .expect_code(0);
    let rows = own.folder.path().join("evidence/results.jsonl");
    let rows = fs::read_to_string(rows).expect("results.jsonl");
    let mut rows = rows.lines().map(serde_json::from_str);
    rows.next().expect("a row").expect("JSON")
}

#[test]
fn a_partition_of_ones_own_service_is_a_go() {
    let Some(own) = Own::start("a_partition_of_ones_own_service_is_a_go") else {
        return;
    };
    let row = drill(&own, &own.target(), "partition");
    assert_eq!(
        row["faults"][0]["observation"]["figures"]["connections_held"],
        20
    );
}

#[test]
fn a_reconnect_storm_among_somebody_elses_events_is_a_go_and_leaves_nothing_behind() {
    let test = "a_reconnect_storm_among_somebody_elses_events_is_a_go_and_leaves_nothing_behind";
    let others = ["--foreign-writer", "runtime.run.drill-1.events:5"];
    let Some(own) = Own::start_with(test, &others) else {
        return;
    };
    let row = drill(&own, &own.in_an_open_world(), "reconnect-storm");
    let world = &row["open_world"];
    assert!(world["foreign_held"].as_u64() > Some(0), "{world}");
    assert!(world["foreign_received"].as_u64() > Some(0), "{world}");
    let done = &world["clean_up"];
    assert!(done["removed"].as_u64() > Some(0), "{done}");
    assert_eq!((&done["left"], &done["failed"]), (&json!({}), &json!({})));
    let (ours, removed) = own.published_and_removed();
    assert_eq!(ours, removed);
}

#[test]
fn what_a_killed_run_has_left_among_others_is_removed_afterwards() {
    let test = "what_a_killed_run_has_left_among_others_is_removed_afterwards";
    let others = ["--foreign-writer", "runtime.run.drill-1.events:5"];
    let Some(own) = Own::start_with(test, &others) else {
        return;
    };
    let _machine = machine();
    let mut running = under_way(&own);
    running.0.kill().expect("SIGKILL");
    running.0.wait().expect("it is gone");
    let record = fs::read_to_string(own.folder.path().join("evidence/run.json"));
    let record: Value = serde_json::from_str(&record.expect("run.json")).expect("JSON");
    let run = record["run"].as_str().expect("the run's id");

    let clean_up = ["clean-up", "target.yaml", "--run"];
    let of = |run: &str| {
        let mut command = own.command(&[&clean_up[..], &[run]].concat());
        Finished::from(command.output().expect("faultlane starts")).expect_code(0)
    };
    of("20000101T000000Z-1").says("khala: 0 events of");
    let (ours, removed) = own.published_and_removed();
    assert_eq!(removed, 0, "another run's");
    of(run).says(&format!("khala: {ours} events of {run} removed"));
    assert_eq!(own.published_and_removed(), (ours, ours));
    of(run).says("khala: 0 events of");
}

/// A drill among others that publishes.
fn under_way(own: &Own) -> Running {
    fs::write(
        own.folder.path().join("target.yaml"),
        own.in_an_open_world(),
    )
    .expect("the file");
    let args = ["run", "partition", "--target", "target.yaml"];
    let mut command = own.command(&[&args[..], &SMALL].concat());
    let child = command.stderr(Stdio::piped()).spawn();
    let running = Running(child.expect("it starts"));
    until("the run publishes", Duration::from_secs(30), || {
        (own.published_and_removed().0 > 20).then_some(())
    });
    running
}

#[test]
fn what_a_lost_publisher_has_left_among_others_the_conductor_removes() {
    let test = "what_a_lost_publisher_has_left_among_others_the_conductor_removes";
    let Some(own) = Own::start(test) else {
        return;
    };
    let _machine = machine();
    let mut running = under_way(&own);
    // The shard with the publisher is started before the others.
    let shards = descendants(running.0.id()).into_iter().filter(|pid| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.split(|byte| *byte == 0).nth(1) == Some(b"shard")
    });
    signal(shards.min().expect("a shard"), Signal::SIGKILL);
    running.0.wait().expect("it ends");
    let rows = fs::read_to_string(own.folder.path().join("evidence/results.jsonl"));
    let row: Value = serde_json::from_str(rows.expect("results.jsonl").trim()).expect("JSON");
    let done = &row["open_world"]["clean_up"];
    assert!(done["removed"].as_u64() > Some(0), "{row}");
    assert_eq!((&done["left"], &done["failed"]), (&json!({}), &json!({})));
    let (ours, removed) = own.published_and_removed();
    assert_eq!(ours, removed);
}

#[test]
fn a_drill_among_others_that_is_ended_at_once_says_how_to_clean_up() {
    let test = "a_drill_among_others_that_is_ended_at_once_says_how_to_clean_up";
    let Some(own) = Own::start(test) else {
        return;
    };
    let _machine = machine();
    let mut running = under_way(&own);
    let mut said = BufReader::new(running.0.stderr.take().expect("it is piped")).lines();
    let mut says = |words: &str| {
        let mut lines = said.by_ref().map(|line| line.expect("UTF-8"));
        lines.find(|line| line.contains(words))
    };
    signal(running.0.id(), Signal::SIGINT);
    says("again to end at once").expect("it stops");
    signal(running.0.id(), Signal::SIGINT);
    let told = says("faultlane clean-up target.yaml --run ").expect("the command");
    let (_, run) = told.split_once("--run ").expect("it was found");
    running.0.wait().expect("it ends");
    let args = ["clean-up", "target.yaml", "--run", run.trim()];
    let cleaned = own.command(&args).output().expect("faultlane starts");
    Finished::from(cleaned).expect_code(0);
    let (ours, removed) = own.published_and_removed();
    assert_eq!(ours, removed);
}
