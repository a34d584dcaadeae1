//! SIGKILL of the conductor and of the agent in the middle of a partition, and Ctrl-C.

use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{
    Evidence, Running, alive, descendants, faultlane, machine, output, signal, until,
};

/// The scenario's lease is 2 s: the fault and every process must be gone one second later.
const LEASE_AND_A_SECOND: Duration = Duration::from_secs(3);

/// A partition under way: the drill, and the processes below it.
fn partition(evidence: &Evidence) -> (Running, Vec<u32>) {
    let args = [
        "run",
        "partition",
        "--lane",
        "khala",
        "--quick",
        "--output-dir",
        evidence.arg(),
    ];
    let child = faultlane(&args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let running = Running(child);
    let log = evidence.dir.join("logs/partition-khala-1/trial.log");
    until("the partition is injected", Duration::from_mins(1), || {
        std::fs::read_to_string(&log)
            .ok()
            .filter(|text| text.contains("injected"))
    });
    let below = descendants(running.0.id());
    assert!(
        below.len() >= 5,
        "agent, tokens, lane, proxy, shards: {below:?}"
    );
    (running, below)
}

fn gone_within(pids: &[u32], limit: Duration) {
    until("every process of the drill is gone", limit, || {
        pids.iter().all(|pid| !alive(*pid)).then_some(())
    });
}

#[test]
fn a_killed_conductor_leaves_no_fault_and_no_process() {
    let _machine = machine();
    let evidence = Evidence::new();
    let (mut running, below) = partition(&evidence);
    running.0.kill().expect("SIGKILL");
    gone_within(&below, LEASE_AND_A_SECOND);
    output(&["gate", evidence.arg()])
        .expect_code(3)
        .says("partition");
    assert!(
        evidence.logs().contains("undo"),
        "the agent's log tells of the undo"
    );
}

#[test]
fn a_killed_agent_ends_the_drill_inconclusive_with_no_process_left() {
    let _machine = machine();
    let evidence = Evidence::new();
    let (mut running, below) = partition(&evidence);
    // The agent is the conductor's only child; all others are the agent's.
    signal(below[0], Signal::SIGKILL);
    gone_within(&below, LEASE_AND_A_SECOND);
    let ended = until("the conductor ends", Duration::from_secs(15), || {
        running.0.try_wait().expect("it is ours")
    });
    assert_eq!(ended.code(), Some(3));
    output(&["gate", evidence.arg()]).expect_code(3);
}

#[test]
fn ctrl_c_undoes_every_fault_and_writes_what_there_is() {
    let _machine = machine();
    let evidence = Evidence::new();
    let (mut running, below) = partition(&evidence);
    signal(running.0.id(), Signal::SIGINT);
    let ended = until("the drill winds up", Duration::from_secs(15), || {
        running.0.try_wait().expect("it is ours")
    });
    assert_eq!(ended.code(), Some(3));
    gone_within(&below, Duration::from_secs(1));
    let rows = evidence.rows();
    assert_eq!(rows[0]["status"], "inconclusive", "{}", rows[0]["verdict"]);
    assert!(
        rows[0]["faults"][0]["healed"].is_object(),
        "{}",
        rows[0]["faults"]
    );
    assert!(evidence.file("SUMMARY.md").contains("INCONCLUSIVE"));
}

#[test]
fn a_lane_that_a_stranger_kills_is_the_target_s_failure_and_no_residue() {
    let _machine = machine();
    let evidence = Evidence::new();
    let (mut running, below) = partition(&evidence);
    let lane = below.into_iter().find(|pid| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.split(|byte| *byte == 0).nth(1) == Some(b"lane")
    });
    signal(lane.expect("the lane is below"), Signal::SIGKILL);
    running.0.wait().expect("it ends");
    let gate = output(&["gate", evidence.arg()]).expect_code(1);
    gate.says("the target's `lane` ended by itself (signal: 9 (SIGKILL))");
    let row = &evidence.rows()[0];
    assert!(row["abort"]["target"].is_string(), "seen at once: {row}");
    assert_eq!(row["residue"]["owned"], serde_json::json!([]));
}
