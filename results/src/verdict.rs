//! The verdict of a trial: a pure function of its row. In this order:
//!
//! 1. a safety anomaly that is not waived → `failed`, even in an otherwise invalid trial
//! 2. residue that this tool owns, a part of the target that ended by itself → `failed`
//! 3. a fault that could not be applied or undone, a harness that lost a part of itself → `error`; steady state never
//!    reached, the operator's abort, missing evidence, a check that panicked, harness lag, a fault that was not seen to
//!    bite or whose lease lapsed, too few affected → `inconclusive`
//! 4. abort because the target breached a declared limit → `failed`
//! 5. bounds and limits → `failed` or `passed`
//!
//! What is waived is not judged: not as a safety anomaly, and not against its limit. What it brought about is.

mod absence;

use std::collections::BTreeSet;

use model::anomaly::Anomaly;
use model::criteria::{Criteria, Phase};
use model::external::{ExternalProbe, ProbeRule};
use model::quantity::Span;
use model::shard::DeliveryPart;
use model::trial::Abort;

use crate::figures::Figures;
use crate::record::{AnomalyCount, Row, Status, Verdict};
use crate::text;

/// A shard that uses more of one core than this is no clean measuring device.
pub const BUSIEST_LIMIT: f64 = 0.8;

/// With this begins every ground that is the harness's own lag.
pub(crate) const LAG: &str = "harness lag";

const LEAST_LAG_LIMIT: Span = Span::from_millis(10);

/// The harness lag (p99) above which a trial is invalid: 10 ms, or 5 % of the tightest bound judged where that is more.
#[must_use]
pub fn lag_limit(criteria: &Criteria) -> Span {
    criteria
        .tightest()
        .map_or(LEAST_LAG_LIMIT, |tightest| tightest.scale(0.05))
        .max(LEAST_LAG_LIMIT)
}

/// Judges a row by its own evidence. Of its derived fields it trusts none that it can derive itself, and it does not
/// look at the status and verdict that the row already has.
#[must_use]
pub fn verdict(row: &Row) -> Verdict {
    let mut grounds: Vec<(Status, String)> = Vec::new();
    let mut add = |status, reasons: Vec<String>| {
        grounds.extend(reasons.into_iter().map(|reason| (status, reason)));
    };
    let (errors, invalid) = (errors(row), invalid(row));
    let valid = errors.is_empty() && invalid.is_empty();
    add(Status::Failed, safety(row));
    add(Status::Failed, residue(row));
    add(Status::Failed, left_behind(row));
    add(Status::Failed, crashed(row));
    add(Status::Error, errors);
    add(Status::Inconclusive, invalid);
    add(Status::Failed, breached(row));
    if valid {
        add(Status::Failed, exceeded(row));
    }
    let status = grounds
        .first()
        .map_or(Status::Passed, |(status, _)| *status);
    let mut reasons: Vec<String> = grounds.into_iter().map(|(_, reason)| reason).collect();
    // What cut a trial off mostly keeps its clean-up from succeeding too: the cause is told before what followed.
    if row.abort.is_some() {
        let behind = left_behind(row);
        reasons.sort_by_key(|reason| behind.contains(reason));
    }
    Verdict {
        status,
        reason: reasons.first().cloned().unwrap_or_else(|| passed(row)),
        reasons,
    }
}

fn found(row: &Row) -> impl Iterator<Item = (Anomaly, &AnomalyCount, u64)> {
    row.anomalies.iter().filter_map(|(anomaly, tally)| {
        let count = tally.count.filter(|count| *count > 0)?;
        Some((*anomaly, tally, count))
    })
}

fn passed(row: &Row) -> String {
    let waived: Vec<String> = found(row)
        .filter_map(|(anomaly, tally, count)| {
            let waiver = tally.waived()?;
            Some(format!("{anomaly}: {count}, {waiver}"))
        })
        .collect();
    if waived.is_empty() {
        "everything within bounds and limits".to_owned()
    } else {
        let waived = waived.join("; ");
        format!("everything within bounds and limits, apart from what is waived: {waived}")
    }
}

