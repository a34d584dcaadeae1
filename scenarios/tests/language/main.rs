//! The language as its users meet it: texts in, diagnostics or plans out.

mod agent_config;
mod docs;
mod inventories;
mod library;
mod mistakes;
mod planning;
mod probes;
mod properties;
mod support;
mod targets;
mod waivers;
