//! What a toxic is seen to do: a fault that was not seen to bite proves nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::faults::Rule;
use crate::plane::Handle;

/// Counts what one toxic does to one connection.
#[derive(Debug)]
pub(crate) struct Acts {
    rule: Arc<Rule>,
    handle: Arc<Handle>,
    /// The connection is known to be bitten.
    has_bitten: AtomicBool,
}

impl Acts {
    pub(super) fn new(rule: &Arc<Rule>, handle: &Arc<Handle>) -> Self {
        Self {
            rule: Arc::clone(rule),
            handle: Arc::clone(handle),
            has_bitten: AtomicBool::new(false),
        }
    }

    /// It did so many things: changed, dropped, cut or held up something.
    pub(crate) fn act(&self, times: u64) {
        if times == 0 {
            return;
        }
        self.rule.bites.acts.fetch_add(times, Ordering::Relaxed);
        if !self.has_bitten.swap(true, Ordering::Relaxed) {
            self.handle.bitten_by(&self.rule);
        }
    }
}
