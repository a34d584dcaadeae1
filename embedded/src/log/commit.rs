//! The thread that writes. It takes all that waits, writes and syncs it in one go, and then makes it visible.

use std::sync::PoisonError;

use host::jsonl::Appender;

use super::{AppendError, Audience, Durability, Pending, Shared};

/// Writes until the log is closed and nothing waits.
pub(super) fn run<A: Audience>(shared: &Shared<A>, mut file: Appender) {
    while let Some(batch) = next_batch(shared) {
        let written = file.append_all(batch.iter().map(|pending| &pending.record));
        match (written, shared.durability) {
            (Ok(()), Durability::Synced) => settle(shared, batch),
            (Ok(()), _) => {}
            (Err(error), Durability::Synced) => refuse(shared, batch, &error.to_string()),
            (Err(error), _) => tracing::error!(%error, "acknowledged events could not be written"),
        }
    }
}

/// What is to be written now; `None` when the log is closed and all is written.
fn next_batch<A: Audience>(shared: &Shared<A>) -> Option<Vec<Pending<A::Tag>>> {
    let mut state = shared.lock();
    loop {
        let due = match shared.durability {
            Durability::Late(lag) if !state.closed => {
                let ripe = |pending: &Pending<A::Tag>| pending.since.elapsed() >= lag;
                state
                    .pending
                    .iter()
                    .take_while(|pending| ripe(pending))
                    .count()
            }
            _ => state.pending.len(),
        };
        if due > 0 {
            return Some(state.pending.drain(..due).collect());
        }
        if state.closed {
            return None;
        }
        let wait = match (shared.durability, state.pending.front()) {
            (Durability::Late(lag), Some(oldest)) => {
                Some(lag.saturating_sub(oldest.since.elapsed()))
            }
            // Late appends do not wake this thread: nothing is due at once.
            (Durability::Late(lag), None) => Some(lag),
            _ => None,
        };
        state = match wait {
            Some(wait) => {
                let woken = shared.wake.wait_timeout(state, wait);
                woken.unwrap_or_else(PoisonError::into_inner).0
            }
            None => shared
                .wake
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner),
        };
    }
}

fn settle<A: Audience>(shared: &Shared<A>, batch: Vec<Pending<A::Tag>>) {
    let mut state = shared.lock();
    for mut pending in batch {
        state.commit(&mut pending);
        state.answer(pending, &Ok(()));
    }
}

/// Nothing of the batch is on disk. What was submitted meanwhile follows on it, so it cannot stand either.
fn refuse<A: Audience>(shared: &Shared<A>, mut batch: Vec<Pending<A::Tag>>, reason: &str) {
    tracing::error!(reason, "appends refused");
    let mut state = shared.lock();
    batch.extend(std::mem::take(&mut state.pending));
    for pending in batch {
        state.answer(pending, &Err(AppendError::Disk(reason.to_owned())));
    }
}
