//! Seeded decisions about one direction of one connection.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use model::decide;
use model::quantity::Span;

use crate::faults::Rule;
use crate::identity::Subject;
use crate::tap::Way;

/// The decisions of one rule about one direction of one connection, each a pure function of its index.
#[derive(Debug)]
pub(crate) struct Draws {
    rule: Arc<Rule>,
    /// What they hang on, besides the rule: `connection-7/upstream`.
    key: String,
    /// Of a toxic's decisions, whom they are about.
    about: Option<(Subject, Way)>,
}

impl Draws {
    /// A toxic's.
    pub(super) fn new(rule: Arc<Rule>, subject: Subject, way: Way) -> Self {
        Self {
            rule,
            key: format!("{subject}/{}", way.name()),
            about: Some((subject, way)),
        }
    }

    /// Those of a drill's order, which are in no decision log.
    pub(crate) const fn ordered(rule: Arc<Rule>, key: String) -> Self {
        Self {
            rule,
            key,
            about: None,
        }
    }

    /// The toxic would have acted on the message of that index, or looked at it, and could not; `why`.
    pub(super) fn spared(&self, index: u64, why: &'static str) {
        tracing::trace!(rule = self.rule.id, key = self.key, index, why);
        self.rule.bites.spared.fetch_add(1, Ordering::Relaxed);
    }

    /// A number from 0 (included) to 1 (excluded).
    pub(crate) fn unit(&self, index: u64) -> f64 {
        decide::unit(self.rule.seed, &self.rule.id, &self.key, index)
    }

    /// A whole number below `limit`.
    pub(crate) fn below(&self, index: u64, limit: u64) -> u64 {
        floor(self.unit(index) * limit as f64).min(limit.saturating_sub(1))
    }

    /// A span from zero to `limit` (excluded).
    pub(crate) fn span(&self, index: u64, limit: Span) -> Span {
        limit.scale(self.unit(index))
    }

    /// Writes into the decision log what was done by the decision of this index. To be called once for each.
    pub(crate) fn fired(&self, index: u64, what: impl fmt::Display) {
        if let (Some(log), Some((subject, way))) = (self.rule.log(), &self.about) {
            log.write(&self.rule, subject, way.name(), index, what);
        }
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
