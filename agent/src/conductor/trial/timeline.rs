//! The plan's faults, each walked on its own, and what the clients are told of the time under fault.

use std::sync::Arc;

use host::timer::Timer;
use model::instant::Mono;
use model::shard::{Episode, EpisodeFault};
use model::trial::{Abort, FaultRecord};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Conductor, lost, seen};
use crate::conductor::fleet::Fleet;
use crate::conductor::step::{Outcome, Walk};

impl Conductor<'_> {
    pub(super) async fn timeline(
        &mut self,
        fleet: &mut Fleet,
        zero: Mono,
        ticks: &mut tokio::time::Interval,
    ) -> Result<(), Abort> {
        let plan = self.setting.plan;
        let timer = Timer::start().map_err(|error| Abort::Harness(format!("timer: {error}")))?;
        let (sender, mut outcomes) = mpsc::unbounded_channel();
        let mut steps = JoinSet::new();
        let hosts = self.hosts.as_ref().expect("the trial has begun");
        for (place, planned) in plan.steps.iter().enumerate() {
            let walk = Walk {
                step: Arc::new(planned.clone()),
                aims: hosts.aims(plan, planned).map_err(Abort::Harness)?,
                prober: hosts.prober(planned),
                seed: plan.seed,
                zero,
                timer: timer.clone(),
                place,
                outcomes: sender.clone(),
            };
            steps.spawn(walk.walk());
        }
        drop(sender);
        loop {
            tokio::select! {
                biased;
                outcome = outcomes.recv() => match outcome {
                    Some((place, outcome)) => self.note(place, outcome, fleet).await?,
                    None => return Ok(()),
                },
                waited = self.wait(ticks) => {
                    waited?;
                    self.tick(fleet, "faults").await?;
                }
            }
        }
    }

    async fn note(&mut self, place: usize, outcome: Outcome, fleet: &Fleet) -> Result<(), Abort> {
        let record = &mut self.trial.faults[place];
        let what = format!("{} ({})", record.id, record.fault.name());
        match outcome {
            Outcome::Injected(told) => {
                self.setting
                    .diary
                    .note(&format!("{what} injected: {}", seen(&told.view)));
                record.view = Some(told.view);
            }
            Outcome::Healed(told) => {
                self.setting
                    .diary
                    .note(&format!("{what} over: {}", seen(&told.view)));
                record.view = Some(told.view);
                record.toothless = told.toothless;
            }
            Outcome::Reached(phase, Ok(reach)) => {
                let unheard = reach.iter().filter(|way| way.received < way.sent);
                let unheard: Vec<_> = unheard
                    .map(|way| {
                        format!("{} → {} {} of {}", way.from, way.to, way.received, way.sent)
                    })
                    .collect();
                let all = if unheard.is_empty() {
                    "everybody hears everybody".to_owned()
                } else {
                    unheard.join(", ")
                };
                self.setting
                    .diary
                    .note(&format!("{what}, {}: {all}", phase.name()));
                record.reach.extend(reach);
                return Ok(());
            }
            Outcome::Reached(phase, Err(error)) => {
                let phase = phase.name();
                self.setting.diary.note(&format!(
                    "{what}, {phase}: who hears whom is not known: {error}"
                ));
                return Ok(());
            }
            Outcome::Failed(error) => {
                self.setting.diary.note(&format!("{what} failed: {error}"));
                record.error = Some(error.clone());
                return Err(Abort::Harness(format!("{what}: {error}")));
            }
        }
        match self.episode() {
            Some(episode) => fleet.tell(&episode).await.map_err(lost("a shard")),
            None => Ok(()),
        }
    }

    /// What the clients are told of the time under fault: overlapping and successive faults are one episode.
    fn episode(&self) -> Option<Episode> {
        let views = || {
            self.trial
                .faults
                .iter()
                .filter_map(|record| record.view.as_ref())
        };
        let t0 = views().map(|view| view.injected.asked).min()?;
        let all_healed = self.trial.faults.iter().all(|record| {
            record
                .view
                .as_ref()
                .is_some_and(|view| view.healed.is_some())
        });
        let healed = |record: &FaultRecord| {
            let view = record.view.as_ref()?;
            // A fault without a heal of its own is over, for whom it hit, when it begins.
            let own = record.fault.ends_after().is_none();
            Some(
                if own {
                    view.healed.map_or(view.injected, |healed| healed)
                } else {
                    view.injected
                }
                .asked,
            )
        };
        let th = all_healed
            .then(|| self.trial.faults.iter().filter_map(healed).max())
            .flatten();
        let faults = self
            .trial
            .faults
            .iter()
            .filter(|record| record.view.is_some())
            .map(|record| EpisodeFault {
                id: record.id.clone(),
                fault: record.fault.clone(),
                share: record.share,
            })
            .collect();
        Some(Episode { t0, th, faults })
    }
}
