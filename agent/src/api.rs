//! The agent's HTTP routes. What is asked has come through the gate.
//!
//! | call | body | answer |
//! |---|---|---|
//! | `GET /status` | - | [`AgentStatus`] |
//! | `GET /preflight` | - | [`crate::preflight::kernel::Kernel`], looked at anew: what can be done to this machine |
//! | `GET /clock` | - | [`Clocks`] |
//! | `POST /run` | [`TakeRun`](crate::run_lock::TakeRun) | [`RunTaken`](crate::run_lock::RunTaken); 409 while another run has the agent, which it names |
//! | `POST /run/renew` | [`RenewRun`](crate::run_lock::RenewRun) | `{}`; 409 when the run is over |
//! | `DELETE /run` | - | `{}`, its faults are undone, its children ended, and the agent is given back |
//! | `POST /children` | [`StartChild`] | [`Started`], once it is ready; 409 for a name that is taken, 422 for a bad one |
//! | `GET /children` | - | [`ChildView`]s |
//! | `DELETE /children/{name}` | - | `{}`, once it has ended |
//! | `POST /children/{name}/call` | [`Call`] | what the child answers, status and body; 502 when it is gone |
//! | `POST /commands/{name}` | [`CommandOrder`] | [`model::command::CommandAnswer`], once it has ended; 404 for one that the agent's own configuration does not name, 400 for a variable that may not be set |
//! | `/faults…` | as [`host::faults`] | `FaultView`s |
//! | `POST /ears` | - | [`Ear`](crate::ears::Ear): datagrams are listened for; 409 where too many are open |
//! | `DELETE /ears/{port}` | [`Close`](crate::ears::Close) | [`Heard`](crate::ears::Heard), once all that is waited for has come or time is up |
//! | `POST /sends` | [`Send`](crate::ears::Send) | [`Sent`](crate::ears::Sent) |
//! | `POST /residue/mark` | - | `{}`; what there is now is not residue, and faults that are over are forgotten; 409 while one is in force |
//! | `GET /residue` | - | [`model::trial::Residue`] since the mark; 409 without one |
//! | `POST /halt` | - | [`Halted`], once everything is undone; new faults, children and commands are refused with 423 |
//! | `POST /halt/clear` | - | [`AgentStatus`]; work is taken on again |

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use host::clock;
use host::faults::Leased;
use host::http::{CallError, Failure, Method, Reply, Request, Response, StatusCode, header};
use model::command::CommandOrder;
use model::ids::FaultId;
use model::quantity::Span;
use model::role::{PROTOCOL_VERSION, Ready, Role};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::commands::Commands;
use crate::ears::{self, Ears};
use crate::faults::AgentHolder;
use crate::residue::{self, Fingerprint};
use crate::run_lock::{RunLock, RunView};
use crate::supervisor::Supervisor;

/// `POST /children`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StartChild {
    /// A lower-case letter, then letters, digits and `-`; at most 32.
    pub name: String,
    /// What it is to be.
    pub role: Role,
}

/// The answer to [`StartChild`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Its name.
    pub name: String,
    /// What it said.
    pub ready: Ready,
}

/// A child in `GET /children`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildView {
    /// Its name.
    pub name: String,
    /// `lane`, `tokens`, `proxy` or `shard`.
    pub role: String,
    /// Its process id, the latest where it was restarted.
    pub pid: u32,
    /// Whether it runs (or is paused).
    pub alive: bool,
    /// How it ended, such as `signal: 9 (SIGKILL)`.
    pub exit: Option<String>,
    /// Whether a fault was to end it, so that its end is none of its own.
    pub end_expected: bool,
    /// How often it was started again.
    pub restarts: u32,
    /// Its control API.
    pub control: SocketAddr,
    /// Its services.
    pub listen: BTreeMap<String, SocketAddr>,
}

/// `POST /children/{name}/call`: a call of the child's control API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// `GET`, `POST` and so on.
    pub method: String,
    /// Such as `/status`.
    pub path: String,
    /// Sent as JSON; null for none.
    #[serde(default)]
    pub body: Value,
    /// How long the child may take to answer.
    pub timeout: Span,
}

