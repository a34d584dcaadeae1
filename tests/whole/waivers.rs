//! Waivers, from the file on the command line to the gate.

use std::fs;

use crate::support::{Evidence, machine, output};

#[test]
fn a_waived_defect_is_a_go_that_the_gate_repeats_when_the_file_is_gone() {
    let _machine = machine();
    let evidence = Evidence::new();
    let root = tempfile::tempdir().expect("a temporary folder");
    let file = root.path().join("waivers.yaml");
    let day = chrono::Utc::now() + chrono::TimeDelta::days(30);
    let text = format!(
        "waivers:\n  - anomaly: duplicate_apply\n    scope: {{ lane: khala }}\n    reason: mended with SYNC-311\n    \
         owner: team-sync\n    expires: {}\n",
        day.format("%Y-%m-%d")
    );
    fs::write(&file, text).expect("the waivers");
    let args = [
        "run",
        "restart",
        "--lane",
        "khala",
        "--quick",
        "--defect",
        "apply-twice",
        "--waivers",
        file.to_str().expect("UTF-8"),
        "--output-dir",
        evidence.arg(),
    ];
    output(&args)
        .expect_code(0)
        .says("waiver used: duplicate_apply in every scenario on khala, of team-sync");
    let row = &evidence.rows()[0];
    let found = &row["anomalies"]["duplicate_apply"];
    assert!(found["count"].as_u64() > Some(0), "{found}");
    assert_eq!(found["waiver"]["holds"], true, "{found}");
    assert!(
        evidence.file("SUMMARY.md").contains("## Waivers"),
        "{}",
        evidence.file("SUMMARY.md")
    );

    fs::remove_file(&file).expect("it was there");
    output(&["gate", evidence.arg()])
        .expect_code(0)
        .says("mended with SYNC-311");
    let kept = evidence.dir.join("waivers.json");
    let softened = evidence.file("waivers.json").replace("khala", "spacetime");
    fs::write(kept, softened).expect("a copy that is tampered with");
    output(&["gate", evidence.arg()])
        .expect_code(1)
        .says("tampered: waivers.json");
}

#[test]
fn a_wrong_file_of_waivers_is_refused_before_anything_is_written() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let file = root.path().join("waivers.yaml");
    let dir = root.path().join("run");
    let run = |path: &str| {
        let dir = dir.to_str().expect("UTF-8");
        output(&["run", "restart", "--waivers", path, "--output-dir", dir]).expect_code(2)
    };
    fs::write(&file, "waivers:\n  - anomaly: losst\n").expect("the waivers");
    let file = file.to_str().expect("UTF-8");
    run(file)
        .says("waivers.yaml:2:14")
        .says("did you mean `lost`?");
    run("/nowhere/waivers.yaml").says("/nowhere/waivers.yaml");
    assert!(!dir.exists());
}
