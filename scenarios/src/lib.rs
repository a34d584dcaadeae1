//! The scenario language.

pub mod plan;
