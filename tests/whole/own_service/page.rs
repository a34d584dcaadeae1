//! docs/targets.md, "From nothing to a first drill": its commands are run as they stand, and what it shows them print is
//! what they print.

use std::path::Path;
use std::process::{Command, Stdio};

use super::Own;
use crate::service::{PUBLISH_SECRET, SESSION_SECRET};
use crate::support::machine;

const PAGE: &str = include_str!("../../../docs/targets.md");
const SECTION: &str = "## From nothing to a first drill\n";
/// Stands behind each block in what they print.
const MARK: char = '\u{1e}';

/// Fenced blocks: their language, and the lines in them.
fn blocks(section: &str) -> Vec<(&str, &str)> {
    let inside = section.split("```").skip(1).step_by(2);
    inside
        .map(|block| block.split_once('\n').expect("a language, and lines"))
        .collect()
}

/// Figures differ from run to run, with their units, and so does what is padded for them.
fn masked(line: &str) -> String {
    const UNITS: [&str; 5] = ["ns", "µs", "ms", "s", "min"];
    let mut words: Vec<String> = Vec::new();
    for word in line.split_whitespace() {
        if UNITS.contains(&word) && words.last().is_some_and(|last| last == "#") {
            continue;
        }
        let bare = UNITS.iter().find_map(|unit| word.strip_suffix(unit));
        let is_figure = |text: &str| text.parse::<f64>().is_ok();
        let figures = match bare {
            Some(bare) if is_figure(bare) => "#".to_owned(),
            _ => word
                .split(|c: char| c.is_ascii_digit())
                .collect::<Vec<_>>()
                .join("#"),
        };
        let mut text = figures.replace("#.#", "#");
        while text.contains("##") {
            text = text.replace("##", "#");
        }
        words.push(text);
    }
    words.join(" ")
}

/// Whether a line is what the page shows; `…` stands for anything.
fn fits(shown: &str, printed: &str) -> bool {
    let mut parts = shown.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = printed.strip_prefix(first) else {
        return false;
    };
    let mut open = false;
    for part in parts {
        open = true;
        let Some((_, after)) = rest.split_once(part) else {
            return false;
        };
        rest = if part.is_empty() { "" } else { after };
    }
    rest.is_empty() || (open && shown.ends_with('…'))
}

/// Each line of a block has to be among what was printed, in that order.
#[track_caller]
fn is_printed(block: &str, printed: &str) {
    let mut lines = printed.lines().map(masked);
    for line in block.lines() {
        let line = masked(line);
        assert!(
            lines.any(|printed| fits(&line, &printed)),
            "the page shows `{line}`, and this was printed:\n{printed}"
        );
    }
}

#[test]
fn the_page_leads_from_nothing_to_a_first_drill() {
    let Some(own) = Own::start("the_page_leads_from_nothing_to_a_first_drill") else {
        return;
    };
    let _machine = machine();
    let section = PAGE.split_once(SECTION).expect("the section").1;
    let section = section.split("\n## ").next().expect("it has an end");
    // Where the page's example is, the test's own service is.
    let mut section = section.to_owned();
    let port = own.service.addr.port();
    for (example, own) in [
        ("10.0.0.7:8443", own.service.addr.to_string()),
        ("tokens.example.com", format!("localhost:{port}")),
        ("a-session", SESSION_SECRET.to_owned()),
        ("a-secret", PUBLISH_SECRET.to_owned()),
    ] {
        assert!(section.contains(example), "the page has no `{example}`");
        section = section.replace(example, &own);
    }
    let blocks = blocks(&section);
    let mut script = "set -euo pipefail\nexec 2>&1\n".to_owned();
    for (_, text) in blocks.iter().filter(|(language, _)| *language == "sh") {
        script += text;
        script += "printf '\\036'\n";
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
    let status = output.status;
    assert!(status.success(), "{status}, printed:\n{printed}");

    let mut printed = printed.split(MARK);
    let mut last = "";
    let mut compared = 0;
    for (language, text) in &blocks {
        match *language {
            "sh" => last = printed.next().expect("each block has its mark"),
            _ if text.contains("error: ") => is_printed(text, &mistaken(&own)),
            _ => is_printed(text, last),
        }
        compared += usize::from(*language == "text");
    }
    assert_eq!(compared, 4, "the page shows what is printed");
}

/// What is said of the target file that the page has led to, with another path in it.
fn mistaken(own: &Own) -> String {
    let file = own.folder.path().join("target.yaml");
    let text = std::fs::read_to_string(file).expect("the page wrote it");
    assert!(text.contains("/eu\"\n"));
    own.run(
        &text.replacen("/eu\"", "/us\"", 1),
        &["preflight", "target.yaml"],
    )
    .stderr
}

#[test]
fn figures_are_masked_and_words_compared() {
    for (shown, printed, fit) in [
        ("in 3.0ms", "in 10.25 µs", true),
        ("p50 4 s", "p50 4500ms", true),
        ("good for 119 s", "good for 20 s", true),
        ("a  b", "a b", true),
        ("a b", "a c", false),
        (
            "next=… actual_next_seq=1",
            "next=45 actual_next_seq=7",
            true,
        ),
        ("hint: the URL; …", "hint: the URL; and more", true),
        ("hint: the URL; …", "hint: another; and more", false),
        ("a", "a b", false),
        ("20/20", "19/20", true),
    ] {
        assert_eq!(
            fits(&masked(shown), &masked(printed)),
            fit,
            "{shown} {printed}"
        );
    }
}
