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

#[test]
fn a_client_that_stays_down_is_kept_and_why_tells_its_story() {
    let _machine = machine();
    let evidence = Evidence::new();
    let args = [
        "run",
        "restart",
        "--lane",
        "khala",
        "--quick",
        "--defect",
        "never-recover",
        "--output-dir",
        evidence.arg(),
    ];
    let finished = output(&args).expect_code(1);
    let row = &evidence.rows()[0];
    let accused = row["anomalies"]["not_recovered"]["examples"][0]["client"]
        .as_u64()
        .expect("a client");
    let client = format!("c{accused:04}");
    finished.says(&format!("faultlane why DIR --client {client}"));

    let why = ["why", evidence.arg(), "--client", &client];
    let told = output(&why).expect_code(0);
    told.says("not_recovered")
        .says("==== fault f1-kill")
        .says("==== heal f1-kill")
        .says("connection lost")
        .says("stops: it will not try again");
    let json = output(&[why.as_slice(), &["--json"]].concat()).expect_code(0);
    let story: Value = serde_json::from_str(&json.stdout).expect("JSON");
    let moments = story["trials"][0]["moments"].as_array().expect("moments");
    let place = |name: &str| {
        let named = |moment: &Value| {
            let what = &moment["what"];
            what == name || what.get(name).is_some()
        };
        moments
            .iter()
            .rposition(named)
            .unwrap_or_else(|| panic!("{name}: {story}"))
    };
    assert!(place("subscribed") < place("lost") && place("lost") < place("stopped"));
    assert!(
        moments[place("lost")]["relative_us"].as_i64() > Some(0),
        "{story}"
    );

    let kept = evidence.file("clients/restart-khala-1.jsonl");
    assert!(!kept.contains("eyJ"), "no token in the evidence: {kept}");
    let intended = row["clients"]["intended"].as_u64().expect("clients");
    let well = (0..intended)
        .map(|id| format!("c{id:04}"))
        .find(|id| {
            let ordinal = id[1..].trim_start_matches('0').parse().unwrap_or(0_u64);
            !kept.contains(&format!("{{\"client\":{ordinal},"))
        })
        .expect("somebody was well");
    output(&["why", evidence.arg(), "--client", &well])
        .expect_code(2)
        .says("neither anomalous nor censored")
        .says(&client);
    output(&["why", evidence.arg(), "--client", "c9999"])
        .expect_code(2)
        .says("there is no client c9999");
    output(&["why", evidence.arg(), "--client", "42"])
        .expect_code(2)
        .says("c0042");
    output(&["why", "/nowhere/at/all", "--client", &client])
        .expect_code(4)
        .says("/nowhere/at/all");
    output(&["gate", evidence.arg()]).expect_code(1);
}
