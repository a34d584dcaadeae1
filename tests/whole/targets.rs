//! Target files on the command line: written, told from scenarios, checked together with them.

use std::fs;

use crate::support::output;

const LIMITS: [&str; 8] = [
    "--migration-buffer",
    "100ms",
    "--storm-target",
    "30s",
    "--fallback-threshold",
    "1%",
    "--rollback-slo",
    "5m",
];

#[test]
fn init_writes_a_file_that_is_complete_once_its_limits_are_given_and_overwrites_none() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let path = root.path().join("target.yaml");
    let file = path.to_str().expect("UTF-8");
    // Nobody listens on port 1.
    let init = ["init", file, "--url", "ws://127.0.0.1:1"];
    output(&init)
        .expect_code(2)
        .says("`limits.storm_target` is missing")
        .says("has to be completed");
    let written = fs::read_to_string(&path).expect("the file");
    output(&[init.as_slice(), &LIMITS].concat())
        .expect_code(2)
        .says("is not overwritten");
    assert_eq!(fs::read_to_string(&path).expect("the file"), written);

    fs::remove_file(&path).expect("the file");
    output(&[init.as_slice(), &LIMITS].concat())
        .expect_code(4)
        .says("was written, and the target is not reached")
        .says("target.yaml:8:10");
    output(&["check", file])
        .expect_code(0)
        .says("target.yaml: ok");
    let against = ["check", "--target", file];
    // The target has no nodes, and its connections outlive their tokens.
    output(&[against.as_slice(), &["partition", "reconnect-storm"]].concat()).expect_code(0);
    output(&[against.as_slice(), &["restart"]].concat())
        .expect_code(2)
        .says("restart.yaml:14:14")
        .says("`kill` is done to a node");
    output(&[against.as_slice(), &["token-expiry-storm"]].concat())
        .says("no connection will be cut off");
}

#[test]
fn a_mistake_in_a_target_file_has_its_place_and_a_named_file_is_found_beside_it() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let path = root.path().join("mine.yaml");
    let file = path.to_str().expect("UTF-8");
    let args = [
        "init",
        file,
        "--url",
        "wss://sync.example.com",
        "--ca",
        "ca.pem",
    ];
    output(&[args.as_slice(), &LIMITS].concat())
        .expect_code(2)
        .says("`ca.pem` cannot be read");
    let pem = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n";
    fs::write(root.path().join("ca.pem"), pem).expect("the file");
    output(&["check", file]).expect_code(0);
    let text = fs::read_to_string(&path).expect("the file");
    fs::write(&path, text.replace("wire: json", "wrie: json")).expect("the file");
    output(&["check", file])
        .expect_code(2)
        .says("mine.yaml:")
        .says("did you mean `wire`?");
}

#[test]
fn a_target_files_own_word_on_the_wire_is_not_overruled() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let path = root.path().join("mine.yaml");
    let file = path.to_str().expect("UTF-8");
    let init = ["init", file, "--url", "ws://127.0.0.1:9"];
    output(&[init.as_slice(), &LIMITS].concat()).expect_code(4);
    let written = fs::read_to_string(&path).expect("the file");
    fs::write(&path, written.replace("wire: json", "wire: bsatn")).expect("the file");
    output(&["plan", "partition", "--target", file])
        .expect_code(0)
        .says("messages in BSATN");
    output(&["plan", "partition", "--target", file, "--wire", "json"])
        .expect_code(2)
        .says("the target file says");
    output(&["plan", "partition", "--target", file, "--quick"])
        .expect_code(2)
        .says("short form");
}
