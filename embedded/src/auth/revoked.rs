//! The tokens that their issuer has revoked, as a lane knows them: looked at every quarter of a second, and by the
//! first token before anything is known.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lanes::token::RevokedList;
use tokio_util::sync::CancellationToken;

use super::Source;

/// How soon a lane knows of a revocation.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What is revoked; `None` until it was first looked at.
#[derive(Debug, Default)]
pub(super) struct Revoked {
    token_ids: Mutex<Option<BTreeSet<String>>>,
    looking: tokio::sync::Mutex<()>,
}

impl Revoked {
    /// Whether a token is revoked.
    pub(super) async fn has(&self, source: &Source, token_id: &str) -> bool {
        if self.lock().is_none() {
            let _one_at_a_time = self.looking.lock().await;
            if self.lock().is_none() {
                self.look(source).await;
            }
        }
        let known = self.lock();
        known.as_ref().is_some_and(|known| known.contains(token_id))
    }

    /// Looks again and again.
    pub(super) async fn keep_looking(&self, source: &Source, shutdown: CancellationToken) {
        let looking = async {
            loop {
                self.look(source).await;
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        shutdown.run_until_cancelled(looking).await;
    }

    async fn look(&self, source: &Source) {
        match source.revoked().await {
            Ok(RevokedList { revoked }) => {
                *self.lock() = Some(revoked.into_keys().collect());
            }
            // What was known stays: an issuer that is away revokes nothing.
            Err(error) => tracing::debug!(error, "the revoked tokens could not be had"),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<BTreeSet<String>>> {
        self.token_ids
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
