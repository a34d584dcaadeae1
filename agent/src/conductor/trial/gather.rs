//! The end of a trial: what is in force is undone, and what was seen is collected.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use host::http::{CallError, Method};
use model::ids::{Seq, StreamId};
use model::quantity::Span;
use model::role::ProxyStatus;
use model::shard::{CleanUp, Finish, Ledger};
use model::trial::{Abort, Residue};
use serde::de::DeserializeOwned;

use super::{Conductor, Setting, seen};
use crate::client::Agent;
use crate::conductor::fleet::Fleet;
use crate::conductor::hosts::Hosts;
use crate::conductor::step::seen_by;
use crate::conductor::target::{LANE, PROXY, Target};

/// How long clients that are live may take to apply the last events after the publisher has stopped.
const SETTLE: Span = Span::from_secs(3);

impl Conductor<'_> {
    /// Undoes what a trial that was cut off left in force.
    pub(super) async fn undo_everything(&mut self) {
        let Setting { plan, diary, .. } = *self.setting;
        let Some(hosts) = &self.hosts else { return };
        for (record, step) in self.trial.faults.iter_mut().zip(&plan.steps) {
            let open = record.view.as_ref().is_none_or(|view| view.active);
            let Ok(aims) = hosts.aims(plan, step) else {
                continue;
            };
            if !open {
                continue;
            }
            let undone = join_all(aims.iter().map(|aim| aim.agent.undo(&record.id))).await;
            let mut views = Vec::new();
            for (aim, undone) in aims.iter().zip(undone) {
                match undone {
                    Ok(view) => views.push((aim, view)),
                    // 404: it was never injected.
                    Err(CallError::Refused { status, .. }) if status.as_u16() == 404 => {}
                    Err(error) => {
                        let whose = aim
                            .node
                            .as_ref()
                            .map_or_else(String::new, |node| format!("node `{node}`: "));
                        let text = format!("undo: {whose}{error}");
                        diary.note(&format!("{}: {text}", record.id));
                        record.error.get_or_insert(text);
                    }
                }
            }
            if !views.is_empty() {
                let told = seen_by(views.into_iter(), step.fault.holder());
                diary.note(&format!("{} undone: {}", record.id, seen(&told.view)));
                record.view = Some(told.view);
                record.toothless = told.toothless;
            }
        }
    }

    /// Collects what was seen. One part that cannot be had does not keep the others away.
    pub(super) async fn gather(
        &mut self,
        fleet: &Fleet,
        target: &Target,
        aborted: bool,
    ) -> Result<(), Abort> {
        self.beat("final read");
        let mut first_error = None;
        let mut keep = |what: &'static str, error: CallError| {
            self.setting.diary.note(&format!("{what}: {error}"));
            first_error.get_or_insert(Abort::Harness(format!("{what}: {error}")));
        };
        self.trial.ledger = fleet
            .stop_publishing()
            .await
            .map_err(|error| keep("the ledger", error))
            .ok();
        if let Some(ledger) = &self.trial.ledger {
            let acknowledged = ledger.streams.values().map(|stream| {
                let runs = stream.acknowledged.iter();
                runs.map(|(_, _, length)| length).sum::<u64>()
            });
            let acknowledged: u64 = acknowledged.sum();
            self.setting.diary.note(&format!(
                "the publisher has stopped: {acknowledged} events acknowledged"
            ));
        }
        let marks = self.trial.ledger.as_ref().map(marks).unwrap_or_default();
        let finish = Finish {
            marks,
            wait: if aborted { Span::ZERO } else { SETTLE },
            aborted,
        };
        // The clients are awaited before the final read: what they can still get, the lane must still have.
        for report in fleet.finish(&finish).await {
            match report {
                Ok(report) => self.trial.shards.push(report),
                Err(error) => keep("a shard's report", error),
            }
        }
        if !aborted {
            self.trial.final_read = fleet
                .final_read()
                .await
                .map_err(|error| keep("the final read", error))
                .ok();
        }
        let hosts = self.hosts.as_ref().expect("the trial has begun");
        if self.owns_lane {
            self.trial.lane = status(&hosts.lane.agent, LANE)
                .await
                .map_err(|error| keep("the lane", error))
                .ok();
        }
        self.trial.proxy = proxies(hosts)
            .await
            .map_err(|error| keep("the proxy", error))
            .ok();
        if self.is_among_others() {
            self.beat("cleaning up");
            let done = match fleet.clean_up().await {
                Ok(done) => done,
                Err(error) => self.clean_up_without(target, &error).await,
            };
            self.setting.diary.note(&format!("cleaned up: {done:?}"));
            self.trial.clean_up = Some(done);
        }
        let hosts = self.hosts.as_ref().expect("the trial has begun");
        self.trial.residue = residue(hosts)
            .await
            .map_err(|error| keep("residue", error))
            .ok();
        first_error.map_or(Ok(()), Err)
    }

    /// Without the publisher nobody knows how many events were submitted; what the lane shows of them goes all the same.
    async fn clean_up_without(&self, target: &Target, error: &CallError) -> CleanUp {
        let Setting {
            plan, mark, diary, ..
        } = *self.setting;
        diary.note(&format!(
            "the publisher does not clean up: {error}; the conductor does"
        ));
        match target.cleaner(plan, mark) {
            Ok(cleaner) => cleaner.clean_up(&target.written_streams(plan)).await,
            Err(unreachable) => CleanUp::unasked(format!("{error}; {unreachable}")),
        }
    }
}

/// The counters of all proxies, as one.
async fn proxies(hosts: &Hosts) -> Result<ProxyStatus, CallError> {
    let asking = hosts.clients.iter().map(|host| status(&host.agent, PROXY));
    let mut all = try_join_all(asking).await?.into_iter();
    let mut sum: ProxyStatus = all.next().expect("some host has the clients");
    all.for_each(|proxy| sum.merge(proxy));
    Ok(sum)
}

/// What was left on any agent.
async fn residue(hosts: &Hosts) -> Result<Residue, CallError> {
    let looking = hosts
        .agents()
        .map(|(node, agent)| async move { Ok((node, agent.residue().await?)) });
    let mut all = Residue::default();
    for (node, left) in try_join_all(looking).await? {
        match node {
            None => all = left,
            Some(node) => all.add(node, left),
        }
    }
    Ok(all)
}

async fn status<T: DeserializeOwned>(agent: &Agent, child: &str) -> Result<T, CallError> {
    agent
        .call_child(child, Method::GET, "/status", &(), Duration::from_secs(2))
        .await
}

/// The highest acknowledged seq by stream.
fn marks(ledger: &Ledger) -> BTreeMap<StreamId, Seq> {
    let highest = |runs: &model::shard::SeqRuns| {
        runs.iter()
            .map(|(seq, _, length)| seq + length.saturating_sub(1))
            .max()
            .unwrap_or(0)
    };
    ledger
        .streams
        .iter()
        .map(|(stream, held)| (stream.clone(), highest(&held.acknowledged)))
        .collect()
}
