//! The bench of the proxy: that it measures, not what.

use std::fs;

use serde_json::Value;

use crate::support::{Finished, faultlane, machine};

#[test]
fn a_smoke_run_measures_everything_that_is_at_hand_and_says_what_is_not() {
    let _machine = machine();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bench.json");
    let path = file.to_str().expect("UTF-8");
    let bench = faultlane(&["bench", "proxy", "--quick", "--json", path])
        // No peers here.
        .env("PATH", folder.path())
        .output()
        .expect("faultlane starts");
    let finished = Finished::from(bench).expect_code(0);
    finished
        .says("haproxy: not on the PATH")
        .says("toxiproxy: not on the PATH")
        .says("| one-stream throughput ≥ 1.3 × haproxy");
    let report: Value =
        serde_json::from_slice(&fs::read(&file).expect("it was written")).expect("JSON");
    for paired in report["paired"].as_array().expect("a list") {
        for (peer, samples) in paired["samples"].as_object().expect("by peer") {
            let samples: Vec<_> = samples.as_array().expect("a list").iter().collect();
            let are_positive = samples.iter().all(|sample| sample.as_f64() > Some(0.0));
            assert!(
                samples.len() == 3 && are_positive,
                "{} of {peer}: {samples:?}",
                paired["figure"]
            );
        }
    }
    let count = |what: &str| report[what].as_array().map(Vec::len);
    assert_eq!(count("paired"), Some(16));
    assert_eq!(count("delays"), Some(6), "those of the control too");
    assert_eq!(count("rates"), Some(3));
    let criteria = report["criteria"].as_array().expect("a list");
    let unknown = criteria
        .iter()
        .filter(|criterion| criterion["met"].is_null());
    assert_eq!((criteria.len(), unknown.count()), (15, 8), "{criteria:?}");
}
