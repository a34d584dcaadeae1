//! The embedded spacetime lane against a real server: the conversation of `lanes/tests/golden/capture.py`, held with
//! this lane, has to give the frames that were captured there, but for differences that are named here.

mod compare;
mod conversation;

use std::collections::BTreeSet;
use std::path::Path;

use host::http::Method;
use model::ids::Lane;
use model::target::Wire;
use serde_json::{Value, json};

use self::compare::{comparable, compare, take_apart};
use self::conversation::{calls, conversation};
use crate::support::Target;

/// A difference that is meant: its name, in which frames and at which places it is. An empty frame stands for all.
struct Difference {
    name: &'static str,
    frame: &'static str,
    /// The place ends so.
    place: &'static str,
}

const fn difference(name: &'static str, frame: &'static str, place: &'static str) -> Difference {
    Difference { name, frame, place }
}

/// Whatever is different from one run of the same server to the next, and what this lane does otherwise.
const DIFFERENCES: &[Difference] = &[
    difference("identities are made anew", "", ".__identity__"),
    difference("tokens are made anew", "identity_token", ".token"),
    difference(
        "connections are numbered at random",
        "",
        ".__connection_id__",
    ),
    difference("time passes", "", ".__timestamp_micros_since_unix_epoch__"),
    difference("time passes", "", ".updated_at_unix_ms"),
    difference("time passes", "http_sql", ".rows[0][2]"),
    difference(
        "how long it took is not said",
        "",
        ".__time_duration_micros__",
    ),
    difference(
        "how long it took is not said",
        "",
        ".total_host_execution_duration_micros",
    ),
    difference(
        "how long it took is not said",
        "http_sql",
        ".total_duration_micros",
    ),
    difference("energy is not counted", "", ".quanta"),
    difference(
        "wrong arguments are told by the table",
        "http_call_arguments",
        ".body",
    ),
    difference(
        "an unknown database is refused as text",
        "http_call_no_database",
        ".content_type",
    ),
    difference(
        "a bad token is refused with its deny reason",
        "http_bad_token",
        ".body",
    ),
    difference(
        "a bad token is refused with its deny reason",
        "http_bad_token",
        ".content_type",
    ),
    difference(
        "a query's error is said once",
        "transaction_update_failed_subscribe",
        ".status.Failed",
    ),
    difference(
        "an unknown subscription is not told by connection",
        "unsubscribe_unknown",
        ".error",
    ),
];

/// The comparison of a whole conversation: which named differences were met, and what has no name.
#[derive(Default)]
struct Comparison {
    met: BTreeSet<(&'static str, &'static str)>,
    unnamed: Vec<String>,
}

impl Comparison {
    fn frame(&mut self, name: &str, there: &Value, here: &Value) {
        let mut found = Vec::new();
        compare("", there, here, &mut found);
        for (place, there, here) in found {
            let named = DIFFERENCES.iter().find(|difference| {
                (difference.frame.is_empty() || difference.frame == name)
                    && place.ends_with(difference.place)
            });
            match named {
                Some(named) => drop(self.met.insert((named.name, named.place))),
                None => self
                    .unnamed
                    .push(format!("{name}{place}: there {there}, here {here}")),
            }
        }
    }
}

fn golden(file: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lanes/tests/golden/spacetime");
    std::fs::read(folder.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[tokio::test]
async fn frames_differ_from_a_real_servers_in_what_is_named_only() {
    let mut comparison = Comparison::default();
    for wire in [Wire::Json, Wire::Bsatn] {
        let target = Target::with(Lane::Spacetime, None, |lane, _| {
            lane.strict = false;
            lane.database = "golden".to_owned();
        });
        let identity = target.send(Method::POST, "/v1/identity", &[], "").await;
        let identity: Value = serde_json::from_slice(&identity.body).unwrap();
        let token = identity["token"].as_str().unwrap();
        for (name, here) in calls(&target, token).await {
            let mut there = serde_json::from_slice(&golden(&format!("{name}.json"))).unwrap();
            take_apart(&mut there);
            comparison.frame(name, &there, &here);
        }
        for (name, here) in conversation(&target, wire, token).await {
            let there = match wire {
                Wire::Json => {
                    let text = String::from_utf8(golden(&format!("{name}.json"))).unwrap();
                    comparable(&text.into())
                }
                Wire::Bsatn => comparable(&golden(&format!("{name}.bsatn")).into()),
            };
            comparison.frame(name, &there, &here);
        }
    }
    assert!(
        comparison.unnamed.is_empty(),
        "differences without a name:\n{}",
        comparison.unnamed.join("\n")
    );
    for Difference { name, place, .. } in DIFFERENCES {
        assert!(
            comparison.met.contains(&(*name, *place)),
            "no longer a difference: {name} ({place})"
        );
    }
}

#[test]
fn a_difference_without_a_name_is_found() {
    let mut comparison = Comparison::default();
    let there = json!({"SubscribeApplied": {"rows": [1, 2], "quanta": 7}});
    let here = json!({"SubscribeApplied": {"rows": [1, 3], "quanta": 0, "more": true}});
    comparison.frame("subscribe_applied", &there, &here);
    assert_eq!(
        comparison.unnamed,
        [
            "subscribe_applied.SubscribeApplied.more: there null, here true",
            "subscribe_applied.SubscribeApplied.rows[1]: there 2, here 3",
        ]
    );
}
