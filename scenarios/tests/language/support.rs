//! What the tests share.

use std::fs;
use std::path::PathBuf;

use model::ids::Lane;
use scenarios::plan::Plan;
use scenarios::{Checked, Diagnostics, Settings, Source, library};

/// A small valid scenario; tests change it in one place.
pub(crate) const GOOD: &str = "\
name: good
workload:
  clients: 50
  streams: 6
  streams_per_client: 3
timeline:
  - at: 1s
    fault: { hold: {} }
    for: 5s
    share: 100%
affected: 90%
bounds:
  recovery: { p50: 4s, p99: 8s }
deadline: 20s
quick:
  workload: { clients: 10 }
";

/// A page of the documentation.
pub(crate) fn docs(file: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn source(text: &str) -> Source {
    Source {
        name: "test.yaml".to_owned(),
        text: text.to_owned(),
    }
}

pub(crate) fn parse(text: &str) -> Result<Checked, Diagnostics> {
    scenarios::parse(&source(text))
}

/// The good scenario with one thing changed.
#[track_caller]
pub(crate) fn changed(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "the good scenario has no `{from}`");
    GOOD.replacen(from, to, 1)
}

#[track_caller]
pub(crate) fn plan(text: &str, settings: &Settings) -> Result<Plan, Diagnostics> {
    let source = source(text);
    let checked = scenarios::parse(&source).expect("the scenario itself is valid");
    scenarios::plan(&checked.scenario, &source, settings)
}

pub(crate) fn settings() -> Settings {
    Settings::new(Lane::Khala, 7)
}

pub(crate) fn set(pairs: &[(&str, &str)]) -> Settings {
    let set = pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    Settings { set, ..settings() }
}

pub(crate) fn library() -> impl Iterator<Item = (&'static str, &'static str)> {
    library::names()
        .iter()
        .map(|name| (*name, library::source(name).expect("it is in the library")))
}

/// Asserts that diagnostics name a line and column, all the given words, and a remedy.
#[track_caller]
pub(crate) fn points_at(shown: &str, line: usize, column: usize, words: &[&str]) {
    assert!(
        shown.contains(&format!("test.yaml:{line}:{column}\n")),
        "{line}:{column} in\n{shown}"
    );
    for word in words {
        assert!(shown.contains(word), "`{word}` in\n{shown}");
    }
    assert!(shown.contains("hint: "), "{shown}");
}
