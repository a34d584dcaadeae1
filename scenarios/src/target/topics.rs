//! A khala lane carries a stream only under a topic: one that no topic leads to could be published to, and nobody could
//! subscribe to it.

use model::ids::StreamId;
use model::topic::topic_of;

use super::StreamNames;
use super::file::TargetFile;
use crate::check::Checks;

const HINT: &str = "the khala lane has topics for runtime.run.ID.events, runtime.worker.ID.lifecycle, \
    runtime.fleet.user.ID.workers, runtime.fleet.guest.ID.workers, runtime.codex.worker.events and runtime.topic.NAME: \
    name the stream so";

/// Every stream that a target with a khala lane names; of a pattern's the first that has no topic.
pub(super) fn check(checks: &mut Checks<'_>, file: &TargetFile, streams: &[StreamId]) {
    if file.lanes.khala.is_none() {
        return;
    }
    let mut look = |path: &[&str], stream: &str| {
        // One without a name is told of by itself.
        let told = stream.trim().is_empty() || has_topic(stream);
        if !told {
            let message = format!("no topic of the khala lane leads to the stream `{stream}`");
            checks.error(path, message, HINT);
        }
        told
    };
    match &file.streams {
        StreamNames::Pattern(_) => {
            for stream in streams {
                if !look(&["streams", "pattern"], stream) {
                    break;
                }
            }
        }
        StreamNames::Names(names) => {
            for (place, stream) in names.iter().enumerate() {
                look(&["streams", &place.to_string()], stream);
            }
        }
    }
    for (place, tenant) in file.tenants.iter().enumerate() {
        look(&["tenants", &place.to_string(), "stream"], &tenant.stream);
    }
    if let Some(stale) = &file.probes.stale {
        look(&["probes", "stale", "stream"], &stale.stream);
    }
}

/// What stands for an id must not end a topic's part, and no service takes white space or what cannot be printed.
fn has_topic(stream: &str) -> bool {
    let odd = |c: char| c == ':' || c.is_whitespace() || c.is_control();
    topic_of(stream).is_some() && !stream.contains(odd)
}
