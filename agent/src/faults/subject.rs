//! Whose process a fault is done to: a child of the agent's own, or an operator's node. Both can be signalled, awaited and
//! brought back; how differs.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use host::clock;
use host::http::{Failure, StatusCode};
use model::fault::FaultOrder;
use model::instant::{Bracket, Mono};
use rustix::process::Signal;

use crate::held::Held;
use crate::nodes::{Found, Node, Nodes, forbidden};
use crate::process::{self, Exit, Process};
use crate::procfs::Identity;
use crate::supervisor::Supervisor;

/// The node of an order that names none.
const DEFAULT_NODE: &str = "lane";
/// SIGKILL takes effect at once, but for a process that waits for a disk.
pub(super) const KILLED_WITHIN: Duration = Duration::from_secs(5);

/// A process that is some node's at the moment.
#[derive(Debug, Clone)]
pub(super) enum Subject {
    /// Of a child of the agent's own.
    Child {
        supervisor: Arc<Supervisor>,
        name: String,
        process: Arc<Process>,
    },
    /// Of an operator's node.
    Operators {
        node: Arc<Node>,
        process: Arc<Held>,
        spared: Arc<Spared>,
    },
}

/// Processes of the agent's own, which are no operator's node whatever a pid file says.
#[derive(Debug)]
pub(super) struct Spared {
    supervisor: Arc<Supervisor>,
    watchdog: Option<u32>,
}

impl Spared {
    /// 403 for a process of a node that may not be touched.
    fn refuse(&self, name: &str, process: Identity) -> Result<(), Failure> {
        let children = self.supervisor.matching(|_| true);
        let own: Vec<u32> = children
            .iter()
            .flat_map(|(_, child)| [child.process.pid(), child.process.own_pid()])
            .chain(self.watchdog)
            .collect();
        let Some(why) = forbidden(process, &own) else {
            return Ok(());
        };
        let pid = process.pid;
        let text = format!(
            "node `{name}` is process {pid}, which {why}: mend its entry in the agent's configuration"
        );
        Err(refused(StatusCode::FORBIDDEN, text))
    }
}

/// What became of a node that was to come back.
#[derive(Debug)]
pub(super) struct Back {
    /// The process that it has now; `None` where it has none, and is not to have one.
    pub(super) subject: Option<Subject>,
    pub(super) heal: Option<Bracket>,
    pub(super) how: &'static str,
}

impl Subject {
    /// Finds the process that an order means.
    ///
    /// # Errors
    /// 404 when there is no such node, 409 when it does not run, 403 when its process may not be touched.
    pub(super) async fn find(
        order: &FaultOrder,
        supervisor: &Arc<Supervisor>,
        nodes: &Nodes,
        watchdog: Option<u32>,
    ) -> Result<Self, Failure> {
        let name = node_of(order);
        let Some(node) = nodes.get(name) else {
            let process = supervisor.child(name)?.process;
            if let Some(exit) = process.exit() {
                return Err(refused(
                    StatusCode::CONFLICT,
                    format!("node `{name}` does not run: it ended ({exit})"),
                ));
            }
            return Ok(Self::Child {
                supervisor: Arc::clone(supervisor),
                name: name.to_owned(),
                process,
            });
        };
        let main = node.main.clone();
        let down = |why: String| {
            let text = format!(
                "node `{name}` does not run: {why}; start it, or mend its entry in the agent's configuration"
            );
            refused(StatusCode::CONFLICT, text)
        };
        let found = away(move || main.find()).await?;
        let why = match &found {
            Found::None(why) => why.clone(),
            Found::Process(process) => format!("process {} is ending", process.pid),
        };
        let identity = found.living().ok_or_else(|| down(why))?;
        let spared = Spared {
            supervisor: Arc::clone(supervisor),
            watchdog,
        };
        spared.refuse(name, identity)?;
        let process = Held::of(identity);
        let process = process.ok_or_else(|| down(format!("process {} has ended", identity.pid)))?;
        Ok(Self::Operators {
            node: Arc::clone(node),
            process: Arc::new(process),
            spared: Arc::new(spared),
        })
    }

    /// 403 where what has come in a process's place may not be touched.
    pub(super) fn may_be_hit(&self) -> Result<(), Failure> {
        match self {
            Self::Child { .. } => Ok(()),
            Self::Operators {
                node,
                process,
                spared,
            } => spared.refuse(&node.name, process.identity()),
        }
    }