fn safety(row: &Row) -> Vec<String> {
    found(row)
        .filter(|(anomaly, tally, _)| anomaly.is_safety() && tally.waived().is_none())
        .map(|(anomaly, tally, count)| with_example(format!("{anomaly}: {count}"), tally))
        .collect()
}

/// A finding that nobody answers for, with whoever no longer does.
fn with_example(finding: String, tally: &AnomalyCount) -> String {
    let finding = match &tally.waiver {
        Some(waiver) => format!("{finding} ({waiver})"),
        None => finding,
    };
    match tally.examples.first() {
        Some(example) => format!("{finding}, such as {}", text::example(example)),
        None => finding,
    }
}

fn residue(row: &Row) -> Vec<String> {
    let owned = row.residue.iter().flat_map(|residue| residue.owned.clone());
    owned.map(|owned| format!("left behind: {owned}")).collect()
}

fn left_behind(row: &Row) -> Vec<String> {
    let world = row.open_world.iter();
    let published = world.flat_map(|world| world.left_behind(&row.run));
    published
        .map(|published| format!("left behind: {published}"))
        .collect()
}

/// Parts of the target that no fault had ended. Whether they crashed or a stranger ended them: what follows says nothing
/// about the faults, and the run is no go.
fn crashed(row: &Row) -> Vec<String> {
    let noticed = match &row.abort {
        Some(Abort::Target(why)) => Some(why),
        _ => None,
    };
    let found = row.residue.iter().flat_map(|residue| &residue.crashed);
    let all: BTreeSet<_> = noticed.into_iter().chain(found).collect();
    all.into_iter()
        .map(|why| format!("the target's {why}"))
        .collect()
}

fn errors(row: &Row) -> Vec<String> {
    let mut errors = Vec::new();
    if let Some(Abort::Harness(why)) = &row.abort {
        errors.push(format!("the harness lost a part of itself: {why}"));
    }
    let world = row.open_world.as_ref();
    errors.extend(world.and_then(|world| world.not_cleaned(&row.run)));
    for fault in &row.faults {
        let id = &fault.id;
        if let Some(error) = &fault.error {
            errors.push(format!("fault {id}: {error}"));
        } else if fault.injected.is_none() {
            // A trial that ended early did not come to all of its faults.
            if row.abort.is_none() {
                errors.push(format!("fault {id} was never applied"));
            }
        } else if fault.active || fault.healed.is_none() {
            errors.push(format!("fault {id} was not undone"));
        }
    }
    errors
}

fn invalid(row: &Row) -> Vec<String> {
    let mut invalid = Vec::new();
    match &row.abort {
        Some(Abort::NotSteady(why)) => {
            invalid.push(format!("steady state was not reached: {why}"));
        }
        Some(Abort::Operator(why)) => invalid.push(format!("stopped by the operator: {why}")),
        None if row.steady.is_none() => invalid.push("steady state was not reached".to_owned()),
        Some(Abort::Limit(_) | Abort::Harness(_) | Abort::Target(_)) | None => {}
    }
    invalid.extend(
        row.broken_checks
            .iter()
            .map(|broken| format!("a check panicked: {broken}")),
    );
    let absent = absence::all(row);
    let missing = row.missing.iter().chain(&absent);
    invalid.extend(missing.map(|what| format!("missing: {what}")));
    if !cut_short(row) {
        invalid.extend(lag(row));
        if !absolute(row) {
            invalid.extend(toothless(row));
            invalid.extend(too_few(row));
        }
        if row.abort.is_none() {
            invalid.extend(unaccounted(row));
        }
    }
    invalid
}

/// A trial that was stopped half-way says nothing about what follows.
fn cut_short(row: &Row) -> bool {
    matches!(
        row.abort,
        Some(Abort::NotSteady(_) | Abort::Operator(_) | Abort::Harness(_) | Abort::Target(_))
    )
}