/// `GET /status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// The node's name.
    pub name: String,
    /// [`PROTOCOL_VERSION`].
    pub protocol: u32,
    /// The agent's process id.
    pub pid: u32,
    /// Faults in force.
    pub faults: Vec<FaultId>,
    /// Its children's names.
    pub children: Vec<String>,
    /// Whether it refuses new work.
    pub halted: bool,
    /// The run that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunView>,
    /// Where its children may keep their data. It is emptied when the agent ends.
    #[serde(default)]
    pub data_dir: PathBuf,
}

/// `GET /clock`: the agent's clocks, read one right after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clocks {
    /// The monotonic clock, which the brackets of faults are told in.
    pub mono_us: u64,
    /// The wall clock.
    pub unix_us: u64,
    /// The boot that the monotonic clock counts from: where it is the caller's, both are on one kernel.
    #[serde(default)]
    pub boot: String,
}

/// The answer to a halt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Halted {
    /// What was in force, and is undone.
    pub undone: Vec<FaultId>,
    /// How the agent is now; a fault that is in there could not be undone yet, and is tried again.
    pub status: AgentStatus,
}

/// What answers requests.
#[derive(Debug)]
pub struct Api {
    name: String,
    supervisor: Arc<Supervisor>,
    faults: Arc<Leased<AgentHolder>>,
    commands: Commands,
    run: Arc<RunLock>,
    mark: Mutex<Option<Fingerprint>>,
    ears: Ears,
}

impl Api {
    /// The API of the agent of a node.
    #[must_use]
    pub fn new(
        name: String,
        supervisor: Arc<Supervisor>,
        faults: Arc<Leased<AgentHolder>>,
        commands: Commands,
        run: Arc<RunLock>,
    ) -> Arc<Self> {
        Arc::new(Self {
            name,
            supervisor,
            faults,
            commands,
            run,
            mark: Mutex::default(),
            ears: Ears::default(),
        })
    }

    /// Whether a request is of no use to anybody when its caller goes away: a call of a child, and a command. What others
    /// begin is to be brought to its end.
    #[must_use]
    pub fn is_for_the_caller_alone(request: &Request) -> bool {
        matches!(
            (request.method.as_str(), request.segments().as_slice()),
            ("POST", ["children", _, "call"] | ["commands", _])
        )
    }

    /// The faults in force.
    #[must_use]
    pub fn in_force(&self) -> Vec<FaultId> {
        self.faults.holder().in_force()
    }

    /// 423 when the agent is halted.
    ///
    /// # Errors
    /// It is.
    pub fn refuse_when_halted(&self) -> Result<(), Failure> {
        self.faults.holder().refuse_when_halted()
    }

    /// Answers a request.
    ///
    /// # Errors
    /// As the table above says.
    pub async fn answer(self: Arc<Self>, request: Request) -> Reply {
        let request = &request;
        match (request.method.as_str(), request.segments().as_slice()) {
            (_, ["faults", ..]) => self.faults.route(request).await,
            ("POST", ["children", name, "call"]) => self.forward(name, request.json()?).await,
            ("POST", ["commands", name]) => {
                self.refuse_when_halted()?;
                let order: CommandOrder = request.json()?;
                Response::json(&self.commands.run(name, order).await?)
            }
            ("GET", ["status"]) => Response::json(&self.status()),
            ("GET", ["preflight"]) => {
                let network = self.faults.holder().network();
                Response::json(&*network.look_at_kernel().await)
            }
            ("GET", ["clock"]) => Response::json(&Clocks {
                mono_us: clock::now().0,
                unix_us: clock::unix_micros(),
                boot: clock::boot().to_owned(),
            }),
            ("GET", ["children"]) => Response::json(&self.supervisor.views()),
            ("POST", ["children"]) => {
                self.refuse_when_halted()?;
                let StartChild { name, role } = request.json()?;
                self.refuse_a_nodes_name(&name)?;
                let ready = self.supervisor.start(&name, role).await?;
                Response::json(&Started { name, ready })
            }
            ("DELETE", ["children", name]) => {
                self.supervisor.end(name).await?;
                Response::empty()
            }
            ("POST", ["ears"]) => {
                self.refuse_when_halted()?;
                Response::json(&self.ears.open().await?)
            }
            ("DELETE", ["ears", port]) => {
                Response::json(&self.ears.close(port, &request.json()?).await?)
            }
            ("POST", ["sends"]) => {
                self.refuse_when_halted()?;
                Response::json(&ears::send(&request.json()?).await?)
            }
            ("POST", ["residue", "mark"]) => {
                let left = self.in_force();
                if !left.is_empty() {
                    // What is there at the mark counts as nobody's afterwards.
                    let text = format!(
                        "{} in force; undo that before the mark: DELETE /faults/{{id}}, or a halt",
                        left.join(", ")
                    );
                    return Err(Failure::new(StatusCode::CONFLICT, text));
                }
                // Of a trial before this one: its faults have the same ids as this one's.
                self.faults.holder().forget_over();
                let now = self.fingerprint().await;
                *self.mark.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
                Response::empty()
            }
            ("GET", ["residue"]) => {
                let mark = self
                    .mark
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone()
                    .ok_or_else(|| {
                        Failure::new(
                            StatusCode::CONFLICT,
                            "there is no mark to compare with; POST /residue/mark first",
                        )
                    })?;
                Response::json(&residue::compare(&mark, &self.fingerprint().await))
            }
            ("POST", ["halt"]) => {
                // A halt that cannot be remembered is a halt all the same.
                let remembered = self.faults.holder().set_halted(true);
                tracing::warn!("halted: everything is undone, new work is refused");
                let before = self.in_force();
                self.faults.undo_all().await;
                remembered?;
                let status = self.status();
                let undone = before.into_iter().filter(|id| !status.faults.contains(id));
                Response::json(&Halted {
                    undone: undone.collect(),
                    status,
                })
            }
            ("POST", ["halt", "clear"]) => {
                self.faults.holder().set_halted(false)?;
                Response::json(&self.status())
            }
            _ => Err(Failure::no_route(request)),
        }
    }

