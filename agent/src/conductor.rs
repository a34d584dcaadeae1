//! The conductor walks plans: it has an agent start the target and the fleet, waits until they are steady, has the
//! faults injected and undone, waits until every client is whole, and hands what was seen to results.
//!
//! ```text
//! drill     all rows of a run: lanes side by side, trials one after the other, each judged and written
//! trial     one execution of one plan
//! node      the agent of a trial, as a process of our own; hold  an agent taken for a run
//! crew      the agents of an inventory, taken together; hosts  which of all these runs what, and does which fault
//! preflight whether a described target can be drilled; clean_up  what a run left there, removed afterwards
//! outside   what both need
//! target    which children a trial has, and their configuration
//! fleet     what the shards are told and asked, as one
//! step      one fault of the plan: inject, renew, undo; reach  who hears whom meanwhile
//! steady    when the system is steady
//! probe     what is asked beside the lane
//! diary     what happened when, as a log file in the evidence
//! ```
//!
//! It speaks only to agents. Whatever goes wrong, a trial ends with every fault undone and every process gone, and
//! with as much evidence as there is.

pub mod clean_up;
pub mod crew;
pub mod diary;
pub mod drill;
pub mod fleet;
pub mod hold;
pub mod hosts;
pub mod node;
pub mod outside;
pub mod preflight;
pub mod probe;
pub mod reach;
pub mod steady;
pub mod step;
pub mod target;
pub mod trial;

pub use drill::{Drill, PlannedTrial, drill};
pub use trial::{Beat, Observer};
