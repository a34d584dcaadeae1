//! A service that repeats what it was sent: nothing of that is in evidence, nor in what is printed.

use std::fs;
use std::path::Path;

use super::{Own, SMALL};
use crate::service::{PUBLISH_SECRET, SESSION_SECRET};
use crate::support::{Finished, machine};

const SAID: &str = "bad session [redacted] of ";
/// In the query of the URL of tokens.
const CODE: &str = "code-of-the-drill";

/// A service that repeats the credential of whoever asks for a token for these devices, and its target file.
fn that_repeats(test: &str, devices: &[&str]) -> Option<(Own, String)> {
    let options: Vec<&str> = devices
        .iter()
        .flat_map(|device| ["--refuse-device", device])
        .collect();
    let own = Own::start_with(test, &options)?;
    let target = own.with("/sync/token\n", &format!("/sync/token?code={CODE}\n"));
    Some((own, target))
}

fn holds_no_secret(name: &str, text: &str) {
    for secret in [SESSION_SECRET, PUBLISH_SECRET, CODE] {
        assert!(!text.contains(secret), "{name} holds {secret}:\n{text}");
    }
}

fn printed_no_secret(finished: &Finished) {
    holds_no_secret("stdout", &finished.stdout);
    holds_no_secret("stderr", &finished.stderr);
}

/// Looks at every file; the names of those in which the service's words stand.
fn files_with_its_words(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files_with_its_words(&path));
            continue;
        }
        let name = path.display().to_string();
        let text = String::from_utf8_lossy(&fs::read(&path).expect("a file")).into_owned();
        holds_no_secret(&name, &text);
        if text.contains(SAID) {
            found.push(
                path.file_name()
                    .expect("a name")
                    .to_string_lossy()
                    .into_owned(),
            );
        }
    }
    found
}

#[test]
fn a_drill_writes_and_prints_no_secret_that_the_service_repeats() {
    let test = "a_drill_writes_and_prints_no_secret_that_the_service_repeats";
    let Some((own, target)) = that_repeats(test, &["final-reader", "probe"]) else {
        return;
    };
    let _machine = machine();
    let args = ["run", "partition", "--target", "target.yaml"];
    let finished = own.run(&target, &[&args[..], &SMALL].concat());
    printed_no_secret(&finished);
    let found = files_with_its_words(&own.folder.path().join("evidence"));
    for name in ["results.jsonl", "SUMMARY.md"] {
        assert!(found.iter().any(|file| file == name), "{name}: {found:?}");
    }
    assert!(finished.stdout.contains(SAID), "{}", finished.stdout);
}

#[test]
fn a_preflight_prints_no_secret_that_the_service_repeats() {
    let test = "a_preflight_prints_no_secret_that_the_service_repeats";
    let Some((own, target)) = that_repeats(test, &["preflight"]) else {
        return;
    };
    let finished = own
        .run(&target, &["preflight", "target.yaml"])
        .expect_code(4);
    printed_no_secret(&finished);
    assert!(finished.stderr.contains(SAID), "{}", finished.stderr);
}
