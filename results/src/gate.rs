//! The decision, recomputed from a run folder alone.
//!
//! Every row is derived anew from its own evidence: histograms are decoded, quantiles and limits recomputed, the
//! verdict drawn again. A row that says something else than its evidence fails the run, and so does one that was changed
//! after it was written, or whose plan was.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use host::jsonl;
use model::defect::Defect;
use model::ids::Lane;
use model::target::World;
use scenarios::plan::Plan;
use scenarios::waivers::Waivers;
use serde_json::Value;
use thiserror::Error;

use crate::checker::guarded;
use crate::decision::{Decision, Outcome, RowDecision};
use crate::folder::{PlannedRow, ROWS_FILE, RUN_FILE, RunRecord, WAIVERS_FILE, plan_file};
use crate::judge::settle;
use crate::record::{Row, SCHEMA_VERSION, Status};
use crate::redact::MASK;
use crate::seal;
use crate::waive::{InForce, WaiverState};

/// The folder cannot be judged.
#[derive(Debug, Error)]
pub enum GateError {
    /// There is no run in it.
    #[error("{} is not a run folder: it has no {RUN_FILE}", .0.display())]
    NoRun(PathBuf),
    /// A file cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A later version wrote it.
    #[error(
        "{} is of schema version {found}; this build reads up to {SCHEMA_VERSION}: use a later build",
        .path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The version it names.
        found: u32,
    },
}

/// What a run folder holds.
pub(crate) struct Evidence {
    pub(crate) record: RunRecord,
    /// The rows that could be read, as they are written.
    pub(crate) rows: Vec<Row>,
    /// What differs between a row and its evidence, by the row's place in `rows`.
    tampered: BTreeMap<usize, String>,
    /// What keeps the run from a go although no row says so.
    doubts: Vec<String>,
    /// The waivers; `None` where they cannot be trusted.
    in_force: Option<InForce>,
    /// What somebody has been at although no row shows it.
    forged: Vec<String>,
}

/// Recomputes the decision about a run from its folder.
///
/// # Errors
/// There is no `run.json`, or a file cannot be read. Rows that are missing, torn or altered are no errors: they are
/// part of the decision.
pub fn gate(folder: &Path) -> Result<Decision, GateError> {
    Ok(decide(&read(folder)?))
}

pub(crate) fn read(folder: &Path) -> Result<Evidence, GateError> {
    let (record, record_digest) = read_record(folder)?;
    let rows_file = folder.join(ROWS_FILE);
    let lines = match jsonl::read_each::<Value>(&rows_file) {
        Ok(lines) => lines,
        Err(error) if error.kind() == io::ErrorKind::NotFound => jsonl::Lines {
            values: Vec::new(),
            torn: false,
        },
        Err(source) => {
            return Err(GateError::Unreadable {
                path: rows_file,
                source,
            });
        }
    };
    let (mut doubts, mut forged) = (Vec::new(), Vec::new());
    let in_force = match read_waivers(folder, &record) {
        Ok(in_force) => Some(in_force),
        Err(Distrust::Doubt(doubt)) => {
            doubts.push(doubt);
            None
        }
        Err(Distrust::Forged(what)) => {
            forged.push(what);
            None
        }
    };
    if lines.torn {
        doubts.push(format!(
            "the last line of {ROWS_FILE} is torn: its writer died; it is left out"
        ));
    }
    let (mut rows, mut tampered) = (Vec::new(), BTreeMap::new());
    let no_row = |number: u32, error| format!("{ROWS_FILE}:{number} is not a row: {error}");
    // What the next row has to follow; not known after a line that is no row.
    let mut last = Some(record_digest);
    for (number, line) in (1..).zip(lines.values) {
        let line = match line {
            Ok(line) => line,
            Err(error) => {
                doubts.push(no_row(number, error));
                last = None;
                continue;
            }
        };
        let version = line["schema_version"].as_u64().unwrap_or(0);
        if version > u64::from(SCHEMA_VERSION) {
            return Err(GateError::Version {
                path: rows_file,
                found: u32::try_from(version).unwrap_or(u32::MAX),
            });
        }
        match serde_json::from_value::<Row>(line.clone()) {
            Ok(row) => {
                let unlinked = unlinked(last.as_deref(), &row);
                doubts.extend(unlinked.map(|what| format!("{ROWS_FILE}:{number} {what}")));
                last = row.seal.as_ref().map(|seal| seal.digest.clone());
                let waived = in_force
                    .as_ref()
                    .filter(|waivers| !waivers.agree_with(&row));
                let waived =
                    waived.map(|_| "it is waived other than the run's waivers say".to_owned());
                let what = waived.or(altered(&record, &line, &row)).or_else(|| {
                    against_plan(folder, &record, &row).unwrap_or_else(|doubt| {
                        doubts.push(doubt);
                        None
                    })
                });
                if let Some(what) = what {
                    tampered.insert(rows.len(), what);
                }
                rows.push(row);
            }
            Err(error) => {
                doubts.push(no_row(number, error));
                last = None;
            }
        }
    }
    Ok(Evidence {
        record,
        rows,
        tampered,
        doubts,
        in_force,
        forged,
    })
}

