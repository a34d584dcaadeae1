//! The end of a node's process and of all that descend from it.
//!
//! | done by | seen by | undone by | seen by |
//! |---|---|---|---|
//! | SIGSTOP to all, until nobody new is found; SIGKILL to all | the end of each | as kill | as kill |
//!
//! Figures: `processes_killed`, `pid_before`, `pid_after`.

use std::sync::OnceLock;

use futures_util::future::BoxFuture;
use host::clock;
use host::http::Failure;
use model::fault::Observation;
use model::instant::Mono;
use tokio_util::sync::CancellationToken;

use super::NotApplied;
use super::deed::{Deed, Undone};
use super::recall::{self, Recall};
use super::subject::{Subject, away, failed};
use crate::journal::Undo;
use crate::tree;

/// The fault, aimed at the processes that there were when it was ordered.
#[derive(Debug)]
pub(super) struct KillTree {
    subject: Subject,
    recall: Recall,
    killed: OnceLock<(u64, Mono)>,
    interrupt: OnceLock<CancellationToken>,
}

impl KillTree {
    /// Looks who descends from a node's process.
    pub(super) async fn aim(subject: Subject) -> Result<Self, Failure> {
        subject.can_come_back()?;
        let root = subject.identity();
        let recall = Recall {
            deed: recall::Deed::KillTree,
            processes: away(move || Ok(tree::seen(root))).await?,
            node: subject.operators().map(|node| (**node).clone()),
        };
        Ok(Self {
            subject,
            recall,
            killed: OnceLock::new(),
            interrupt: OnceLock::new(),
        })
    }

    async fn kill(&self) -> Result<(), NotApplied> {
        self.subject.expect_end();
        let seen = self.recall.processes.clone();
        let interrupt = self.interrupt.get().cloned().unwrap_or_default();
        let count = away(move || tree::stop(&seen, &|| interrupt.is_cancelled())?.kill())
            .await
            .map_err(NotApplied::half_way)?;
        self.killed.get_or_init(|| (count, clock::now()));
        Ok(())
    }

    async fn seen(&self) -> Result<(Mono, Observation), Failure> {
        let (count, at) = *self
            .killed
            .get()
            .ok_or_else(|| failed(&"it was not seen to be done"))?;
        self.subject.ended().await?;
        self.subject.reserve();
        let mut observation = Observation {
            bitten: count,
            observed: Some(at),
            ..Observation::default()
        };
        let pid = self.subject.identity().pid;
        for (name, value) in [("processes_killed", count), ("pid_before", pid.into())] {
            observation.figures.insert(name.to_owned(), value);
        }
        Ok((at, observation))
    }

    async fn reverse(
        &self,
        ending: bool,
        observation: &mut Observation,
    ) -> Result<Undone, Failure> {
        let recall = self.recall.clone();
        if away(move || recall.settle()).await? {
            return Ok((None, "nobody had been killed".to_owned()));
        }
        if ending && self.subject.operators().is_none() {
            return Ok((
                None,
                "the node is being taken down with the agent".to_owned(),
            ));
        }
        let back = self.subject.back().await?;
        if let Some(subject) = &back.subject {
            let pid = subject.identity().pid.into();
            observation.figures.insert("pid_after".to_owned(), pid);
        }
        Ok((back.heal, back.how.to_owned()))
    }
}

impl Deed for KillTree {
    fn node(&self) -> Option<&str> {
        Some(self.subject.name())
    }

    fn undo_record(&self) -> Undo {
        Undo::Recall(self.recall.clone())
    }

    fn prepare<'a>(
        &'a self,
        interrupt: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        self.interrupt.get_or_init(|| interrupt.clone());
        Box::pin(async { Ok(()) })
    }

    fn strike(&self) -> BoxFuture<'_, Result<(), NotApplied>> {
        Box::pin(self.kill())
    }

    fn bite(&self) -> BoxFuture<'_, Result<(Mono, Observation), Failure>> {
        Box::pin(self.seen())
    }

    fn look<'a>(&'a self, _: &'a mut Observation) -> BoxFuture<'a, ()> {
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
