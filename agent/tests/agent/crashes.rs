//! The agent dies at each step of each kind of fault, and comes back or not: nothing is left a second after the lease.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use agent::crash::POINTS;
use host::clock;
use model::instant::Mono;
use model::quantity::Span;

use crate::victim::{ALONE, Kind, Remains, Victim, apart, kinds};

pub(crate) const A_SECOND: Span = Span::from_secs(1);
const LEASE: Span = Span::from_millis(500);
/// They wait more than they work.
const AT_ONCE: usize = 8;

/// What becomes of the agent afterwards.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Back {
    /// Nothing: what is left is the watchdog's.
    Never,
    /// It comes back so much later.
    After(Duration),
    /// It comes back, and dies as soon as it has undone something and not said so.
    ToDie,
}

/// Lets what comes after the death of an agent come; how long after `due` nothing was left.
pub(crate) async fn aftermath(
    remains: &Remains,
    kind: &Kind,
    back: Back,
    due: Mono,
) -> Result<Span, String> {
    let comes_back = async {
        match back {
            Back::Never => Ok(None),
            Back::After(pause) => {
                tokio::time::sleep(pause).await;
                remains.come_back(None).await.map(Some)
            }
            // Where nothing is to be undone, it lives.
            Back::ToDie => Ok(remains.come_back(Some("undone:before")).await.ok()),
        }
    };
    let (next, clean) = tokio::join!(comes_back, remains.clean(kind, due, A_SECOND));
    let clean = clean?;
    let next = next.map_err(|error| format!("the agent did not come back: {error}"))?;
    if let Some(next) = next
        && !next.end(Duration::from_secs(5)).await
    {
        return Err("the agent that came back did not end".to_owned());
    }
    remains.unwatched(A_SECOND).await?;
    Ok(clean)
}

async fn trial(kind: &Kind, point: &str, back: Back) -> Result<Span, String> {
    let victim = Victim::of(kind, Some(point)).await;
    let order = kind.order(LEASE);
    let mut asked = clock::now();
    // In one of these it dies.
    if victim.agent.inject(&order).await.is_ok() {
        asked = clock::now();
        if victim.agent.renew("f1", LEASE).await.is_ok() {
            let _ = victim.agent.undo("f1").await;
        }
    }
    let remains = victim.dead().await;
    aftermath(&remains, kind, back, asked + LEASE).await
}

#[test]
fn whatever_the_fault_and_wherever_the_agent_dies_nothing_is_left_a_second_after_the_lease() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut cells = VecDeque::new();
    for kind in kinds() {
        let over_at_once = kind.is_momentary();
        for point in POINTS {
            // What is over at once is recorded as undone, and never undone while its agent lives.
            if over_at_once && point == "undo:middle" {
                continue;
            }
            for back in [Back::Never, Back::After(Duration::ZERO), Back::ToDie] {
                cells.push_back((kind, point, back));
            }
        }
    }
    let count = cells.len();
    let cells = Arc::new(Mutex::new(cells));
    let labs: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let cells = Arc::clone(&cells);
            apart(move || async move {
                let (mut failed, mut slowest) = (Vec::new(), (Span::ZERO, String::new()));
                loop {
                    let next = cells.lock().unwrap().pop_front();
                    let Some((kind, point, back)) = next else {
                        return (failed, slowest);
                    };
                    let cell = format!("{} at {point}, {back:?}", kind.name);
                    match trial(kind, point, back).await {
                        Ok(after) => slowest = slowest.max((after, cell)),
                        Err(left) => failed.push(format!("{cell}: {left}")),
                    }
                }
            })
        })
        .collect();
    let (mut failed, mut slowest) = (Vec::new(), (Span::ZERO, String::new()));
    for lab in labs {
        let (of_one, after) = lab.join().unwrap();
        failed.extend(of_one);
        slowest = slowest.max(after);
    }
    assert!(
        failed.is_empty(),
        "{} of {count}:\n{}",
        failed.len(),
        failed.join("\n")
    );
    let (after, cell) = slowest;
    eprintln!(
        "{count} deaths, nothing left; the slowest was clean {after} after its lease: {cell}"
    );
}