/// Why the waivers of a folder are not honoured.
enum Distrust {
    Doubt(String),
    Forged(String),
}

fn read_waivers(folder: &Path, record: &RunRecord) -> Result<InForce, Distrust> {
    let doubt = |error: &dyn std::fmt::Display| {
        Distrust::Doubt(format!(
            "{WAIVERS_FILE} cannot be read, so that what is waived proves nothing: {error}"
        ))
    };
    let path = folder.join(WAIVERS_FILE);
    let Some(digest) = &record.waivers else {
        if path.exists() {
            let what = format!("{WAIVERS_FILE} is there, and {RUN_FILE} knows of no waivers");
            return Err(Distrust::Doubt(what));
        }
        return Ok(InForce::default());
    };
    let text = fs::read(&path).map_err(|error| doubt(&error))?;
    let waivers: Waivers = serde_json::from_slice(&text).map_err(|error| doubt(&error))?;
    if waivers.digest() != *digest {
        return Err(Distrust::Forged(format!(
            "tampered: {WAIVERS_FILE} is not the one of the digest in {RUN_FILE}"
        )));
    }
    Ok(InForce::new(waivers, &record.started))
}

/// The record and its digest.
fn read_record(folder: &Path) -> Result<(RunRecord, String), GateError> {
    let path = folder.join(RUN_FILE);
    let unreadable = |source| GateError::Unreadable {
        path: path.clone(),
        source,
    };
    let text = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(GateError::NoRun(folder.to_owned()));
        }
        read => read.map_err(unreadable)?,
    };
    let value: Value = serde_json::from_slice(&text).map_err(|error| unreadable(error.into()))?;
    let digest = seal::digest(&value);
    let record: RunRecord =
        serde_json::from_value(value).map_err(|error| unreadable(error.into()))?;
    if record.schema_version > SCHEMA_VERSION {
        return Err(GateError::Version {
            path,
            found: record.schema_version,
        });
    }
    Ok((record, digest))
}

/// Why a row does not continue what is before it. A row without a seal may have been anything.
fn unlinked(last: Option<&str>, row: &Row) -> Option<&'static str> {
    let Some(seal) = &row.seal else {
        return Some("has no seal: nothing shows that it is as it was written");
    };
    last.is_some_and(|last| last != seal.previous).then_some(
        "does not follow what is before it: a row was taken out, put in or moved, or run.json was changed",
    )
}

/// How a row differs from what its evidence says.
fn altered(record: &RunRecord, line: &Value, row: &Row) -> Option<String> {
    if row.run != record.run {
        return Some(format!("it is of run `{}`, not `{}`", row.run, record.run));
    }
    let anew = guarded(|| {
        let mut anew = row.clone();
        settle(&mut anew);
        serde_json::to_value(&anew).map_err(|error| error.to_string())
    });
    let recomputed = match anew.and_then(|anew| anew) {
        Ok(value) => value,
        Err(error) => return Some(format!("it cannot be derived anew: {error}")),
    };
    difference(line, &recomputed, "").or_else(|| {
        let seal = row.seal.as_ref()?;
        (!seal.fits(line)).then(|| {
            "it was changed after it was written: its seal's digest is of another".to_owned()
        })
    })
}

