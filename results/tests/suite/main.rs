//! The crate from outside: trials in, rows, folders and decisions out.

mod anomalies;
mod builder;
mod folders;
mod merging;
mod summaries;
mod tampering;
mod verdicts;
