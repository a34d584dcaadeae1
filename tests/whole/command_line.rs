//! Usage, exit codes, plans.

use serde_json::Value;

use crate::support::{Finished, faultlane, output};

fn digest(args: &[&str]) -> String {
    let finished = output(args).expect_code(0);
    let plan: Value = serde_json::from_str(&finished.stdout).expect("the plan is JSON");
    plan["digest"].as_str().expect("a digest").to_owned()
}

#[test]
fn a_plan_depends_on_its_seed_and_lane_and_on_nothing_else() {
    let plan = ["plan", "restart", "--lane", "khala", "--json", "--seed"];
    let of = |seed| digest(&[plan.as_slice(), &[seed]].concat());
    assert_eq!(of("7"), of("7"));
    assert_ne!(of("7"), of("8"));
    assert_ne!(
        of("7"),
        digest(&[
            "plan",
            "restart",
            "--lane",
            "spacetime",
            "--json",
            "--seed",
            "7"
        ])
    );
}

#[test]
fn a_plan_says_what_each_step_does_and_undoes() {
    let finished = output(&["plan", "partition", "--seed", "3"]).expect_code(0);
    finished
        .says("hold")
        .says("pass on what waited")
        .says("lease")
        .says("sha256:");
}

#[test]
fn library_scenarios_are_valid() {
    let names = [
        "restart",
        "partition",
        "token-expiry-storm",
        "reconnect-storm",
    ];
    output(&[["check"].as_slice(), &names].concat()).expect_code(0);
    let listed = output(&["scenarios"]).expect_code(0);
    for name in names {
        listed.says(name);
    }
}

#[test]
fn wrong_usage_exits_2_and_says_what_would_be_right() {
    output(&["run", "no-such-scenario"])
        .expect_code(2)
        .says("restart, partition");
    output(&["run", "restat"])
        .expect_code(2)
        .says("did you mean `restart`?");
    output(&["run"]).expect_code(2).says("which scenario");
    output(&["drill", "--set", "name=foo"])
        .expect_code(2)
        .says("`foo` on spacetime, trial 1");
    output(&["run", "restart", "--defect", "typo"])
        .expect_code(2)
        .says("--defect list");
    output(&["run", "restart", "--lane", "carrier-pigeon"])
        .expect_code(2)
        .says("spacetime and khala");
    output(&["run", "restart", "--set", "nonsense"])
        .expect_code(2)
        .says("KEY=VALUE");
    output(&["run", "restart", "--set", "bounds.recovery.p99=fast"])
        .expect_code(2)
        .says("--set");
    output(&["run", "restart", "--set", "workload.cleints=3"])
        .expect_code(2)
        .says("clients");
    output(&["drill", "--clients", "0"]).expect_code(2);
    output(&["gate", "/nowhere/at/all"])
        .expect_code(4)
        .says("/nowhere/at/all");
    output(&["shard"]).expect_code(2).says("--config-stdin");
}

#[test]
fn an_output_folder_that_holds_a_run_is_not_written_to() {
    let root = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(root.path().join("run.json"), "{}").expect("a file");
    let dir = root.path().to_str().expect("UTF-8");
    let run = || output(&["run", "restart", "--output-dir", dir]).expect_code(4);
    run().says("run.json");
    std::fs::rename(root.path().join("run.json"), root.path().join("SUMMARY.md")).expect("renamed");
    run().says("not empty (it holds `SUMMARY.md`)");
    assert_eq!(
        std::fs::read_dir(root.path()).expect("the folder").count(),
        1,
        "nothing was added"
    );
}

#[test]
fn defects_are_listed_with_their_anomaly_and_scenario() {
    let listed = output(&["run", "--defect", "list"]).expect_code(0);
    assert!(listed.stdout.lines().count() >= 12);
    for line in listed.stdout.lines() {
        assert!(line.split_whitespace().count() >= 4, "{line}");
    }
    listed.says("forget-log").says("vanished");
    assert_eq!(
        output(&["drill", "--defect", "list"]).expect_code(0).stdout,
        listed.stdout
    );
}

#[test]
fn more_clients_than_descriptors_is_said_before_anything_starts() {
    let binary = env!("CARGO_BIN_EXE_faultlane");
    let limited = format!("ulimit -n 500 && exec {binary} run restart --clients 400");
    let output = std::process::Command::new("sh")
        .args(["-c", &limited])
        .output();
    Finished::from(output.expect("a shell"))
        .expect_code(4)
        .says("1000 descriptors");
}

#[test]
fn a_reader_that_goes_away_is_not_an_error() {
    let mut child = faultlane(&["scenarios"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("faultlane starts");
    drop(child.stdout.take());
    let ended = child.wait_with_output().expect("it ends");
    assert!(
        ended.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&ended.stderr)
    );
    assert_eq!(ended.status.code(), Some(0));
}

#[test]
fn a_run_to_clean_up_after_is_named_whole() {
    for part in [
        "",
        "/",
        "2026",
        "20261124T120000Z",
        "20261124T120000Z-",
        "20261124T120000Z-x",
    ] {
        output(&["clean-up", "target.yaml", "--run", part])
            .expect_code(2)
            .says("a run is YYYYMMDDTHHMMSSZ-PID");
    }
}
