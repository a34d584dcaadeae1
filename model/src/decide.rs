//! Seeded decisions. Each is a pure function of its coordinates, never of arrival order or of a shared generator, so
//! that two processes that must agree (a proxy that cuts a share of the clients, a shard that knows whether it was
//! cut) agree without talking, and so that a plan with its seed can be walked again.

use rand::rand_core::{Rng, SeedableRng};
use rand::rngs::ChaCha8Rng;
use sha2::{Digest, Sha256};

use crate::ids::ClientId;
use crate::quantity::{Share, Span};

/// A generator for everything that the rule `rule` decides about `subject`. `ChaCha8`, keyed by SHA-256 over the
/// coordinates, each with its length before it so that no two lists of coordinates collide.
#[must_use]
pub fn rng(seed: u64, rule: &str, subject: &str) -> ChaCha8Rng {
    let mut key = Sha256::new();
    key.update(seed.to_le_bytes());
    for part in [rule, subject] {
        key.update((part.len() as u64).to_le_bytes());
        key.update(part.as_bytes());
    }
    ChaCha8Rng::from_seed(key.finalize().into())
}

/// A number from 0 (included) to 1 (excluded) for the coordinates.
#[must_use]
pub fn unit(seed: u64, rule: &str, subject: &str, index: u64) -> f64 {
    let mut generator = rng(seed, rule, subject);
    // One block of ChaCha holds 16 words of 32 bits: every index has a block of its own.
    generator.set_word_pos(u128::from(index) * 16);
    (generator.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

/// A span from zero to `limit` (excluded) for the coordinates.
#[must_use]
pub fn span(seed: u64, rule: &str, subject: &str, index: u64, limit: Span) -> Span {
    limit.scale(unit(seed, rule, subject, index))
}

/// Whether `client` is among the `share` that the rule (a fault's id) takes.
#[must_use]
pub fn selected(seed: u64, rule: &str, client: ClientId, share: Share) -> bool {
    unit(seed, rule, &client.to_string(), 0) < share.as_ratio()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_depends_on_each_coordinate_and_on_nothing_else() {
        let base = unit(7, "hold", "c0001", 3);
        assert!((base - unit(7, "hold", "c0001", 3)).abs() < f64::EPSILON);
        for other in [
            unit(8, "hold", "c0001", 3),
            unit(7, "cut", "c0001", 3),
            unit(7, "hold", "c0002", 3),
            unit(7, "hold", "c0001", 4),
        ] {
            assert!((base - other).abs() > f64::EPSILON);
        }
    }

    #[test]
    fn a_share_selects_about_that_share() {
        let taken = (0..10_000)
            .filter(|n| selected(1, "f1", ClientId(*n), Share::ratio(0.25)))
            .count();
        assert!((2_300..2_700).contains(&taken), "{taken}");
        assert!((0..100).all(|n| selected(1, "f1", ClientId(n), Share::ALL)));
    }
}
