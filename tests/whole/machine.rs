//! Faults of the machine and of the token service's clock, in a drill.

use std::fs;

use crate::support::{Evidence, machine, output};

/// Everybody renews tokens while the clock is wrong, as these live for 4 s; so somebody is always about to be connected again.
/// Little is taken up, as the drill needs a machine too.
const SCENARIO: &str = "name: pressed
workload: { clients: 20, shards: 1, streams: 4, streams_per_client: 2, ramp: 500ms }
target: { profile: { token_ttl: 4s } }
steady: { connected: 75% }
timeline:
  - { at: 200ms, fault: { reset: {} } }
  - { at: 500ms, fault: { cpu_burn: { cores: 1, load: 10% } }, for: 2s }
  - { at: 500ms, fault: { memory_fill: { size: 16MiB } }, for: 2s }
  - { at: 500ms, fault: { disk_fill: { size: 8MiB } }, for: 2s }
  - { at: 1s, fault: { clock_skew: { offset: +1h } }, for: 5s }
affected: 90%
bounds: { recovery: { max: 20s } }
deadline: 20s
";

#[test]
fn a_drill_presses_on_the_machine_and_skews_a_clock_and_leaves_nothing() {
    let _machine = machine();
    let root = tempfile::tempdir().expect("a temporary folder");
    let path = root.path().join("pressed.yaml");
    fs::write(&path, SCENARIO).expect("the scenario");
    let evidence = Evidence::new();
    let scenario = path.to_str().expect("UTF-8");
    let args = ["run", scenario, "--output-dir", evidence.arg()];
    output(&args).expect_code(0).says("GO");
    for row in evidence.rows() {
        let name = &row["lane"];
        assert_eq!(row["status"], "passed", "{name}: {}", row["verdict"]);
        assert_eq!(row["fidelity"], "proxy+machine+clock", "{name}");
        let faults = row["faults"].as_array().expect("faults");
        let figure = |place: usize, figure: &str| {
            let figures = &faults[place]["observation"]["figures"];
            figures[figure]
                .as_u64()
                .unwrap_or_else(|| panic!("{figure} in {figures}"))
        };
        assert!(figure(1, "cpu_ms") >= 50, "{name}");
        assert_eq!(figure(2, "bytes_held"), 16 << 20, "{name}");
        assert_eq!(figure(3, "bytes_held"), 8 << 20, "{name}");
        assert!(figure(4, "tokens_skewed") > 0, "{name}");
        let ahead = figure(4, "iat_unix") - figure(4, "true_unix");
        assert_eq!(ahead, 3_600, "{name}");
        let refused = &row["lane_status"]["refused"]["token_not_yet_valid"];
        assert!(refused.as_u64() > Some(0), "{}", row["lane_status"]);
    }
    let summary = evidence.file("SUMMARY.md");
    for kind in ["machine", "clock"] {
        assert!(summary.contains(&format!("Fidelity `{kind}`")), "{summary}");
    }
}