    /// 422 for a node that cannot be started again, and is therefore not to be ended.
    pub(super) fn can_come_back(&self) -> Result<(), Failure> {
        match self {
            Self::Operators { node, .. } if !node.can_start() => Err(refused(
                StatusCode::UNPROCESSABLE_ENTITY,
                format!(
                    "node `{0}` can be paused only, as nothing says how it is started: add start: with the name of a command to \
                     nodes.{0} in the agent's configuration",
                    node.name
                ),
            )),
            _ => Ok(()),
        }
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Self::Child { name, .. } => name,
            Self::Operators { node, .. } => &node.name,
        }
    }

    pub(super) fn identity(&self) -> Identity {
        match self {
            Self::Child { process, .. } => process.identity(),
            Self::Operators { process, .. } => process.identity(),
        }
    }

    /// The node, where it outlives the agent.
    pub(super) fn operators(&self) -> Option<&Arc<Node>> {
        match self {
            Self::Child { .. } => None,
            Self::Operators { node, .. } => Some(node),
        }
    }

    /// Whether it is a foreign program under a guard of the agent's.
    pub(super) fn is_guarded(&self) -> bool {
        matches!(self, Self::Child { process, .. } if process.is_guarded())
    }

    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        match self {
            Self::Child { process, .. } => process.signal(signal),
            Self::Operators { process, .. } => process.signal(signal),
        }
    }

    /// Its end is no surprise from now on.
    pub(super) fn expect_end(&self) {
        if let Self::Child { process, .. } = self {
            process.expect_end();
        }
    }

    pub(super) fn exit(&self) -> Option<Exit> {
        match self {
            Self::Child { process, .. } => process.exit(),
            Self::Operators { process, .. } => process.exit(),
        }
    }

    pub(super) async fn exited_within(&self, limit: Duration) -> Option<Exit> {
        match self {
            Self::Child { process, .. } => process.exited_within(limit).await,
            Self::Operators { process, .. } => process.exited_within(limit).await,
        }
    }

    /// Waits for its end, which has been ordered.
    ///
    /// # Errors
    /// It does not come.
    pub(super) async fn ended(&self) -> Result<Exit, Failure> {
        let limit = KILLED_WITHIN;
        self.exited_within(limit).await.ok_or_else(|| {
            failed(&format_args!(
                "node `{}` (process {}) was signalled and has not ended within {limit:?}",
                self.name(),
                self.identity().pid
            ))
        })
    }

    /// As [`Process::stopped_within`].
    pub(super) async fn stopped_within(&self, stopped: bool, limit: Duration) -> Option<Mono> {
        let seen = process::stopped_within(self.identity().pid, stopped, limit).await?;
        self.exit().is_none().then_some(seen)
    }

    /// It has ended: its address is kept for it, where that is known.
    pub(super) fn reserve(&self) {
        if let Self::Child {
            supervisor, name, ..
        } = self
        {
            supervisor.reserve(name);
        }
    }

    /// Has the node up again after this process of it has been ended: as it is, if it is; else it is started.
    ///
    /// # Errors
    /// The process does not end, or the node cannot be started.
    pub(super) async fn back(&self) -> Result<Back, Failure> {
        match self {
            Self::Child {
                supervisor, name, ..
            } => self.child_back(supervisor, name).await,
            Self::Operators { node, spared, .. } => {
                let (starting, old) = (Arc::clone(node), self.identity());
                let up = away(move || starting.up(Some(old))).await?;
                let process = Held::of(up.process).ok_or_else(|| {
                    failed(&format_args!(
                        "node `{}` was up as process {}, and has ended at once; see {}",
                        node.name,
                        up.process.pid,
                        node.log.display()
                    ))
                })?;
                Ok(Back {
                    subject: Some(Self::Operators {
                        node: Arc::clone(node),
                        process: Arc::new(process),
                        spared: Arc::clone(spared),
                    }),
                    heal: Some(up.heal),
                    how: if up.started {
                        "started again"
                    } else {
                        "whoever keeps it had brought it back"
                    },
                })
            }
        }
    }

    async fn child_back(&self, supervisor: &Arc<Supervisor>, name: &str) -> Result<Back, Failure> {
        let Ok(child) = supervisor.child(name) else {
            return Ok(Back {
                subject: None,
                heal: None,
                how: "the node was removed meanwhile",
            });
        };
        let here = |process: Arc<Process>, asked, how| Back {
            subject: Some(Self::Child {
                supervisor: Arc::clone(supervisor),
                name: name.to_owned(),
                process,
            }),
            heal: Some(Bracket {
                asked,
                observed: clock::now(),
            }),
            how,
        };
        if child.process.exit().is_none() && child.process.pid() != self.identity().pid {
            return Ok(here(child.process, clock::now(), "it runs again already"));
        }
        // A signal that is on its way cannot be called back: the process is awaited before another takes its address.
        self.ended().await?;
        let asked = clock::now();
        let process = supervisor.restart(name).await?;
        Ok(here(process, asked, "started again"))
    }
}

pub(super) fn node_of(order: &FaultOrder) -> &str {
    order.node.as_deref().unwrap_or(DEFAULT_NODE)
}

/// Runs what blocks where it may.
pub(super) async fn away<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(io::Error::other(error)))
        .map_err(|error| failed(&error))
}

pub(super) fn failed(error: &dyn std::fmt::Display) -> Failure {
    refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

fn refused(status: StatusCode, text: String) -> Failure {
    Failure::new(status, text)
}
