//! From what was seen to a verdict, and to evidence from which the verdict can be recomputed.
//!
//! ```text
//! judge       Plan + Trial → Row: merge the shards, check, derive, judge
//! checker     the checks that need the ledger: lost, vanished, phantom, divergence
//! runs        runs of seqs that held runs of indexes
//! figures     quantiles of a histogram and their bounds          storm   arrivals, attempts, waves
//! record      Row, one line of results.jsonl                     redact  secrets never enter it
//! verdict     the verdict, a pure function of a row
//! folder      run.json, results.jsonl, sidecars, SUMMARY.md      hlog    interval logs
//! gate        the decision, recomputed from a folder             decision, statistics
//! seal        digests that show what was changed afterwards
//! open_world  what others publish, and what the run leaves behind there
//! summary     SUMMARY.md                                         terminal  table and explanation
//! why         one client's story, out of a folder                waive    waivers, laid over rows
//! ```

mod checker;
mod decision;
mod figures;
mod folder;
mod gate;
mod hlog;
mod judge;
mod open_world;
mod record;
pub mod redact;
mod runs;
mod seal;
pub mod statistics;
mod storm;
mod summary;
mod terminal;
mod text;
mod verdict;
mod waive;
mod why;

pub use decision::{Decision, Outcome, RowDecision};
pub use figures::{Figures, Quantile};
pub use folder::{FolderError, PlannedRow, RunFolder, RunRecord};
pub use gate::{GateError, gate};
pub use judge::judge;
pub use open_world::OpenWorld;
pub use record::{
    AnomalyCount, Clients, DeliveryFigures, FaultEvidence, Fidelity, HarnessFigures, Interval, Row,
    RowWaiver, SCHEMA_VERSION, Status, Verdict,
};
pub use seal::Seal;
pub use storm::Storm;
pub use terminal::{explain, table};
pub use verdict::{BUSIEST_LIMIT, lag_limit, verdict};
pub use waive::{WaiverState, WaiverUse};
pub use why::{Found, Mark, Question, Story, Timed, Why, WhyError, why};
