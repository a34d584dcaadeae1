//! The four scenarios on both lanes, and that their faults are real.

use serde_json::Value;

use crate::support::{Evidence, machine, output};

/// One quick drill serves all questions here: it is the dearest thing in these tests.
#[test]
fn the_quick_drill_is_a_go_with_faults_that_were_seen_to_bite() {
    let _machine = machine();
    let evidence = Evidence::new();
    let finished = output(&["drill", "--quick", "--output-dir", evidence.arg()]).expect_code(0);
    finished.says("GO");

    let rows = evidence.rows();
    assert_eq!(rows.len(), 8, "four scenarios on two lanes");
    for row in &rows {
        let name = format!("{} on {}", row["scenario"], row["lane"]);
        assert_eq!(row["status"], "passed", "{name}: {}", row["verdict"]);
        assert!(
            row["duration_seconds"]
                .as_f64()
                .is_some_and(|seconds| seconds > 1.0),
            "{name}"
        );
        let log = row["log_file"].as_str().expect("log_file");
        assert!(evidence.file(log).contains("injected"), "{name}: {log}");
        for fault in row["faults"].as_array().expect("faults") {
            assert!(
                fault["observation"]["bitten"].as_u64() > Some(0),
                "{name}: {fault}"
            );
        }
        let recovery = &row["phases"]["recovery"];
        assert!(recovery["count"].as_u64() > Some(0), "{name}: {recovery}");
        let histogram = recovery["histogram"]["v2_deflate_base64"]
            .as_str()
            .expect("a histogram");
        assert!(histogram.starts_with("HISTF"), "{name}");
        for (anomaly, found) in row["anomalies"].as_object().expect("anomalies") {
            assert_eq!(found["count"], 0, "{name}: {anomaly}: {found}");
        }
    }
    for row in of(&rows, "restart") {
        let figures = &row["faults"][0]["observation"]["figures"];
        let pids = (
            figures["pid_before"].as_u64(),
            figures["pid_after"].as_u64(),
        );
        assert!(
            pids.0.is_some() && pids.1.is_some() && pids.0 != pids.1,
            "{figures}"
        );
    }
    for row in of(&rows, "partition") {
        let figures = &row["faults"][0]["observation"]["figures"];
        assert_eq!(figures["bytes_forwarded_while_held"], 0, "{figures}");
        assert!(figures["connections_held"].as_u64() > Some(0), "{figures}");
    }
    for row in of(&rows, "reconnect-storm") {
        assert!(
            row["proxy_status"]["refused_with_retry_after"].as_u64() > Some(0),
            "{}",
            row["proxy_status"]
        );
    }
    for row in of(&rows, "token-expiry-storm") {
        let refused = &row["lane_status"];
        let expired = refused["expired_live"].as_u64().unwrap_or(0)
            + refused["refused"]["token_expired"].as_u64().unwrap_or(0);
        assert!(expired > 0, "{refused}");
    }
    assert!(
        evidence.logs().contains("token_expired"),
        "the lane's log names the refusal"
    );

    let summary = evidence.file("SUMMARY.md");
    assert!(
        summary.contains("Failures: 0") && summary.contains("embedded"),
        "{summary}"
    );
    output(&["gate", evidence.arg()]).expect_code(0).says("GO");
}

#[test]
fn hostile_messages_are_seen_to_bite_and_every_client_comes_back_whole() {
    let _machine = machine();
    let evidence = Evidence::new();
    let args = ["run", "hostile-frames", "--quick", "--seed", "3"];
    let args = [&args[..], &["--output-dir", evidence.arg()]].concat();
    output(&args).expect_code(0).says("GO");
    let rows = evidence.rows();
    assert_eq!(rows.len(), 2, "on both lanes");
    for row in &rows {
        assert_eq!(
            row["status"], "passed",
            "{}: {}",
            row["lane"], row["verdict"]
        );
        let faults = row["faults"].as_array().expect("faults");
        assert_eq!(faults.len(), 5);
        for fault in faults {
            let acts = fault["observation"]["figures"]["acts"].as_u64();
            assert!(acts > Some(0), "{}: {fault}", row["lane"]);
        }
    }
}

fn of<'a>(rows: &'a [Value], scenario: &str) -> Vec<&'a Value> {
    let found: Vec<_> = rows
        .iter()
        .filter(|row| row["scenario"] == scenario)
        .collect();
    assert_eq!(found.len(), 2, "{scenario} on two lanes");
    found
}

/// Clients of the khala lane begin anew from snapshots, which cover seqs that are used again.
#[test]
fn what_a_restored_khala_lane_lost_is_counted_once_and_its_snapshots_are_believed() {
    let _machine = machine();
    let evidence = Evidence::new();
    // Four seconds of events in half a second: the lane does not overtake its old head before the clients are back.
    let mut scenario = include_str!("../../scenarios/library/restore.yaml").to_owned();
    for (old, new) in [("age: 2s", "age: 4s"), ("for: 1s", "for: 500ms")] {
        assert!(scenario.contains(old), "{old}: {scenario}");
        scenario = scenario.replace(old, new);
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("restore.yaml");
    std::fs::write(&file, scenario).expect("the scenario");
    let file = file.to_str().expect("UTF-8");
    let args = [
        "run",
        file,
        "--lane",
        "khala",
        "--quick",
        "--output-dir",
        evidence.arg(),
    ];
    output(&args).expect_code(1).says("lost");
    let row = &evidence.rows()[0];
    let census = |name: &str| row["census"][name].as_u64().expect("a number");
    assert!(
        row["rebootstraps"].as_u64() > Some(0),
        "snapshots were taken: {}",
        row["rebootstraps"]
    );
    assert!(census("lost") > 0, "{}", row["census"]);
    assert_eq!(
        census("lost"),
        census("acknowledged") - census("read"),
        "{}",
        row["census"]
    );
    assert_eq!(census("missed"), 0, "{}", row["anomalies"]);
    let found = |anomaly: &str| row["anomalies"][anomaly]["count"].as_u64();
    assert_eq!(found("lost"), Some(census("lost")), "{}", row["anomalies"]);
    assert_eq!(found("stale_cursor"), Some(0), "{}", row["anomalies"]);
    assert_eq!(row["delivered"], row["expected_deliveries"]);
}

#[test]
fn a_restart_in_the_binary_encoding_is_a_go() {
    let _machine = machine();
    let evidence = Evidence::new();
    let args = ["run", "restart", "--lane", "spacetime", "--quick"];
    let more = ["--wire", "bsatn", "--output-dir", evidence.arg()];
    output(&[&args[..], &more].concat()).expect_code(0);
    let row = &evidence.rows()[0];
    assert!(row["delivered"].as_u64() > Some(0), "{row}");
    let plan = evidence.file("plans/restart-spacetime-1.json");
    assert!(plan.contains("\"wire\": \"bsatn\""), "{plan}");
}
