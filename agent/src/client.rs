//! The agent's API, typed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use host::http::{CallError, Client, Method, header};
use host::peer::Peer;
use model::command::{CommandAnswer, CommandOrder};
use model::fault::{Fault, FaultOrder, FaultView, Renewal};
use model::quantity::Span;
use model::role::{Ready, Role};
use model::trial::Residue;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::api::{AgentStatus, Call, ChildView, Clocks, Halted, StartChild, Started};
use crate::ears::{Close, Ear, Heard, Send, Sent};
use crate::preflight::kernel::Kernel;
use crate::run_lock::{FENCE, RenewRun, RunTaken, TakeRun};

const SOON: Duration = Duration::from_secs(5);
/// A child has ten seconds to become ready: to start one, and to undo a kill, may take that long and a little more.
const A_START: Duration = Duration::from_secs(15);
const RENEW_WITHIN: Duration = Duration::from_secs(2);
/// On top of what a child may take, so that the agent's own word on its silence arrives.
const FORWARDING: Duration = Duration::from_secs(1);

/// An agent. Clones share the connections.
#[derive(Debug, Clone)]
pub struct Agent {
    client: Client,
}

/// Every call fails with a [`CallError`]: the agent does not answer, or refuses as [`crate::api`] says.
impl Agent {
    /// The agent whose control API is at `control`.
    #[must_use]
    pub fn new(control: SocketAddr) -> Self {
        Self {
            client: Client::new(control),
        }
    }

    /// An agent that is reached otherwise: through a unix socket, or by TLS.
    #[must_use]
    pub fn of(peer: Peer) -> Self {
        Self {
            client: Client::of(Arc::new(peer)),
        }
    }

    /// The same, shown what is in its file `token`; `None` for what is no token.
    #[must_use]
    pub fn with_token(self, token: &str) -> Option<Self> {
        let mut value = header::HeaderValue::try_from(format!("Bearer {token}")).ok()?;
        value.set_sensitive(true);
        let client = self.client.with_header(header::AUTHORIZATION, value);
        (!token.is_empty()).then_some(Self { client })
    }

    /// Takes it for a run: the same agent, whose calls carry the fence. Clones of `self` go on without.
    ///
    /// # Errors
    /// See [`Agent`]; 409 names the run that has it.
    pub async fn take_run(&self, run: &str, lease: Span) -> Result<Self, CallError> {
        let order = TakeRun {
            run: run.to_owned(),
            lease,
        };
        let RunTaken { fence } = self.client.post("/run", &order, SOON).await?;
        Ok(self.clone().with_fence(fence))
    }

    /// The same agent, whose calls carry the fence of a run that was taken.
    #[must_use]
    pub fn with_fence(self, fence: u64) -> Self {
        let name = header::HeaderName::from_static(FENCE);
        Self {
            client: self.client.with_header(name, fence.into()),
        }
    }

    /// Renews the lease of the run, counted from now.
    ///
    /// # Errors
    /// See [`Agent`]; 409 when the run is over.
    pub async fn renew_run(&self, lease: Span) -> Result<(), CallError> {
        let renewal = RenewRun { lease };
        let _: Value = self
            .client
            .post("/run/renew", &renewal, RENEW_WITHIN)
            .await?;
        Ok(())
    }

    /// Gives it back.
    ///
    /// # Errors
    /// As [`Self::renew_run`].
    pub async fn release_run(&self) -> Result<(), CallError> {
        let _: Value = self.client.call(Method::DELETE, "/run", &(), SOON).await?;
        Ok(())
    }

    /// What its clocks say.
    ///
    /// # Errors
    /// See [`Agent`].
    pub async fn clocks(&self, within: Duration) -> Result<Clocks, CallError> {
        self.client.get("/clock", within).await
    }