    /// A fault that names it would have two to choose from.
    fn refuse_a_nodes_name(&self, name: &str) -> Result<(), Failure> {
        if self.faults.holder().nodes().get(name).is_none() {
            return Ok(());
        }
        let text = format!(
            "`{name}` is a node of the agent's configuration; choose another name for the child"
        );
        Err(Failure::new(StatusCode::CONFLICT, text))
    }

    /// What a run has here ends with it: its faults, and the children that were started for it.
    pub(crate) async fn end_run(&self) {
        self.faults.undo_all().await;
        self.supervisor.clear().await;
    }

    fn status(&self) -> AgentStatus {
        let holder = self.faults.holder();
        AgentStatus {
            name: self.name.clone(),
            protocol: PROTOCOL_VERSION,
            pid: std::process::id(),
            faults: holder.in_force(),
            children: self
                .supervisor
                .matching(|_| true)
                .into_iter()
                .map(|(name, _)| name)
                .collect(),
            halted: holder.is_halted(),
            run: self.run.view(clock::now()),
            data_dir: holder.state().data(),
        }
    }

    async fn fingerprint(&self) -> Fingerprint {
        residue::take(&self.supervisor, self.faults.holder()).await
    }

    async fn forward(&self, name: &str, call: Call) -> Reply {
        let child = self.supervisor.child(name)?;
        let gone = |why: &dyn std::fmt::Display| {
            Failure::new(
                StatusCode::BAD_GATEWAY,
                format!(
                    "child `{name}` did not answer {} {}: {why}",
                    call.method, call.path
                ),
            )
        };
        if let Some(exit) = child.process.exit() {
            return Err(gone(&format_args!("it ended ({exit})")));
        }
        let bad = |error: &dyn std::fmt::Display| {
            Failure::new(
                StatusCode::BAD_REQUEST,
                format!("call of child `{name}`: {error}"),
            )
        };
        let method = Method::from_bytes(call.method.as_bytes()).map_err(|error| bad(&error))?;
        let body = match &call.body {
            Value::Null => Vec::new(),
            body => serde_json::to_vec(body).map_err(|error| bad(&error))?,
        };
        let json = [("content-type", "application/json")];
        let answer = child
            .client
            .send(
                method,
                &call.path,
                &json,
                body.into(),
                call.timeout.duration(),
            )
            .await;
        match answer {
            Ok(answer) => {
                // The other headers are about the connection to the child.
                let mut headers = header::HeaderMap::new();
                if let Some(kind) = answer.headers.get(header::CONTENT_TYPE) {
                    headers.insert(header::CONTENT_TYPE, kind.clone());
                }
                Ok(Response { headers, ..answer })
            }
            Err(error @ CallError::TimedOut { .. }) => Err(Failure::new(
                StatusCode::GATEWAY_TIMEOUT,
                gone(&error).message,
            )),
            Err(error) => Err(gone(&error)),
        }
    }
}
