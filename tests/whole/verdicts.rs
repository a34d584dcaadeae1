//! The verdict can fail: each planted defect is caught and named, on both lanes.

use serde_json::Value;

use crate::support::{Evidence, machine, output};

/// `(defect, anomaly, scenario)` as the binary lists them.
fn defects() -> Vec<[String; 3]> {
    let listed = output(&["run", "--defect", "list"]).expect_code(0);
    let word = |words: &[&str], n: usize| {
        words
            .get(n)
            .map(|word| (*word).to_owned())
            .expect("four columns")
    };
    listed
        .stdout
        .lines()
        .map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            [word(&words, 0), word(&words, 1), word(&words, 2)]
        })
        .collect()
}

#[test]
fn every_planted_defect_is_caught_and_named_with_examples() {
    let _machine = machine();
    for [defect, anomaly, scenario] in defects() {
        let evidence = Evidence::new();
        let args = [
            "run",
            &scenario,
            "--quick",
            "--defect",
            &defect,
            "--output-dir",
            evidence.arg(),
        ];
        let finished = output(&args).expect_code(1);
        finished.says("NO-GO").says(&anomaly);
        for row in evidence.rows() {
            let lane = &row["lane"];
            assert_eq!(
                row["status"], "failed",
                "{defect} on {lane}: {}",
                row["verdict"]
            );
            let found = &row["anomalies"][&anomaly];
            assert!(
                found["count"].as_u64() > Some(0),
                "{defect} on {lane}: {}",
                row["anomalies"]
            );
            let examples = found["examples"].as_array().map_or(&[][..], Vec::as_slice);
            assert!(!examples.is_empty(), "{defect} on {lane}: {found}");
            assert!(
                examples.iter().all(|example| example["detail"].is_string()),
                "{found}"
            );
        }
        output(&["gate", evidence.arg()]).expect_code(1);
    }
}

#[test]
fn an_impossible_bound_is_a_no_go_with_figure_and_bound() {
    let _machine = machine();
    let evidence = Evidence::new();
    let set = "bounds.recovery.p50=1us";
    let args = [
        "run",
        "restart",
        "--lane",
        "khala",
        "--quick",
        "--set",
        set,
        "--output-dir",
        evidence.arg(),
    ];
    let finished = output(&args).expect_code(1);
    finished.says("recovery").says("p50").says("1us");
    let row: &Value = &evidence.rows()[0];
    assert_eq!(row["status"], "failed");
    assert_eq!(row["phases"]["recovery"]["within_bound"], false);
    output(&["gate", evidence.arg()]).expect_code(1).says("1us");
}
