//! Node faults: kill, terminate, pause and roll back a node's process.
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
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
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
use super::recall::{self, Recall};
use super::rollback::{Copied, Extent, Rollback};
use super::subject::{Subject, failed};
use crate::journal::Undo;
use crate::process::Exit;
use crate::procfs::{self, Identity};
use crate::supervisor::Supervisor;

const STOPPED_WITHIN: Duration = Duration::from_secs(2);

/// A node fault, aimed at the process that the node had when it was ordered.
#[derive(Debug)]
pub struct NodeFault {
    subject: Subject,
    how: How,
    prepared: OnceLock<Prepared>,
    /// The process has been signalled.
    struck: AtomicBool,
    interrupt: OnceLock<CancellationToken>,
}

#[derive(Debug)]
enum How {
    Kill,
    Terminate { grace: Span },
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
    /// What an order means to do to that process.
    ///
    /// # Errors
    /// 422 when the fault is none of a process, or could not be undone.
    pub(super) fn aim(order: &FaultOrder, subject: Subject) -> Result<Self, Failure> {
        let how = match &order.fault {
            Fault::Kill(_) => How::Kill,
            Fault::Terminate(settings) => How::Terminate {
                grace: settings.grace,
            },
            Fault::Pause(_) => How::Pause,
            Fault::Restore(settings) => How::Restore {
                age: settings.age,
                rollback: Rollback::of(data_of(&subject)?.as_path()),
            },
            other => {
                return Err(Failure::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    format!("`{}` is not a fault of a node", other.name()),
                ));
            }
        };
        if !matches!(how, How::Pause) {
            subject.can_come_back()?;
        } else if procfs::is_stopped(subject.identity().pid) == Some(true) {
            return Err(Failure::new(
                StatusCode::CONFLICT,
                format!(
                    "node `{}` (process {}) is stopped already, and the undo is not to continue what somebody else has \
                     stopped; continue it first",
                    subject.name(),
                    subject.identity().pid
                ),
            ));
        }
        Ok(Self {
            subject,
            how,
            prepared: OnceLock::new(),
            struck: AtomicBool::new(false),
            interrupt: OnceLock::new(),
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
        self.subject
            .signal(Signal::STOP)
            .map_err(|error| failed(&error))?;
        let stopped = self.subject.stopped_within(true, STOPPED_WITHIN).await;
        let copy = rollback.clone();
        let copied = tokio::task::spawn_blocking(move || copy.copy()).await;
        self.subject
            .signal(Signal::CONT)
            .map_err(|error| failed(&error))?;
        let (copied, extent) = copied
            .map_err(|error| failed(&error))?
            .map_err(|error| failed(&error))?;
        if stopped.is_none() {
            return Err(failed(&format_args!(
                "node `{}` did not stand still while its data were copied",
                self.subject.name()
            )));
        }
        let took = clock::now().since(begun);
        tokio::select! {
            () = tokio::time::sleep((begun + *age).since(clock::now()).duration()) => {}
            () = interrupt.cancelled() => {
                return Err(failed(&format_args!("called back before node `{}` was killed", self.subject.name())));
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
            self.subject.expect_end();
        }
        self.struck.store(true, Ordering::SeqCst);
        self.subject.signal(signal).map_err(|error| failed(&error))
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
            How::Kill => self.subject.ended().await?.at,
            How::Restore { rollback, .. } => {
                let ended = self.subject.ended().await?.at;
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
                // It ends with the lease: what was signalled would end at any time after that, or be killed then.
                let interrupt = self.interrupt.get().cloned().unwrap_or_default();
                let in_time = tokio::select! {
                    biased;
                    exit = self.subject.exited_within(grace.duration()) => exit,
                    () = interrupt.cancelled() => None,
                };
                observation.figures.insert(
                    "killed_after_grace".to_owned(),
                    u64::from(in_time.is_none()),
                );
                if in_time.is_none() {
                    // An error means that it has ended just now.
                    let _ = self.subject.signal(Signal::KILL);
                }
                self.subject.ended().await?.at
            }
            How::Pause => self
                .subject
                .stopped_within(true, STOPPED_WITHIN)
                .await
                .ok_or_else(|| {
                    failed(&format_args!(
                        "node `{}` was sent SIGSTOP and was not seen to stop",
                        self.subject.name()
                    ))
                })?,
        };
        if !matches!(self.how, How::Pause) {
            self.subject.reserve();
        }
        observation.observed = Some(observed);
        observation.figures.insert(
            "pid_before".to_owned(),
            u64::from(self.subject.identity().pid),
        );
        self.look_at(&mut observation);
        Ok((observed, observation))
    }

    /// Looks at the process again.
    fn look_at(&self, observation: &mut Observation) {
        let mut figure = |name: &str, value| {
            observation.figures.insert(name.to_owned(), value);
        };
        let exit = self.subject.exit();
        if matches!(self.how, How::Pause) {
            let stopped =
                exit.is_none() && procfs::is_stopped(self.subject.identity().pid) == Some(true);
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
                .filter(|code| self.subject.is_guarded() && *code > 128)
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
            How::Kill | How::Terminate { .. } | How::Restore { .. }
                if ending && self.subject.operators().is_none() =>
            {
                Ok((None, "the node is being taken down with the agent"))
            }
            How::Restore { ref rollback, .. } => {
                let struck = self.struck.load(Ordering::SeqCst);
                if struck {
                    // What is beside the data may only go once nobody writes to them.
                    self.subject.ended().await?;
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
        let sent = self.subject.signal(Signal::CONT);
        let seen = self.subject.stopped_within(false, STOPPED_WITHIN).await;
        if self.subject.exit().is_some() {
            observation.figures.insert("ended_meanwhile".to_owned(), 1);
            return Ok((None, "the process had ended"));
        }
        sent.map_err(|error| failed(&error))?;
        let observed = seen.ok_or_else(|| {
            failed(&format_args!(
                "node `{}` was sent SIGCONT and was not seen to go on",
                self.subject.name()
            ))
        })?;
        observation.figures.insert("stopped".to_owned(), 0);
        Ok((Some(Bracket { asked, observed }), "continued"))
    }

    async fn back(
        &self,
        observation: &mut Observation,
    ) -> Result<(Option<Bracket>, &'static str), Failure> {
        let back = self.subject.back().await?;
        if let Some(subject) = &back.subject {
            let pid = subject.identity().pid.into();
            observation.figures.insert("pid_after".to_owned(), pid);
        }
        Ok((back.heal, back.how))
    }
}

impl Deed for NodeFault {
    fn node(&self) -> Option<&str> {
        Some(self.subject.name())
    }

    fn undo_record(&self) -> Undo {
        let node = self.subject.name().to_owned();
        let Identity { pid, started } = self.subject.identity();
        let deed = match &self.how {
            How::Pause => return Undo::Continue { node, pid, started },
            // The process may stand still for its copy.
            How::Restore { rollback, .. } => {
                return Undo::PutBack {
                    node,
                    pid,
                    started,
                    data: rollback.data().to_owned(),
                };
            }
            How::Kill => recall::Deed::Kill,
            How::Terminate { grace } => recall::Deed::Terminate { grace: *grace },
        };
        match self.subject.operators() {
            None => Undo::Restart { node, pid },
            Some(node) => Undo::Recall(Recall {
                deed,
                processes: vec![self.subject.identity()],
                node: Some((**node).clone()),
            }),
        }
    }

    fn prepare<'a>(
        &'a self,
        interrupt: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        self.interrupt.get_or_init(|| interrupt.clone());
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

/// Where the data of a child lie.
pub(super) fn data_dir(node: &str, supervisor: &Supervisor) -> Result<PathBuf, Failure> {
    match &*supervisor.child(node)?.role {
        Role::Lane(config) => Ok(config.data_dir.clone()),
        Role::Spacetimedb(config) => Ok(config.data_dir.clone()),
        Role::Tokens(_) | Role::Proxy(_) | Role::Shard(_) => Err(no_data(node)),
    }
}

fn data_of(subject: &Subject) -> Result<PathBuf, Failure> {
    match subject {
        Subject::Child {
            supervisor, name, ..
        } => data_dir(name, supervisor),
        Subject::Operators { .. } => Err(no_data(subject.name())),
    }
}

fn no_data(node: &str) -> Failure {
    Failure::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        format!(
            "node `{node}` has no data folder: of nodes only lanes that the agent has started have one"
        ),
    )
}
