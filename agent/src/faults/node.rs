//! Node faults: kill, terminate, pause and roll back a child of the agent.
//!
//! | fault | done by | seen by | undone by | seen by |
//! |---|---|---|---|---|
//! | kill | SIGKILL | the end of the process | start, same role and address | its ready line |
//! | terminate | SIGTERM; SIGKILL after the grace | the end of the process | as kill | as kill |
//! | restore | copy of the data, `age` later SIGKILL and the copy in their place | the end of the process, files that went back | as kill | as kill |
//! | pause | SIGSTOP | every thread stopped, by `/proc` | SIGCONT | none of that kind, by `/proc` |
//!
//! Figures of restore: `files_copied`, `bytes_copied`, `copy_us` (for so long the node stood still), `files_rolled_back`.
//! Figures of all: `pid_before`, `pid_after`, `exit_code` or `exit_signal`, `killed_after_grace`, `stopped`, `ended_meanwhile`.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use host::clock;
use host::http::{Failure, StatusCode};
use model::fault::{Fault, FaultOrder, Observation};
use model::instant::{Bracket, Mono};
use model::quantity::Span;
use model::role::Role;
use rustix::process::Signal;
use tokio_util::sync::CancellationToken;

use super::NotApplied;
use super::deed::{Deed, Undone};
use super::rollback::{Copied, Extent, Rollback};
use crate::journal::Undo;
use crate::process::{Exit, Process};
use crate::procfs;
use crate::supervisor::Supervisor;

/// The node of an order that names none.
const DEFAULT_NODE: &str = "lane";
/// SIGKILL takes effect at once, but for a process that waits for a disk.
const KILLED_WITHIN: Duration = Duration::from_secs(5);
const STOPPED_WITHIN: Duration = Duration::from_secs(2);

/// A node fault, aimed at the process that the node had when it was ordered.
#[derive(Debug)]
pub struct NodeFault {
    supervisor: Arc<Supervisor>,
    node: String,
    process: Arc<Process>,
    how: How,
    prepared: OnceLock<Prepared>,
    /// The process has been signalled.
    struck: AtomicBool,
}

#[derive(Debug)]
enum How {
    Kill,
    Terminate { grace: Duration },
    Pause,
    Restore { age: Span, rollback: Rollback },
}

/// What goes before a deed, where anything does.
#[derive(Debug, Default)]
struct Prepared {
    copied: Copied,
    extent: Extent,
    took: Span,
}

