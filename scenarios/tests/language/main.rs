//! The language as its users meet it: texts in, diagnostics or plans out.

mod docs;
mod library;
mod mistakes;
mod planning;
mod properties;
mod support;
mod targets;
mod waivers;
