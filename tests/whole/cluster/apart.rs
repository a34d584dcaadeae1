//! Hosts that cannot do what others can, and one with a clock of its own.

use std::fs;
use std::io::Write as _;
use std::process::Command;

use serde_json::Value;

use super::{CUT_OFF, Cluster, How, one_way};
use crate::netns::skipped;
use crate::support::{Evidence, machine};

/// A host cuts off another one; clients that run elsewhere have something else to recover from.
const BYSTANDERS: &str = "
name: bystanders
timeline:
  - { at: 1s, fault: { hold: {} }, for: 3s }
  - { at: 1500ms, fault: { partition: { direction: in } }, for: 2s, nodes: { pick: { named: [n3] } }, peers: { pick: { named: [n4] } } }
affected: 90%
";

/// In seconds: the one host's monotonic clock.
const AHEAD: u32 = 1_000;

/// Why it cannot be done here that a host has a clock of its own, said out loud.
fn has_no_time_namespaces() -> bool {
    let tried = Command::new("unshare")
        .args(["--time", "--fork", "true"])
        .status();
    let missing = !tried.is_ok_and(|status| status.success());
    if missing {
        let text = "SKIPPED: a host with a clock of its own is tested in a time namespace, which cannot be made here";
        let _ = writeln!(std::io::stderr(), "{text}");
    }
    missing
}

#[test]
fn where_one_host_cannot_the_others_undo_it_and_the_row_names_the_host_and_why() {
    if skipped() {
        return;
    }
    let _machine = machine();
    let cluster = Cluster::with(&[], |n| How {
        policy: if n == 2 { ", faults: [kill]" } else { "" },
        ..How::default()
    });
    let file = cluster.scenario("cut-off", CUT_OFF);
    let evidence = Evidence::new();
    cluster
        .run(&[
            "run",
            &file,
            "--lane",
            "khala",
            "--inventory",
            "night-drill.yaml",
            "--output-dir",
            evidence.arg(),
        ])
        .expect_code(3);
    let row = &evidence.rows()[0];
    assert_eq!(row["status"], "error");
    let reason = row["verdict"]["reason"].as_str().expect("a reason");
    assert!(
        reason.contains("node `n2`") && reason.contains("policy rule `faults`"),
        "{reason}"
    );
    assert!(!reason.contains("`n1`"), "{reason}");
    cluster.is_clean();
}

#[test]
fn a_host_with_a_clock_of_its_own_does_faults_which_are_told_in_the_conductor_s_clock() {
    if skipped() || has_no_time_namespaces() {
        return;
    }
    let _machine = machine();
    let cluster = Cluster::with(&[], |n| How {
        ahead: if n == 3 { AHEAD } else { 0 },
        ..How::default()
    });
    let file = cluster.scenario("bystanders", BYSTANDERS);
    let evidence = Evidence::new();
    let drilled = cluster.run(&[
        "run",
        &file,
        "--lane",
        "khala",
        "--inventory",
        "night-drill.yaml",
        "--output-dir",
        evidence.arg(),
    ]);
    drilled.expect_code(0);
    let row = &evidence.rows()[0];
    assert_eq!(row["fidelity"], "proxy+kernel");
    let node = |name: &str| {
        row["nodes"]
            .as_array()
            .and_then(|nodes| nodes.iter().find(|node| node["name"] == name))
            .expect("it is there")
    };
    assert_eq!(node("n4")["same_kernel"], true);
    let n3 = node("n3");
    assert_eq!(n3["same_kernel"], false);
    let (mono, within) = (
        n3["before"]["mono_us"].as_i64(),
        n3["before"]["within_us"].as_u64(),
    );
    let (mono, within) = (mono.expect("an offset"), within.expect("a bound"));
    assert!(
        (mono - i64::from(AHEAD) * 1_000_000).unsigned_abs() <= within,
        "{n3}"
    );
    // Told in this host's clock, and as much wider as that is uncertain.
    let (hold, cut) = (&row["faults"][0], &row["faults"][1]);
    let asked = |fault: &Value| {
        fault["injected"]["asked_us"]
            .as_u64()
            .expect("it was injected")
    };
    let apart = asked(cut).checked_sub(asked(hold)).expect("it came later");
    assert!((400_000..2_000_000).contains(&apart), "{apart}");
    assert!(
        cut["injected"]["width_us"].as_u64().expect("a width") >= 2 * within,
        "{cut}"
    );
    one_way(cut, "n4", &["n3"]).expect("n3 does not hear n4");
    cluster.is_clean();

    // What clients tell there could not be compared with anything.
    let runs = fs::read_to_string(cluster.path("night-drill.yaml")).expect("the inventory");
    let runs = runs
        .replacen("runs: []", "runs: [lane, tokens]", 1)
        .replace(
            "name: n3, address: \"10.77.0.3:7400\", labels: { role: \"\" }, runs: []",
            "name: n3, address: \"10.77.0.3:7400\", runs: [clients]",
        );
    fs::write(cluster.path("beyond.yaml"), runs).expect("an inventory");
    let evidence = Evidence::new();
    cluster
        .run(&[
            "run",
            "partition",
            "--quick",
            "--lane",
            "khala",
            "--inventory",
            "beyond.yaml",
            "--output-dir",
            evidence.arg(),
        ])
        .expect_code(3)
        .says("agent `n3` runs `clients`")
        .says("Take `runs` from it");
    cluster.is_clean();
}
