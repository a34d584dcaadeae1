//! Cleaning up: where others publish to the same streams, what a run published there is removed when it is no longer
//! needed. Its events are found by reading, by the mark that they bear, so that those of unknown outcome are among
//! them; and a stream is read again until none is left, so that whatever an answer said is not taken for granted.
//!
//! A lane that replays no more than some budget does not show all of a stream. Of what it does not show, every index
//! below one that was seen or submitted is named for removal, and counted as unseen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use host::peer::{PeerError, Reach};
use model::event::{own_key, split_key};
use model::ids::{Lane, StreamId};
use model::profile::Profile;
use model::shard::{CleanUp, Cursors, TokenSource};
use model::target::Access;

use crate::final_read::{Extent, Reader, Replay, ReplayError};
use crate::lane::Kind;
use crate::oneshot::Asked;
use crate::store::Store;
use crate::token_client::TokenClient;

/// An append whose outcome was unknown may yet be committed, and a lane may be away for a moment.
const ROUNDS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);
/// A stream read to its end, whatever its history.
const READ_WITHIN: Duration = Duration::from_secs(30);
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
    /// How many events were submitted, of the streams of which that is known.
    pub submitted: BTreeMap<StreamId, u64>,
}

/// What became of one stream.
#[derive(Debug, Default)]
struct Cleaned {
    removed: u64,
    unseen: u64,
    left: u64,
    failed: Option<String>,
}

/// A stream's own events, as far as the lane shows them.
struct Own {
    keys: BTreeSet<String>,
    rows: u64,
    /// The lane shows all of the stream.
    whole: bool,
}

impl Cleaner {
    /// For a lane that is reached so, when the trial is long over: streams are read from their beginnings.
    ///
    /// # Errors
    /// The lane or the issuer of tokens cannot be reached by these settings.
    pub fn afterwards(
        lane: Lane,
        access: &Access,
        tokens: &TokenSource,
        profile: &Profile,
        publish_secret: &str,
        mark: &str,
    ) -> Result<Self, PeerError> {
        let peer = Reach::of(access)?.direct;
        Ok(Self {
            reader: Reader {
                asked: Asked {
                    peer: Arc::clone(&peer),
                    kind: Kind::of(lane),
                    access: Arc::new(access.clone()),
                    within: READ_WITHIN,
                },
                store: Store::new(lane, access, peer, publish_secret),
                tokens: TokenClient::new(tokens, lane, profile.refresh_lead)?,
                begun: Cursors::new(),
                budgets: (BTreeMap::new(), profile.replay_budget),
                retentions: (BTreeMap::new(), profile.retention),
            },
            mark: mark.to_owned(),
            submitted: BTreeMap::new(),
        })
    }

    /// Removes what bears the mark from these streams, each with its organisation.
    pub async fn clean_up(&self, streams: &[(String, StreamId)]) -> CleanUp {
        let mut done = CleanUp {
            declined: !self.reader.store.removes(),
            ..CleanUp::default()
        };
        let all = streams.iter().map(|(org, stream)| self.stream(org, stream));
        for ((_, stream), cleaned) in streams.iter().zip(join_all(all).await) {
            done.removed += cleaned.removed;
            for (rows, by_stream) in [
                (cleaned.unseen, &mut done.unseen),
                (cleaned.left, &mut done.left),
            ] {
                if rows > 0 {
                    by_stream.insert(stream.clone(), rows);
                }
            }
            if let Some(why) = cleaned.failed {
                done.failed.insert(stream.clone(), why);
            }
        }
        done
    }

    async fn stream(&self, org: &str, stream: &str) -> Cleaned {
        let store = &self.reader.store;
        let mut cleaned = Cleaned::default();
        let mut found = BTreeSet::new();
        let (mut hidden, mut named) = (BTreeSet::new(), 0);
        let mut rounds = 0;
        loop {
            let own = match self.own(org, stream).await {
                Ok(own) => own,
                Err(why) => {
                    cleaned.failed = Some(format!("it could not be read: {why}"));
                    return cleaned;
                }
            };
            found.extend(own.keys.iter().cloned());
            if !own.whole && rounds == 0 {
                hidden = self.hidden(stream, &own.keys);
                named = hidden.len();
            }
            cleaned.removed = (found.len() - own.keys.len()) as u64;
            cleaned.left = own.rows;
            if !store.removes() {
                cleaned.unseen = named as u64;
                return cleaned;
            }
            cleaned.unseen = (named - hidden.len()) as u64;
            if own.keys.is_empty() && hidden.is_empty() {
                cleaned.failed = (!own.whole && found.is_empty() && named == 0)
                    .then(|| self.cannot_tell(stream))
                    .flatten();
                return cleaned;
            }
            rounds += 1;
            if rounds == ROUNDS {
                return cleaned;
            }
            if cleaned.failed.take().is_some() {
                tokio::time::sleep(PAUSE).await;
            }
            for batch in batches(own.keys.union(&hidden).cloned()) {
                match store.remove(stream, &batch).await {
                    Ok(()) => hidden.retain(|key| !batch.contains(key)),
                    Err(error) => {
                        let why = format!("the lane did not remove events: {error}");
                        cleaned.failed = Some(why);
                    }
                }
            }
        }
    }

    /// Why it is not known of a stream, of which the lane shows a part without any of the run's events, that there is
    /// none in the rest. `None` where nothing was submitted.
    fn cannot_tell(&self, stream: &str) -> Option<String> {
        let unknown = !self.submitted.contains_key(stream);
        unknown.then(|| {
            "it holds more than the lane replays, and none of what it replays is this run's: what lies before cannot be told"
                .to_owned()
        })
    }

    async fn own(&self, org: &str, stream: &str) -> Result<Own, ReplayError> {
        let replay = self.reader.replay(org, stream, Extent::Whole).await;
        let (replay, whole): (Replay, bool) = match replay {
            Err(ReplayError::Stale(_)) => {
                let newest = self.reader.replay(org, stream, Extent::Newest).await?;
                (newest, false)
            }
            whole => (whole?, true),
        };
        let keys: Vec<String> = replay
            .rows
            .iter()
            .filter_map(|row| own_key(&self.mark, stream, row.key.as_deref(), &row.payload))
            .collect();
        Ok(Own {
            rows: keys.len() as u64,
            keys: keys.into_iter().collect(),
            whole,
        })
    }

    /// The keys of the events that may stand before those that are seen: a writer numbers its events in the order in which they stand.
    fn hidden(&self, stream: &str, seen: &BTreeSet<String>) -> BTreeSet<String> {
        let submitted = self.submitted.get(stream).copied().unwrap_or(0);
        let mut ends = BTreeMap::from([(format!("{}:{stream}", self.mark), submitted)]);
        for (writer, index) in seen.iter().filter_map(|key| split_key(key)) {
            let end = ends.entry(writer.to_owned()).or_default();
            *end = index.saturating_add(1).max(*end);
        }
        ends.iter()
            .flat_map(|(writer, end)| (0..*end).map(move |index| format!("{writer}:{index}")))
            .filter(|key| !seen.contains(key))
            .collect()
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
