//! Probes: clients that have to be refused, and clients whose cursors cannot be resumed from. They run throughout a
//! trial, straight to the lane. An answer that was not had proves nothing and is counted apart.
//!
//! ```text
//! cell       the matrix of authorization probes       mint     their tokens     forge    those that need no issuer
//! boundary   cursors on both sides of each boundary   resume   a resume, and beginning anew
//! ask        each of them once, and what that shows
//! ```

mod ask;
mod boundary;
mod cell;
mod forge;
mod mint;
mod resume;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use host::clock;
use model::anomaly::{Anomaly, Example, Findings};
use model::defect::Defect;
use model::probe::{ProbesConfig, StaleStream};
use model::shard::{ProbeTally, TokenSource};
use model::target::Promise;
use tokio::time::Instant;

use self::boundary::Boundary;
use self::cell::{Cell, Expected};
use self::mint::Mint;
use crate::oneshot::Asked;
use crate::store::Store;
use crate::token_client::TokenClient;

/// Every probe has its turn once in so many times [`ProbesConfig::every`]. They are so many that once in each would be
/// a load of its own.
const ROUND: u32 = 5;
/// What has never been answered is asked again after so many times it.
const SOON: u32 = 2;
/// Neighbours in the table are so far apart in a round: an outage must not take all cells of one state. A prime, so that
/// it meets every place.
const STRIDE: usize = 37;
/// Nothing is probed more often than this, whatever is asked.
const LEAST: Duration = Duration::from_millis(50);
/// How much of a reason is kept as an answer's name.
const REASON_KEPT: usize = 80;

/// What the probes of a shard work with.
#[derive(Debug)]
pub struct Setting {
    /// What they are told.
    pub config: ProbesConfig,
    /// The lane.
    pub asked: Asked,
    /// Heads, and appends that have to be refused.
    pub store: Store,
    /// Ordinary tokens.
    pub tokens: TokenClient,
    /// Where those in other states come from, and the clients' organisation.
    pub source: TokenSource,
    /// What is expected of the lane.
    pub promise: Promise,
    /// Whether the client's own detection is off, as planted.
    pub defect: Option<Defect>,
}

/// One probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probe {
    Cell(Cell),
    Boundary(Boundary),
}

/// The names of all probes whose outcome a target may state itself.
pub fn names() -> impl Iterator<Item = String> {
    cell::cells().map(Cell::name)
}

impl Probe {
    /// Every probe of a target that promises this, the boundaries between the cells: these are slower.
    fn all(promise: &Promise, config: &ProbesConfig) -> Vec<Self> {
        let mut probes: Vec<Self> = cell::cells()
            .filter(|cell| cell.matters(promise, config))
            .map(Self::Cell)
            .collect();
        let boundaries: Vec<Boundary> = Boundary::ALL
            .into_iter()
            .filter(|boundary| boundary.can_be_tried(config))
            .collect();
        let apart = probes.len() / Boundary::ALL.len() + 1;
        for (place, boundary) in boundaries.into_iter().enumerate() {
            let at = (place * apart).min(probes.len());
            probes.insert(at, Self::Boundary(boundary));
        }
        probes
    }

    fn name(self) -> String {
        match self {
            Self::Cell(cell) => cell.name(),
            Self::Boundary(boundary) => boundary.name().to_owned(),
        }
    }

    fn expected(self, setting: &Setting) -> String {
        match self {
            Self::Cell(cell) => match cell.expected(&setting.promise, &setting.config) {
                Expected::Accepted => "accepted".to_owned(),
                Expected::Refused([""]) => "refused".to_owned(),
                Expected::Refused(reasons) => format!("refused: {}", reasons[0]),
            },
            Self::Boundary(boundary) => match &setting.config.stale {
                Some(StaleStream {
                    retention,
                    replay_budget,
                    ..
                }) => boundary.expected(*retention, *replay_budget),
                None => unreachable!("without such a stream no boundary is tried"),
            },
        }
    }
}

/// What a run of a probe showed.
#[derive(Debug, PartialEq, Eq)]
enum Shown {
    /// There is nothing to ask yet.
    NotYet,
    /// No answer was had.
    Unreachable(String),
    /// What was expected.
    Met,
    /// Refused or stale for another reason, or although it should not have been.
    Otherwise(String),
    /// Not refused, not noticed, or not whole.
    Wrong(Anomaly, String),
}

/// The probes of a shard.
#[derive(Debug)]
pub struct Probes {
    setting: Setting,
    mint: Mint,
    seen: Mutex<(BTreeMap<usize, ProbeTally>, Findings, BTreeSet<usize>)>,
}

impl Probes {
    /// Probes that have not run.
    #[must_use]
    pub fn new(setting: Setting) -> Arc<Self> {
        Arc::new(Self {
            mint: Mint::new(
                &setting.source,
                setting.tokens.clone(),
                setting.asked.kind.lane,
            ),
            setting,
            seen: Mutex::default(),
        })
    }

