//! External probes, from the scenario to the gate: a service's own health has a say.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::{Evidence, Finished, faultlane, machine, output, until};

/// A service with a health endpoint, well until it is told otherwise. Its thread ends with the tests.
struct Service {
    addr: SocketAddr,
    sick: Arc<AtomicBool>,
}

impl Service {
    fn start(sick: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let service = Self {
            addr: listener.local_addr().expect("it is bound"),
            sick: Arc::new(AtomicBool::new(sick)),
        };
        let sick = Arc::clone(&service.sick);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
                    head.push(byte[0]);
                }
                let (status, body) = if sick.load(Ordering::SeqCst) {
                    ("503 Service Unavailable", "no database")
                } else {
                    ("200 OK", "all ok")
                };
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                );
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        service
    }

    fn url(&self) -> String {
        format!("http://{}/healthz", self.addr)
    }
}

/// A scenario of some seconds: every connection is reset once. Its one bound is wide, so that a busy machine is no ground
/// for a verdict: harness lag is held against it.
fn scenario(folder: &Path, probes: &str) -> PathBuf {
    let text = format!(
        "name: watched
workload: {{ clients: 20, shards: 1, streams: 4, streams_per_client: 2, ramp: 500ms }}
timeline:
  - {{ at: 200ms, fault: {{ reset: {{}} }} }}
affected: 90%
bounds: {{ recovery: {{ max: 20s }} }}
deadline: 20s
{probes}"
    );
    let path = folder.join("watched.yaml");
    fs::write(&path, text).expect("the scenario");
    path
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn args<'a>(scenario: &'a Path, evidence: &'a Evidence) -> [&'a str; 6] {
    let scenario = scenario.to_str().expect("UTF-8");
    [
        "run",
        scenario,
        "--lane",
        "khala",
        "--output-dir",
        evidence.arg(),
    ]
}

#[test]
fn a_service_that_falls_ill_after_the_heal_aborts_the_trial_by_the_probes_name() {
    let _machine = machine();
    let (root, evidence, service) = (folder(), Evidence::new(), Service::start(false));
    let probes = format!(
        "abort:\n  probes:\n    - name: healthz\n      http: {{ url: \"{}\", status: 200, contains: ok }}\n      \
         every: 200ms\n      lasting: 1s\n",
        service.url()
    );
    let file = scenario(root.path(), &probes);
    let running = faultlane(&args(&file, &evidence))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("faultlane starts");
    until("the fault is over", Duration::from_mins(1), || {
        evidence
            .logs()
            .contains("f1-reset (reset) over")
            .then_some(())
    });
    service.sick.store(true, Ordering::SeqCst);
    let output_of_it = running.wait_with_output().expect("it ends");
    let finished = Finished::from(output_of_it).expect_code(1);
    let why = format!(
        "aborted: probe `healthz` (GET {}) failed for 1s after the last heal: status 503, and 200 is wanted",
        service.url()
    );
    finished.says("NO-GO").says(&why);

    let row = &evidence.rows()[0];
    assert_eq!(row["status"], "failed", "{}", row["verdict"]);
    let probe = &row["external"][0];
    assert_eq!(
        (&probe["name"], &probe["rule"]),
        (&"healthz".into(), &"abort".into())
    );
    assert!(
        probe["good"].as_u64() > Some(0) && probe["failed"].as_u64() > Some(1),
        "{probe}"
    );
    assert!(
        probe["longest_failing_us"].as_u64() >= Some(1_000_000),
        "{probe}"
    );
    let summary = evidence.file("SUMMARY.md");
    assert!(
        summary.contains("## External probes") && summary.contains("no database"),
        "{summary}"
    );
    assert!(
        evidence.logs().contains("probe `healthz`"),
        "the trial's log has it too"
    );
    output(&["gate", evidence.arg()])
        .expect_code(1)
        .says("`healthz`");
}

#[test]
fn a_probe_that_never_is_good_keeps_the_system_from_being_steady_and_is_the_reason() {
    let _machine = machine();
    let (root, evidence, service) = (folder(), Evidence::new(), Service::start(true));
    let probes = format!(
        "steady:\n  within: 5s\n  probes:\n    - {{ name: healthz, http: {{ url: \"{}\", status: 200 }} }}\n",
        service.url()
    );
    let file = scenario(root.path(), &probes);
    let finished = output(&args(&file, &evidence)).expect_code(3);
    finished
        .says("not steady within 5s: probe `healthz` (GET ")
        .says("failed: status 503, and 200 is wanted; of the body: it is `no database`");
    let row = &evidence.rows()[0];
    assert!(row["faults"][0]["injected"].is_null(), "{}", row["faults"]);
    assert_eq!(row["external"][0]["good"], 0, "{}", row["external"]);
    output(&["gate", evidence.arg()])
        .expect_code(3)
        .says("`healthz`");
}

