//! What is refused, and how it is said: exit 2, `file:line:column`, a snippet, a hint.

use std::fmt::Write as _;
use std::fs;

use crate::support::{Finished, output};

const GOOD: &str = include_str!("good.yaml");

fn check(text: impl AsRef<[u8]>) -> Finished {
    let root = tempfile::tempdir().expect("a temporary folder");
    let path = root.path().join("bad.yaml");
    fs::write(&path, text).expect("the file");
    output(&["check", path.to_str().expect("UTF-8")])
}

/// The good scenario with one thing changed; `GOOD` must contain it.
#[track_caller]
fn changed(from: &str, to: &str) -> Finished {
    assert!(GOOD.contains(from), "the good scenario has no `{from}`");
    check(GOOD.replacen(from, to, 1))
}

/// Exit 2, with the place of the line that holds `at` and the given words.
#[track_caller]
fn refused(finished: Finished, line: usize, words: &[&str]) {
    let finished = finished.expect_code(2);
    finished.says(&format!("bad.yaml:{line}:"));
    for word in words {
        finished.says(word);
    }
}

#[track_caller]
fn line_of(text: &str) -> usize {
    GOOD.lines()
        .position(|line| line.contains(text))
        .expect("the good scenario has it")
        + 1
}

#[test]
fn a_pipe_is_refused_and_not_waited_for() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let pipe = root.path().join("pipe.yaml");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo").success());
    output(&["check", pipe.to_str().expect("UTF-8")])
        .expect_code(2)
        .says("not a regular file");
}

#[test]
fn the_good_scenario_is_good() {
    check(GOOD).expect_code(0);
}

#[test]
fn an_unknown_field_is_named_with_the_nearest_known_one() {
    let finished = changed("  clients: 50", "  cleints: 50");
    refused(finished, line_of("clients: 50"), &["cleints", "clients"]);
}

#[test]
fn a_wrong_type_is_shown_with_what_is_expected() {
    let finished = changed("clients: 50", "clients: many");
    refused(finished, line_of("clients: 50"), &["many"]);
    let finished = changed("for: 2s", "for: 2");
    refused(finished, line_of("for: 2s"), &["2s"]);
}

#[test]
fn an_unknown_fault_is_named_with_the_nearest_known_one() {
    let finished = changed("hold: {}", "hodl: {}");
    refused(finished, line_of("hold: {}"), &["hodl", "hold"]);
}

#[test]
fn a_fault_without_an_end_cannot_be_expressed() {
    let finished = changed("    for: 2s\n", "");
    refused(finished, line_of("hold: {}"), &["for"]);
}

#[test]
fn a_negative_duration_is_refused() {
    let finished = changed("for: 2s", "for: -2s");
    refused(finished, line_of("for: 2s"), &["-2s"]);
}

#[test]
fn a_deadline_below_a_bound_is_refused() {
    let finished = changed("deadline: 20s", "deadline: 3s");
    refused(finished, line_of("deadline: 20s"), &["deadline", "8s"]);
}

#[test]
fn an_empty_a_binary_and_a_bomb_are_refused_quickly() {
    check("").expect_code(2).says("empty");
    check([0_u8, 159, 146, 150, 0, 1, 2])
        .expect_code(2)
        .says("bad.yaml");
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..10 {
        let before = format!("*a{}", n - 1);
        let row = [before.as_str(); 10].join(", ");
        writeln!(bomb, "a{n}: &a{n} [{row}]").expect("a string can be written to");
    }
    let began = std::time::Instant::now();
    check(bomb).expect_code(2).says("bad.yaml");
    assert!(
        began.elapsed().as_secs() < 5,
        "a bomb must not cost seconds"
    );
}
