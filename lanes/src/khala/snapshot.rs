//! Snapshot plans: where clients with stale cursors go on.

use model::ids::Seq;
use model::snapshot::Snapshot;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// The format of a snapshot plan.
pub const FORMAT: &str = "openagents.sync.snapshot.v1";

/// From where to go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotPlan {
    /// [`FORMAT`].
    pub format: String,
    /// Each stale topic.
    pub topics: Vec<TopicSnapshot>,
}

/// A topic's snapshot. After taking it, subscribe with `head_watermark` as the cursor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicSnapshot {
    /// The topic.
    pub topic: String,
    /// Up to which seq the snapshot covers it.
    pub head_watermark: Seq,
    /// Its content; `None` where a service says it in another form than a digest.
    #[serde(default, deserialize_with = "in_this_form")]
    pub snapshot: Option<Snapshot>,
}

/// What a snapshot holds is between a service and its clients. One that cannot be checked here is no error: the watermark
/// says where to go on.
fn in_this_form<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Snapshot>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_in_another_form_still_says_where_to_go_on() {
        let of = |snapshot: &str| {
            let text = format!(r#"{{"topic":"run:1:events","head_watermark":9{snapshot}}}"#);
            let topic: TopicSnapshot = serde_json::from_str(&text).unwrap();
            (topic.head_watermark, topic.snapshot)
        };
        for other in ["", r#","snapshot":null"#, r#","snapshot":{"rows":[1]}"#] {
            assert_eq!(of(other), (9, None), "{other}");
        }
        let held = Snapshot {
            count: 2,
            digest: "ab".to_owned(),
        };
        let known = r#","snapshot":{"count":2,"digest":"ab"}"#;
        assert_eq!(of(known), (9, Some(held)));
    }
}
