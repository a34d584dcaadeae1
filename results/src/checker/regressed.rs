//! A head that went back behind what a client had already applied, on a lane that says nothing of it. The clients of a
//! drill compare and begin anew; a client that does not never sees what is put at the seqs that are used again.

use model::anomaly::{Anomaly, Example};
use model::target::World;

use super::{Evidence, Found};
use crate::runs;

pub(super) fn check(evidence: &Evidence<'_>) -> Found {
    let mut found = Found::default();
    for regression in evidence.shards.iter().flat_map(|shard| &shard.regressions) {
        let stream = evidence.streams.get(&regression.stream);
        // What lay between the head and the cursor was all of it such as the node need not have kept.
        let excused = stream.is_some_and(|stream| {
            let gone = runs::clip(
                &stream.places,
                regression.head.saturating_add(1),
                regression.cursor,
            );
            let gone = runs::indexes(&gone).difference(&stream.unpromised);
            // Where others publish too, all that is gone may be theirs.
            let may_lose = match evidence.world {
                World::Closed => !stream.unpromised.is_empty(),
                World::Open => evidence.may_lose,
            };
            may_lose
                && gone.iter().all(|index| {
                    // A later event that took one of those seqs is none that is gone.
                    stream
                        .read
                        .is_some_and(|read| runs::indexes(&read.events).contains(index))
                })
        });
        found.note(
            Anomaly::StaleCursor,
            [regression],
            |_| excused,
            |regression| Example {
                client: Some(regression.client),
                stream: Some(regression.stream.clone()),
                seq: Some(regression.cursor),
                detail: format!(
                    "resumed after {}, the lane's head was {}, and it said nothing: the client began anew",
                    regression.cursor, regression.head
                ),
                at: Some(regression.at),
            },
        );
    }
    found
}
