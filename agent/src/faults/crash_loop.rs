//! A node that crashes again and again: whenever it is back, it is killed anew.
//!
//! | done by | seen by | undone by | seen by |
//! |---|---|---|---|
//! | SIGKILL; as undo of kill; `every` later SIGKILL; … | the end of each process | no further SIGKILL; as kill, where it is down | as kill |
//!
//! Figures: `crashes`, `failed_starts`, `pid_before`, `pid_after`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use host::http::Failure;
use model::fault::{self, Observation};
use model::instant::{Bracket, Mono};
use rustix::process::Signal;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::NotApplied;
use super::deed::{Deed, Undone};
use super::recall::{self, Recall};
use super::subject::{Subject, failed};
use crate::journal::Undo;

/// A start that fails is tried again, as whoever keeps a node does.
const START_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// The fault, aimed at the node's process of the time when it was ordered.
#[derive(Debug)]
pub(super) struct CrashLoop {
    first: Subject,
    settings: fault::CrashLoop,
    state: Arc<State>,
    /// Nobody is killed any more.
    over: CancellationToken,
    looping: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct State {
    crashes: AtomicU64,
    failed_starts: AtomicU64,
    now: Mutex<Now>,
}

/// The node's latest process, and when it came up, if it did not end since.
#[derive(Debug, Clone)]
struct Now {
    subject: Subject,
    up: Option<Bracket>,
}

impl State {
    fn now(&self) -> Now {
        self.lock().clone()
    }

    fn set(&self, subject: Subject, up: Option<Bracket>) {
        *self.lock() = Now { subject, up };
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends SIGKILL.
    fn kill(&self, subject: &Subject) -> std::io::Result<()> {
        subject.expect_end();
        self.set(subject.clone(), None);
        subject.signal(Signal::KILL)
    }

    async fn ended(&self, subject: &Subject) -> Result<Mono, Failure> {
        let exit = subject.ended().await?;
        subject.reserve();
        self.crashes.fetch_add(1, Ordering::SeqCst);
        Ok(exit.at)
    }

    /// Has it up, and says so.
    async fn back(&self, subject: &Subject) -> Result<Option<Subject>, Failure> {
        let back = subject.back().await?;
        if let Some(subject) = &back.subject {
            self.set(subject.clone(), back.heal);
        }
        Ok(back.subject)
    }

    fn tell(&self, observation: &mut Observation) {
        let crashes = self.crashes.load(Ordering::SeqCst);
        observation.bitten = crashes;
        let failed = self.failed_starts.load(Ordering::SeqCst);
        for (name, value) in [("crashes", crashes), ("failed_starts", failed)] {
            observation.figures.insert(name.to_owned(), value);
        }
    }
}

impl CrashLoop {
    pub(super) fn aim(subject: Subject, settings: &fault::CrashLoop) -> Result<Self, Failure> {
        subject.can_come_back()?;
        Ok(Self {
            state: Arc::new(State {
                crashes: AtomicU64::new(0),
                failed_starts: AtomicU64::new(0),
                now: Mutex::new(Now {
                    subject: subject.clone(),
                    up: None,
                }),
            }),
            first: subject,
            settings: settings.clone(),
            over: CancellationToken::new(),
            looping: Mutex::default(),
        })
    }

    async fn seen(&self) -> Result<(Mono, Observation), Failure> {
        let at = self.state.ended(&self.first).await?;
        let mut observation = Observation {
            observed: Some(at),
            ..Observation::default()
        };
        self.state.tell(&mut observation);
        let pid = self.first.identity().pid.into();
        observation.figures.insert("pid_before".to_owned(), pid);
        let (state, first) = (Arc::clone(&self.state), self.first.clone());
        let (settings, over) = (self.settings.clone(), self.over.clone());
        let looping = tokio::spawn(async move { go_on(&state, first, &settings, &over).await });
        *self.looping() = Some(looping);
        Ok((at, observation))
    }

