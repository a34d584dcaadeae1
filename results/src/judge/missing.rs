//! Evidence that a trial should have left and did not.

use std::collections::BTreeSet;

use model::shard::FinalRead;
use model::target::World;
use model::trial::{Abort, Trial};
use scenarios::plan::{Plan, Probe};

/// What is missing, a phrase each.
pub(super) fn all(plan: &Plan, trial: &Trial) -> Vec<String> {
    let mut missing = Vec::new();
    if trial.faults.len() < plan.steps.len() && trial.abort.is_none() {
        missing.push(format!(
            "what came of {} of {} faults",
            plan.steps.len() - trial.faults.len(),
            plan.steps.len()
        ));
    }
    for ordinal in 0..trial.shards_planned {
        let reports = trial.shards.iter().filter(|shard| shard.shard == ordinal);
        match reports.count() {
            0 => missing.push(format!("the report of shard {ordinal}")),
            1 => {}
            reports => missing.push(format!("one report of shard {ordinal}: it left {reports}")),
        }
    }
    missing.extend(missing_of_agents(plan, trial));
    if trial.ledger.is_none() {
        missing.push("the publisher's ledger".to_owned());
    }
    // A target that ended, or breached a limit, may be too far gone to be read; that is its failure, not the evidence's.
    if !matches!(trial.abort, Some(Abort::Limit(_) | Abort::Target(_))) {
        missing.extend(missing_of_streams(plan, trial));
    }
    if trial.abort.is_none() {
        missing.extend(missing_of_probes(plan, trial));
        missing.extend(missing_of_shards(plan, trial));
    }
    missing
}

/// Instants of a host whose clock nobody has looked at prove nothing.
fn missing_of_agents(plan: &Plan, trial: &Trial) -> Vec<String> {
    let did = plan.steps.iter().flat_map(|step| plan.done_by(step));
    let names: BTreeSet<String> = did.collect();
    let unknown = names
        .into_iter()
        .filter(|name| !trial.nodes.iter().any(|node| node.name == *name));
    unknown
        .map(|name| format!("the clocks of agent `{name}`"))
        .collect()
}

/// A probe of which nothing is known could not have kept the system from being steady, nor ended the trial.
fn missing_of_probes<'a>(plan: &'a Plan, trial: &'a Trial) -> impl Iterator<Item = String> + 'a {
    let told = |probe: &Probe| {
        let mut records = trial.external.iter();
        records.any(|record| {
            record.name == probe.name
                && record.rule == probe.rule.kind()
                && record.good + record.failed > 0
        })
    };
    let untold = plan.probes.iter().filter(move |probe| !told(probe));
    untold.map(|probe| format!("what the external probe `{}` was told", probe.name))
}

fn missing_of_streams(plan: &Plan, trial: &Trial) -> Vec<String> {
    let Some(read) = &trial.final_read else {
        return vec!["the final read".to_owned()];
    };
    let mut missing: Vec<String> = read
        .failed
        .iter()
        .map(|(stream, error)| format!("the final read of {stream}: {error}"))
        .collect();
    let published = trial.ledger.iter().flat_map(|ledger| &ledger.streams);
    let unread = published
        .filter(|(_, ledger)| !ledger.acknowledged.is_empty())
        .filter(|(stream, _)| {
            !read.streams.contains_key(*stream) && !read.failed.contains_key(*stream)
        });
    missing.extend(unread.map(|(stream, _)| format!("the final read of {stream}")));
    // What there was before the trial is counted by the lane and not read.
    if plan.target.promise.world == World::Closed {
        missing.extend(miscounted(trial, read));
    }
    missing
}

/// A final read that is not what the lane itself counts has missed something.
fn miscounted<'a>(trial: &'a Trial, read: &'a FinalRead) -> impl Iterator<Item = String> + 'a {
    let counted = trial.lane.iter().flat_map(|lane| &lane.held);
    counted.filter_map(|(stream, counted)| {
        let found = read.streams.get(stream)?;
        let rows: u64 = found.events.iter().map(|(_, _, length)| length).sum();
        let rows = rows + found.foreign;
        (rows != *counted).then(|| {
            format!("a whole final read of {stream}: it found {rows} rows, the lane itself counts {counted}")
        })
    })
}

/// What a trial that went to its end must have, or its checks could not have found anything.
fn missing_of_shards(plan: &Plan, trial: &Trial) -> Vec<String> {
    let mut missing = Vec::new();
    let per_client =
        (plan.workload.streams.len() as u64).min(u64::from(plan.workload.streams_per_client));
    for shard in &trial.shards {
        let subscriptions: usize = shard.applied.iter().map(|part| part.clients.len()).sum();
        let expected = u64::from(shard.clients) * per_client;
        if (subscriptions as u64) < expected {
            missing.push(format!(
                "what shard {} applied of {} of {expected} subscriptions",
                shard.shard,
                expected - subscriptions as u64
            ));
        }
    }
    let clients: u64 = trial
        .shards
        .iter()
        .map(|shard| u64::from(shard.clients))
        .sum();
    let reported = trial.shards.len() as u64 >= u64::from(trial.shards_planned);
    if reported && clients != u64::from(plan.workload.clients) {
        missing.push(format!(
            "a fleet of {} clients: the shards had {clients}",
            plan.workload.clients
        ));
    }
    let acknowledged = trial
        .ledger
        .iter()
        .flat_map(|ledger| ledger.streams.values())
        .any(|stream| !stream.acknowledged.is_empty());
    if trial.ledger.is_some() && !acknowledged {
        missing.push("acknowledged events: the ledger has none".to_owned());
    }
    missing
}
