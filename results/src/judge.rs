//! From what the conductor collected to a row: merge the shards, run the checks, derive the figures, judge.

mod found;
mod merge;
mod missing;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, SecondsFormat};
use model::anomaly::Anomaly;
use model::criteria::{Limits, Phase};
use model::histogram::Micros;
use model::quantity::{Share, Span};
use model::target::World;
use model::trial::{FaultRecord, Trial};
use scenarios::plan::Plan;

use crate::checker;
use crate::figures::{Figures, Quantile};
use crate::open_world::OpenWorld;
use crate::record::{
    AnomalyCount, Census, Clients, FaultEvidence, Fidelity, HarnessFigures, Interval, Row,
    SCHEMA_VERSION, Status, Verdict, round6,
};
use crate::redact::Masker;
use crate::storm::Storm;
use crate::verdict;

/// Judges one execution of a plan. `number` is the trial's, from 1; `log_file` is relative to the run folder;
/// `repeated` says why an earlier execution was discarded.
///
/// It does not panic: a check that does is named in the row, which is then inconclusive.
#[must_use]
pub fn judge(
    plan: &Plan,
    trial: &Trial,
    number: u32,
    log_file: &str,
    repeated: Option<String>,
) -> Row {
    let mut row = bare(plan, trial, number, log_file, repeated);
    let filled = checker::guarded(|| {
        let mut filled = row.clone();
        merge::all(&mut filled, plan, trial);
        filled.missing.extend(missing::all(plan, trial));
        found::all(&mut filled, trial, &plan.target.promise);
        filled
    });
    match filled {
        Ok(filled) => row = filled,
        Err(message) => row
            .broken_checks
            .push(format!("merging the shards: {message}")),
    }
    row = Masker::default().clean(&row).unwrap_or_else(|error| {
        // Rather a row without its texts than a row with a secret.
        let mut bare = bare(plan, trial, number, log_file, None);
        bare.abort = None;
        bare.broken_checks = vec![format!("masking secrets: {error}")];
        bare
    });
    settle(&mut row);
    row
}

/// Derives whatever in a row is derived from the rest of it: figures, limits, status, verdict. Judging and judging
/// anew are the same code.
pub(crate) fn settle(row: &mut Row) {
    row.clients.share = share(row.clients.affected, row.clients.intended);
    for (phase, figures) in &mut row.phases {
        figures.bound = row.criteria.bounds.get(phase).cloned().unwrap_or_default();
        figures.affected = Some(row.clients.affected);
        *figures = figures.recomputed();
    }
    for delivery in row.delivery.values_mut() {
        delivery.corrected = delivery.corrected.recomputed();
        delivery.uncorrected = delivery.uncorrected.recomputed();
    }
    row.harness.send_lag = row.harness.send_lag.recomputed();
    row.harness.receive_lag = row.harness.receive_lag.recomputed();
    row.harness.limit_us = verdict::lag_limit(&row.criteria).as_micros();
    row.harness.busiest_limit = verdict::BUSIEST_LIMIT;
    row.storm.settle();
    reconnected(&mut row.storm, row.phases.get(&Phase::Reconnect));
    let received: u64 = row.rows_received.values().sum();
    for (anomaly, tally) in &mut row.anomalies {
        limit(*anomaly, tally, &row.criteria.limits, received);
        if let Some(waiver) = &mut tally.waiver {
            waiver.holds = waiver.spares(tally.count);
        }
    }
    row.verdict = verdict::verdict(row);
    row.status = row.verdict.status;
}

fn share(part: u64, whole: u64) -> Share {
    Share::ratio(if whole == 0 {
        0.0
    } else {
        round6(part as f64 / whole as f64)
    })
}

fn limit(anomaly: Anomaly, tally: &mut AnomalyCount, limits: &Limits, received: u64) {
    tally.ratio = None;
    tally.limit = match anomaly {
        Anomaly::DuplicateDelivery => limits.duplicate_delivery.as_ratio(),
        Anomaly::OverReplay => limits.over_replay as f64,
        Anomaly::RetryAfterIgnored => limits.retry_after_ignored as f64,
        Anomaly::WrongReason => limits.wrong_reason as f64,
        _ => 0.0,
    };
    if anomaly == Anomaly::DuplicateDelivery {
        tally.ratio = tally
            .count
            .map(|count| round6(count as f64 / received.max(1) as f64));
    }
    let judged = tally.ratio.or(tally.count.map(|count| count as f64));
    tally.within = judged.map(|judged| judged <= tally.limit);
}

