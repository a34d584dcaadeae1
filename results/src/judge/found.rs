//! What was found: by the shards, by the checks that need the ledger, and who was not whole in the end.

use std::collections::BTreeSet;

use model::anomaly::{Anomaly, Example, Findings};
use model::quantity::Span;
use model::shard::{Ledger, ShardReport};
use model::target::Promise;
use model::trial::Trial;

use crate::checker::{self, Evidence, Found, NodeEnd, Unfinished};
use crate::record::{AnomalyCount, Census, Row};
use crate::runs;

pub(super) fn all(row: &mut Row, trial: &Trial, promise: &Promise) {
    let (mut findings, mut unpromised) = (Findings::default(), Findings::default());
    for shard in &trial.shards {
        findings.merge(&shard.findings);
    }
    let censored = not_recovered(&mut findings, row, &trial.shards);
    let mut unjudged: BTreeSet<Anomaly> = BTreeSet::new();
    let ended = ended_nodes(trial, promise.acknowledged.after());
    if let Some(ledger) = &trial.ledger {
        let evidence = Evidence::new(
            ledger,
            trial.final_read.as_ref(),
            &trial.shards,
            unfinished(trial, censored),
            promise.world,
            &ended,
        );
        let (found, broken) = checker::run(&checker::CHECKS, &evidence);
        row.census = census(trial, &evidence, ledger, &found);
        let unverified = evidence.unverified_snapshots();
        match &mut row.open_world {
            Some(world) => world.unverified_snapshots = unverified,
            // Nobody else publishes, so what they hold could be known, and here it is not.
            None if unverified > 0 => row.missing.push(format!(
                "what the snapshots hold from which {unverified} clients began anew: they cover history from before \
                 the trial"
            )),
            None => {}
        }
        findings.merge(&found.broken);
        unpromised = found.unpromised;
        row.broken_checks.extend(broken);
        match checker::guarded(|| checker::deliveries(&evidence)) {
            Ok((expected, delivered)) => {
                row.expected_deliveries = Some(expected);
                row.delivered = Some(delivered);
            }
            Err(message) => row.broken_checks.push(format!("deliveries: {message}")),
        }
    } else {
        unjudged.extend([Anomaly::Lost, Anomaly::Phantom]);
    }
    if trial.ledger.is_none() || trial.final_read.is_none() {
        unjudged.insert(Anomaly::Vanished);
    }
    // A shard that left no report may have seen any of them.
    let ordinals: BTreeSet<u32> = trial.shards.iter().map(|shard| shard.shard).collect();
    let heard = trial.shards_planned > 0
        && (0..trial.shards_planned).all(|shard| ordinals.contains(&shard));
    row.anomalies = Anomaly::ALL
        .into_iter()
        .map(|anomaly| {
            let tally = findings.iter().find(|(found, _)| *found == anomaly);
            let known = tally.is_some() || (heard && !unjudged.contains(&anomaly));
            let count = AnomalyCount {
                count: known.then(|| tally.map_or(0, |(_, tally)| tally.count)),
                ratio: None,
                limit: 0.0,
                within: None,
                waiver: None,
                examples: tally
                    .map(|(_, tally)| tally.examples.clone())
                    .unwrap_or_default(),
                unpromised: unpromised
                    .iter()
                    .find(|(found, _)| *found == anomaly)
                    .map(|(_, tally)| tally.clone()),
            };
            (anomaly, count)
        })
        .collect();
}

/// Counts the clients that were not whole at the deadline; how many there are.
fn not_recovered(findings: &mut Findings, row: &Row, shards: &[ShardReport]) -> u64 {
    let named: Vec<_> = shards.iter().flat_map(|shard| &shard.censored).collect();
    let censored = row
        .phases
        .values()
        .map(|figures| figures.censored)
        .max()
        .unwrap_or(0)
        .max(named.len() as u64);
    let known = findings.count(Anomaly::NotRecovered);
    let examples = named.iter().map(|client| Example {
        client: Some(client.client),
        stream: None,
        seq: None,
        detail: client.detail.clone(),
        at: None,
    });
    findings.note_many(
        Anomaly::NotRecovered,
        censored.saturating_sub(known),
        examples,
    );
    censored
}

fn census(trial: &Trial, evidence: &Evidence<'_>, ledger: &Ledger, found: &Found) -> Census {
    let mut census = Census::default();
    let held = trial.lane.as_ref().map(|lane| &lane.held);
    for (name, stream) in &evidence.streams {
        census.acknowledged += stream.acknowledged.len();
        census.lost += stream.gone.len();
        if let Some(read) = stream.read {
            let events = runs::indexes(&read.events);
            let absent = stream.acknowledged.difference(&events);
            census.read += stream.acknowledged.len() - absent.len();
            let unacknowledged = events.difference(&stream.acknowledged);
            census.unacknowledged += unacknowledged.len() + read.foreign;
        }
        if let Some(count) = held.and_then(|held| held.get(name))
            && ledger.streams.contains_key(name)
        {
            *census.counted.get_or_insert(0) += count;
        }
    }
    census.missed = found.count(Anomaly::Lost).saturating_sub(census.lost);
    census
}

/// When nodes were ended, in order. None for a target that promises to keep whatever it acknowledges.
fn ended_nodes(trial: &Trial, window: Span) -> Vec<NodeEnd> {
    if window == Span::ZERO {
        return Vec::new();
    }
    let mut ends = trial
        .faults
        .iter()
        .filter(|record| record.fault.ends_node())
        .filter_map(|record| record.view.as_ref())
        .map(|view| NodeEnd {
            from: view.injected.asked - window,
            seen: view.injected.observed,
            until: view
                .healed
                .unwrap_or(view.injected)
                .asked
                .max(view.injected.observed),
        })
        .collect::<Vec<_>>();
    ends.sort_by_key(|end| end.from);
    ends
}

fn unfinished(trial: &Trial, censored: u64) -> Unfinished {
    let named: BTreeSet<_> = trial
        .shards
        .iter()
        .flat_map(|shard| &shard.censored)
        .map(|client| client.client)
        .collect();
    if trial.abort.is_some() || (named.len() as u64) < censored {
        Unfinished::Any
    } else {
        Unfinished::Known(named)
    }
}
