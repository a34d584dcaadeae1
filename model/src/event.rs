//! What is published. An event's content is a function of (run, seed, stream, index, intended instant), so that every
//! shard can check what it receives without asking the publisher.

use rand::RngExt as _;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::decide;
use crate::ids::StreamId;
use crate::instant::Mono;

/// One event of a stream, ready to be appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The stream it belongs to.
    pub stream: StreamId,
    /// Its ordinal among all events that this run publishes to the stream, from 0. Not the seq: that is the lane's.
    pub index: u64,
    /// `RUN:STREAM:INDEX`.
    pub key: String,
    /// Canonical JSON: keys sorted, no white space.
    pub payload_json: String,
    /// `sha256:<hex>` of `payload_json`.
    pub payload_hash: String,
}

/// Where the events of a run come from.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Origin {
    /// What marks the events: the run's id, or [`trial_mark`].
    pub run: String,
    /// The trial's seed.
    pub seed: u64,
    /// The length of an event's padding in bytes; a payload is about 100 bytes longer.
    pub padding: u32,
}

/// What a received event turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Published by this run, unaltered.
    Ours {
        /// Its ordinal among the run's events of the stream.
        index: u64,
        /// When it was meant to be sent.
        intended: Mono,
    },
    /// Carries this run's mark, but not the content that this run gave it.
    Altered(String),
    /// Not marked by this run.
    Foreign,
}

impl Origin {
    /// The event with that index, meant to be sent at `intended`.
    #[must_use]
    pub fn event(&self, stream: &str, index: u64, intended: Mono) -> Event {
        let payload = json!({
            "index": index,
            "intended_us": intended.0,
            "padding": self.padding(stream, index),
            "run": self.run,
            "stream": stream,
        });
        let payload_json = canonical_json(&payload);
        Event {
            stream: stream.to_owned(),
            index,
            key: self.key(stream, index),
            payload_hash: payload_hash(&payload_json),
            payload_json,
        }
    }

    /// The idempotency key of an event.
    #[must_use]
    pub fn key(&self, stream: &str, index: u64) -> String {
        format!("{}:{stream}:{index}", self.run)
    }

    /// The index in an idempotency key of this run and stream.
    #[must_use]
    pub fn index_of(&self, stream: &str, key: &str) -> Option<u64> {
        key.strip_prefix(&self.run)?
            .strip_prefix(':')?
            .strip_prefix(stream)?
            .strip_prefix(':')?
            .parse()
            .ok()
    }

    /// Checks a received event against what this run published. `key` is `None` on lanes that do not carry it.
    #[must_use]
    pub fn check(
        &self,
        stream: &str,
        key: Option<&str>,
        payload_json: &str,
        hash: &str,
    ) -> Content {
        let payload: Value = match serde_json::from_str(payload_json) {
            Ok(payload) => payload,
            Err(_) if key.is_some_and(|key| self.index_of(stream, key).is_some()) => {
                return Content::Altered("the payload is not JSON".to_owned());
            }
            Err(_) => return Content::Foreign,
        };
        if payload["run"] != self.run.as_str() {
            return match key.and_then(|key| self.index_of(stream, key)) {
                Some(index) => {
                    Content::Altered(format!("index {index}: the payload lacks the run's mark"))
                }
                None => Content::Foreign,
            };
        }
        let (Some(index), Some(intended)) =
            (payload["index"].as_u64(), payload["intended_us"].as_u64())
        else {
            return Content::Altered("the payload has no index or no intended_us".to_owned());
        };
        let true_event = self.event(stream, index, Mono(intended));
        if key.is_some_and(|key| key != true_event.key) {
            Content::Altered(format!(
                "index {index}: the key is {}",
                key.unwrap_or_default()
            ))
        } else if canonical_json(&payload) != true_event.payload_json {
            Content::Altered(format!(
                "index {index}: the payload is not what was published"
            ))
        } else if hash != true_event.payload_hash {
            Content::Altered(format!(
                "index {index}: the hash {hash} is not the payload's"
            ))
        } else {
            Content::Ours {
                index,
                intended: Mono(intended),
            }
        }
    }

    fn padding(&self, stream: &str, index: u64) -> String {
        const LETTERS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut random = decide::rng(self.seed, stream, &index.to_string());
        let mut text = vec![0_u8; self.padding as usize];
        random.fill(&mut text[..]);
        text.iter()
            .map(|byte| char::from(LETTERS[usize::from(byte % 64)]))
            .collect()
    }
}

/// The idempotency key by which a row's event is removed again; `None` for a row that does not bear the mark. A mark is
/// a run's id, which marks the events of all its trials, or that of one of its trials, see [`trial_mark`].
///
/// A row that has somebody else's key is theirs, whatever its payload says: a copy of ours would be named for removal for
/// ever, and stay. The payload is looked into only on lanes that do not carry the key.
#[must_use]
pub fn own_key(mark: &str, stream: &str, key: Option<&str>, payload_json: &str) -> Option<String> {
    if let Some(key) = key {
        return is_marked(mark, key).then(|| key.to_owned());
    }
    let payload: Value = serde_json::from_str(payload_json).ok()?;
    let key = format!(
        "{}:{stream}:{}",
        payload["run"].as_str()?,
        payload["index"].as_u64()?
    );
    is_marked(mark, &key).then_some(key)
}