impl NodeFault {
    /// Finds the process that an order means.
    ///
    /// # Errors
    /// 404 when there is no such node, 409 when it does not run, 422 when the fault is none of a node.
    pub fn aim(order: &FaultOrder, supervisor: &Arc<Supervisor>) -> Result<Self, Failure> {
        let how = match &order.fault {
            Fault::Kill(_) => How::Kill,
            Fault::Terminate(settings) => How::Terminate {
                grace: settings.grace.duration(),
            },
            Fault::Pause(_) => How::Pause,
            Fault::Restore(settings) => How::Restore {
                age: settings.age,
                rollback: Rollback::of(data_dir(order, supervisor)?.as_path()),
            },
            other => {
                return Err(Failure::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    format!("`{}` is not a fault of a node", other.name()),
                ));
            }
        };
        let node = node_of(order);
        let process = supervisor.child(&node)?.process;
        if let Some(exit) = process.exit() {
            return Err(Failure::new(
                StatusCode::CONFLICT,
                format!("node `{node}` does not run: it ended ({exit})"),
            ));
        }
        Ok(Self {
            supervisor: Arc::clone(supervisor),
            node,
            process,
            how,
            prepared: OnceLock::new(),
            struck: AtomicBool::new(false),
        })
    }

    /// What goes before the deed: for a rollback the copy, and the wait until that is old enough.
    ///
    /// # Errors
    /// The data could not be copied, or `interrupt` came first.
    async fn copy(&self, interrupt: &CancellationToken) -> Result<Prepared, Failure> {
        let How::Restore { age, rollback } = &self.how else {
            return Ok(Prepared::default());
        };
        let begun = clock::now();
        self.process
            .signal(Signal::STOP)
            .map_err(|error| failed(&error))?;
        let stopped = self.process.stopped_within(true, STOPPED_WITHIN).await;
        let copy = rollback.clone();
        let copied = tokio::task::spawn_blocking(move || copy.copy()).await;
        self.process
            .signal(Signal::CONT)
            .map_err(|error| failed(&error))?;
        let (copied, extent) = copied
            .map_err(|error| failed(&error))?
            .map_err(|error| failed(&error))?;
        if stopped.is_none() {
            return Err(failed(&format_args!(
                "node `{}` did not stand still while its data were copied",
                self.node
            )));
        }
        let took = clock::now().since(begun);
        tokio::select! {
            () = tokio::time::sleep((begun + *age).since(clock::now()).duration()) => {}
            () = interrupt.cancelled() => {
                return Err(failed(&format_args!("called back before node `{}` was killed", self.node)));
            }
        }
        Ok(Prepared {
            copied,
            extent,
            took,
        })
    }

    /// Makes the change.
    ///
    /// # Errors
    /// Nothing was changed: the process ended meanwhile, or may not be signalled.
    fn signal(&self) -> Result<(), Failure> {
        let signal = match self.how {
            How::Kill | How::Restore { .. } => Signal::KILL,
            How::Terminate { .. } => Signal::TERM,
            How::Pause => Signal::STOP,
        };
        if !matches!(self.how, How::Pause) {
            self.process.expect_end();
        }
        self.struck.store(true, Ordering::SeqCst);
        self.process.signal(signal).map_err(|error| failed(&error))
    }

    /// Waits until the change is seen: the instant, and what was seen. The address of a node that ended is kept for it.
    ///
    /// # Errors
    /// It was not seen in time.
    async fn seen(&self) -> Result<(Mono, Observation), Failure> {
        let mut observation = Observation {
            bitten: 1,
            ..Observation::default()
        };
        let observed = match &self.how {
            How::Kill => self.ended_within(KILLED_WITHIN).await?.at,
            How::Restore { rollback, .. } => {
                let ended = self.ended_within(KILLED_WITHIN).await?.at;
                let prepared = self.prepared.get_or_init(Prepared::default);
                let changed = rollback
                    .swap(&prepared.copied)
                    .map_err(|error| failed(&error))?;
                // Data that had not changed since the copy have not gone back either.
                observation.bitten = u64::from(changed > 0);
                for (name, value) in [
                    ("files_copied", prepared.extent.files),
                    ("bytes_copied", prepared.extent.bytes),
                    ("copy_us", prepared.took.as_micros()),
                    ("files_rolled_back", changed),
                ] {
                    observation.figures.insert(name.to_owned(), value);
                }
                ended
            }
            How::Terminate { grace } => {
                let in_time = self.process.exited_within(*grace).await;
                observation.figures.insert(
                    "killed_after_grace".to_owned(),
                    u64::from(in_time.is_none()),
                );
                if in_time.is_none() {
                    // An error means that it has ended just now.
                    let _ = self.process.signal(Signal::KILL);
                }
                self.ended_within(KILLED_WITHIN).await?.at
            }
            How::Pause => self
                .process
                .stopped_within(true, STOPPED_WITHIN)
                .await
                .ok_or_else(|| {
                    failed(&format_args!(
                        "node `{}` was sent SIGSTOP and was not seen to stop",
                        self.node
                    ))
                })?,
        };
        if !matches!(self.how, How::Pause) {
            self.supervisor.reserve(&self.node);
        }
        observation.observed = Some(observed);
        observation
            .figures
            .insert("pid_before".to_owned(), u64::from(self.process.pid()));
        self.look_at(&mut observation);
        Ok((observed, observation))
    }

    /// Looks at the process again.
    fn look_at(&self, observation: &mut Observation) {
        let mut figure = |name: &str, value| {
            observation.figures.insert(name.to_owned(), value);
        };
        let exit = self.process.exit();
        if matches!(self.how, How::Pause) {
            let stopped = exit.is_none() && procfs::is_stopped(self.process.pid()) == Some(true);
            figure("stopped", stopped.into());
            if exit.is_some() {
                figure("ended_meanwhile", 1);
            }
        } else if let Some(Exit {
            status: Some(status),
            ..
        }) = exit
        {
            use std::os::unix::process::ExitStatusExt as _;
            // A guard tells of its program's signal as a shell does: 128 and its number.
            let told = status
                .code()
                .filter(|code| self.process.is_guarded() && *code > 128)
                .map(|code| code - 128);
            let (name, value) = match told.or(status.signal()) {
                Some(signal) => ("exit_signal", Some(signal)),
                None => ("exit_code", status.code()),
            };
            if let Some(value) = value.and_then(|value| u64::try_from(value).ok()) {
                figure(name, value);
            }
        }
    }

    /// Undoes the change, from whatever state it is in: when, and a word on how. `ending`: the node is being taken down
    /// with the agent, so that it is not started again.
    ///
    /// # Errors
    /// The node could not be started, or was not seen to go on.
    async fn reverse(
        &self,
        ending: bool,
        observation: &mut Observation,
    ) -> Result<(Option<Bracket>, &'static str), Failure> {
        self.look_at(observation);
        match self.how {
            How::Pause => self.go_on(observation).await,
            How::Kill | How::Terminate { .. } | How::Restore { .. } if ending => {
                Ok((None, "the node is being taken down with the agent"))
            }
            How::Restore { ref rollback, .. } => {
                let struck = self.struck.load(Ordering::SeqCst);
                if struck {
                    // What is beside the data may only go once nobody writes to them.
                    self.ended_within(KILLED_WITHIN).await?;
                }
                rollback.clear().map_err(|error| failed(&error))?;
                if struck {
                    self.back(observation).await
                } else {
                    Ok((None, "the node had not been killed"))
                }
            }
            How::Kill | How::Terminate { .. } => self.back(observation).await,
        }
    }

    async fn go_on(
        &self,
        observation: &mut Observation,
    ) -> Result<(Option<Bracket>, &'static str), Failure> {
        let asked = clock::now();
        let sent = self.process.signal(Signal::CONT);
        let seen = self.process.stopped_within(false, STOPPED_WITHIN).await;
        if self.process.exit().is_some() {
            observation.figures.insert("ended_meanwhile".to_owned(), 1);
            return Ok((None, "the process had ended"));
        }
        sent.map_err(|error| failed(&error))?;
        let observed = seen.ok_or_else(|| {
            failed(&format_args!(
                "node `{}` was sent SIGCONT and was not seen to go on",
                self.node
            ))
        })?;
        observation.figures.insert("stopped".to_owned(), 0);
        Ok((Some(Bracket { asked, observed }), "continued"))
    }

    async fn back(
        &self,
        observation: &mut Observation,
    ) -> Result<(Option<Bracket>, &'static str), Failure> {
        let mut pid_after = |pid: u32| {
            observation
                .figures
                .insert("pid_after".to_owned(), u64::from(pid));
        };
        let Ok(child) = self.supervisor.child(&self.node) else {
            return Ok((None, "the node was removed meanwhile"));
        };
        let asked = clock::now();
        let here = |observed| Some(Bracket { asked, observed });
        if child.process.exit().is_none() && child.process.pid() != self.process.pid() {
            pid_after(child.process.pid());
            return Ok((here(clock::now()), "it runs again already"));
        }
        // A signal that is on its way cannot be called back: the process is awaited before another takes its address.
        self.ended_within(KILLED_WITHIN).await?;
        let asked = clock::now();
        let process = self.supervisor.restart(&self.node).await?;
        pid_after(process.pid());
        let observed = clock::now();
        Ok((Some(Bracket { asked, observed }), "started again"))
    }

    async fn ended_within(&self, limit: Duration) -> Result<Exit, Failure> {
        self.process.exited_within(limit).await.ok_or_else(|| {
            failed(&format_args!(
                "node `{}` (process {}) was signalled and has not ended within {limit:?}",
                self.node,
                self.process.pid()
            ))
        })
    }
}

