//! The shards' reports as one.

use std::collections::BTreeMap;

use model::criteria::Phase;
use model::histogram::Micros;
use model::shard::{Delivery, DeliveryPart, PhaseReport, ProbeTally, ShardReport};
use model::trial::Trial;
use scenarios::plan::Plan;

use crate::figures::Figures;
use crate::record::{DeliveryFigures, HarnessFigures, Row, round6};
use crate::storm::{self, Storm};

pub(super) fn all(row: &mut Row, plan: &Plan, trial: &Trial) {
    let shards = &trial.shards;
    row.clients.affected = shards.iter().map(|shard| u64::from(shard.affected)).sum();
    row.clients.unknown = shards.iter().map(|shard| u64::from(shard.unknown)).sum();
    row.planned_reconnects = shards.iter().map(|shard| shard.planned_reconnects).sum();
    row.rebootstraps = shards.iter().map(|shard| shard.rebootstraps).sum();
    for (framing, rows) in shards.iter().flat_map(|shard| &shard.deliveries) {
        *row.rows_received.entry(framing.clone()).or_default() += rows;
    }
    row.phases = phases(shards);
    row.delivery = delivery(shards);
    row.probes = probes(shards);
    merge_harness(&mut row.harness, trial);
    row.storm = merge_storm(row, plan, trial);
}

fn phases(shards: &[ShardReport]) -> BTreeMap<Phase, Figures> {
    let mut merged: BTreeMap<Phase, PhaseReport> = Phase::ALL
        .into_iter()
        .map(|phase| (phase, PhaseReport::default()))
        .collect();
    for (phase, report) in shards.iter().flat_map(|shard| &shard.phases) {
        let phase = merged.entry(*phase).or_default();
        phase.histogram.merge(&report.histogram);
        phase.censored += report.censored;
    }
    merged
        .into_iter()
        .map(|(phase, report)| {
            let mut figures = Figures::plain(report.histogram);
            figures.censored = report.censored;
            (phase, figures)
        })
        .collect()
}

fn delivery(shards: &[ShardReport]) -> BTreeMap<DeliveryPart, DeliveryFigures> {
    let parts = [
        DeliveryPart::Before,
        DeliveryPart::During,
        DeliveryPart::After,
    ];
    let mut merged: BTreeMap<DeliveryPart, Delivery> = parts
        .into_iter()
        .map(|part| (part, Delivery::default()))
        .collect();
    for (part, delivery) in shards.iter().flat_map(|shard| &shard.delivery) {
        let part = merged.entry(*part).or_default();
        part.corrected.merge(&delivery.corrected);
        part.uncorrected.merge(&delivery.uncorrected);
    }
    merged
        .into_iter()
        .map(|(part, delivery)| {
            let figures = DeliveryFigures {
                corrected: Figures::plain(delivery.corrected),
                uncorrected: Figures::plain(delivery.uncorrected),
            };
            (part, figures)
        })
        .collect()
}

fn probes(shards: &[ShardReport]) -> Vec<ProbeTally> {
    let mut merged: Vec<ProbeTally> = Vec::new();
    for tally in shards.iter().flat_map(|shard| &shard.probes) {
        let known = merged
            .iter_mut()
            .find(|known| known.probe == tally.probe && known.expected == tally.expected);
        if let Some(known) = known {
            known.met += tally.met;
            known.unreachable += tally.unreachable;
            for (answer, count) in &tally.answers {
                *known.answers.entry(answer.clone()).or_default() += count;
            }
        } else {
            merged.push(tally.clone());
        }
    }
    merged
}

/// Of the receive side the process that kept time worst counts: among the others' samples its stalls would vanish.
fn merge_harness(harness: &mut HarnessFigures, trial: &Trial) {
    let shards = trial.shards.iter().map(|shard| &shard.harness);
    let processes = || {
        shards
            .clone()
            .chain(trial.proxy.iter().map(|proxy| &proxy.harness))
    };
    let mut send = Micros::default();
    for process in processes() {
        send.merge(&process.send_lag);
        harness.busiest = harness.busiest.max(process.busiest);
    }
    let receive = processes()
        .map(|process| &process.receive_lag)
        .max_by_key(|lag| (lag.quantile(0.99, 0), lag.count()))
        .cloned()
        .unwrap_or_default();
    harness.busiest = round6(harness.busiest);
    harness.send_lag = Figures::plain(send);
    harness.receive_lag = Figures::plain(receive);
}

fn merge_storm(row: &Row, plan: &Plan, trial: &Trial) -> Storm {
    const SLOT_US: u64 = 100_000;
    let from = row.episode().map_or(u64::MAX, |(t0, _)| t0.0 / SLOT_US);
    let (counted_by, arrivals) = if let Some(proxy) = &trial.proxy {
        ("proxy", storm::since(from, &[proxy.arrivals.as_slice()]))
    } else {
        let counters: Vec<&[(u64, u32)]> = trial
            .shards
            .iter()
            .map(|shard| shard.storm.attempts.as_slice())
            .collect();
        ("shards", storm::since(from, &counters))
    };
    let mut merged = Storm {
        counted_by: counted_by.to_owned(),
        arrivals,
        capacity: plan.target.accept_rate,
        ..Storm::default()
    };
    for shard in &trial.shards {
        for (attempts, clients) in &shard.storm.attempts_per_client {
            *merged.attempts_by_clients.entry(*attempts).or_default() += clients;
        }
        merged.wasted += shard.storm.wasted;
        merged.retry_after_given += shard.storm.retry_after_given;
        merged.retry_after_obeyed += shard.storm.retry_after_obeyed;
        merged.replayed += shard.storm.replayed;
        merged.missed += shard.storm.missed;
    }
    merged
}
