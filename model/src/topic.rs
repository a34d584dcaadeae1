//! The khala lane's topics and the streams behind them. Cursors are kept by stream, so that one keeps its seq when a client moves from
//! one lane to the other.

use crate::ids::StreamId;

const PATTERNS: [(&str, &str, &str, &str); 4] = [
    ("run:", ":events", "runtime.run.", ".events"),
    ("worker:", ":lifecycle", "runtime.worker.", ".lifecycle"),
    ("fleet:user:", ":workers", "runtime.fleet.user.", ".workers"),
    (
        "fleet:guest:",
        ":workers",
        "runtime.fleet.guest.",
        ".workers",
    ),
];

const WORKER_EVENTS: (&str, &str) = ("runtime.codex_worker_events", "runtime.codex.worker.events");

const OTHERS: &str = "runtime.topic.";

/// The stream behind a topic.
#[must_use]
pub fn stream_of(topic: &str) -> StreamId {
    if topic == WORKER_EVENTS.0 {
        return WORKER_EVENTS.1.to_owned();
    }
    for (head, tail, stream_head, stream_tail) in PATTERNS {
        if let Some(middle) = between(topic, head, tail) {
            return format!("{stream_head}{middle}{stream_tail}");
        }
    }
    format!("{OTHERS}{}", topic.replace(':', "."))
}

/// The topic of a stream; `None` for a stream that no topic leads to. A topic without a pattern of its own is named
/// with dots, since which of them were colons is not known; both lead to the same stream.
#[must_use]
pub fn topic_of(stream: &str) -> Option<String> {
    if stream == WORKER_EVENTS.1 {
        return Some(WORKER_EVENTS.0.to_owned());
    }
    for (head, tail, stream_head, stream_tail) in PATTERNS {
        if let Some(middle) = between(stream, stream_head, stream_tail) {
            return Some(format!("{head}{middle}{tail}"));
        }
    }
    stream
        .strip_prefix(OTHERS)
        .filter(|topic| !topic.is_empty() && stream_of(topic) == stream)
        .map(str::to_owned)
}

fn between<'a>(text: &'a str, head: &str, tail: &str) -> Option<&'a str> {
    text.strip_prefix(head)?
        .strip_suffix(tail)
        .filter(|middle| !middle.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_known_topics_lead_to_their_streams() {
        for (topic, stream) in [
            ("run:7:events", "runtime.run.7.events"),
            ("worker:w1:lifecycle", "runtime.worker.w1.lifecycle"),
            ("fleet:user:3:workers", "runtime.fleet.user.3.workers"),
            ("fleet:guest:g:workers", "runtime.fleet.guest.g.workers"),
            ("runtime.codex_worker_events", "runtime.codex.worker.events"),
            (
                "runtime.run_summaries",
                "runtime.topic.runtime.run_summaries",
            ),
        ] {
            assert_eq!(stream_of(topic), stream);
            assert_eq!(topic_of(stream).as_deref(), Some(topic));
        }
        assert_eq!(stream_of("a:b"), "runtime.topic.a.b");
        assert_eq!(topic_of("elsewhere"), None);
    }

    proptest! {
        #[test]
        fn a_topic_of_a_stream_leads_back_to_it(stream in "(runtime\\.(run|worker|topic|fleet\\.user)\\.)?[a-z.:]{0,8}(\\.events|\\.workers|\\.lifecycle)?") {
            if let Some(topic) = topic_of(&stream) {
                prop_assert_eq!(stream_of(&topic), stream);
            }
        }
    }
}