    fn looping(&self) -> std::sync::MutexGuard<'_, Option<JoinHandle<()>>> {
        self.looping.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn reverse(
        &self,
        ending: bool,
        observation: &mut Observation,
    ) -> Result<Undone, Failure> {
        self.over.cancel();
        // It brings what it has begun to its end: what is killed is awaited, and what is being started comes up.
        let looping = self.looping().take();
        if let Some(looping) = looping {
            looping.await.map_err(|error| failed(&error))?;
        }
        self.state.tell(observation);
        let Now { subject, up } = self.state.now();
        if ending && subject.operators().is_none() {
            return Ok((
                None,
                "the node is being taken down with the agent".to_owned(),
            ));
        }
        let mut pid_after = |subject: &Subject| {
            let pid = subject.identity().pid.into();
            observation.figures.insert("pid_after".to_owned(), pid);
        };
        if let Some(heal) = up
            && subject.exit().is_none()
        {
            pid_after(&subject);
            return Ok((Some(heal), "it is up and is left alone".to_owned()));
        }
        let back = subject.back().await?;
        if let Some(subject) = &back.subject {
            pid_after(subject);
        }
        Ok((back.heal, back.how.to_owned()))
    }
}

/// Brings it back and kills it, until it is over or has been done as often as it was to be.
async fn go_on(
    state: &State,
    mut subject: Subject,
    settings: &fault::CrashLoop,
    over: &CancellationToken,
) {
    let wait = async |time: Duration| {
        tokio::select! {
            () = over.cancelled() => {}
            () = tokio::time::sleep(time) => {}
        }
    };
    let most = settings.times.map_or(u64::MAX, u64::from);
    while !over.is_cancelled() {
        match state.back(&subject).await {
            Ok(Some(next)) => subject = next,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(node = subject.name(), %error, "it crashed, and does not come back");
                state.failed_starts.fetch_add(1, Ordering::SeqCst);
                wait(START_AGAIN_AFTER).await;
                continue;
            }
        }
        if state.crashes.load(Ordering::SeqCst) >= most {
            return;
        }
        wait(settings.every.duration()).await;
        if over.is_cancelled() {
            return;
        }
        // Whoever brought it back may have named another process than it should.
        if let Err(error) = subject.may_be_hit() {
            tracing::warn!(node = subject.name(), %error, "it crashes no more");
            return;
        }
        // One that has ended by itself meanwhile has crashed without help, and is started again all the same.
        if let Err(error) = state.kill(&subject) {
            tracing::warn!(node = subject.name(), %error, "it had ended before it was killed");
            continue;
        }
        if let Err(error) = state.ended(&subject).await {
            tracing::warn!(node = subject.name(), %error, "it does not crash");
            return;
        }
    }
}

impl Deed for CrashLoop {
    fn node(&self) -> Option<&str> {
        Some(self.first.name())
    }

    fn undo_record(&self) -> Undo {
        match self.first.operators() {
            None => Undo::Restart {
                node: self.first.name().to_owned(),
                pid: self.first.identity().pid,
            },
            Some(node) => Undo::Recall(Recall {
                deed: recall::Deed::Kill,
                processes: vec![self.first.identity()],
                node: Some((**node).clone()),
            }),
        }
    }

    fn strike(&self) -> BoxFuture<'_, Result<(), NotApplied>> {
        Box::pin(async {
            let killed = self.state.kill(&self.first);
            killed.map_err(|error| NotApplied::untouched(failed(&error)))
        })
    }

    fn bite(&self) -> BoxFuture<'_, Result<(Mono, Observation), Failure>> {
        Box::pin(self.seen())
    }

    fn look<'a>(&'a self, observation: &'a mut Observation) -> BoxFuture<'a, ()> {
        self.state.tell(observation);
        Box::pin(async {})
    }

    fn undo<'a>(
        &'a self,
        ending: bool,
        observation: &'a mut Observation,
    ) -> BoxFuture<'a, Result<Undone, Failure>> {
        Box::pin(self.reverse(ending, observation))
    }
}
