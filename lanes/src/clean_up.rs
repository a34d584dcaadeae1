//! Cleaning up: where others publish to the same streams, what a run published there is removed when it is no longer
//! needed. Its events are found by reading, by the mark that they bear, so that those of unknown outcome are among
//! them; and a stream is read again until none is left, so that whatever an answer said is not taken for granted.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use model::event::own_key;
use model::ids::StreamId;
use model::shard::CleanUp;

use crate::final_read::Reader;

/// An append whose outcome was unknown may yet be committed, and a lane may be away for a moment.
const ROUNDS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);
/// A batch of keys: a real `SpacetimeDB` takes 50,000 bytes of SQL, of which a key's condition takes some 30.
const BATCH: usize = 100;
const BATCH_BYTES: usize = 16 * 1024;

/// Who cleans up.
#[derive(Debug)]
pub struct Cleaner {
    /// How streams are read, and where they are removed from.
    pub reader: Reader,
    /// What the events to be removed bear: see [`own_key`].
    pub mark: String,
}

/// What became of one stream.
#[derive(Debug, Default)]
struct Cleaned {
    removed: u64,
    left: u64,
    failed: Option<String>,
}

impl Cleaner {
    /// Removes what bears the mark from these streams, each with its organisation.
    pub async fn clean_up(&self, streams: &[(String, StreamId)]) -> CleanUp {
        let mut done = CleanUp {
            declined: !self.reader.store.removes(),
            ..CleanUp::default()
        };
        let all = streams.iter().map(|(org, stream)| self.stream(org, stream));
        for ((_, stream), cleaned) in streams.iter().zip(join_all(all).await) {
            done.removed += cleaned.removed;
            if cleaned.left > 0 {
                done.left.insert(stream.clone(), cleaned.left);
            }
            if let Some(why) = cleaned.failed {
                done.failed.insert(stream.clone(), why);
            }
        }
        done
    }

    async fn stream(&self, org: &str, stream: &str) -> Cleaned {
        let store = &self.reader.store;
        let mut found = BTreeSet::new();
        let mut refused = None;
        let mut rounds = 0;
        loop {
            let replay = match self.reader.replay(org, stream).await {
                Ok(replay) => replay,
                Err(why) => {
                    return Cleaned {
                        failed: Some(format!("it could not be read: {why}")),
                        ..Cleaned::default()
                    };
                }
            };
            let keys: Vec<String> = replay
                .rows
                .iter()
                .filter_map(|row| own_key(&self.mark, stream, row.key.as_deref(), &row.payload))
                .collect();
            let left = keys.len() as u64;
            let there: BTreeSet<String> = keys.into_iter().collect();
            found.extend(there.iter().cloned());
            rounds += 1;
            if there.is_empty() || !store.removes() || rounds == ROUNDS {
                return Cleaned {
                    removed: (found.len() - there.len()) as u64,
                    left,
                    failed: refused.filter(|_| left > 0),
                };
            }
            if refused.take().is_some() {
                tokio::time::sleep(PAUSE).await;
            }
            for batch in batches(there) {
                if let Err(error) = store.remove(stream, &batch).await {
                    refused = Some(format!("the lane did not remove events: {error}"));
                }
            }
        }
    }
}

fn batches(keys: impl IntoIterator<Item = String>) -> Vec<Vec<String>> {
    let mut batches: Vec<Vec<String>> = Vec::new();
    let mut bytes = 0;
    for key in keys {
        bytes += key.len();
        match batches.last_mut() {
            Some(batch) if batch.len() < BATCH && bytes <= BATCH_BYTES => batch.push(key),
            _ => {
                bytes = key.len();
                batches.push(vec![key]);
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_every_key_once_and_stay_small() {
        let keys: Vec<String> = (0..1_234)
            .map(|n| format!("{n:0width$}", width = 1 + n % 700))
            .collect();
        let batches = batches(keys.clone());
        assert_eq!(batches.concat(), keys);
        for batch in &batches {
            let bytes: usize = batch.iter().map(String::len).sum();
            assert!(!batch.is_empty() && batch.len() <= BATCH && bytes <= BATCH_BYTES);
        }
    }
}
