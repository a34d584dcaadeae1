//! The drill against a real `SpacetimeDB` server. Runs where `FAULTLANE_SPACETIMEDB` names the server's binary.

mod witness;

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Evidence, Running, alive, descendants, faultlane, machine, output, until};

/// How often bursts are killed: two runs where nothing is said. Twenty take some ten minutes.
const BURSTS: &str = "FAULTLANE_BURST_KILLS";
/// The seed of the first of them, so that many runs can be had in pieces.
const FIRST_SEED: &str = "FAULTLANE_BURST_SEED";
/// So many more, until one has lost something.
const MORE_BURSTS: u32 = 3;

/// Whether there is a server; says aloud when there is none.
fn is_there(test: &str) -> bool {
    let there = std::env::var_os("FAULTLANE_SPACETIMEDB").is_some();
    if !there {
        // Not eprintln!, which the test runner would keep to itself.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: {test}: set FAULTLANE_SPACETIMEDB to the path of spacetimedb-standalone \
             (deploy/spacetimedb/install.sh) to drill a real server"
        );
    }
    there
}

fn count(row: &Value, anomaly: &str) -> u64 {
    let tally = &row["anomalies"][anomaly];
    tally["count"].as_u64().expect("judged") + tally["unpromised"]["count"].as_u64().unwrap_or(0)
}

#[test]
fn all_four_scenarios_run_against_a_real_server() {
    if !is_there("all_four_scenarios_run_against_a_real_server") {
        return;
    }
    let _machine = machine();
    let evidence = Evidence::new();
    let args = [
        "drill",
        "--target",
        "spacetimedb",
        "--quick",
        "--output-dir",
        evidence.arg(),
    ];
    output(&args).expect_code(1);
    let rows = evidence.rows();
    assert_eq!(rows.len(), 4, "one lane");
    for row in &rows {
        only_the_known_hole(row);
        assert_eq!(row["profile"]["name"], "spacetimedb");
        assert_eq!(
            row["census"]["acknowledged"], row["census"]["read"],
            "{}",
            row["scenario"]
        );
    }
    let restart = rows
        .iter()
        .find(|row| row["scenario"] == "restart")
        .expect("restart");
    let figures = &restart["faults"][0]["observation"]["figures"];
    assert_ne!(figures["pid_before"], figures["pid_after"]);
    assert_eq!(
        figures["exit_signal"], 9,
        "the server itself was killed: {figures}"
    );
    assert!(
        evidence.logs().contains("spacetimedb-standalone version"),
        "a real server"
    );
    output(&["gate", evidence.arg()]).expect_code(1);
}

/// What is wrong with this very server: it takes tokens that are signed with its issuer's public key.
fn only_the_known_hole(row: &Value) {
    let reasons = row["verdict"]["reasons"].as_array().expect("reasons");
    let name = format!("{}: {}", row["scenario"], row["verdict"]);
    assert_eq!(reasons.len(), 1, "{name}");
    let hole = &row["anomalies"]["unauthorized_success"];
    for example in hole["examples"].as_array().expect("examples") {
        let detail = example["detail"].as_str().expect("a detail");
        assert!(detail.contains("confused-key"), "{name}: {detail}");
    }
    assert!(hole["count"].as_u64() > Some(0), "{name}");
}

#[test]
fn a_server_whose_data_went_back_is_a_no_go_that_names_what_is_lost() {
    if !is_there("a_server_whose_data_went_back_is_a_no_go_that_names_what_is_lost") {
        return;
    }
    let _machine = machine();
    let evidence = Evidence::new();
    let seen = witness::run("restore", 1, &evidence);
    let row = &seen.row;
    assert_eq!(row["status"], "failed", "{}", row["verdict"]);
    assert!(seen.census("lost") > 0, "{}", row["census"]);
    seen.agrees();
    for anomaly in ["lost", "stale_cursor"] {
        let tally = &row["anomalies"][anomaly];
        assert!(
            tally["count"].as_u64() > Some(0),
            "{anomaly}: {}",
            row["verdict"]
        );
        assert!(
            !tally["examples"].as_array().expect("examples").is_empty(),
            "{anomaly}"
        );
    }
    let figures = &row["faults"][0]["observation"]["figures"];
    assert!(figures["files_rolled_back"].as_u64() > Some(0), "{figures}");
}