/// How a row differs from its plan, and from what the run set out to do.
///
/// # Errors
/// There is no plan to compare it with, or no record of one of its faults: then the row proves nothing.
fn against_plan(folder: &Path, record: &RunRecord, row: &Row) -> Result<Option<String>, String> {
    let path = plan_file(folder, &row.scenario, row.lane, row.trial);
    let doubt = |error: &dyn std::fmt::Display| {
        let path = path.strip_prefix(folder).unwrap_or(&path).display();
        format!("{path} cannot be read, so that the criteria of its row prove nothing: {error}")
    };
    let text = fs::read_to_string(&path).map_err(|error| doubt(&error))?;
    let value: Value = serde_json::from_str(&text).map_err(|error| doubt(&error))?;
    let Some(sealed) = row.seal.as_ref().and_then(|seal| seal.plan.as_deref()) else {
        return Err(format!("the seal of {} names no plan", row.name()));
    };
    if sealed != seal::digest(&value) {
        return Ok(Some(
            "its plan was changed after it was written: the digest in its seal is of another"
                .to_owned(),
        ));
    }
    let plan: Plan = serde_json::from_value(value).map_err(|error| doubt(&error))?;
    // Where something was masked the plan's own digest is of what stood there before.
    if !text.contains(MASK) && plan.computed_digest() != plan.digest {
        return Ok(Some("its plan is not the one of that digest".to_owned()));
    }
    let same = plan.digest == row.plan_digest
        && plan.criteria == row.criteria
        && u64::from(plan.workload.clients) == row.clients.intended;
    if !same {
        let what = "its criteria, digest or clients are not those of its plan";
        return Ok(Some(what.to_owned()));
    }
    if row.open_world.is_some() != (plan.target.promise.world == World::Open) {
        let what = "whether others publish too is not what its plan says";
        return Ok(Some(what.to_owned()));
    }
    let planted = row.defect.map(Defect::name);
    if row.seed != plan.seed
        || row.defect != plan.defect
        || planted != record.settings["defect"].as_str()
    {
        let what = "its seed or planted defect is not that of its plan and run";
        return Ok(Some(what.to_owned()));
    }
    faults_of(&plan, row)
}

/// How the row's faults differ from its plan's.
///
/// # Errors
/// There is no record of one of them.
fn faults_of(plan: &Plan, row: &Row) -> Result<Option<String>, String> {
    for step in &plan.steps {
        let id = &step.id;
        let records: Vec<_> = row.faults.iter().filter(|fault| fault.id == *id).collect();
        match records.as_slice() {
            [] => {
                return Err(format!(
                    "{} has no record of fault {id} of its plan",
                    row.name()
                ));
            }
            [one]
                if one.fault == step.fault
                    && one.share == step.share
                    && one.nodes == plan.done_by(step) => {}
            _ => return Ok(Some(format!("its fault {id} is not that of its plan"))),
        }
    }
    let more = row.faults.len() > plan.steps.len();
    Ok(more.then(|| "it has faults that its plan has not".to_owned()))
}

/// The first place where a written row differs from the recomputed one.
fn difference(written: &Value, recomputed: &Value, place: &str) -> Option<String> {
    match (written, recomputed) {
        (Value::Object(a), Value::Object(b)) => b.iter().find_map(|(name, b)| {
            let place = format!("{place}.{name}");
            difference(a.get(name).unwrap_or(&Value::Null), b, &place)
        }),
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => a
            .iter()
            .zip(b)
            .enumerate()
            .find_map(|(at, (a, b))| difference(a, b, &format!("{place}[{at}]"))),
        (Value::Number(a), Value::Number(b)) if same_number(a, b) => None,
        (a, b) if a == b => None,
        (a, b) => Some(format!(
            "{} is {}, recomputed {}",
            place.trim_start_matches('.'),
            brief(a),
            brief(b)
        )),
    }
}

fn same_number(a: &serde_json::Number, b: &serde_json::Number) -> bool {
    // A fraction may change in its last bit on its way through text.
    match (a.as_f64(), b.as_f64()) {
        (Some(x), Some(y)) if a.is_f64() || b.is_f64() => (x - y).abs() <= 1e-9 * x.abs().max(1.0),
        _ => a == b,
    }
}

