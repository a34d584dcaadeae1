//! Two languages: scenarios, resolved with a lane and a seed into a plan; and target files, resolved into how a system is
//! reached and what it promises. Both are written in YAML, and checked with the place of every mistake, as are smaller
//! files: waivers, the agent's own configuration, and inventories. Knows no I/O other than reading a file, or an environment variable,
//! that is named.
//!
//! ```text
//! source      a file's text, and its limits              parse       YAML into a tree with positions
//! tree        the tree; overlays (--quick, --set)        typed       the tree into types, several mistakes at once
//! scenario    the types: the language                    check       what types cannot say
//! diagnostic  file:line:column, snippet, hint            plan        a scenario resolved: steps, criteria, digest
//! settings    what a command line adds                   library     the scenarios that come with faultlane
//! waivers     anomalies that somebody answers for        agent_config what an agent may run, by name
//! target      the language of target files               inventory   which agents there are, and which are taken
//! ```

pub mod agent_config;
mod check;
mod diagnostic;
pub mod inventory;
pub mod library;
mod parse;
pub mod plan;
mod resolve;
pub mod scenario;
mod settings;
mod source;
pub mod target;
mod tree;
mod typed;
pub mod waivers;

pub use diagnostic::{Diagnostic, Diagnostics, Place, Severity};
pub use resolve::{Checked, parse, parse_for, plan};
pub use scenario::Scenario;
pub use settings::Settings;
pub use source::{ReadError, Source};
pub use typed::nearest;

/// The JSON schema of a scenario file: what `schema.json` holds, for editors.
#[must_use]
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Scenario).to_value()
}
