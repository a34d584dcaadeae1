//! The run folder: evidence that only grows, and that is readable whenever its writer dies.
//!
//! ```text
//! run.json              the planned rows; on disk before anything else happens
//! waivers.json          the waivers, where there are any; their digest is in run.json
//! plans/NAME.json       the plans
//! results.jsonl         a line per trial
//! clients/NAME.jsonl    a line per client that was anomalous or did not have everything in the end
//! histograms/NAME.hlog  the trial's histograms, for HdrHistogram's own tools
//! logs/NAME/            logs
//! SUMMARY.md            written last
//! ```
//!
//! NAME is `scenario-lane-trial`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use host::jsonl::Appender;
use model::ids::Lane;
use model::moment::ClientRecord;
use scenarios::plan::Plan;
use scenarios::waivers::Waivers;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::decision::Decision;
use crate::gate::{self, GateError};
use crate::record::{Row, trial_name};
use crate::redact::Masker;
use crate::seal::{self, Seal};
use crate::waive::InForce;
use crate::{hlog, judge, summary};

/// The file of planned rows.
pub(crate) const RUN_FILE: &str = "run.json";
/// The file of waivers.
pub(crate) const WAIVERS_FILE: &str = "waivers.json";
/// The file of rows.
pub(crate) const ROWS_FILE: &str = "results.jsonl";
const SUMMARY_FILE: &str = "SUMMARY.md";
const SUBFOLDERS: [&str; 4] = ["logs", "plans", "histograms", "clients"];

/// What a run set out to do: `run.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// [`crate::SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The run's id.
    pub run: String,
    /// When it began: RFC 3339, UTC.
    pub started: String,
    /// The version of faultlane.
    pub version: String,
    /// The seed.
    pub seed: u64,
    /// The command's settings, as they were meant.
    pub settings: serde_json::Value,
    /// The digest of the waivers; `None` where there are none. Filled in by [`RunFolder::create_with`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waivers: Option<String>,
    /// The rows that have to be there in the end.
    pub rows: Vec<PlannedRow>,
}

/// A row that has to be there in the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedRow {
    /// The scenario's name.
    pub scenario: String,
    /// Which lane.
    pub lane: Lane,
    /// The trial's number, from 1.
    pub trial: u32,
    /// The plan's digest.
    pub plan_digest: String,
}

/// The folder cannot be made or written to.
#[derive(Debug, Error)]
pub enum FolderError {
    /// It holds another run.
    #[error(
        "{} already holds a run ({RUN_FILE} or {ROWS_FILE} is there); evidence is never overwritten: name another folder",
        .0.display()
    )]
    Taken(PathBuf),
    /// It holds something else.
    #[error(
        "{} is not empty (it holds {what}), and the evidence of a run has a folder to itself: name one that is not there yet",
        .path.display()
    )]
    NotEmpty {
        /// The folder.
        path: PathBuf,
        /// The first few names in it.
        what: String,
    },
    /// A scenario's name would leave the folder.
    #[error(
        "`{0}` cannot name a file; a scenario's name has only letters, digits, `-`, `_` and `.`"
    )]
    Name(String),
    /// The file system refuses.
    #[error("cannot write {}: {source}", .path.display())]
    Io {
        /// What was to be written.
        path: PathBuf,
        /// Why it was not.
        source: io::Error,
    },
    /// What was written cannot be read back.
    #[error(transparent)]
    Gate(#[from] GateError),
}

/// A run folder being filled.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    run: String,
    in_force: InForce,
    masker: Masker,
    rows: Vec<Row>,
    appender: Appender,
    /// The digest that the next row continues: `run.json`'s, then the last row's.
    last: String,
    /// The digests of the plans that were kept, by the names of their trials.
    plans: BTreeMap<String, String>,
    /// The first sidecar that could not be written.
    unwritten: Option<FolderError>,
}

impl RunFolder {
    /// Makes the folder and writes `run.json`: when this returns, the planned rows are on disk. Secrets in the
    /// settings are masked.
    ///
    /// # Errors
    /// The folder already holds a run or anything else, or cannot be written to.
    pub fn create(path: &Path, record: &RunRecord) -> Result<Self, FolderError> {
        Self::create_with(path, record, None)
    }