/// Whether what was breached is a limit that has to hold at any time, whatever the faults had done by then.
fn absolute(row: &Row) -> bool {
    let ended_it = |probe: &ExternalProbe| probe.breached && probe.rule == ProbeRule::AbortAlways;
    matches!(row.abort, Some(Abort::Limit(_))) && row.external.iter().any(ended_it)
}

fn lag(row: &Row) -> Vec<String> {
    let limit = lag_limit(&row.criteria);
    let mut reasons = Vec::new();
    for (name, figures) in [
        ("receive", &row.harness.receive_lag),
        ("send", &row.harness.send_lag),
    ] {
        match figures.nearest(0.99) {
            Some(p99) if p99 > limit => reasons.push(format!(
                "{LAG}: {name} p99 {}, limit {}",
                text::span(p99),
                text::span(limit)
            )),
            Some(_) => {}
            None => reasons.push(format!("{LAG}: the {name} side was not measured")),
        }
    }
    if row.harness.busiest > BUSIEST_LIMIT {
        reasons.push(format!(
            "{LAG}: a shard or the proxy used {:.0} % of a core, limit {:.0} %",
            row.harness.busiest * 100.0,
            BUSIEST_LIMIT * 100.0
        ));
    }
    reasons
}

fn toothless(row: &Row) -> Vec<String> {
    let injected = row.faults.iter().filter(|fault| fault.injected.is_some());
    injected
        .filter_map(|fault| {
            let id = &fault.id;
            if fault.observation.bitten == 0 {
                Some(format!("fault {id} was not seen to bite"))
            } else if !fault.toothless.is_empty() {
                let nodes = fault.toothless.join("`, `");
                Some(format!("fault {id} was not seen to bite on `{nodes}`"))
            } else if fault.lapsed {
                Some(format!(
                    "fault {id}: its lease lapsed, so that it ended on its own and not when planned"
                ))
            } else {
                None
            }
        })
        .collect()
}

fn too_few(row: &Row) -> Option<String> {
    let (affected, intended) = (row.clients.affected, row.clients.intended);
    let least = row.criteria.affected;
    let enough = affected as f64 + 1e-9 >= least.as_ratio() * intended as f64;
    (!enough).then(|| {
        format!("the faults affected {affected} of {intended} clients, fewer than {least}")
    })
}

/// Affected clients of which it is not known how they fared, and bounds that nothing can be held against.
fn unaccounted(row: &Row) -> Vec<String> {
    let mut reasons = Vec::new();
    let affected = row.clients.affected;
    let samples = |phase| row.phases.get(&phase).map_or(0, Figures::samples);
    for phase in [Phase::Recovery, Phase::Outage] {
        let known = samples(phase) + row.clients.unknown;
        if known < affected {
            reasons.push(format!(
                "missing: {phase} is known of {known} of {affected} affected clients"
            ));
        }
    }
    for (phase, bounds) in &row.criteria.bounds {
        if bounds.extremes().is_some() && affected > 0 && samples(*phase) == 0 {
            reasons.push(format!(
                "{phase} has a bound, and no client went through it"
            ));
        }
    }
    if row.criteria.limits.delivery_p95.is_some() {
        for part in [DeliveryPart::Before, DeliveryPart::After] {
            let samples = row
                .delivery
                .get(&part)
                .map_or(0, |delivery| delivery.corrected.samples());
            if samples == 0 {
                let part = text::part(part);
                reasons.push(format!(
                    "missing: deliveries {part} the fault, which have a limit"
                ));
            }
        }
    }
    reasons
}

fn breached(row: &Row) -> Vec<String> {
    match &row.abort {
        Some(Abort::Limit(why)) => vec![format!("aborted: {why}")],
        _ => Vec::new(),
    }
}

