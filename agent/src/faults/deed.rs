//! What the agent does itself, step by step, so that the journal can tell how far it came.

use std::fmt;

use futures_util::future::BoxFuture;
use host::http::Failure;
use model::fault::Observation;
use model::instant::{Bracket, Mono};
use tokio_util::sync::CancellationToken;

use crate::journal::Undo;

/// An injection that failed.
#[derive(Debug)]
pub(crate) struct NotApplied {
    pub(super) failure: Failure,
    /// Whether something may have been changed, which must be undone.
    pub(super) changed: bool,
}

impl NotApplied {
    pub(super) const fn untouched(failure: Failure) -> Self {
        Self {
            failure,
            changed: false,
        }
    }

    pub(super) const fn half_way(failure: Failure) -> Self {
        Self {
            failure,
            changed: true,
        }
    }
}

/// When it was undone, and a word on how.
pub(crate) type Undone = (Option<Bracket>, String);

/// One fault that this agent is to make. The holder calls these in their order, and writes down each before the next;
/// [`Self::undo`] may be called after any of them, or in the middle of one that was interrupted.
pub(crate) trait Deed: fmt::Debug + Send + Sync {
    /// The node whose process it is done to: none other may be done to that at the same time.
    fn node(&self) -> Option<&str> {
        None
    }

    /// What the journal must know to undo it in a later life of the agent.
    fn undo_record(&self) -> Undo;

    /// What goes before the deed.
    fn prepare<'a>(
        &'a self,
        interrupt: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        let _ = interrupt;
        Box::pin(async { Ok(()) })
    }

    /// Makes the change.
    fn strike(&self) -> BoxFuture<'_, Result<(), NotApplied>>;

    /// Waits until the change is seen: the instant, and what was seen.
    fn bite(&self) -> BoxFuture<'_, Result<(Mono, Observation), Failure>>;

    /// Looks at it again.
    fn look<'a>(&'a self, observation: &'a mut Observation) -> BoxFuture<'a, ()>;

    /// The lease lapses then, and not when it was to before.
    fn renewed(&self, until: Mono) -> BoxFuture<'_, ()> {
        let _ = until;
        Box::pin(async {})
    }

    /// What of it is on the machine now, in words: what nobody else looks for.
    fn traces(&self) -> Vec<String> {
        Vec::new()
    }

    /// Undoes the change, from whatever state it is in, and any number of times. `ending`: the agent is being taken down.
    fn undo<'a>(
        &'a self,
        ending: bool,
        observation: &'a mut Observation,
    ) -> BoxFuture<'a, Result<Undone, Failure>>;
}
