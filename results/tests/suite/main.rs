//! The crate from outside: trials in, rows, folders and decisions out.

mod anomalies;
mod builder;
mod external;
mod folders;
mod merging;
mod open_world;
mod promises;
mod summaries;
mod tampering;
mod verdicts;
mod waivers;
mod whys;
