//! The library and the schema.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use model::defect::Defect;
use model::ids::Lane;
use model::quantity::Span;
use scenarios::{Settings, library};

use crate::support::{GOOD, library as all, parse, plan};

#[test]
fn the_schema_file_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema.json");
    current(&path, &scenarios::schema());
}

/// A schema's file holds the schema; it is written anew on request.
#[track_caller]
pub(crate) fn current(path: &Path, schema: &serde_json::Value) {
    let current = format!("{schema:#}\n");
    if std::env::var_os("FAULTLANE_WRITE_SCHEMA").is_some() {
        fs::write(path, &current).expect("the schema file");
    }
    let committed = fs::read_to_string(path).expect("the schema file");
    assert!(
        committed == current,
        "run this test with FAULTLANE_WRITE_SCHEMA=1 and commit {}",
        path.display()
    );
}

#[test]
fn the_schema_agrees_with_the_parser() {
    let validator = jsonschema::validator_for(&scenarios::schema()).expect("a schema");
    let instance = |text: &str| serde_yaml::from_str::<serde_json::Value>(text).expect("YAML");
    for (name, text) in all() {
        let errors: Vec<_> = validator
            .iter_errors(&instance(text))
            .map(|error| error.to_string())
            .collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
    }
    for (from, to) in [
        ("clients: 50", "cleints: 50"),
        ("clients: 50", "clients: many"),
        ("clients: 50", "clients: 0"),
        ("hold: {}", "hodl: {}"),
        ("hold: {}", "hold: { harder: true }"),
        ("for: 5s", "for: 5"),
        ("for: 5s", "for: -5s"),
        ("deadline: 20s\n", ""),
        ("name: good", "name: Not Good"),
    ] {
        let text = GOOD.replacen(from, to, 1);
        assert!(
            parse(&text).is_err() && !validator.is_valid(&instance(&text)),
            "{to}"
        );
    }
}

#[test]
fn the_library_is_valid_without_warnings_and_named_by_its_names() {
    assert!(
        library::names().starts_with(&library::STANDARD),
        "{:?}",
        library::names()
    );
    for (name, text) in all() {
        let checked = parse(text).unwrap_or_else(|error| panic!("{name}\n{error}"));
        assert!(
            checked.warnings.is_empty(),
            "{name}: {:?}",
            checked.warnings
        );
        assert_eq!(checked.scenario.name, name);
        assert!(!checked.scenario.about.is_empty());
    }
    assert_eq!(library::source("no-such"), None);
}

#[test]
fn every_defect_is_shown_by_a_scenario_of_the_library() {
    let names: BTreeSet<_> = library::names().iter().copied().collect();
    assert!(
        Defect::ALL
            .iter()
            .all(|defect| names.contains(defect.scenario()))
    );
}

/// Two lanes at once, four scenarios one after the other: 120 s for all, 40 s for the short form. This is the time that
/// is planned; what recovery takes comes on top.
#[test]
fn the_standard_drill_is_planned_to_end_in_time() {
    for (quick, limit) in [(false, 70), (true, 30)] {
        let mut total = Span::ZERO;
        for (name, text) in all().filter(|(name, _)| library::STANDARD.contains(name)) {
            let plan = plan(
                text,
                &Settings {
                    quick,
                    ..Settings::new(Lane::Spacetime, 1)
                },
            )
            .expect(name);
            let end = plan
                .steps
                .iter()
                .map(|step| step.at.plus(step.lasts))
                .max()
                .expect("a fault");
            total = total
                .plus(plan.workload.ramp)
                .plus(plan.steady.window.times(2))
                .plus(end);
        }
        assert!(total <= Span::from_secs(limit), "quick {quick}: {total}");
    }
}