    /// Runs them all, until it is dropped.
    pub async fn run(self: Arc<Self>) {
        let every = self.setting.config.every.duration().max(LEAST);
        let probes = Probe::all(&self.setting.promise, &self.setting.config);
        let count = probes.len();
        let mut running = tokio::task::JoinSet::new();
        for (turn, probe) in probes.into_iter().enumerate() {
            let this = Arc::clone(&self);
            let place = (turn * STRIDE % count) as f64 / count as f64;
            running.spawn(async move {
                // Each at its own time: together they would be a small storm of their own.
                let mut next = Instant::now() + (every * ROUND).mul_f64(place);
                loop {
                    tokio::time::sleep_until(next).await;
                    let shown = this.once(probe).await;
                    let asked = shown != Shown::NotYet;
                    // What had nothing to ask is asked soon, what has had no answer in this trial sooner than in
                    // its turn; otherwise a lane that is away is not beset.
                    let answered = this.note(turn, probe, shown);
                    let pause = match (asked, answered) {
                        (false, _) => every,
                        (true, false) => every * SOON,
                        (true, true) => every * ROUND,
                    };
                    next = (next + pause).max(Instant::now());
                }
            });
        }
        while running.join_next().await.is_some() {}
    }

    /// What they showed, and what was found.
    #[must_use]
    pub fn read(&self) -> (Vec<ProbeTally>, Findings) {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        (seen.0.values().cloned().collect(), seen.1.clone())
    }

    /// How many of the probes have found a safety anomaly. A door that stands open is found anew with each turn, and
    /// disturbs the system no more than the first time: it must not keep a trial from ever being steady.
    #[must_use]
    pub fn safety(&self) -> u64 {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.2.len() as u64
    }

    async fn once(&self, probe: Probe) -> Shown {
        match probe {
            Probe::Cell(cell) => self.ask(cell).await,
            Probe::Boundary(boundary) => self.resume(boundary).await,
        }
    }

    /// Books what a probe showed; whether it was ever answered.
    fn note(&self, turn: usize, probe: Probe, shown: Shown) -> bool {
        let (name, expected) = (probe.name(), probe.expected(&self.setting));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (tallies, findings, unsafe_turns) = &mut *seen;
        if shown == Shown::NotYet {
            return false;
        }
        let tally = tallies.entry(turn).or_insert_with(|| ProbeTally {
            probe: name.clone(),
            expected: expected.clone(),
            answers: BTreeMap::new(),
            met: 0,
            unreachable: 0,
            last_unreachable: None,
        });
        let mut count = |answer: &str| {
            let answer: String = answer.chars().take(REASON_KEPT).collect();
            *tally.answers.entry(answer).or_default() += 1;
        };
        let (anomaly, detail) = match shown {
            Shown::NotYet => return false,
            Shown::Unreachable(why) => {
                tracing::debug!(probe = name, why, "no answer");
                tally.unreachable += 1;
                tally.last_unreachable = Some(why.chars().take(REASON_KEPT).collect());
                return !tally.answers.is_empty();
            }
            Shown::Met => {
                count(&expected);
                tally.met += 1;
                return true;
            }
            Shown::Otherwise(reason) => {
                count(&reason);
                let detail = format!("expected {expected}, got: {reason}");
                (Anomaly::WrongReason, detail)
            }
            Shown::Wrong(anomaly, what) => {
                count(match anomaly {
                    Anomaly::UnauthorizedSuccess => "accepted",
                    Anomaly::Gap => "not whole",
                    _ => "unnoticed",
                });
                (anomaly, what)
            }
        };
        // Without the detail, which is the lane's own words: evidence has it, with secrets masked.
        tracing::info!(probe = name, %anomaly, "a probe found something");
        if anomaly.is_safety() {
            unsafe_turns.insert(turn);
        }
        findings.note(
            anomaly,
            Example {
                client: None,
                stream: None,
                seq: None,
                detail: format!("probe {name}: {detail}"),
                at: Some(clock::now()),
            },
        );
        true
    }
}

/// Safety anomalies among the findings.
pub(crate) fn safety(findings: &Findings) -> u64 {
    findings
        .iter()
        .filter(|(anomaly, _)| anomaly.is_safety())
        .map(|(_, tally)| tally.count)
        .sum()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeSet;

    use model::probe::Rival;

    use super::*;

    /// Everything is tried.
    pub(crate) fn config() -> ProbesConfig {
        ProbesConfig {
            every: model::quantity::Span::from_secs(1),
            stream: "own".to_owned(),
            stale: Some(StaleStream {
                stream: "stale".to_owned(),
                retention: 20,
                replay_budget: 10,
            }),
            rival: Some(Rival {
                org: "rival".to_owned(),
                stream: "rival".to_owned(),
            }),
            operations: None,
            expect: BTreeMap::new(),
        }
    }

    #[test]
    fn every_cell_and_every_boundary_has_its_turn_under_its_own_name() {
        let probes = Probe::all(&Promise::strict(model::quantity::Span::ZERO), &config());
        let names: BTreeSet<String> = probes.iter().map(|probe| probe.name()).collect();
        assert_eq!(names.len(), probes.len());
        assert_eq!(
            probes.len(),
            cell::cells().count() + Boundary::ALL.len(),
            "{names:?}"
        );
    }

    #[test]
    fn every_probe_is_in_the_documentation() {
        let page = include_str!("../../docs/probes.md");
        for probe in Probe::all(&Promise::strict(model::quantity::Span::ZERO), &config()) {
            let name = probe.name();
            let (wrong, tried) = name.split_once('/').unwrap();
            let line = match probe {
                Probe::Boundary(_) => page
                    .lines()
                    .find(|line| line.contains(&format!("`{name}`"))),
                Probe::Cell(_) => page
                    .lines()
                    .find(|line| line.starts_with(&format!("| `{wrong}` |"))),
            };
            let line = line.unwrap_or_else(|| panic!("{name} is not in docs/probes.md"));
            assert!(line.contains(tried), "{name}: {line}");
        }
    }
}