/// What a key of [`own_key`] marks and which index it names, if it names one: `RUN:STREAM` and the index.
#[must_use]
pub fn split_key(key: &str) -> Option<(&str, u64)> {
    let (rest, index) = key.rsplit_once(':')?;
    Some((rest, index.parse().ok()?))
}

/// What marks the events of one trial: several of a run may publish to the same streams, be it at once on two lanes of
/// one service, and each numbers its events from 0.
#[must_use]
pub fn trial_mark(run: &str, trial: &str) -> String {
    format!("{run}/{trial}")
}

fn is_marked(mark: &str, key: &str) -> bool {
    key.strip_prefix(mark)
        .is_some_and(|rest| rest.starts_with([':', '/']))
}

/// Whether a text has the form of an idempotency key of any run: `RUN:STREAM:INDEX`.
#[must_use]
pub fn is_key(text: &str, stream: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(named, index)| {
        let run = named.strip_suffix(stream);
        index.parse::<u64>().is_ok() && run.is_some_and(|run| run.len() > 1 && run.ends_with(':'))
    })
}

/// JSON with sorted keys and no white space, as the payload hash is taken over it.
#[must_use]
pub fn canonical_json(value: &Value) -> String {
    // serde_json's map is sorted unless its feature `preserve_order` is on, which a test below would notice.
    value.to_string()
}

/// `sha256:<hex>` of the text.
#[must_use]
pub fn payload_hash(canonical: &str) -> String {
    format!("sha256:{}", hex(&Sha256::digest(canonical.as_bytes())))
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "runtime.run.1.events";

    fn origin() -> Origin {
        Origin {
            run: "r1".to_owned(),
            seed: 7,
            padding: 32,
        }
    }

    #[test]
    fn what_was_published_is_recognised_and_what_was_altered_is_named() {
        let event = origin().event(STREAM, 3, Mono(42));
        let check = |key: Option<&str>, payload: &str, hash: &str| {
            origin().check(STREAM, key, payload, hash)
        };
        let ours = Content::Ours {
            index: 3,
            intended: Mono(42),
        };
        assert_eq!(
            check(Some(&event.key), &event.payload_json, &event.payload_hash),
            ours
        );
        assert_eq!(check(None, &event.payload_json, &event.payload_hash), ours);

        let other = event.payload_json.replace("\"index\":3", "\"index\":4");
        assert!(matches!(
            check(Some(&event.key), &other, &payload_hash(&other)),
            Content::Altered(_)
        ));
        assert!(
            matches!(
                check(None, &other, &payload_hash(&other)),
                Content::Altered(_)
            ),
            "the padding is index 3's"
        );
        assert!(matches!(
            check(None, &event.payload_json, "sha256:00"),
            Content::Altered(_)
        ));
        assert!(matches!(
            check(Some(&event.key), "{}", ""),
            Content::Altered(_)
        ));
        assert_eq!(
            check(Some("somebody-elses"), "{\"run\":\"r2\"}", ""),
            Content::Foreign
        );
    }

    #[test]
    fn only_keys_with_the_mark_are_named_for_removal() {
        let mark = trial_mark("r1", "restart-khala-1");
        let event = Origin {
            run: mark.clone(),
            ..origin()
        }
        .event(STREAM, 3, Mono(42));
        let own =
            |mark: &str, key: Option<&str>, payload: &str| own_key(mark, STREAM, key, payload);
        for mark in [mark.as_str(), "r1"] {
            let found = own(mark, Some(&event.key), "altered beyond recognition");
            assert_eq!(found.as_ref(), Some(&event.key));
            let found = own(mark, None, &event.payload_json);
            assert_eq!(found.as_ref(), Some(&event.key));
        }
        for other in ["r1/restart-khala-2", "r", "r2"] {
            assert_eq!(own(other, Some(&event.key), &event.payload_json), None);
        }
        for payload in ["{}", "", "null", "[1]", "{\"run\":\"r10\",\"index\":1}"] {
            assert_eq!(
                own("r1", Some("somebody-elses"), payload),
                None,
                "{payload}"
            );
        }
        for copied in ["somebody-elses", "r2:runtime.run.1.events:3"] {
            let copy = own("r1", Some(copied), &event.payload_json);
            assert_eq!(copy, None, "it is {copied}, whatever its payload says");
        }
    }

    #[test]
    fn an_idempotency_key_is_told_from_other_names() {
        let event = origin().event(STREAM, 3, Mono(42));
        assert!(is_key(&event.key, STREAM));
        assert!(is_key("another:run:runtime.run.1.events:0", STREAM));
        for other in [
            "",
            "run:1:events/4",
            "r1:runtime.run.1.events",
            "r1:runtime.run.1.events:x",
            "r1:runtime.run.2.events:3",
            ":runtime.run.1.events:3",
            "runtime.run.1.events:3",
        ] {
            assert!(!is_key(other, STREAM), "{other}");
        }
    }

    #[test]
    fn canonical_json_has_sorted_keys_and_no_white_space() {
        let value: Value =
            serde_json::from_str("{ \"b\": [1, 2], \"a\": {\"d\": null, \"c\": true} }").unwrap();
        assert_eq!(
            canonical_json(&value),
            r#"{"a":{"c":true,"d":null},"b":[1,2]}"#
        );
        assert_eq!(
            payload_hash("{}"),
            "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
        );
    }
}