    /// As [`RunFolder::create`], under waivers: a copy of them is on disk before `run.json`, which has its digest.
    ///
    /// # Errors
    /// As [`RunFolder::create`].
    pub fn create_with(
        path: &Path,
        record: &RunRecord,
        waivers: Option<&Waivers>,
    ) -> Result<Self, FolderError> {
        let run_file = path.join(RUN_FILE);
        if run_file.exists() {
            return Err(FolderError::Taken(path.to_owned()));
        }
        for row in &record.rows {
            if !is_file_name(&row.scenario) {
                return Err(FolderError::Name(row.scenario.clone()));
            }
        }
        refuse_foreign(path)?;
        for folder in SUBFOLDERS {
            let folder = path.join(folder);
            fs::create_dir_all(&folder).map_err(|source| at(&folder, source))?;
        }
        let rows_file = path.join(ROWS_FILE);
        // Made anew or refused in one step: of two runs that begin in one second only one gets the folder.
        match File::create_new(&rows_file) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(FolderError::Taken(path.to_owned()));
            }
            made => drop(made.map_err(|source| at(&rows_file, source))?),
        }
        let (run, started) = (record.run.clone(), record.started.clone());
        let mut record = record.clone();
        let mut written = || -> Result<(Waivers, Value), FolderError> {
            let kept = keep_waivers(path, waivers)?;
            record.waivers = waivers.map(|_| kept.digest());
            let record = masked(&Masker::default(), &record);
            write_whole(&run_file, &pretty(&record))?;
            Ok((kept, record))
        };
        let (kept, record) = written().inspect_err(|_| {
            // There is no run: the folder may be tried again.
            let _ = fs::remove_file(&rows_file);
        })?;
        let appender = Appender::open(&rows_file).map_err(|source| at(&rows_file, source))?;
        sync_folder(path)?;
        // The folder's own name is in its parent.
        if let Some(parent) = path.parent().filter(|parent| parent.is_dir()) {
            sync_folder(parent)?;
        }
        Ok(Self {
            path: path.to_owned(),
            in_force: InForce::new(kept, &started),
            masker: Masker::default(),
            run,
            rows: Vec::new(),
            appender,
            last: seal::digest(&record),
            plans: BTreeMap::new(),
            unwritten: None,
        })
    }

    /// From here on masks by this in all that it writes; until then by what looks like a secret.
    #[must_use]
    pub fn masking(self, masker: Masker) -> Self {
        Self { masker, ..self }
    }

    /// What it masks by.
    #[must_use]
    pub fn masker(&self) -> &Masker {
        &self.masker
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The rows so far, with the run's id.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Keeps a copy of a trial's plan, against which `gate` compares the row's criteria.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep_plan(&mut self, plan: &Plan, trial: u32) -> Result<(), FolderError> {
        let path = plan_file(&self.path, &plan.scenario, plan.lane, trial);
        let name = trial_name(&plan.scenario, plan.lane, trial);
        let plan = masked(&self.masker, plan);
        write_whole(&path, &pretty(&plan))?;
        self.plans.insert(name, seal::digest(&plan));
        Ok(())
    }

    /// Keeps the clients of a trial that are to be explained, with secrets masked. When this returns they are on disk.
    /// A trial of which there is nobody to explain has no file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep_clients(
        &self,
        scenario: &str,
        lane: Lane,
        trial: u32,
        clients: &[ClientRecord],
    ) -> Result<(), FolderError> {
        if clients.is_empty() {
            return Ok(());
        }
        let path = clients_file(&self.path, scenario, lane, trial);
        let keep = || -> io::Result<()> {
            let masked = clients
                .iter()
                .map(|client| self.masker.clean(client))
                .collect::<serde_json::Result<Vec<_>>>()?;
            Appender::open(&path)?.append_all(&masked)
        };
        keep().map_err(|source| at(&path, source))?;
        path.parent().map_or(Ok(()), sync_folder)
    }

    /// Makes and names the folder for a trial's logs.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn log_dir(&self, scenario: &str, lane: Lane, trial: u32) -> Result<PathBuf, FolderError> {
        if !is_file_name(scenario) {
            return Err(FolderError::Name(scenario.to_owned()));
        }
        let path = self.path.join(Self::log_path(scenario, lane, trial));
        fs::create_dir_all(&path).map_err(|source| at(&path, source))?;
        Ok(path)
    }

    /// The folder of a trial's logs, relative to the run folder: where `Row::log_file` lies.
    #[must_use]
    pub fn log_path(scenario: &str, lane: Lane, trial: u32) -> String {
        format!("logs/{}", trial_name(scenario, lane, trial))
    }

    /// A row as this run judges it: under its id and its waivers.
    #[must_use]
    pub fn judged(&self, mut row: Row) -> Row {
        row.run.clone_from(&self.run);
        self.in_force.lay_over(&mut row);
        judge::settle(&mut row);
        row
    }

    /// Appends a row, as [`RunFolder::judged`] and with secrets masked, and its histograms; the row as it was written. When
    /// this returns it is on disk. Histograms that cannot be written do not take the row with them: [`Self::finish`]
    /// says so.
    ///
    /// # Errors
    /// The row cannot be written.
    pub fn append(&mut self, row: &Row) -> Result<Row, FolderError> {
        let rows_file = self.path.join(ROWS_FILE);
        let row = self
            .masker
            .clean(row)
            .map_err(|error| at(&rows_file, error.into()))?;
        let mut row = self.judged(row);
        row.seal = None;
        let bare = serde_json::to_value(&row).map_err(|error| at(&rows_file, error.into()))?;
        let plan = self.plans.get(&row.name()).map(String::as_str);
        let seal = Seal::of(bare, &self.last, plan);
        let digest = seal.digest.clone();
        row.seal = Some(seal);
        self.appender
            .append(&row)
            .map_err(|source| at(&rows_file, source))?;
        self.last = digest;
        let sidecar = self.path.join(format!("histograms/{}.hlog", row.name()));
        if let Err(error) = write_whole(&sidecar, hlog::render(&row).as_bytes()) {
            self.unwritten.get_or_insert(error);
        }
        self.rows.push(row.clone());
        Ok(row)
    }

    /// Judges the folder as `gate` would, writes `SUMMARY.md`, and says what was decided.
    ///
    /// # Errors
    /// The evidence cannot be read back, or the summary or an earlier sidecar could not be written.
    pub fn finish(self) -> Result<Decision, FolderError> {
        let evidence = gate::read(&self.path)?;
        let decision = gate::decide(&evidence);
        let text = summary::render(&evidence, &decision);
        let written = write_whole(&self.path.join(SUMMARY_FILE), text.as_bytes());
        self.unwritten.map_or(written, Err)?;
        Ok(decision)
    }
}

