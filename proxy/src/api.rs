//! The control API: leased faults and the status.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use host::clock;
use host::faults::{Holder, Leased};
use host::http::{Failure, Reply, Request, Response, StatusCode};
use model::fault::{FaultOrder, FaultView};
use model::ids::FaultId;
use model::instant::Bracket;
use model::quantity::Span;
use model::role::ProxyStatus;
use std::sync::atomic::Ordering;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::faults::{self, Rule};
use crate::plane::Plane;

/// How long a change waits for the open connections to take it on. They do within micro-seconds; a machine short of
/// CPU shall not keep the caller.
const TAKE_ON: Span = Span::from_millis(250);
/// The same for faults that end connections: they are over with it.
const END_CONNECTIONS: Span = Span::from_secs(2);
/// How often closing connections are looked at.
const LOOK_EVERY: Span = Span::from_millis(1);

/// Serves until `shutdown`, and then undoes every fault.
pub(crate) async fn serve(
    control: TcpListener,
    plane: Arc<Plane>,
    ends_tls: bool,
    shutdown: CancellationToken,
) {
    let faults = Leased::new(Faults {
        plane: Arc::clone(&plane),
        ends_tls,
        records: Mutex::default(),
    });
    let enforced = Arc::clone(&faults).enforce(shutdown.clone());
    let served = host::http::serve(control, shutdown, move |request: Request| {
        let faults = Arc::clone(&faults);
        async move { route(&faults, &request).await }
    });
    tokio::join!(enforced, served);
}

async fn route(faults: &Leased<Faults>, request: &Request) -> Reply {
    match (request.method.as_str(), request.segments().as_slice()) {
        ("GET", ["status"]) => Response::json(&faults.holder().status()),
        (_, ["faults", ..]) => faults.route(request).await,
        _ => Err(Failure::no_route(request)),
    }
}

/// The faults of a proxy, undone ones too.
#[derive(Debug)]
struct Faults {
    plane: Arc<Plane>,
    ends_tls: bool,
    records: Mutex<Vec<Record>>,
}

#[derive(Debug, Clone)]
struct Record {
    rule: Arc<Rule>,
    name: &'static str,
    active: bool,
    injected: Bracket,
    healed: Option<Bracket>,
    lapsed: bool,
}

impl Faults {
    fn records(&self) -> MutexGuard<'_, Vec<Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, id: &str) -> Option<Record> {
        let records = self.records();
        records.iter().find(|record| record.rule.id == id).cloned()
    }

    fn update(&self, id: &str, update: impl FnOnce(&mut Record)) {
        let mut records = self.records();
        if let Some(record) = records.iter_mut().find(|record| record.rule.id == id) {
            update(record);
        }
    }

    fn view(&self, id: &str) -> Option<FaultView> {
        let record = self.record(id)?;
        let observation = {
            let handles = self.plane.handles();
            record.rule.observe(handles.values().map(Arc::as_ref))
        };
        Some(FaultView {
            id: id.to_owned(),
            active: record.active,
            injected: record.injected,
            healed: record.healed,
            lapsed: record.lapsed,
            observation,
        })
    }

    fn status(&self) -> ProxyStatus {
        let active = self
            .records()
            .iter()
            .filter(|record| record.active)
            .map(|record| record.rule.id.clone())
            .collect();
        let open = self.plane.handles().len() as u64;
        self.plane.counters.status(open, active)
    }

    /// Waits until the connections that a closing fault has told to close have done so.
    async fn closed(&self, rule: &Rule, limit: Span) {
        let deadline = clock::now() + limit;
        while rule.bites.pending.load(Ordering::Acquire) > 0 && clock::now() < deadline {
            self.plane
                .timer
                .sleep_until(clock::now() + LOOK_EVERY)
                .await;
        }
    }

    fn remove(&self, rule: &Arc<Rule>) -> (u64, Vec<Arc<crate::plane::Handle>>) {
        self.plane
            .change(|list, _| list.retain(|other| !Arc::ptr_eq(other, rule)))
    }
}

fn unknown(id: &str) -> Failure {
    Failure::new(StatusCode::NOT_FOUND, format!("no fault `{id}`"))
}

impl Holder for Faults {
    async fn inject(&self, order: FaultOrder) -> Result<FaultView, Failure> {
        faults::check(
            &order.fault,
            self.plane.counters.sees_only_tls(),
            self.ends_tls,
        )
        .map_err(|reason| Failure::new(StatusCode::BAD_REQUEST, reason))?;
        let (id, name, share) = (order.id.clone(), order.fault.name(), order.share);
        let momentary = order.fault.ends_after().is_some();
        let limit = if momentary { END_CONNECTIONS } else { TAKE_ON };
        let asked = clock::now();
        let mut made = Err(String::new());
        let (generation, handles) = self.plane.change(|list, generation| {
            made = Rule::new(order, generation).map(Arc::new);
            list.extend(made.clone());
        });
        let rule = made.map_err(|reason| Failure::new(StatusCode::BAD_REQUEST, reason))?;
        // Recorded before the first wait: a caller that gives up here leaves a fault that can be undone.
        self.records().push(Record {
            rule: Arc::clone(&rule),
            name,
            active: true,
            injected: Bracket {
                asked,
                observed: asked,
            },
            healed: None,
            lapsed: false,
        });
        let open = handles.len();
        let unconfirmed = self.plane.obeyed(generation, handles, limit).await;
        if unconfirmed > 0 {
            tracing::warn!(
                fault = id,
                unconfirmed,
                open,
                ?limit,
                "connections did not take the fault on in time"
            );
            rule.bites
                .unconfirmed
                .store(unconfirmed as u64, Ordering::Release);
        }
        if momentary {
            self.closed(&rule, limit).await;
            self.remove(&rule);
        }
        let injected = Bracket {
            asked,
            observed: clock::now(),
        };
        tracing::info!(fault = id, name, share = %share, open, "injected");
        self.update(&id, |record| {
            record.injected = injected;
            if momentary {
                record.active = false;
                record.healed = Some(injected);
            }
        });
        self.view(&id).ok_or_else(|| unknown(&id))
    }

    async fn look(&self, id: &str) -> Option<FaultView> {
        self.view(id)
    }

    async fn undo(&self, id: &str, lapsed: bool) -> Result<FaultView, Failure> {
        let record = self.record(id).ok_or_else(|| unknown(id))?;
        if record.active {
            let asked = clock::now();
            let (generation, handles) = self.remove(&record.rule);
            let unconfirmed = self.plane.obeyed(generation, handles, TAKE_ON).await;
            if unconfirmed > 0 {
                tracing::warn!(
                    fault = id,
                    unconfirmed,
                    "connections did not take the heal on in time"
                );
            }
            let healed = Bracket {
                asked,
                observed: clock::now(),
            };
            tracing::info!(fault = id, name = record.name, lapsed, "undone");
            self.update(id, |record| {
                record.active = false;
                record.lapsed = lapsed;
                record.healed = Some(healed);
            });
        }
        self.view(id).ok_or_else(|| unknown(id))
    }

    fn ids(&self) -> Vec<FaultId> {
        let records = self.records();
        records
            .iter()
            .map(|record| record.rule.id.clone())
            .collect()
    }
}
