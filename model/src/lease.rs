//! Leases: how long a fault may live unrenewed. Pure: the holder supplies the monotonic instant and does the undoing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::FaultId;
use crate::instant::Mono;
use crate::quantity::Span;

/// When a lease lapses, as another process must be told: the monotonic clock counts from a boot, and a machine that was
/// started anew knows nothing of the old one's instants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadline {
    /// On the monotonic clock of that boot.
    #[serde(rename = "until_us")]
    pub until: Mono,
    /// The kernel's id of the boot.
    pub boot: String,
}

impl Deadline {
    /// Whether it has passed, `now` in this `boot`. Of another boot nothing is left to wait for.
    #[must_use]
    pub fn has_passed(&self, now: Mono, boot: &str) -> bool {
        self.boot != boot || self.until <= now
    }
}

/// The leases of one holder.
#[derive(Debug, Default)]
pub struct LeaseTable {
    deadlines: BTreeMap<FaultId, Mono>,
}

impl LeaseTable {
    /// Starts or extends the lease of a fault: it now lapses at `now + lease`, whatever was granted before.
    pub fn grant(&mut self, id: &str, now: Mono, lease: Span) {
        self.deadlines.insert(id.to_owned(), now + lease);
    }

    /// Extends a lease that has not lapsed; `false` when there is none (it lapsed, was released or never was), and
    /// then nothing changes: a late renewal never brings a fault back.
    pub fn renew(&mut self, id: &str, now: Mono, lease: Span) -> bool {
        match self.deadlines.get_mut(id) {
            Some(deadline) if *deadline > now => {
                *deadline = now + lease;
                true
            }
            _ => false,
        }
    }

    /// Ends a lease; `false` when there was none.
    pub fn release(&mut self, id: &str) -> bool {
        self.deadlines.remove(id).is_some()
    }

    /// Removes and returns the leases that have lapsed at `now`: the holder undoes these faults.
    pub fn lapsed(&mut self, now: Mono) -> Vec<FaultId> {
        self.deadlines
            .extract_if(.., |_, deadline| *deadline <= now)
            .map(|(id, _)| id)
            .collect()
    }

    /// When the next lease lapses, if any is held.
    #[must_use]
    pub fn next(&self) -> Option<Mono> {
        self.deadlines.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_lapses_once_unless_it_is_renewed_in_time() {
        let mut leases = LeaseTable::default();
        let second = Span::from_secs(1);
        leases.grant("a", Mono(0), second);
        leases.grant("b", Mono(0), second);
        assert!(leases.renew("a", Mono(900_000), second));
        assert_eq!(leases.next(), Some(Mono(1_000_000)));
        assert_eq!(leases.lapsed(Mono(1_000_000)), ["b"]);
        assert!(
            !leases.renew("b", Mono(1_000_001), second),
            "a lapsed fault is not brought back"
        );
        assert!(leases.release("a") && !leases.release("a"));
        assert_eq!(leases.next(), None);
    }

    #[test]
    fn a_deadline_of_another_boot_has_passed_however_far_it_seems() {
        let deadline = Deadline {
            until: Mono(5_000_000),
            boot: "here".to_owned(),
        };
        assert!(!deadline.has_passed(Mono(4_999_999), "here"));
        assert!(deadline.has_passed(Mono(5_000_000), "here"));
        assert!(deadline.has_passed(Mono(0), "there"));
    }

    #[test]
    fn a_renewal_at_the_deadline_is_too_late() {
        let mut leases = LeaseTable::default();
        leases.grant("a", Mono(0), Span::from_secs(1));
        assert!(!leases.renew("a", Mono(1_000_000), Span::from_secs(1)));
        assert_eq!(leases.lapsed(Mono(1_000_000)), ["a"]);
    }
}
