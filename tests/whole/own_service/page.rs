//! docs/targets.md, "From nothing to a first drill": its commands are run as they stand, and what it shows them print is
//! what they print.

use std::path::Path;
use std::process::{Command, Stdio};

use super::{HOST, Own};
use crate::service::{PUBLISH_SECRET, SESSION_SECRET};
use crate::support::machine;

const PAGE: &str = include_str!("../../../docs/targets.md");
const SECTION: &str = "## From nothing to a first drill\n";
/// Stands between the blocks in what they print.
const MARK: char = '\u{1e}';

/// A fenced block: its language, and the lines in it.
fn blocks(section: &str) -> Vec<(&str, String)> {
    let mut blocks: Vec<(&str, String)> = Vec::new();
    let mut inside = false;
    for line in section.lines() {
        match line.trim_start().strip_prefix("```") {
            Some(language) if !inside => blocks.push((language, String::new())),
            Some(_) => {}
            None if inside => {
                let (_, text) = blocks.last_mut().expect("a block is open");
                text.push_str(line);
                text.push('\n');
            }
            None => {}
        }
        inside ^= line.trim_start().starts_with("```");
    }
    blocks
}

/// Figures differ from run to run, and so does what is padded for them.
fn masked(line: &str) -> String {
    let mut text = String::new();
    for word in line.split_whitespace() {
        let mut digits = false;
        text.push(' ');
        for c in word.chars() {
            let part_of_a_figure = c.is_ascii_digit() || (digits && c == '.');
            if !part_of_a_figure {
                text.push(c);
            } else if !digits {
                text.push('#');
            }
            digits = part_of_a_figure;
        }
    }
    text
}

#[test]
fn the_page_leads_from_nothing_to_a_first_drill() {
    let Some(own) = Own::start("the_page_leads_from_nothing_to_a_first_drill") else {
        return;
    };
    let _machine = machine();
    let section = PAGE.split_once(SECTION).expect("the section").1;
    let section = section.split("\n## ").next().expect("it has an end");
    let blocks = blocks(section);
    // Where the page's example is, the test's own service is.
    let port = own.service.addr.port();
    let mut script = "set -euo pipefail\nexec 2>&1\n".to_owned();
    for (_, text) in blocks.iter().filter(|(language, _)| *language == "sh") {
        script += text;
        script += &format!("printf '{MARK}'\n");
    }
    for (example, own) in [
        ("sync.example.com", HOST.to_owned()),
        ("10.0.0.7:8443", own.service.addr.to_string()),
        ("tokens.example.com", format!("localhost:{port}")),
        ("a-session", SESSION_SECRET.to_owned()),
        ("a-secret", PUBLISH_SECRET.to_owned()),
    ] {
        assert!(script.contains(example), "the page has no `{example}`");
        script = script.replace(example, &own);
    }
    let program = Path::new(env!("CARGO_BIN_EXE_faultlane"));
    let folder = program.parent().expect("a folder").display();
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(own.folder.path())
        .env("PATH", format!("{folder}:{path}"))
        .env_remove("FAULTLANE_LOG")
        .stdin(Stdio::null())
        .output()
        .expect("bash starts");
    let printed = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(
        output.status.success(),
        "{}\nprinted:\n{printed}",
        output.status
    );

    let mut printed_by = printed.split(MARK);
    let mut rest = "";
    let mut shown = 0;
    for (language, text) in &blocks {
        if *language == "sh" {
            rest = printed_by.next().expect("each block has its mark");
            continue;
        }
        let mut lines = rest.lines().map(masked);
        for line in text.lines().filter(|line| line.trim() != "…") {
            let line = masked(line);
            assert!(
                lines.any(|printed| printed == line),
                "the page shows `{line}`, and this was printed:\n{rest}"
            );
            shown += 1;
        }
    }
    assert!(shown > 5, "the page shows what is printed");
}
