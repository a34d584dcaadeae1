//! A run's hold on an agent: taken before anything is asked for, renewed while the conductor lives, given back at the end.

use std::time::Duration;

use host::http::CallError;
use model::quantity::Span;
use tokio::task::JoinHandle;

use crate::client::Agent;

/// Longer than a machine that drills is ever busy with something else; what a conductor that died has left is undone by the
/// leases of its faults long before.
const LEASE: Span = Span::from_secs(15);
const RENEW_EVERY: Duration = Duration::from_secs(3);

/// An agent that is held. To drop it is to let the lease lapse.
#[derive(Debug)]
pub struct Hold {
    agent: Agent,
    renewing: JoinHandle<()>,
}

impl Hold {
    /// Takes an agent for a run.
    ///
    /// # Errors
    /// Another run has it, which the error names, or it does not answer.
    pub async fn take(agent: &Agent, run: &str) -> Result<Self, CallError> {
        let agent = agent.take_run(run, LEASE).await?;
        let renewing = tokio::spawn(renew(agent.clone()));
        Ok(Self { agent, renewing })
    }

    /// The agent, for calls that carry the fence.
    #[must_use]
    pub const fn agent(&self) -> &Agent {
        &self.agent
    }

    /// Gives it back.
    ///
    /// # Errors
    /// It was not this run's any more, or does not answer.
    pub async fn release(self) -> Result<(), CallError> {
        self.renewing.abort();
        self.agent.release_run().await
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

async fn renew(agent: Agent) {
    loop {
        tokio::time::sleep(RENEW_EVERY).await;
        match agent.renew_run(LEASE).await {
            Ok(()) => {}
            Err(error @ CallError::Refused { .. }) => {
                tracing::error!(%error, "the agent is not this run's any more");
                break;
            }
            // It may be back before the lease is over.
            Err(error) => tracing::warn!(%error, "the run's lease was not renewed"),
        }
    }
}
