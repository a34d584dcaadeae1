//! The agent's own configuration.

use std::path::Path;

use model::quantity::Span;
use scenarios::agent_config::{AgentConfig, Listen, Operating, operating, parse};
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

/// The configuration of an agent that an operator runs, with one line more.
fn operated(line: &str) -> Result<Operating, Diagnostics> {
    let source = Source {
        name: "test.yaml".to_owned(),
        text: format!("name: db-1\nstate_dir: state\nlog_dir: /var/log/faultlane\n{line}\n"),
    };
    operating(&source, Path::new("/etc/faultlane"))
}

#[test]
fn an_operated_agent_listens_where_only_its_user_can_come_in_unless_it_is_told_otherwise() {
    let config = operated("").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.state_dir, Path::new("/etc/faultlane/state"));
    assert_eq!(config.log_dir, Path::new("/var/log/faultlane"));
    assert_eq!(config.audit, Path::new("/etc/faultlane/state/audit.jsonl"));
    assert_eq!(
        config.listen,
        Listen::Socket("/etc/faultlane/state/agent.sock".into())
    );
    assert_eq!(
        config.policy.children.unwrap(),
        ["proxy", "shard"],
        "what writes where it is told to is not started"
    );
    let loopback = operated("listen: 127.0.0.1:7400").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        loopback.listen,
        Listen::Address(([127, 0, 0, 1], 7400).into())
    );
}

#[test]
fn nodes_are_found_in_one_way_and_started_by_a_command_that_there_is() {
    let commands = "commands: { up: { run: [/bin/sh] } }";
    let config = operated(&format!(
        "{commands}\nnodes:\n  db: {{ pid_file: db.pid, start: up }}\n  cache: {{ pid: up }}"
    ))
    .unwrap_or_else(|error| panic!("{error}"));
    let db = &config.nodes["db"];
    assert_eq!(
        db.pid_file.as_deref(),
        Some(Path::new("/etc/faultlane/db.pid"))
    );
    assert_eq!(db.start.as_deref(), Some("up"));
    assert_eq!(config.nodes["cache"].pid.as_deref(), Some("up"));
    for (node, at, words) in [
        ("a b: { pid: up }", "a b", &["not a node's name"][..]),
        (
            "db: { start: up }",
            "db",
            &["which process `db` is", "pid_file:"],
        ),
        (
            "db: { pid_file: /run/db.pid, pid: up }",
            "up",
            &["found by pid_file already", "one of pid_file, pid"],
        ),
        ("db: { pid: upp }", "upp", &["`upp`", "did you mean `up`?"]),
        (
            "db: { pid: up, start: down }",
            "down",
            &[
                "`down` is not among this file's `commands`",
                "known here: up",
            ],
        ),
        (
            "db: { systemd: gate }",
            "gate",
            &[
                "`gate` is not the name of a service's unit",
                "khala-gate.service",
            ],
        ),
        (
            "db: { systemd: gate.service, start: up }",
            "up",
            &["by no command", "remove `start`"],
        ),
        ("db: { pidfile: /run/db.pid }", "pidfile", &["`pid_file`"]),
    ] {
        let line = format!("  {node}");
        let column = line.rfind(at).expect("the piece is in the line") + 1;
        let shown = operated(&format!("{commands}\nnodes:\n{line}"))
            .expect_err(node)
            .to_string();
        points_at(&shown, 6, column, words);
    }
    let shown = operated("nodes: { db: { pid: up } }")
        .expect_err("no commands")
        .to_string();
    assert!(shown.contains("add commands:"), "{shown}");
}

#[test]
fn what_an_operated_agent_cannot_run_with_is_told_with_its_place() {
    let refused = |line: &str, at: &str, words: &[&str]| {
        let column = line.find(at).expect("the piece is in the line") + 1;
        let shown = operated(line).expect_err("it is wrong").to_string();
        points_at(&shown, 4, column, words);
    };
    refused(
        "listen: 10.0.0.5:7400",
        "10.",
        &["off loopback", "pki init"],
    );
    refused(
        "listen: db-1:7400",
        "db-1",
        &["neither an address nor a unix socket"],
    );
    refused("lisen: x", "lisen", &["unknown field", "listen"]);
    refused(
        "policy: { faults: [kil] }",
        "kil]",
        &["`kil` is not known", "kill"],
    );
    refused(
        "policy: { children: [guard] }",
        "guard",
        &["`guard` is not known"],
    );
    refused(
        "policy: { peers: [10.0.0.0/99] }",
        "10.",
        &["10.0.0.0/99", "10.0.0.0/8"],
    );
    refused(
        "policy: { longest_lease: 30 }",
        "30",
        &["bare number", "30s"],
    );
    refused(
        "policy: { faults_at_once: 0 }",
        "0",
        &["`faults_at_once` is 0"],
    );
    for (folder, words) in [
        ("data", "not an absolute path"),
        ("/no/such", "`/no/such`: "),
        ("/proc/self", "is really"),
        ("/etc/passwd", "not a folder"),
    ] {
        let line = format!("policy: {{ disk_folders: [/etc, {folder}] }}");
        refused(&line, &format!("{folder}]"), &[words]);
    }
    refused(
        "tls: { certificate: /no/c.pem, key: /no/c.key, client_ca: /no/ca.pem }",
        "/no/c.pem",
        &["/no/c.pem"],
    );
    let missing = operating(
        &Source {
            name: "test.yaml".to_owned(),
            text: "listen: /run/agent.sock\n".to_owned(),
        },
        Path::new("/"),
    );
    let missing = missing.expect_err("it is wrong").to_string();
    for field in [
        "`name` is missing",
        "`state_dir` is missing",
        "`log_dir` is missing",
    ] {
        assert!(missing.contains(field), "{missing}");
    }
}
