//! Agents killed at random instants of random faults. `FAULTLANE_KILLS=1000 cargo test -p agent --test agent at_random --
//! --nocapture` is the full form, some minutes; docs/safety.md has its figures.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use host::clock;
use model::decide;
use model::quantity::Span;
use tokio::time::Instant;

use crate::crashes::{Back, aftermath};
use crate::victim::{ALONE, Kind, Victim, apart, kinds};

const A_FEW: u64 = 24;
const AT_ONCE: usize = 8;

/// One death, as its seed has it.
struct Death {
    kind: &'static Kind,
    lease: Span,
    /// After the fault was ordered.
    undo_after: Span,
    /// As above.
    kill_after: Span,
    back: Back,
}

impl Death {
    fn draw(seed: u64, kinds: &[&'static Kind]) -> Self {
        let unit = |what: &str| decide::unit(seed, "kills", what, 0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a place in a list"
        )]
        let place = (unit("kind") * kinds.len() as f64) as usize;
        let lease = Span::from_millis(300).plus(Span::from_millis(600).scale(unit("lease")));
        Self {
            kind: kinds[place],
            lease,
            undo_after: lease.scale(3.0 * unit("undo")),
            kill_after: lease.scale(1.5 * unit("kill")),
            back: match unit("back") {
                ..0.4 => Back::Never,
                ..0.8 => Back::After(lease.scale(1.2 * unit("pause")).duration()),
                _ => Back::ToDie,
            },
        }
    }

    async fn come(&self) -> Result<Span, String> {
        let victim = Victim::of(self.kind, None).await;
        let order = self.kind.order(self.lease);
        let began = clock::now();
        let asked = Cell::new(began);
        let agent = victim.agent.clone();
        let conduct = async {
            agent.inject(&order).await.ok()?;
            while clock::now().since(began) < self.undo_after {
                asked.set(clock::now());
                agent.renew("f1", self.lease).await.ok()?;
                tokio::time::sleep(self.lease.duration() / 3).await;
            }
            agent.undo("f1").await.ok()
        };
        let at = Instant::now() + self.kill_after.duration();
        let _ = tokio::time::timeout_at(at, conduct).await;
        tokio::time::sleep_until(at).await;
        let remains = victim.killed().await;
        aftermath(&remains, self.kind, self.back, asked.get() + self.lease).await
    }
}

#[test]
fn agents_killed_at_random_leave_nothing_a_second_after_the_lease() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let count =
        std::env::var("FAULTLANE_KILLS").map_or(A_FEW, |count| count.parse().expect("a number"));
    let next = Arc::new(AtomicU64::new(0));
    let labs: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let next = Arc::clone(&next);
            apart(move || async move {
                let (mut failed, mut waits) = (Vec::new(), Vec::new());
                let kinds = kinds();
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= count {
                        return (failed, waits);
                    }
                    let death = Death::draw(seed, &kinds);
                    match death.come().await {
                        Ok(after) => waits.push(after),
                        Err(left) => {
                            failed.push(format!("seed {seed}, {}: {left}", death.kind.name));
                        }
                    }
                }
            })
        })
        .collect();
    let (mut failed, mut waits) = (Vec::new(), Vec::new());
    for lab in labs {
        let (of_one, after) = lab.join().unwrap();
        failed.extend(of_one);
        waits.extend(after);
    }
    assert!(
        failed.is_empty(),
        "{} of {count}:\n{}",
        failed.len(),
        failed.join("\n")
    );
    waits.sort();
    let [median, p99, most] =
        [waits.len() / 2, waits.len() * 99 / 100, waits.len() - 1].map(|at| waits[at]);
    eprintln!(
        "{count} kills, nothing left; clean after the lease: p50 {median}, p99 {p99}, at most {most}"
    );
}
