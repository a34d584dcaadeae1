//! Seeded decisions about one direction of one connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use model::decide;

use crate::faults::Rule;

/// The decisions of one toxic about one direction of one connection, each a pure function of its index.
#[derive(Debug)]
pub(crate) struct Draws {
    rule: Arc<Rule>,
    subject: String,
}

impl Draws {
    pub(super) const fn new(rule: Arc<Rule>, subject: String) -> Self {
        Self { rule, subject }
    }

    /// The toxic acted on the message of that index; `what` it did.
    pub(super) fn fired(&self, index: u64, what: &'static str) {
        tracing::trace!(rule = self.rule.id, subject = self.subject, index, what);
        self.rule.bites.messages.fetch_add(1, Ordering::Relaxed);
    }

    /// The toxic would have acted on the message of that index, or looked at it, and could not; `why`.
    pub(super) fn spared(&self, index: u64, why: &'static str) {
        tracing::trace!(rule = self.rule.id, subject = self.subject, index, why);
        self.rule.bites.spared.fetch_add(1, Ordering::Relaxed);
    }

    /// A number from 0 (included) to 1 (excluded).
    pub(super) fn unit(&self, index: u64) -> f64 {
        decide::unit(self.rule.seed, &self.rule.id, &self.subject, index)
    }

    /// A whole number below `limit`.
    pub(super) fn below(&self, index: u64, limit: u64) -> u64 {
        floor(self.unit(index) * limit as f64).min(limit.saturating_sub(1))
    }
}

/// The whole part of a number that is not negative.
pub(super) fn floor(number: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float cast saturates"
    )]
    let whole = number as u64;
    whole
}
