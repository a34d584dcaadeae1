//! Why a client fared as it did: what was found about it and its last moments, out of a run folder.
//!
//! ```text
//! why   which trials kept it, and what they say     timeline   a trial's story of it, for a person
//! ```

mod timeline;

use std::fmt;
use std::io;
use std::path::Path;

use host::jsonl;
use model::anomaly::{Anomaly, Example};
use model::ids::{ClientId, Lane, StreamId};
use model::instant::Mono;
use model::moment::{CLIENTS_KEPT, ClientRecord, What};
use serde::Serialize;
use thiserror::Error;

use crate::folder::{clients_file, is_file_name};
use crate::gate::{self, Evidence, GateError};
use crate::record::{Row, Status, trial_name};

/// How many other clients are named where one is not there.
const NAMED: usize = 8;

/// Whom is asked about, and in which of a run's trials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The client.
    pub client: ClientId,
    /// Only trials of this scenario.
    pub scenario: Option<String>,
    /// Only trials on this lane.
    pub lane: Option<Lane>,
    /// Only trials of this number.
    pub trial: Option<u32>,
}

/// What a run folder says of a client.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Why {
    /// Who.
    pub client: ClientId,
    /// The run's id.
    pub run: String,
    /// The trials in which it was anomalous or did not have everything in the end, in the order of the run.
    pub trials: Vec<Story>,
    /// What else has to be said about the evidence, such as a torn last line.
    pub notes: Vec<String>,
}

/// A client's part in one trial.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Story {
    /// The scenario's name.
    pub scenario: String,
    /// Which lane.
    pub lane: Lane,
    /// The trial's number, from 1.
    pub trial: u32,
    /// How the trial ended; `None` where its row was not written.
    pub status: Option<Status>,
    /// The instant to which the others are relative: the first fault, or else the first moment.
    #[serde(rename = "zero_us")]
    pub zero: Mono,
    /// Faults and heals, in their order.
    pub marks: Vec<Mark>,
    /// What was found about it, by its shard and from the ledger.
    pub found: Vec<Found>,
    /// What it lacked in the end.
    pub unfinished: Option<String>,
    /// Its streams: the places of which its moments speak.
    pub streams: Vec<StreamId>,
    /// How many earlier moments are forgotten; `None` where the shard kept none of them.
    pub forgotten: Option<u64>,
    /// Its last moments.
    pub moments: Vec<Timed>,
}

/// A fault or a heal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mark {
    /// When it was asked for.
    #[serde(rename = "at_us")]
    pub at: Mono,
    /// The same, counted from [`Story::zero`].
    pub relative_us: i64,
    /// How much later it was seen to be in force.
    pub width_us: u64,
    /// The fault's id.
    pub fault: String,
    /// Whether it is the heal.
    pub heal: bool,
}

/// A kind of anomaly that a client shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Which.
    pub anomaly: Anomaly,
    /// How often its shard found it; `None` where it comes from the ledger, which counts the fleet as a whole.
    pub count: Option<u64>,
    /// Some of them.
    pub examples: Vec<Example>,
}

/// A moment with its place on the trial's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Timed {
    /// When.
    #[serde(rename = "at_us")]
    pub at: Mono,
    /// The same, counted from [`Story::zero`].
    pub relative_us: i64,
    /// What.
    pub what: What,
}

/// A client cannot be explained.
#[derive(Debug, Error)]
pub enum WhyError {
    /// The folder cannot be read.
    #[error(transparent)]
    Folder(#[from] GateError),
    /// No trial is meant.
    #[error("the run has no trial {asked}; it has {}", .there.join(", "))]
    NoTrial {
        /// What was asked for.
        asked: String,
        /// The trials there are.
        there: Vec<String>,
    },
    /// The client was well.
    #[error(
        "{client} was not kept: it was neither anomalous nor censored in {}{overflow}; {kept}",
        .trials.join(", "),
        overflow = if *.overflow {
            format!(", or came after the first {CLIENTS_KEPT} of its shard that were")
        } else {
            String::new()
        }
    )]
    Well {
        /// Who.
        client: ClientId,
        /// The trials it took part in.
        trials: Vec<String>,
        /// Whether a shard may have had more such clients than it keeps.
        overflow: bool,
        /// Who was kept.
        kept: KeptClients,
    },
    /// There is no such client.
    #[error("there is no client {client} in {}: {fleet}; {kept}", .trials.join(", "))]
    NoClient {
        /// Who was asked for.
        client: ClientId,
        /// The trials meant.
        trials: Vec<String>,
        /// Who there is.
        fleet: String,
        /// Who was kept.
        kept: KeptClients,
    },
}