impl Deed for NodeFault {
    fn node(&self) -> Option<&str> {
        Some(&self.node)
    }

    fn undo_record(&self) -> Undo {
        let (node, pid) = (self.node.clone(), self.process.pid());
        let started = self.process.started();
        match &self.how {
            How::Kill | How::Terminate { .. } => Undo::Restart { node, pid },
            How::Pause => Undo::Continue { node, pid, started },
            // The process may stand still for its copy.
            How::Restore { rollback, .. } => Undo::PutBack {
                node,
                pid,
                started,
                data: rollback.data().to_owned(),
            },
        }
    }

    fn prepare<'a>(
        &'a self,
        interrupt: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async {
            let prepared = self.copy(interrupt).await?;
            self.prepared.get_or_init(|| prepared);
            Ok(())
        })
    }

    fn strike(&self) -> BoxFuture<'_, Result<(), NotApplied>> {
        Box::pin(async { self.signal().map_err(NotApplied::untouched) })
    }

    fn bite(&self) -> BoxFuture<'_, Result<(Mono, Observation), Failure>> {
        Box::pin(self.seen())
    }

    fn look<'a>(&'a self, observation: &'a mut Observation) -> BoxFuture<'a, ()> {
        self.look_at(observation);
        Box::pin(async {})
    }

    fn undo<'a>(
        &'a self,
        ending: bool,
        observation: &'a mut Observation,
    ) -> BoxFuture<'a, Result<Undone, Failure>> {
        Box::pin(async move {
            let (healed, reason) = self.reverse(ending, observation).await?;
            Ok((healed, reason.to_owned()))
        })
    }
}

fn node_of(order: &FaultOrder) -> String {
    order
        .node
        .clone()
        .unwrap_or_else(|| DEFAULT_NODE.to_owned())
}

/// Where a node's data lie.
pub(super) fn data_dir(order: &FaultOrder, supervisor: &Supervisor) -> Result<PathBuf, Failure> {
    let node = node_of(order);
    match &*supervisor.child(&node)?.role {
        Role::Lane(config) => Ok(config.data_dir.clone()),
        Role::Spacetimedb(config) => Ok(config.data_dir.clone()),
        Role::Tokens(_) | Role::Proxy(_) | Role::Shard(_) => Err(Failure::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            format!("node `{node}` has no data folder: of nodes only lanes have one"),
        )),
    }
}

fn failed(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}
