//! A witness of its own: asks the server by SQL over HTTP what it holds, past everything that the drill reads it with,
//! when the publisher has stopped and the server still runs.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use host::http::{Client, Method};
use serde_json::Value;

use crate::support::{Evidence, Running, descendants, faultlane};

const LOOK_EVERY: Duration = Duration::from_millis(10);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// What the trial's log says when nothing is published any more.
const STOPPED: &str = "the publisher has stopped";

/// A drill that has ended, and the idempotency keys that the server held at its end.
pub(crate) struct Witnessed {
    pub(crate) row: Value,
    pub(crate) keys: BTreeSet<String>,
    mark: String,
}

/// Runs a scenario against the real server, once, and asks the server meanwhile.
pub(crate) fn run(scenario: &str, seed: u32, evidence: &Evidence) -> Witnessed {
    let seed = seed.to_string();
    let args = [
        "run",
        scenario,
        "--target",
        "spacetimedb",
        "--quick",
        "--seed",
        &seed,
        "--output-dir",
        evidence.arg(),
    ];
    let silent = std::process::Stdio::null;
    let child = faultlane(&args)
        .stdout(silent())
        .stderr(silent())
        .spawn()
        .expect("it starts");
    let mut running = Running(child);
    let trial = format!("{scenario}-spacetime-1");
    let logs = evidence.dir.join("logs").join(&trial);
    let (mut stops, mut keys) = (0, None);
    while running.0.try_wait().expect("a child").is_none() {
        // A trial that is repeated because of harness lag has an end of its own.
        let now = stopped(&logs.join("trial.log")) + stopped(&logs.join("trial-repeated.log"));
        if now > stops {
            let plan = evidence.file(&format!("plans/{trial}.json"));
            keys = Some(held(running.0.id(), &plan));
        }
        stops = now;
        // A pause between two looks, not a synchronisation.
        std::thread::sleep(LOOK_EVERY);
    }
    let record: Value = serde_json::from_str(&evidence.file("run.json")).expect("run.json");
    let row = evidence.rows().remove(0);
    let again = if row["repeated"].is_null() {
        ""
    } else {
        "-again"
    };
    let run = record["run"].as_str().expect("the run's id");
    Witnessed {
        mark: format!("{run}/{trial}{again}"),
        row,
        keys: keys.unwrap_or_else(|| panic!("no `{STOPPED}` in {}", evidence.logs())),
    }
}

fn stopped(log: &Path) -> usize {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.matches(STOPPED).count()
}

fn held(conductor: u32, plan: &str) -> BTreeSet<String> {
    let plan: Value = serde_json::from_str(plan).expect("a plan");
    let streams = plan["workload"]["streams"].as_array().expect("streams");
    let addr = descendants(conductor)
        .into_iter()
        .filter(|pid| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.starts_with("spacetimedb")
        })
        .find_map(|pid| agent::procfs::listening_on(pid).first().copied())
        .expect("the server listens");
    let server = Client::new(addr);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let mut keys = BTreeSet::new();
    for stream in streams.iter().filter_map(Value::as_str) {
        let query = format!("SELECT idempotency_key FROM sync_event WHERE stream_id = '{stream}'");
        let path = "/v1/database/sync/sql";
        let asked = server.send(Method::POST, path, &[], query.into(), ANSWER_WITHIN);
        let answer = runtime.block_on(asked).expect("the server answers");
        let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
        let rows = answer[0]["rows"].as_array().expect("rows");
        keys.extend(
            rows.iter()
                .map(|row| row[0].as_str().expect("a key").to_owned()),
        );
    }
    keys
}

impl Witnessed {
    /// A figure of the row's census.
    pub(crate) fn census(&self, name: &str) -> u64 {
        let census = &self.row["census"];
        census[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{name}: {census}"))
    }

    /// All that was found of a kind, be it promised or not.
    pub(crate) fn found(&self, anomaly: &str) -> u64 {
        super::count(&self.row, anomaly)
    }

    /// Each event that is shown as lost, and whether a client lacks it rather than the lane.
    fn examples(&self) -> impl Iterator<Item = (String, bool)> {
        let tally = &self.row["anomalies"]["lost"];
        let all = [&tally["examples"], &tally["unpromised"]["examples"]];
        all.into_iter()
            .filter_map(Value::as_array)
            .flatten()
            .map(|example| {
                let word = |at| example["detail"].as_str()?.split_whitespace().nth(at);
                let (Some("index"), Some(index)) = (word(0), word(1)) else {
                    panic!("no index in {example}");
                };
                let stream = example["stream"].as_str().expect("a stream");
                let by_client = !example["client"].is_null();
                (format!("{}:{stream}:{index}", self.mark), by_client)
            })
    }

    /// As many events are reported lost as this witness misses, and those shown are among them.
    #[track_caller]
    pub(crate) fn agrees(&self) {
        let held = self.keys.len() as u64;
        let written = self.census("acknowledged") + self.census("unacknowledged");
        let (lost, missed) = (self.census("lost"), self.census("missed"));
        let row = &self.row;
        assert_eq!(lost, written - held, "{}", row["census"]);
        assert_eq!(self.census("counted"), held, "{}", row["census"]);
        assert_eq!(self.found("lost"), lost + missed, "{}", row["anomalies"]);
        // A client lacks what the lane has only where its cursor was overtaken.
        let stale = &row["anomalies"]["stale_cursor"]["count"];
        assert_eq!(missed > 0, *stale != 0, "{}", row["anomalies"]);
        for (key, by_client) in self.examples() {
            assert_eq!(
                self.keys.contains(&key),
                by_client,
                "{key}: {}",
                row["anomalies"]["lost"]
            );
        }
    }
}
