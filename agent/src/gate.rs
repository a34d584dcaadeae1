//! What stands between a caller and the API: who it is, whether the agent is another run's, how far the policy lets it go;
//! and the audit log, which hears of all that.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use host::clock;
use host::http::{Failure, Method, Reply, Request, Response, StatusCode};
use model::fault::{FaultOrder, Renewal};
use model::ids::FaultId;
use model::instant::Mono;
use model::policy::{Breach, Policy};

use crate::access::{Access, Who};
use crate::api::{Api, StartChild};
use crate::audit::{Audit, Entry};
use crate::ears::Send;
use crate::run_lock::{RenewRun, RunLock, TakeRun};
use crate::supervisor::kind_of;

/// The gate of an agent.
#[derive(Debug)]
pub struct Gate {
    api: Arc<Api>,
    access: Access,
    policy: Policy,
    audit: Arc<Audit>,
    run: Arc<RunLock>,
    /// Since when each fault that was let through has been asked for.
    admitted: Mutex<BTreeMap<FaultId, Admitted>>,
}

#[derive(Debug)]
struct Admitted {
    since: Mono,
    /// Its injection is under way: it may not be in force yet.
    pending: bool,
}

impl Gate {
    /// A gate before an API.
    #[must_use]
    pub fn new(
        api: Arc<Api>,
        access: Access,
        policy: Policy,
        audit: Arc<Audit>,
        run: Arc<RunLock>,
    ) -> Arc<Self> {
        Arc::new(Self {
            api,
            access,
            policy,
            audit,
            run,
            admitted: Mutex::default(),
        })
    }

    /// Answers a request, or refuses it.
    ///
    /// # Errors
    /// 503 for new work that the audit log cannot be told of, 401 and 403 for who may not, 409 for whom the agent is not held
    /// for, 403 with the rule's name for what is beyond the policy; else as [`Api::answer`].
    pub async fn answer(self: Arc<Self>, request: Request) -> Reply {
        let who = match self.access.admit(&request) {
            Ok(who) => who,
            Err(refused) => {
                let entry = self.audit.begin_refused(refused.who, &request);
                return Err(turned_down(entry, refused.failure));
            }
        };
        let entry = self.audit.begin(who.clone(), &request);
        let may = entry.refuse_unrecorded(&request);
        if let Err(failure) = may.and_then(|()| self.may(&request)) {
            return Err(turned_down(entry, failure));
        }
        if Api::is_for_the_caller_alone(&request) {
            let reply = Arc::clone(&self.api).answer(request).await;
            entry.answered(&reply);
            return reply;
        }
        // The server drops a handler whose caller has gone; a task of its own is not dropped with it.
        let answered = tokio::spawn(async move {
            let reply = self.act(&who, request).await;
            entry.answered(&reply);
            reply
        });
        answered.await.unwrap_or_else(|error| {
            Err(Failure::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("the request was not brought to its end: {error}"),
            ))
        })
    }

    /// Fence and policy.
    fn may(&self, request: &Request) -> Result<(), Failure> {
        let segments = request.segments();
        let now = clock::now();
        match (&request.method, segments.as_slice()) {
            // Commands are asked for by children too, and change nothing of the agent's; a halt is everybody's.
            (&Method::GET, _) | (_, ["run" | "halt" | "commands", ..]) => return Ok(()),
            _ => self.run.check(request, now)?,
        }
        match (request.method.as_str(), segments.as_slice()) {
            ("POST", ["children"]) => {
                let StartChild { role, .. } = request.json()?;
                self.policy
                    .starts(kind_of(&role))
                    .map_err(|breach| forbidden(&breach))
            }
            ("POST", ["faults"]) => self.admit(&request.json()?, now),
            ("POST", ["sends"]) => {
                let Send { to, .. } = request.json()?;
                self.policy
                    .sends(to.ip())
                    .map_err(|breach| forbidden(&breach))
            }
            ("POST", ["faults", id, "renew"]) => {
                let Renewal { lease } = request.json()?;
                let since = self.admitted().get(*id).map(|admitted| admitted.since);
                let lived = now.since(since.unwrap_or(now));
                self.policy
                    .renews(lived, lease)
                    .map_err(|breach| forbidden(&breach))
            }
            _ => Ok(()),
        }
    }

    /// Counts what is in force and what is about to be: two that come at once are not both the last that may.
    fn admit(&self, order: &FaultOrder, now: Mono) -> Result<(), Failure> {
        let mut admitted = self.admitted();
        let in_force = self.api.in_force();
        admitted.retain(|id, fault| fault.pending || in_force.contains(id));
        let others = in_force
            .iter()
            .filter(|id| !admitted.contains_key(*id))
            .count();
        self.policy
            .admits(order, admitted.len() + others)
            .map_err(|breach| forbidden(&breach))?;
        // One that is there is refused by its holder, and goes on as it was.
        admitted.entry(order.id.clone()).or_insert(Admitted {
            since: now,
            pending: true,
        });
        Ok(())
    }

    async fn act(&self, who: &Who, request: Request) -> Reply {
        let now = clock::now();
        match (request.method.as_str(), request.segments().as_slice()) {
            ("POST", ["run"]) => {
                self.api.refuse_when_halted()?;
                let order: TakeRun = request.json()?;
                let taken = self.run.take(&order, &who.name, now)?;
                tracing::info!(run = order.run, by = who.name, fence = taken.fence, "taken");
                Response::json(&taken)
            }
            ("POST", ["run", "renew"]) => {
                let RenewRun { lease } = request.json()?;
                self.run.renew(&request, lease, now)?;
                Response::empty()
            }
            ("DELETE", ["run"]) => {
                self.run.is_of_holder(&request, now)?;
                // Whatever its conductor could not end, or has forgotten.
                self.api.end_run().await;
                self.run.release(&request, clock::now())?;
                Response::empty()
            }
            ("POST", ["faults"]) => {
                let id = request.json::<FaultOrder>().map(|order| order.id);
                let reply = Arc::clone(&self.api).answer(request).await;
                if let Ok(id) = id
                    && let Some(admitted) = self.admitted().get_mut(&id)
                {
                    admitted.pending = false;
                }
                reply
            }
            _ => Arc::clone(&self.api).answer(request).await,
        }
    }

    fn admitted(&self) -> MutexGuard<'_, BTreeMap<FaultId, Admitted>> {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn turned_down(entry: Entry, failure: Failure) -> Failure {
    entry.refused(failure.status, &failure.message);
    failure
}

fn forbidden(breach: &Breach) -> Failure {
    Failure::new(StatusCode::FORBIDDEN, breach.to_string())
}