/// Keeps a copy of the waivers, with secrets masked; the copy.
fn keep_waivers(folder: &Path, waivers: Option<&Waivers>) -> Result<Waivers, FolderError> {
    let Some(waivers) = waivers else {
        return Ok(Waivers::default());
    };
    let path = folder.join(WAIVERS_FILE);
    let masker = Masker::default();
    let kept = masker
        .clean(waivers)
        .map_err(|error| at(&path, error.into()))?;
    write_whole(&path, &pretty(&masked(&masker, &kept)))?;
    Ok(kept)
}

/// Where a trial's plan is kept.
pub(crate) fn plan_file(folder: &Path, scenario: &str, lane: Lane, trial: u32) -> PathBuf {
    folder.join(format!("plans/{}.json", trial_name(scenario, lane, trial)))
}

/// Where the clients of a trial are kept that are to be explained.
pub(crate) fn clients_file(folder: &Path, scenario: &str, lane: Lane, trial: u32) -> PathBuf {
    folder.join(format!(
        "clients/{}.jsonl",
        trial_name(scenario, lane, trial)
    ))
}

pub(crate) fn is_file_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.chars().all(plain) && !name.starts_with('.')
}

fn masked(masker: &Masker, value: &impl Serialize) -> Value {
    serde_json::to_value(value)
        .map(|value| masker.mask_json(value))
        .expect("records and plans have string keys, so they are JSON")
}

fn pretty(value: &Value) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).expect("JSON can be written");
    text.push(b'\n');
    text
}

/// What is there of somebody else's would be taken for evidence, or overwritten by it. Empty folders of our own names are
/// what an attempt that failed has left.
fn refuse_foreign(path: &Path) -> Result<(), FolderError> {
    const NAMED: usize = 3;
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|source| at(path, source))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| at(path, source))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let empty = || fs::read_dir(entry.path()).is_ok_and(|mut inside| inside.next().is_none());
        if !(SUBFOLDERS.contains(&name.as_str()) && empty()) {
            names.push(format!("`{name}`"));
        }
    }
    if names.is_empty() {
        return Ok(());
    }
    names.sort();
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    let mut what = names.join(", ");
    if more > 0 {
        what = format!("{what} and {more} more");
    }
    Err(FolderError::NotEmpty {
        path: path.to_owned(),
        what,
    })
}

/// Writes a file so that it is there whole or not at all, and is on disk.
fn write_whole(path: &Path, content: &[u8]) -> Result<(), FolderError> {
    let partial = path.with_extension("partial");
    let write = || -> io::Result<()> {
        let mut file = File::create(&partial)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&partial, path)
    };
    write().map_err(|source| {
        let _ = fs::remove_file(&partial);
        at(path, source)
    })?;
    path.parent().map_or(Ok(()), sync_folder)
}

fn sync_folder(path: &Path) -> Result<(), FolderError> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| at(path, source))
}

fn at(path: &Path, source: io::Error) -> FolderError {
    FolderError::Io {
        path: path.to_owned(),
        source,
    }
}