/// The clients that can be explained, the nearest to the one asked for first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptClients(Vec<ClientId>);

impl KeptClients {
    fn near(client: ClientId, trials: &[Kept<'_>]) -> Self {
        let mut kept: Vec<ClientId> = trials
            .iter()
            .flat_map(|trial| &trial.records)
            .map(|record| record.client)
            .collect();
        kept.sort_by_key(|other| (other.0.abs_diff(client.0), *other));
        kept.dedup();
        Self(kept)
    }
}

impl fmt::Display for KeptClients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nobody was");
        }
        let named: Vec<String> = self.0.iter().take(NAMED).map(ToString::to_string).collect();
        write!(f, "kept: {}", named.join(", "))?;
        match self.0.len().saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// A trial and whom it kept.
struct Kept<'a> {
    scenario: &'a str,
    lane: Lane,
    trial: u32,
    row: Option<&'a Row>,
    records: Vec<ClientRecord>,
}

impl Kept<'_> {
    fn name(&self) -> String {
        trial_name(self.scenario, self.lane, self.trial)
    }
}

/// What a run folder says of a client.
///
/// # Errors
/// The folder cannot be read, no such trial or client is in it, or the client was well.
pub fn why(folder: &Path, question: &Question) -> Result<Why, WhyError> {
    let evidence = gate::read(folder)?;
    let mut notes = Vec::new();
    let trials = meant(folder, &evidence, question, &mut notes)?;
    let stories: Vec<Story> = trials
        .iter()
        .filter_map(|trial| story(trial, question.client))
        .collect();
    if stories.is_empty() {
        return Err(unexplained(question.client, &trials));
    }
    Ok(Why {
        client: question.client,
        run: evidence.record.run.clone(),
        trials: stories,
        notes,
    })
}

/// The trials that are asked about, in the order of the run, with whom they kept.
fn meant<'a>(
    folder: &Path,
    evidence: &'a Evidence,
    question: &Question,
    notes: &mut Vec<String>,
) -> Result<Vec<Kept<'a>>, WhyError> {
    let planned = evidence.record.rows.iter();
    let all: Vec<(&str, Lane, u32)> = planned
        .map(|row| (row.scenario.as_str(), row.lane, row.trial))
        .collect();
    let mut trials = Vec::new();
    for (scenario, lane, trial) in &all {
        let asked = question
            .scenario
            .as_ref()
            .is_none_or(|name| name == scenario)
            && question.lane.is_none_or(|other| other == *lane)
            && question.trial.is_none_or(|other| other == *trial);
        if asked {
            let row = evidence.rows.iter().find(|row| {
                (row.scenario.as_str(), row.lane, row.trial) == (*scenario, *lane, *trial)
            });
            trials.push(Kept {
                scenario,
                lane: *lane,
                trial: *trial,
                row,
                records: records(folder, scenario, *lane, *trial, notes)?,
            });
        }
    }
    if trials.is_empty() {
        let asked = [
            question
                .scenario
                .as_ref()
                .map(|name| format!("of `{name}`")),
            question.lane.map(|lane| format!("on {lane}")),
            question.trial.map(|trial| format!("numbered {trial}")),
        ];
        return Err(WhyError::NoTrial {
            asked: asked.into_iter().flatten().collect::<Vec<_>>().join(" "),
            there: all
                .iter()
                .map(|(scenario, lane, trial)| trial_name(scenario, *lane, *trial))
                .collect(),
        });
    }
    Ok(trials)
}

