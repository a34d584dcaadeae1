//! The fault `token_expiry`: clients take on tokens that all expire in the same second.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use host::clock;
use host::faults::Holder;
use host::http::{Failure, StatusCode};
use model::decide;
use model::fault::{Fault, FaultOrder, FaultView, Observation};
use model::ids::FaultId;
use model::instant::{Bracket, Mono};
use model::quantity::Span;

use super::fleet::{Fleet, lock};
use crate::client::machine::Event;
use crate::client::policy::place;

/// The token faults of a shard.
#[derive(Debug)]
pub(super) struct Expiries {
    fleet: Option<Arc<Fleet>>,
    held: Mutex<Vec<Expiry>>,
}

#[derive(Debug)]
struct Expiry {
    id: FaultId,
    injected: Mono,
    expires_unix: u64,
    /// The same instant on the monotonic clock.
    expires: Mono,
    undone: Option<Mono>,
    lapsed: bool,
}

impl Expiries {
    /// None yet. A shard without clients takes such a fault, and it does not bite.
    #[must_use]
    pub(super) const fn new(fleet: Option<Arc<Fleet>>) -> Self {
        Self {
            fleet,
            held: Mutex::new(Vec::new()),
        }
    }

    fn view(&self, expiry: &Expiry) -> FaultView {
        let (mut aligned, mut expired) = (0, 0);
        // When the first client took it on, not when somebody looked.
        let mut observed: Option<Mono> = None;
        for member in self.fleet.iter().flat_map(|fleet| &fleet.members) {
            let client = member.client();
            if let Some((expires, passed)) = client.machine.aligned()
                && expires == expiry.expires_unix
            {
                let at = client.machine.aligned_at();
                observed = observed.into_iter().chain(at).min();
                aligned += 1;
                expired += u64::from(passed);
            }
        }
        let over = expiry.undone.unwrap_or(expiry.expires);
        let active = clock::now() < over;
        FaultView {
            id: expiry.id.clone(),
            active,
            injected: Bracket {
                asked: expiry.injected,
                observed: observed.unwrap_or(expiry.injected),
            },
            healed: (!active).then_some(Bracket {
                asked: over,
                observed: over,
            }),
            lapsed: expiry.lapsed,
            observation: Observation {
                bitten: aligned,
                observed,
                figures: BTreeMap::from([
                    ("tokens_aligned".to_owned(), aligned),
                    ("expires_unix".to_owned(), expiry.expires_unix),
                    ("expired_while_live".to_owned(), expired),
                ]),
            },
        }
    }
}

impl Holder for Expiries {
    async fn inject(&self, order: FaultOrder) -> Result<FaultView, Failure> {
        let Fault::TokenExpiry(settings) = &order.fault else {
            let message = format!(
                "a shard holds token_expiry only, not {}",
                order.fault.name()
            );
            return Err(Failure::new(StatusCode::BAD_REQUEST, message));
        };
        let now = clock::now();
        // Rounded down: the fault ends after `after`, and by then the tokens shall have expired.
        let unix = clock::unix_micros();
        let expires_unix = (unix + settings.after.as_micros()) / 1_000_000;
        let start = decide::unit(order.seed, &order.id, "take-on", 0);
        if let Some(fleet) = &self.fleet {
            for (at, member) in fleet.members.iter().enumerate() {
                let id = member.client().id;
                if decide::selected(order.seed, &order.id, id, order.share) {
                    let at_share = place(id, start);
                    fleet.order(
                        at,
                        Event::Align {
                            expires_unix,
                            at: now + settings.spread.scale(at_share),
                        },
                    );
                }
            }
        }
        tracing::info!(
            fault = order.id,
            expires_unix,
            "clients take on tokens with a common expiry"
        );
        let expiry = Expiry {
            id: order.id,
            injected: now,
            expires_unix,
            expires: now + Span::from_micros((expires_unix * 1_000_000).saturating_sub(unix)),
            undone: None,
            lapsed: false,
        };
        let view = self.view(&expiry);
        lock(&self.held).push(expiry);
        Ok(view)
    }

    async fn look(&self, id: &str) -> Option<FaultView> {
        let held = lock(&self.held);
        let expiry = held.iter().find(|expiry| expiry.id == id)?;
        Some(self.view(expiry))
    }

    async fn undo(&self, id: &str, lapsed: bool) -> Result<FaultView, Failure> {
        let mut held = lock(&self.held);
        let expiry = held
            .iter_mut()
            .find(|expiry| expiry.id == id)
            .ok_or_else(|| Failure::new(StatusCode::NOT_FOUND, format!("no fault `{id}`")))?;
        let was_active = self.view(expiry).active;
        if was_active {
            expiry.undone = Some(clock::now());
            expiry.lapsed = lapsed;
            if let Some(fleet) = &self.fleet {
                for at in 0..fleet.members.len() {
                    fleet.order(at, Event::Unalign);
                }
            }
        }
        Ok(self.view(expiry))
    }

    fn ids(&self) -> Vec<FaultId> {
        lock(&self.held)
            .iter()
            .map(|expiry| expiry.id.clone())
            .collect()
    }
}