/// The checker compares the publisher's ledger with what a subscription brings; the server is asked by the test itself.
#[test]
fn as_many_events_are_lost_in_a_killed_burst_as_the_server_no_longer_has() {
    if !is_there("as_many_events_are_lost_in_a_killed_burst_as_the_server_no_longer_has") {
        return;
    }
    let _machine = machine();
    let number = |name| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse().expect(name))
    };
    let (first, runs): (u32, u32) = (number(FIRST_SEED).unwrap_or(1), number(BURSTS).unwrap_or(2));
    let mut lossy = 0;
    for seed in first..first + runs + MORE_BURSTS {
        // Whether a burst loses anything is up to the server: a few more where none has.
        if seed >= first + runs && lossy > 0 {
            break;
        }
        let evidence = Evidence::new();
        let seen = witness::run("burst-kill", seed, &evidence);
        let lost = seen.census("lost");
        let _ = writeln!(
            std::io::stderr(),
            "burst-kill, seed {seed}: {} acknowledged, the server holds {}; {lost} reported lost, {} missed by clients, {} of {}",
            seen.census("acknowledged"),
            seen.keys.len(),
            seen.census("missed"),
            seen.row["status"],
            seen.row["verdict"]["reason"]
        );
        seen.agrees();
        lossy += u32::from(lost > 0);
    }
    let _ = writeln!(
        std::io::stderr(),
        "burst-kill: the counts agree in every run; {lossy} of them lost something"
    );
}

#[test]
fn no_server_outlives_a_killed_conductor() {
    if !is_there("no_server_outlives_a_killed_conductor") {
        return;
    }
    let _machine = machine();
    let evidence = Evidence::new();
    let dir = evidence.arg();
    let args = [
        "run",
        "restart",
        "--target",
        "spacetimedb",
        "--quick",
        "--output-dir",
        dir,
    ];
    let child = faultlane(&args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut running = Running(child);
    let log = evidence.dir.join("logs/restart-spacetime-1/lane.log");
    until("the server runs", Duration::from_secs(20), || {
        std::fs::read_to_string(&log)
            .ok()
            .filter(|text| text.contains("database running"))
    });
    let below = descendants(running.0.id());
    running.0.kill().expect("SIGKILL");
    until("server and guard are gone", Duration::from_secs(5), || {
        below.iter().all(|pid| !alive(*pid)).then_some(())
    });
}

#[test]
fn without_a_server_the_target_says_how_to_get_one() {
    let _machine = machine();
    let evidence = Evidence::new();
    let dir = evidence.arg();
    let args = [
        "run",
        "restart",
        "--target",
        "spacetimedb",
        "--output-dir",
        dir,
    ];
    let more = ["--spacetimedb", "/no/such/server"];
    let finished = output(&[&args[..], &more].concat()).expect_code(4);
    finished
        .says("/no/such/server")
        .says("deploy/spacetimedb/install.sh");
    assert!(!evidence.dir.exists(), "nothing was begun");
    output(&[
        "run",
        "restart",
        "--target",
        "spacetimedb",
        "--lane",
        "khala",
    ])
    .expect_code(2)
    .says("no such lane");
    output(&[
        "run",
        "restart",
        "--target",
        "spacetimedb",
        "--defect",
        "skip-seq",
    ])
    .expect_code(2)
    .says("embedded servers");
    output(&["run", "restart", "--target", "nonsense"])
        .expect_code(2)
        .says("embedded and spacetimedb");
}
