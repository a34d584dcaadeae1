//! Leases: how long a fault may live unrenewed. Pure: the holder supplies the monotonic instant and does the undoing.

use std::collections::BTreeMap;

use crate::ids::FaultId;
use crate::instant::Mono;
use crate::quantity::Span;

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
    fn a_renewal_at_the_deadline_is_too_late() {
        let mut leases = LeaseTable::default();
        leases.grant("a", Mono(0), Span::from_secs(1));
        assert!(!leases.renew("a", Mono(1_000_000), Span::from_secs(1)));
        assert_eq!(leases.lapsed(Mono(1_000_000)), ["a"]);
    }
}
