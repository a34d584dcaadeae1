//! A stream's content up to some seq, represented by a digest: a chain over the payload hashes of all its events from
//! seq 1 on, so that whoever knows what was published can check it: `d_0 = ""`, `d_n = hex(sha256(d_(n-1) ||
//! payload_hash_n))`.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::event::hex;
use crate::ids::Seq;

/// A stream's content up to some seq.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// How many events.
    pub count: u64,
    /// The chain's last link; `""` for none.
    pub digest: String,
}

/// A snapshot in place of the events up to its watermark, as a lane gives it and a client takes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cover {
    /// It stands for everything up to here.
    pub watermark: Seq,
    /// What that is, by the lane's word; `None` where it says so in a form of its own.
    pub snapshot: Option<Snapshot>,
}

/// The chain's next link.
#[must_use]
pub fn chain(digest: &str, payload_hash: &str) -> String {
    let mut sum = Sha256::new();
    sum.update(digest);
    sum.update(payload_hash);
    hex(&sum.finalize())
}

impl Snapshot {
    /// Adds an event.
    pub fn push(&mut self, payload_hash: &str) {
        self.count += 1;
        self.digest = chain(&self.digest, payload_hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_depends_on_every_hash_and_on_their_order() {
        let of = |hashes: &[&str]| {
            let mut snapshot = Snapshot::default();
            for hash in hashes {
                snapshot.push(hash);
            }
            snapshot.digest
        };
        assert_eq!(of(&[]), "");
        assert_eq!(
            of(&["sha256:00"]),
            hex(&Sha256::digest("sha256:00")),
            "the first link is the hash's own"
        );
        assert_ne!(of(&["a", "b"]), of(&["b", "a"]));
        assert_ne!(of(&["a", "b"]), of(&["a", "c"]));
    }
}
