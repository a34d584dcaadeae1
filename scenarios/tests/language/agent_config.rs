//! The agent's own configuration.

use model::quantity::Span;
use scenarios::agent_config::{AgentConfig, parse};
use scenarios::{Diagnostics, Source};

use crate::support::points_at;

fn read(text: &str) -> Result<AgentConfig, Diagnostics> {
    parse(&Source {
        name: "test.yaml".to_owned(),
        text: text.to_owned(),
    })
}

/// A configuration with one command is refused at the column of a piece of its line.
#[track_caller]
fn wrong(command: &str, at: &str, words: &[&str]) {
    let line = format!("  {command}");
    let column = line.find(at).expect("the piece is in the line") + 1;
    let shown = read(&format!("commands:\n{line}\n"))
        .expect_err("it is wrong")
        .to_string();
    points_at(&shown, 2, column, words);
}

#[test]
fn commands_are_read_with_their_arguments_and_times() {
    let config = read(
        "commands:
  queue-depth: { run: [/bin/sh, -c, exit 0], within: 3s }
  mint: { run: [/bin/sh] }
",
    )
    .unwrap_or_else(|error| panic!("{error}"));
    let depth = &config.commands["queue-depth"];
    assert_eq!(depth.run, ["/bin/sh", "-c", "exit 0"]);
    assert_eq!(depth.within, Span::from_secs(3));
    assert_eq!(config.commands["mint"].within, Span::from_secs(2));
}

#[test]
fn every_mistake_has_its_place_and_a_remedy() {
    wrong(
        "a b: { run: [/bin/sh] }",
        "a b",
        &["`a b` is not a command's name"],
    );
    wrong(
        "a: { run: [] }",
        "run",
        &["`a` runs nothing", "/path/to/program"],
    );
    wrong(
        "a: { run: [sh] }",
        "sh]",
        &["`sh` is not an absolute path", "no shell"],
    );
    wrong(
        "a: { run: [/no/such] }",
        "/no/such",
        &["`/no/such` cannot be run", "install"],
    );
    wrong("a: { run: [/etc] }", "/etc", &["`/etc` is not a program"]);
    wrong(
        "a: { run: [/etc/passwd] }",
        "/etc/passwd",
        &["is not a program", "chmod"],
    );
    wrong("a: { run: /bin/sh }", "/bin/sh", &["a list is wanted"]);
    wrong(
        "a: { run: [/bin/sh, 5] }",
        "5]",
        &["`5` is a bare number", "quote it"],
    );
    wrong(
        "a: { run: [/bin/sh], within: 0s }",
        "0s",
        &["`within` is 0s", "10ms to 5m"],
    );
    wrong(
        "a: { run: [/bin/sh], within: 1h }",
        "1h",
        &["`within` is 1h"],
    );
    wrong(
        "a: { run: [/bin/sh], wihtin: 1s }",
        "wihtin",
        &["`wihtin`", "`within`"],
    );
    wrong("a: {}", "a:", &["`run` is missing"]);
    let shown = read("comands: {}\n").expect_err("unknown").to_string();
    points_at(&shown, 1, 1, &["`comands`", "`commands`"]);
}