fn reconnected(storm: &mut Storm, reconnect: Option<&Figures>) {
    let nothing = Figures::plain(Micros::default());
    let reconnect = reconnect.unwrap_or(&nothing);
    storm.t50_us = reconnect.p50_us;
    storm.t99_us = reconnect.p99_us;
    storm.t100_us = match reconnect.max_us {
        _ if reconnect.censored > 0 => Quantile::Censored,
        Some(max) => Quantile::Us(max),
        None => Quantile::NotEstimable,
    };
}

/// The row with what needs no merging.
fn bare(plan: &Plan, trial: &Trial, number: u32, log_file: &str, repeated: Option<String>) -> Row {
    let kinds: BTreeSet<Fidelity> = plan
        .steps
        .iter()
        .map(|step| Fidelity::of(&step.fault))
        .collect();
    let kinds: Vec<&str> = kinds.into_iter().map(Fidelity::name).collect();
    let lag = || Figures::plain(Micros::default());
    Row {
        scenario: plan.scenario.clone(),
        status: Status::Inconclusive,
        duration_seconds: round6(trial.ended.since(trial.started).as_secs_f64()),
        log_file: log_file.to_owned(),
        schema_version: SCHEMA_VERSION,
        run: String::new(),
        lane: plan.lane,
        trial: number,
        seed: plan.seed,
        plan_digest: plan.digest.clone(),
        target: plan.target.kind,
        profile: plan.target.profile.clone(),
        fidelity: kinds.join("+"),
        started: rfc3339(trial.started_unix_us),
        started_mono: trial.started,
        ended_mono: trial.ended,
        steady: trial.steady,
        repeated,
        defect: plan.defect,
        criteria: plan.criteria.clone(),
        verdict: Verdict {
            status: Status::Inconclusive,
            reason: String::new(),
            reasons: Vec::new(),
        },
        faults: trial.faults.iter().map(fault).collect(),
        nodes: trial.nodes.clone(),
        clients: Clients {
            intended: u64::from(plan.workload.clients),
            affected: 0,
            unknown: 0,
            share: share(0, 0),
        },
        phases: BTreeMap::new(),
        time_to_steady_us: trial.time_to_steady.map(Span::as_micros),
        relapses: trial.relapses,
        delivery: BTreeMap::new(),
        expected_deliveries: None,
        delivered: None,
        census: Census::default(),
        rows_received: BTreeMap::new(),
        anomalies: BTreeMap::new(),
        storm: Storm::default(),
        probes: Vec::new(),
        external: trial.external.clone(),
        planned_reconnects: 0,
        rebootstraps: 0,
        harness: HarnessFigures {
            send_lag: lag(),
            receive_lag: lag(),
            limit_us: 0,
            busiest: 0.0,
            busiest_limit: 0.0,
        },
        residue: trial.residue.clone(),
        open_world: (plan.target.promise.world == World::Open).then(|| OpenWorld::of(trial)),
        lane_status: trial.lane.clone(),
        proxy_status: trial.proxy.clone().map(|mut proxy| {
            proxy.arrivals.clear();
            proxy
        }),
        abort: trial.abort.clone(),
        missing: Vec::new(),
        broken_checks: Vec::new(),
        seal: None,
    }
}

/// RFC 3339, UTC, of micro-seconds since the Unix epoch.
pub(crate) fn rfc3339(unix_us: u64) -> String {
    i64::try_from(unix_us)
        .ok()
        .and_then(DateTime::from_timestamp_micros)
        .unwrap_or_default()
        .to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn fault(record: &FaultRecord) -> FaultEvidence {
    let view = record.view.as_ref();
    FaultEvidence {
        id: record.id.clone(),
        fault: record.fault.clone(),
        share: record.share,
        fidelity: Fidelity::of(&record.fault),
        injected: view.map(|view| Interval::from(view.injected)),
        healed: view.and_then(|view| view.healed).map(Interval::from),
        active: view.is_some_and(|view| view.active),
        lapsed: view.is_some_and(|view| view.lapsed),
        observation: view
            .map(|view| view.observation.clone())
            .unwrap_or_default(),
        error: record.error.clone(),
        nodes: record.nodes.clone(),
        toothless: record.toothless.clone(),
        reach: record.reach.clone(),
    }
}