fn exceeded(row: &Row) -> Vec<String> {
    let mut reasons: Vec<String> = found(row)
        .filter(|(anomaly, tally, _)| !anomaly.is_safety() && tally.waived().is_none())
        .filter_map(|(anomaly, tally, count)| over_limit(row, anomaly, tally, count))
        .collect();
    for (phase, figures) in &row.phases {
        let mut judged = figures.clone();
        judged.bound = row.criteria.bounds.get(phase).cloned().unwrap_or_default();
        for exceeded in judged.exceeded() {
            let bound = exceeded.bound;
            let figure = match exceeded.figure {
                Some(figure) => text::span(figure),
                None => format!("among the {} not recovered", judged.censored),
            };
            let note = if exceeded.largest {
                format!(" (the largest of {})", judged.samples())
            } else {
                String::new()
            };
            reasons.push(format!(
                "{phase} {} {figure}{note}, bound {bound}",
                exceeded.name
            ));
        }
    }
    if row.abort.is_none() {
        reasons.extend(unsteady(row));
    }
    reasons.extend(stormy(row));
    reasons.extend(late(row));
    reasons
}

fn over_limit(row: &Row, anomaly: Anomaly, tally: &AnomalyCount, count: u64) -> Option<String> {
    let limits = &row.criteria.limits;
    let finding = if anomaly == Anomaly::DuplicateDelivery {
        let received: u64 = row.rows_received.values().sum();
        let ratio = count as f64 / received.max(1) as f64;
        let limit = limits.duplicate_delivery;
        (ratio > limit.as_ratio() + 1e-9).then(|| {
            let percent = ratio * 100.0;
            format!("{anomaly}: {count} of {received} rows ({percent:.2} %), limit {limit}")
        })
    } else {
        let limit = match anomaly {
            Anomaly::OverReplay => limits.over_replay,
            Anomaly::RetryAfterIgnored => limits.retry_after_ignored,
            Anomaly::WrongReason => limits.wrong_reason,
            _ => 0,
        };
        (count > limit).then(|| format!("{anomaly}: {count}, limit {limit}"))
    };
    // Whoever waived it meant it not to be there for ever, whatever the limit is.
    let overdue = tally.waiver.as_ref().is_some_and(|waiver| waiver.expired);
    finding
        .or_else(|| overdue.then(|| format!("{anomaly}: {count}")))
        .map(|finding| with_example(finding, tally))
}

fn unsteady(row: &Row) -> Option<String> {
    let bound = row.criteria.steady?;
    match row.time_to_steady_us.map(Span::from_micros) {
        None => Some(format!("never steady again after the heal, bound {bound}")),
        Some(time) if time > bound => Some(format!(
            "time to steady {}, bound {bound}",
            text::span(time)
        )),
        Some(_) => None,
    }
}

fn stormy(row: &Row) -> Vec<String> {
    let limits = &row.criteria.limits;
    let mut storm = row.storm.clone();
    storm.settle();
    let mut reasons = Vec::new();
    if let (Some(limit), Some(mean)) = (limits.attempts_per_client, storm.attempts_mean)
        && mean > limit
    {
        reasons.push(format!("attempts per client {mean:.2}, limit {limit}"));
    }
    if let Some(limit) = limits.peak_arrivals
        && storm.peak_1s as f64 > limit.as_per_second()
    {
        reasons.push(format!("peak arrivals {}/s, limit {limit}", storm.peak_1s));
    }
    reasons
}

fn late(row: &Row) -> Vec<String> {
    let Some(limit) = row.criteria.limits.delivery_p95 else {
        return Vec::new();
    };
    [DeliveryPart::Before, DeliveryPart::After]
        .into_iter()
        .filter_map(|part| {
            let p95 = row.delivery.get(&part)?.corrected.nearest(0.95)?;
            (p95 > limit).then(|| {
                format!(
                    "delivery {} the fault p95 {}, limit {limit}",
                    text::part(part),
                    text::span(p95)
                )
            })
        })
        .collect()
}
