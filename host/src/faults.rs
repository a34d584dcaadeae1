//! The routes by which every holder of faults is driven, and the loop that enforces its leases.
//!
//! | call | body | answer |
//! |---|---|---|
//! | `POST /faults` | `FaultOrder` | `FaultView`, once injected; 409 for an id that is known |
//! | `GET /faults` | - | all `FaultView`s, undone ones too |
//! | `GET /faults/{id}` | - | `FaultView`, observed anew |
//! | `POST /faults/{id}/renew` | `Renewal` | `{}`; 410 when the lease had lapsed |
//! | `DELETE /faults/{id}` | - | `FaultView`, once undone; idempotent |

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;
use model::fault::{FaultOrder, FaultView, Renewal};
use model::ids::FaultId;
use model::lease::LeaseTable;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::http::{Failure, Reply, Request, Response, StatusCode};

/// Something that can inject faults, look at them and undo them. It keeps the views of undone faults.
pub trait Holder: Send + Sync + 'static {
    /// Injects a fault that has no like-named one yet.
    fn inject(&self, order: FaultOrder) -> impl Future<Output = Result<FaultView, Failure>> + Send;

    /// Looks at a fault; `None` when there never was one of that name.
    fn look(&self, id: &str) -> impl Future<Output = Option<FaultView>> + Send;

    /// Undoes a fault, from whatever state it is in; undoing twice does nothing the second time. `lapsed` says that
    /// nobody asked: the lease ran out.
    fn undo(
        &self,
        id: &str,
        lapsed: bool,
    ) -> impl Future<Output = Result<FaultView, Failure>> + Send;

    /// The lease of a fault was renewed: a holder that has others hold it for them passes it on.
    fn renewed(&self, id: &str, renewal: &Renewal) -> impl Future<Output = ()> + Send {
        let _ = (id, renewal);
        async {}
    }

    /// An undo of this fault is due and waits for its turn: an injection that takes its time should give up now.
    fn interrupt(&self, id: &str) {
        let _ = id;
    }

    /// All ids, oldest first.
    fn ids(&self) -> Vec<FaultId>;
}

/// A holder with its leases.
#[derive(Debug)]
pub struct Leased<H> {
    holder: H,
    leases: Mutex<LeaseTable>,
    /// What each id is doing, so that calls about one fault do not overlap.
    turns: Mutex<BTreeMap<FaultId, Arc<tokio::sync::Mutex<()>>>>,
    changed: Notify,
}

