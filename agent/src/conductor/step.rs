//! One fault of the plan, from its injection to its undo.

use std::sync::Arc;

use host::clock;
use host::http::CallError;
use host::timer::Timer;
use model::fault::{FaultOrder, FaultView};
use model::instant::Mono;
use model::quantity::Span;
use scenarios::plan::Step;
use tokio::sync::mpsc;

use crate::client::Agent;

/// What became of a step.
#[derive(Debug)]
pub enum Outcome {
    /// It is in force.
    Injected(FaultView),
    /// It is undone.
    Healed(FaultView),
    /// It could not be injected or undone.
    Failed(String),
}

/// Walks one step: waits for its instant, injects, renews the lease, undoes. Each outcome is sent with the step's place
/// in the plan. When the task is aborted half-way the lease, or whoever ends the trial, undoes the fault.
pub async fn walk(
    agent: Agent,
    timer: Timer,
    place: usize,
    step: Arc<Step>,
    seed: u64,
    zero: Mono,
    outcomes: mpsc::UnboundedSender<(usize, Outcome)>,
) {
    // The receiver is gone only when the trial is being ended; then nobody needs to know.
    let say = |outcome| drop(outcomes.send((place, outcome)));
    timer.sleep_until(zero + step.at).await;
    let order = FaultOrder {
        id: step.id.clone(),
        fault: step.fault.clone(),
        node: step.node.clone(),
        share: step.share,
        seed,
        lease: step.lease,
    };
    let third = Span::from_micros(step.lease.as_micros() / 3);
    // An injection may take longer than a lease, which runs from its beginning.
    let renewing = async {
        loop {
            timer.sleep_until(clock::now() + third).await;
            if let Err(error) = agent.renew(&step.id, step.lease).await {
                tracing::warn!(fault = step.id, %error, "the lease could not be renewed");
            }
        }
    };
    let injected = tokio::select! {
        injected = agent.inject(&order) => injected,
        () = renewing => unreachable!("it goes on until it is dropped"),
    };
    match injected {
        Ok(view) => say(Outcome::Injected(view)),
        Err(error) => return say(Outcome::Failed(format!("inject: {error}"))),
    }
    let end = zero + step.at + step.fault.lead() + step.lasts;
    loop {
        let now = clock::now();
        timer.sleep_until(end.min(now + third)).await;
        if clock::now() >= end {
            break;
        }
        if let Err(error) = agent.renew(&step.id, step.lease).await {
            // A lapsed fault has been undone by its holder; its view says so. To go on renewing would not help.
            tracing::warn!(fault = step.id, %error, "the lease could not be renewed");
            if matches!(error, CallError::Refused { .. }) {
                break;
            }
        }
    }
    match agent.undo(&step.id).await {
        Ok(view) => say(Outcome::Healed(view)),
        Err(error) => say(Outcome::Failed(format!("undo: {error}"))),
    }
}