#[test]
fn a_probe_that_has_to_be_good_always_fails_a_trial_before_its_faults() {
    let _machine = machine();
    let (root, evidence, service) = (folder(), Evidence::new(), Service::start(true));
    let probes = format!(
        "abort:\n  probes:\n    - {{ name: healthz, http: {{ url: \"{}\", contains: ok }}, every: 200ms, lasting: 1s, \
         always: true }}\n",
        service.url()
    );
    let file = scenario(root.path(), &probes);
    let finished = output(&args(&file, &evidence)).expect_code(1);
    finished
        .says("aborted: probe `healthz`")
        .says("failed for 1s: status 503, and 2xx is wanted");
    let row = &evidence.rows()[0];
    assert!(row["faults"][0]["injected"].is_null(), "{}", row["faults"]);
    assert_eq!(row["external"][0]["breached"], true, "{}", row["external"]);
    output(&["gate", evidence.arg()]).expect_code(1);
}

/// A tool of the operator's own, and the agent's configuration that names it `queue-depth`.
fn agent_config(folder: &Path, script: &str) -> PathBuf {
    let tool = folder.join("queue-depth.sh");
    fs::write(&tool, format!("#!/bin/sh\n{script}\n")).expect("the tool");
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o700)).expect("it is ours");
    let path = folder.join("agent.yaml");
    let tool = tool.display();
    let text = format!("commands:\n  queue-depth: {{ run: [{tool}, --json], within: 1s }}\n");
    fs::write(&path, text).expect("the agent's configuration");
    path
}

const QUEUE: &str = "steady:\n  probes:\n    - { name: queue, command: { run: queue-depth, contains: '--json 0' } }\n";

#[test]
fn a_command_of_the_agents_own_configuration_has_a_say() {
    let _machine = machine();
    let (root, evidence) = (folder(), Evidence::new());
    let file = scenario(root.path(), QUEUE);
    let config = agent_config(root.path(), "echo \"$1 0\"");
    let config = ["--agent-config", config.to_str().expect("UTF-8")];
    output(&[&args(&file, &evidence)[..], &config].concat()).expect_code(0);
    let probe = &evidence.rows()[0]["external"][0];
    assert_eq!(
        (&probe["name"], &probe["failed"]),
        (&"queue".into(), &0.into()),
        "{probe}"
    );
    assert!(probe["good"].as_u64() > Some(2), "{probe}");
    assert_eq!(probe["ask"], "command queue-depth");
    assert!(evidence.file("SUMMARY.md").contains("command queue-depth"));
    output(&["gate", evidence.arg()]).expect_code(0);
}

#[test]
fn a_command_that_no_agent_has_is_refused_before_anything_is_begun() {
    let (root, evidence) = (folder(), Evidence::new());
    let file = scenario(
        root.path(),
        &QUEUE.replace("run: queue-depth", "run: queue-deep"),
    );
    let refused = output(&args(&file, &evidence)).expect_code(2);
    refused
        .says("probe `queue` of watched runs the command `queue-deep`")
        .says("--agent-config");
    let config = agent_config(root.path(), "exit 0");
    let config = ["--agent-config", config.to_str().expect("UTF-8")];
    let refused = output(&[&args(&file, &evidence)[..], &config].concat()).expect_code(2);
    refused.says("`queue-deep`").says("has queue-depth");
    assert!(!evidence.dir.exists(), "nothing was begun");
}

#[test]
fn a_wrong_configuration_of_the_agent_is_refused_with_its_place() {
    let (root, evidence) = (folder(), Evidence::new());
    let file = scenario(root.path(), QUEUE);
    let config = root.path().join("agent.yaml");
    fs::write(
        &config,
        "commands:\n  queue-depth: { run: [queue-depth] }\n",
    )
    .expect("the file");
    let config = ["--agent-config", config.to_str().expect("UTF-8")];
    output(&[&args(&file, &evidence)[..], &config].concat())
        .expect_code(2)
        .says("agent.yaml:2:24")
        .says("not an absolute path");
    assert!(!evidence.dir.exists(), "nothing was begun");
}