fn brief(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 80 {
        text
    } else {
        text.chars().take(77).chain("...".chars()).collect()
    }
}

pub(crate) fn decide(evidence: &Evidence) -> Decision {
    let mut notes: Vec<String> = [&evidence.forged[..], &evidence.doubts].concat();
    let waivers = evidence
        .in_force
        .as_ref()
        .map(|waivers| waivers.account(&evidence.rows))
        .unwrap_or_default();
    let mut overdue = false;
    for used in &waivers {
        if used.state == WaiverState::Expired {
            overdue = true;
            let waiver = &used.waiver;
            notes.push(format!(
                "the waiver for {waiver} expired on {}: renew it, or remove it",
                waiver.expires
            ));
        }
    }
    let mut by_key: BTreeMap<(&str, Lane, u32), Vec<usize>> = BTreeMap::new();
    for (at, row) in evidence.rows.iter().enumerate() {
        by_key
            .entry((&row.scenario, row.lane, row.trial))
            .or_default()
            .push(at);
    }
    let mut rows = Vec::new();
    for planned in &evidence.record.rows {
        let found = by_key.remove(&(planned.scenario.as_str(), planned.lane, planned.trial));
        rows.push(planned_row(evidence, planned, &found.unwrap_or_default()));
    }
    let failures = rows
        .iter()
        .filter(|row| row.status != Status::Passed)
        .count();
    for at in by_key.into_values().flatten() {
        let row = &evidence.rows[at];
        notes.push(format!("{} was not planned", row.name()));
        let (status, reason) = judged(evidence, at);
        let status = status.max(Status::Inconclusive);
        rows.push(decided(&row.scenario, row.lane, row.trial, status, reason));
    }
    if evidence.record.rows.is_empty() {
        notes.push("no row was planned".to_owned());
    }
    let passed = rows.iter().all(|row| row.status == Status::Passed);
    let failed = rows.iter().any(|row| row.status == Status::Failed);
    let decision = if failed || overdue || !evidence.forged.is_empty() {
        Outcome::NoGo
    } else if passed && evidence.doubts.is_empty() && !evidence.record.rows.is_empty() {
        Outcome::Go
    } else {
        Outcome::Inconclusive
    };
    Decision {
        decision,
        failures,
        rows,
        notes,
        waivers,
    }
}

fn planned_row(evidence: &Evidence, planned: &PlannedRow, found: &[usize]) -> RowDecision {
    let (status, reason) = match found {
        [] => (
            Status::Inconclusive,
            "absent: the run ended before this row was written".to_owned(),
        ),
        [at] => judged(evidence, *at),
        several => {
            let (status, reason) = several
                .iter()
                .map(|at| judged(evidence, *at))
                .max_by_key(|(status, _)| *status)
                .unwrap_or((Status::Inconclusive, String::new()));
            let reason = format!("written {} times; the worst: {reason}", several.len());
            (status.max(Status::Inconclusive), reason)
        }
    };
    let other_plan = found
        .iter()
        .map(|at| &evidence.rows[*at].plan_digest)
        .find(|digest| **digest != planned.plan_digest);
    let (status, reason) = match other_plan {
        Some(digest) if status < Status::Failed => (
            Status::Inconclusive,
            format!("ran plan {digest}, planned was {}", planned.plan_digest),
        ),
        _ => (status, reason),
    };
    decided(
        &planned.scenario,
        planned.lane,
        planned.trial,
        status,
        reason,
    )
}

fn judged(evidence: &Evidence, at: usize) -> (Status, String) {
    if let Some(what) = evidence.tampered.get(&at) {
        let reason = format!("tampered: the row is not what its evidence says: {what}");
        return (Status::Failed, reason);
    }
    let verdict = &evidence.rows[at].verdict;
    (verdict.status, verdict.reason.clone())
}

fn decided(scenario: &str, lane: Lane, trial: u32, status: Status, reason: String) -> RowDecision {
    RowDecision {
        scenario: scenario.to_owned(),
        lane,
        trial,
        status,
        reason,
    }
}