impl<H: Holder> Leased<H> {
    /// Leases for a holder. [`Self::enforce`] must run.
    pub fn new(holder: H) -> Arc<Self> {
        Arc::new(Self {
            holder,
            leases: Mutex::default(),
            turns: Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// The holder.
    pub const fn holder(&self) -> &H {
        &self.holder
    }

    /// Undoes faults as their leases lapse, until `shutdown`; then undoes all that is left.
    pub async fn enforce(self: Arc<Self>, shutdown: CancellationToken) {
        let mut undoing = tokio::task::JoinSet::new();
        while !shutdown.is_cancelled() {
            let lapsed = self.leases().lapsed(clock::now());
            for id in lapsed {
                tracing::warn!(fault = id, "the lease lapsed: undoing");
                self.holder.interrupt(&id);
                // Each by itself: an undo that hangs must not keep the others from lapsing in time.
                let this = Arc::clone(&self);
                undoing.spawn(async move { this.undo_or_retry(&id, true).await });
            }
            let next = self.leases().next();
            let wait = async {
                match next {
                    Some(at) => tokio::time::sleep(at.since(clock::now()).duration()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = wait => {}
                () = self.changed.notified() => {}
                // One that failed has been granted its retry.
                Some(_) = undoing.join_next() => {}
                () = shutdown.cancelled() => {}
            }
        }
        // One under way has its fault's turn, for which what follows waits.
        undoing.detach_all();
        self.undo_all().await;
    }

    /// Undoes every fault still in force.
    pub async fn undo_all(&self) {
        let ids = self.holder.ids();
        // Side by side, for a halt is in a hurry.
        join_all(ids.iter().map(|id| async move {
            self.leases().release(id);
            self.holder.interrupt(id);
            self.undo_or_retry(id, false).await;
        }))
        .await;
    }

    async fn undo_or_retry(&self, id: &str, lapsed: bool) {
        let turn = self.turn(id);
        let _turn = turn.lock().await;
        if let Err(error) = self.holder.undo(id, lapsed).await {
            if error.status == StatusCode::NOT_FOUND {
                return; // Its injection failed: there is nothing to undo.
            }
            tracing::error!(fault = id, %error, "the undo failed; it is tried again in 100 ms");
            self.leases()
                .grant(id, clock::now(), model::quantity::Span::from_millis(100));
        }
    }

    /// Answers a request whose path begins with `/faults`.
    ///
    /// # Errors
    /// The holder's refusals; 404 for another route or an unknown fault.
    pub async fn route(&self, request: &Request) -> Reply {
        let segments = request.segments();
        match (request.method.as_str(), segments.as_slice()) {
            ("GET", ["faults"]) => {
                let mut views = Vec::new();
                for id in self.holder.ids() {
                    views.extend(self.holder.look(&id).await);
                }
                Response::json(&views)
            }
            ("POST", ["faults"]) => self.inject(request.json()?).await,
            ("GET", ["faults", id]) => {
                Response::json(&self.holder.look(id).await.ok_or_else(|| unknown(id))?)
            }
            ("POST", ["faults", id, "renew"]) => {
                let renewal: Renewal = request.json()?;
                if !self.leases().renew(id, clock::now(), renewal.lease) {
                    let message =
                        format!("fault `{id}` has no lease: it lapsed, was undone or never was");
                    return Err(Failure::new(StatusCode::GONE, message));
                }
                self.changed.notify_one();
                self.holder.renewed(id, &renewal).await;
                Response::empty()
            }
            ("DELETE", ["faults", id]) => {
                self.holder.interrupt(id);
                let turn = self.turn(id);
                let _turn = turn.lock().await;
                // Not by a look at it, which may take as long as the undo.
                if !self.holder.ids().iter().any(|known| known == id) {
                    return Err(unknown(id));
                }
                let view = self.holder.undo(id, false).await?;
                self.leases().release(id);
                Response::json(&view)
            }
            _ => Err(Failure::no_route(request)),
        }
    }

    async fn inject(&self, order: FaultOrder) -> Reply {
        let turn = self.turn(&order.id);
        let _turn = turn.lock().await;
        if self.holder.look(&order.id).await.is_some() {
            let message = format!("fault `{}` exists; ids are not used twice", order.id);
            return Err(Failure::new(StatusCode::CONFLICT, message));
        }
        // The lease runs from before the injection: a holder that dies in between leaves nothing unleased.
        let (id, lease) = (order.id.clone(), order.lease);
        self.leases().grant(&id, clock::now(), lease);
        self.changed.notify_one();
        let injected = self.holder.inject(order).await;
        let in_force = match &injected {
            Ok(view) => view.active,
            // A failed injection that could not be rolled back is in force all the same: its lease stays.
            Err(_) => self.holder.look(&id).await.is_some_and(|view| view.active),
        };
        if !in_force {
            self.leases().release(&id);
        }
        Response::json(&injected?)
    }

    fn leases(&self) -> std::sync::MutexGuard<'_, LeaseTable> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self, id: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry(id.to_owned()).or_default())
    }
}

fn unknown(id: &str) -> Failure {
    Failure::new(StatusCode::NOT_FOUND, format!("no fault `{id}`"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use model::fault::{Fault, Hold};
    use model::instant::{Bracket, Mono};
    use model::quantity::{Share, Span};

    use super::*;

    /// Undoing `stuck` never ends.
    #[derive(Default)]
    struct OneIsStuck {
        views: Mutex<BTreeMap<FaultId, FaultView>>,
    }

    impl OneIsStuck {
        fn views(&self) -> std::sync::MutexGuard<'_, BTreeMap<FaultId, FaultView>> {
            self.views.lock().unwrap()
        }
    }

    impl Holder for OneIsStuck {
        async fn inject(&self, order: FaultOrder) -> Result<FaultView, Failure> {
            let view = FaultView {
                id: order.id.clone(),
                active: true,
                injected: Bracket {
                    asked: Mono(0),
                    observed: Mono(0),
                },
                healed: None,
                lapsed: false,
                observation: model::fault::Observation::default(),
            };
            self.views().insert(order.id, view.clone());
            Ok(view)
        }

        async fn look(&self, id: &str) -> Option<FaultView> {
            self.views().get(id).cloned()
        }

        async fn undo(&self, id: &str, lapsed: bool) -> Result<FaultView, Failure> {
            if id == "stuck" {
                std::future::pending::<()>().await;
            }
            let mut views = self.views();
            let view = views.get_mut(id).ok_or_else(|| unknown(id))?;
            (view.active, view.lapsed) = (false, lapsed);
            Ok(view.clone())
        }

        fn ids(&self) -> Vec<FaultId> {
            self.views().keys().cloned().collect()
        }
    }

    #[tokio::test]
    async fn an_undo_that_hangs_does_not_keep_another_lease_from_lapsing() {
        let leased = Leased::new(OneIsStuck::default());
        let enforced = tokio::spawn(Arc::clone(&leased).enforce(CancellationToken::new()));
        for (id, lease) in [("stuck", 10), ("other", 60)] {
            let order = FaultOrder {
                id: id.to_owned(),
                fault: Fault::Hold(Hold {}),
                node: None,
                share: Share::ALL,
                seed: 7,
                lease: Span::from_millis(lease),
            };
            leased.inject(order).await.unwrap();
        }
        let lapsed = async {
            while !leased.holder().views()["other"].lapsed {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), lapsed)
            .await
            .expect("the other fault is undone");
        assert!(leased.holder().views()["stuck"].active);
        enforced.abort();
    }
}