    /// Where its control API is.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.client.addr()
    }

    /// How it is.
    ///
    /// # Errors
    /// See [`Agent`].
    pub async fn status(&self) -> Result<AgentStatus, CallError> {
        self.client.get("/status", SOON).await
    }

    /// What can be done to its machine.
    ///
    /// # Errors
    /// See [`Agent`].
    pub async fn preflight(&self) -> Result<Kernel, CallError> {
        self.client.get("/preflight", SOON).await
    }

    /// Starts a child and waits until it is ready.
    ///
    /// # Errors
    /// See [`Agent`]; the name is taken or bad, or the child did not become ready.
    pub async fn start_child(&self, name: &str, role: &Role) -> Result<Ready, CallError> {
        let start = StartChild {
            name: name.to_owned(),
            role: role.clone(),
        };
        let started: Started = self.client.post("/children", &start, A_START).await?;
        Ok(started.ready)
    }

    /// All its children, ended ones too.
    ///
    /// # Errors
    /// See [`Agent`].
    pub async fn children(&self) -> Result<Vec<ChildView>, CallError> {
        self.client.get("/children", SOON).await
    }

    /// Ends a child and waits until it is gone.
    ///
    /// # Errors
    /// See [`Agent`]; 404 when there is none of that name.
    pub async fn end_child(&self, name: &str) -> Result<(), CallError> {
        let path = format!("/children/{name}");
        let _: Value = self.client.call(Method::DELETE, &path, &(), SOON).await?;
        Ok(())
    }

    /// Calls a child's control API: `&()` for no body.
    ///
    /// # Errors
    /// [`CallError::Refused`] with the child's own status and words, or 502 when it is gone and 504 when it does not
    /// answer within `timeout`; the call is named as the child's, such as `GET lane/status`.
    pub async fn call_child<T: DeserializeOwned>(
        &self,
        name: &str,
        method: Method,
        path: &str,
        body: &impl Serialize,
        timeout: Duration,
    ) -> Result<T, CallError> {
        let named = format!("{method} {name}{path}");
        let body = serde_json::to_value(body).map_err(|error| CallError::Garbled {
            call: named.clone(),
            reason: error.to_string(),
        })?;
        let forwarded = Call {
            method: method.to_string(),
            path: path.to_owned(),
            body,
            timeout: timeout.into(),
        };
        self.client
            .post(
                &format!("/children/{name}/call"),
                &forwarded,
                timeout + FORWARDING,
            )
            .await
            .map_err(|error| renamed(error, named))
    }

    /// Has a command of the agent's own configuration run; what came of it. A command whose caller has given up after
    /// `timeout` is killed.
    ///
    /// # Errors
    /// See [`Agent`]; 404 when the agent's configuration does not name it.
    pub async fn run_command(
        &self,
        name: &str,
        order: &CommandOrder,
        timeout: Duration,
    ) -> Result<CommandAnswer, CallError> {
        self.client
            .post(&format!("/commands/{name}"), order, timeout)
            .await
    }

    /// Injects a fault; returns once it was seen to be in force.
    ///
    /// # Errors
    /// See [`Agent`]; then nothing is in force, or the lease undoes it.
    pub async fn inject(&self, order: &FaultOrder) -> Result<FaultView, CallError> {
        let grace = match &order.fault {
            Fault::Terminate(terminate) => terminate.grace.duration(),
            fault => fault.lead().duration(),
        };
        self.client.post("/faults", order, A_START + grace).await
    }

    /// Looks at a fault anew.
    ///
    /// # Errors
    /// See [`Agent`]; 404 for a fault that never was.
    pub async fn look(&self, id: &str) -> Result<FaultView, CallError> {
        self.client.get(&format!("/faults/{id}"), SOON).await
    }

    /// Renews a fault's lease, counted from now.
    ///
    /// # Errors
    /// See [`Agent`]; 410 when the lease had lapsed and the fault is undone.
    pub async fn renew(&self, id: &str, lease: Span) -> Result<(), CallError> {
        let path = format!("/faults/{id}/renew");
        let _: Value = self
            .client
            .post(&path, &Renewal { lease }, RENEW_WITHIN)
            .await?;
        Ok(())
    }

    /// Undoes a fault; returns once it was seen to be undone. Idempotent.
    ///
    /// # Errors
    /// See [`Agent`]; 404 for a fault that never was.
    pub async fn undo(&self, id: &str) -> Result<FaultView, CallError> {
        let path = format!("/faults/{id}");
        self.client.call(Method::DELETE, &path, &(), A_START).await
    }

    /// Has it listen for datagrams.
    ///
    /// # Errors
    /// See [`Agent`]; 409 when too many ears are open.
    pub async fn open_ear(&self) -> Result<Ear, CallError> {
        self.client.post("/ears", &(), SOON).await
    }

    /// Has it wait until so much has come as is waited for, or time is up, and listen no longer.
    ///
    /// # Errors
    /// See [`Agent`]; 404 when it does not listen there (any more).
    pub async fn close_ear(&self, port: u16, close: &Close) -> Result<Heard, CallError> {
        let path = format!("/ears/{port}");
        let within = SOON + close.wait.duration();
        self.client.call(Method::DELETE, &path, close, within).await
    }

    /// Has it send datagrams.
    ///
    /// # Errors
    /// See [`Agent`]; 403 where its policy lets none go there.
    pub async fn send(&self, send: &Send) -> Result<Sent, CallError> {
        self.client.post("/sends", send, SOON).await
    }

    /// Takes what there is now as what is not residue, and has faults that are over forgotten.
    ///
    /// # Errors
    /// See [`Agent`].
    pub async fn mark_residue(&self) -> Result<(), CallError> {
        let _: Value = self.client.post("/residue/mark", &(), SOON).await?;
        Ok(())
    }

    /// What was left behind since the mark.
    ///
    /// # Errors
    /// See [`Agent`]; 409 when nothing was marked.
    pub async fn residue(&self) -> Result<Residue, CallError> {
        self.client.get("/residue", SOON).await
    }

    /// Has everything undone and new work refused, also after a restart of the agent.
    ///
    /// # Errors
    /// See [`Agent`].
    pub async fn halt(&self) -> Result<Halted, CallError> {
        self.client.post("/halt", &(), A_START).await
    }

    /// Ends a halt.
    ///
    /// # Errors
    /// See [`Agent`].
    pub async fn clear_halt(&self) -> Result<AgentStatus, CallError> {
        self.client.post("/halt/clear", &(), SOON).await
    }
}

/// The same error, about the child's call instead of the one that carried it.
fn renamed(error: CallError, call: String) -> CallError {
    match error {
        CallError::Broken {
            reason, connected, ..
        } => CallError::Broken {
            call,
            reason,
            connected,
        },
        CallError::TimedOut { after, .. } => CallError::TimedOut { call, after },
        CallError::Refused {
            status, message, ..
        } => CallError::Refused {
            call,
            status,
            message,
        },
        CallError::Garbled { reason, .. } => CallError::Garbled { call, reason },
    }
}