fn records(
    folder: &Path,
    scenario: &str,
    lane: Lane,
    trial: u32,
    notes: &mut Vec<String>,
) -> Result<Vec<ClientRecord>, GateError> {
    // A name that would leave the folder can only have been put there afterwards.
    if !is_file_name(scenario) {
        return Ok(Vec::new());
    }
    let path = clients_file(folder, scenario, lane, trial);
    match jsonl::read::<ClientRecord>(&path) {
        Ok(lines) => {
            if lines.torn {
                notes.push(format!(
                    "the last line of clients/{}.jsonl is torn: its writer died; it is left out",
                    trial_name(scenario, lane, trial)
                ));
            }
            Ok(lines.values)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(GateError::Unreadable { path, source }),
    }
}

fn unexplained(client: ClientId, trials: &[Kept<'_>]) -> WhyError {
    let kept = KeptClients::near(client, trials);
    let took_part = |trial: &&Kept<'_>| {
        let row = trial.row;
        row.is_some_and(|row| u64::from(client.0) < row.clients.intended)
    };
    let well: Vec<String> = trials.iter().filter(took_part).map(Kept::name).collect();
    if !well.is_empty() {
        return WhyError::Well {
            client,
            trials: well,
            overflow: trials
                .iter()
                .any(|trial| trial.records.len() >= CLIENTS_KEPT),
            kept,
        };
    }
    let clients = trials
        .iter()
        .filter_map(|trial| trial.row)
        .map(|row| row.clients.intended)
        .max();
    let last = clients
        .and_then(|clients| clients.checked_sub(1))
        .and_then(|last| u32::try_from(last).ok());
    WhyError::NoClient {
        client,
        trials: trials.iter().map(Kept::name).collect(),
        fleet: match last {
            Some(last) => format!("its clients are {} to {}", ClientId(0), ClientId(last)),
            None => "no row says how many clients there were".to_owned(),
        },
        kept,
    }
}

fn story(trial: &Kept<'_>, client: ClientId) -> Option<Story> {
    let record = trial.records.iter().find(|record| record.client == client);
    let found = found(trial.row, record, client);
    if record.is_none() && found.is_empty() {
        return None;
    }
    let moments = record.map_or(&[][..], |record| &record.moments);
    let zero = trial
        .row
        .and_then(Row::episode)
        .map(|(t0, _)| t0)
        .or_else(|| moments.first().map(|moment| moment.at))
        .unwrap_or_default();
    Some(Story {
        scenario: trial.scenario.to_owned(),
        lane: trial.lane,
        trial: trial.trial,
        status: trial.row.map(|row| row.status),
        zero,
        marks: trial.row.map(|row| marks(row, zero)).unwrap_or_default(),
        found,
        unfinished: record.and_then(|record| record.unfinished.clone()),
        streams: record
            .map(|record| record.streams.clone())
            .unwrap_or_default(),
        forgotten: record.map(|record| record.forgotten),
        moments: moments
            .iter()
            .map(|moment| Timed {
                at: moment.at,
                relative_us: relative(moment.at, zero),
                what: moment.what.clone(),
            })
            .collect(),
    })
}

/// What the shard found about the client; and what else the row says of it by name, which is found from the ledger.
fn found(row: Option<&Row>, record: Option<&ClientRecord>, client: ClientId) -> Vec<Found> {
    let by_shard = record.into_iter().flat_map(|record| record.findings.iter());
    let mut all: Vec<Found> = by_shard
        .map(|(anomaly, tally)| Found {
            anomaly,
            count: Some(tally.count),
            examples: tally.examples.clone(),
        })
        .collect();
    for (anomaly, tally) in row.into_iter().flat_map(|row| &row.anomalies) {
        let known = |example: &Example| all.iter().any(|found| found.examples.contains(example));
        let examples: Vec<Example> = tally
            .examples
            .iter()
            .filter(|example| example.client == Some(client) && !known(example))
            .cloned()
            .collect();
        if !examples.is_empty() {
            all.push(Found {
                anomaly: *anomaly,
                count: None,
                examples,
            });
        }
    }
    all
}

fn marks(row: &Row, zero: Mono) -> Vec<Mark> {
    let mut marks: Vec<Mark> = row
        .faults
        .iter()
        .flat_map(|fault| {
            let ends = [(fault.injected, false), (fault.healed, true)];
            ends.into_iter().filter_map(|(interval, heal)| {
                let interval = interval?;
                Some(Mark {
                    at: interval.asked,
                    relative_us: relative(interval.asked, zero),
                    width_us: interval.width_us,
                    fault: fault.id.clone(),
                    heal,
                })
            })
        })
        .collect();
    marks.sort_by_key(|mark| mark.at);
    marks
}

fn relative(at: Mono, zero: Mono) -> i64 {
    let micros =
        |from: Mono, to: Mono| i64::try_from(to.since(from).as_micros()).unwrap_or(i64::MAX);
    if at >= zero {
        micros(zero, at)
    } else {
        -micros(at, zero)
    }
}
