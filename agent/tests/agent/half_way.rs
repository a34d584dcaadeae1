//! Every step of a kernel fault made to fail, by programs that fail when a test wants it: before they have done their work,
//! and after.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use agent::faults::network::{Change, undo};
use agent::journal::{Entry, Event};
use model::fault::{Action, Fault, Flow, Partition, Throttle};
use model::quantity::{ByteSize, Span};
use tempfile::TempDir;

use crate::netns::{Lab, skipped};
use crate::support::{Node, order, refusal};

/// Stands before the real program of that name. Its calls are counted; those named in `before` and `after` fail.
const WRAPPER: &str = r#"#!/bin/sh
dir=$(dirname "$0")/NAME.d
call=$(($(cat "$dir/calls") + 1))
echo $call > "$dir/calls"
grep -qx $call "$dir/before" && { echo 'no luck' >&2; exit 1; }
PATH=${PATH#*:}
NAME "$@"
status=$?
grep -qx $call "$dir/after" && { echo 'no luck afterwards' >&2; exit 1; }
exit $status
"#;

struct Unlucky {
    tools: TempDir,
    name: &'static str,
}

impl Unlucky {
    fn program(name: &'static str) -> Self {
        let tools = tempfile::tempdir().unwrap();
        let script = tools.path().join(name);
        fs::write(&script, WRAPPER.replace("NAME", name)).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(tools.path().join(format!("{name}.d"))).unwrap();
        let unlucky = Self { tools, name };
        unlucky.fail(&[], &[]);
        unlucky
    }

    /// From now on, counted anew, these calls fail.
    fn fail(&self, before: &[u32], after: &[u32]) {
        let folder = self.tools.path().join(format!("{}.d", self.name));
        let lines = |calls: &[u32]| {
            let calls: Vec<String> = calls.iter().map(u32::to_string).collect();
            calls.join("\n")
        };
        fs::write(folder.join("before"), lines(before)).unwrap();
        fs::write(folder.join("after"), lines(after)).unwrap();
        fs::write(folder.join("calls"), "0").unwrap();
    }
}

fn partition() -> Fault {
    Fault::Partition(Partition {
        peers: vec!["10.77.0.2".parse().unwrap()],
        ports: Vec::new(),
        direction: Flow::Both,
        action: Action::Drop,
        of: None,
    })
}

fn throttle() -> Fault {
    Fault::Throttle(Throttle {
        interface: "eth0".parse().unwrap(),
        per_second: ByteSize::new(1 << 20),
        burst: None,
        latency: Span::from_millis(50),
    })
}

/// How many faults were begun, and how many are on record as undone.
fn begun_and_undone(state_dir: &Path) -> (usize, usize) {
    let entries = host::jsonl::read::<Entry>(&state_dir.join("journal.jsonl")).unwrap();
    let count = |wanted: fn(&Event) -> bool| {
        let entries = entries.values.iter();
        entries.filter(|entry| wanted(&entry.event)).count()
    };
    (
        count(|event| matches!(event, Event::Intent { .. })),
        count(|event| matches!(event, Event::Undone { .. })),
    )
}

#[tokio::test]
async fn whichever_step_of_an_injection_fails_nothing_is_left_and_the_step_is_named() {
    if skipped() {
        return;
    }
    // nft: create, list. tc: the look before the intent, add, the look after it.
    for (name, fault, steps) in [("nft", partition(), 1..=2), ("tc", throttle(), 2..=3)] {
        let lab = Lab::new(1);
        lab.move_to(1);
        let unlucky = Unlucky::program(name);
        let node = Node::with_tools(unlucky.tools.path()).await;
        // The kernel is tried with the same programs, once.
        node.agent.preflight().await.unwrap();
        let shown = || {
            let tables = lab.run(1, "nft", &["list", "ruleset"]);
            (tables, lab.run(1, "tc", &["qdisc", "show"]))
        };
        let before = shown();
        let mut tried = 0;
        for step in steps {
            for (early, late) in [(vec![step], vec![]), (vec![], vec![step])] {
                unlucky.fail(&early, &late);
                let (status, message) =
                    refusal(node.agent.inject(&order("f1", fault.clone())).await);
                assert!(
                    status == 500 && message.contains(name) && message.contains("no luck"),
                    "{name}, step {step}: {status} {message}"
                );
                assert_eq!(shown(), before, "{name}, step {step}");
                assert_eq!(refusal(node.agent.look("f1").await).0, 404);
                tried += 1;
            }
        }
        assert_eq!(begun_and_undone(&node.state_dir()), (tried, tried));
        unlucky.fail(&[], &[]);
        node.agent.inject(&order("f1", fault)).await.unwrap();
        assert_ne!(shown(), before);
        node.agent.undo("f1").await.unwrap();
        assert_eq!(shown(), before);
        node.end().await;
    }
}

#[tokio::test]
async fn whichever_step_of_an_undo_fails_it_is_undone_or_stays_in_force_until_it_is() {
    if skipped() {
        return;
    }
    let lab = Lab::new(1);
    lab.move_to(1);
    let unlucky = Unlucky::program("nft");
    let node = Node::with_tools(unlucky.tools.path()).await;
    node.agent.preflight().await.unwrap();
    // Of an undo: the chains deleted, the counters read, the table deleted.
    for (step, undone) in [(1, true), (2, true), (3, false)] {
        let id = format!("f{step}");
        unlucky.fail(&[], &[]);
        node.agent.inject(&order(&id, partition())).await.unwrap();
        unlucky.fail(&[step], &[]);
        let answer = node.agent.undo(&id).await;
        assert_eq!(answer.is_ok(), undone, "step {step}: {answer:?}");
        let active = node.agent.look(&id).await.unwrap().active;
        assert_eq!(active, !undone, "step {step}");
        unlucky.fail(&[], &[]);
        assert!(!node.agent.undo(&id).await.unwrap().active);
        assert_eq!(lab.run(1, "nft", &["list", "ruleset"]), "", "step {step}");
    }
    let (begun, undone) = begun_and_undone(&node.state_dir());
    assert_eq!((begun, undone), (3, 3));
    node.end().await;
}

#[tokio::test]
async fn what_could_not_be_rolled_back_is_said_and_goes_with_the_next_undo() {
    if skipped() {
        return;
    }
    let lab = Lab::new(1);
    lab.move_to(1);
    let unlucky = Unlucky::program("nft");
    let node = Node::with_tools(unlucky.tools.path()).await;
    node.agent.preflight().await.unwrap();
    unlucky.fail(&[2, 3, 4, 5], &[]);
    let (_, message) = refusal(node.agent.inject(&order("f1", partition())).await);
    assert!(message.contains("could not be undone"), "{message}");
    assert_eq!(node.agent.status().await.unwrap().faults, ["f1"]);
    node.agent.undo("f1").await.unwrap();
    assert_eq!(lab.run(1, "nft", &["list", "ruleset"]), "");
    node.end().await;
}

#[tokio::test]
async fn a_table_of_that_name_that_the_fault_did_not_make_is_left_alone() {
    if skipped() {
        return;
    }
    let lab = Lab::new(1);
    lab.move_to(1);
    let node = Node::start().await;
    node.agent.inject(&order("f1", partition())).await.unwrap();
    let shown = || lab.run(1, "nft", &["list", "ruleset"]);
    let first = shown();
    // In a table's name they are the same.
    node.agent.inject(&order("f-1", partition())).await.unwrap();
    let (status, message) = refusal(node.agent.inject(&order("f_1", partition())).await);
    assert!(status == 409 && message.contains("nft table"), "{message}");
    node.agent.undo("f-1").await.unwrap();
    assert_eq!(shown(), first);
    node.agent.undo("f1").await.unwrap();
    assert_eq!(shown(), "");
    node.end().await;
}

/// What another process does from the journal alone, however far the change had come.
#[test]
fn an_undo_by_name_is_idempotent_from_any_state_and_takes_nothing_else() {
    if skipped() {
        return;
    }
    let lab = Lab::new(1);
    lab.move_to(1);
    let nft = |words: &str| lab.run(1, "nft", &[words]);
    let tc = |words: &str| lab.run(1, "tc", &words.split(' ').collect::<Vec<_>>());
    nft("add table inet mine");
    let shown = || (nft("list ruleset"), tc("qdisc show"));
    let before = shown();

    let table = Change::Table {
        name: "faultlane_ab_here_f1".to_owned(),
    };
    let qdisc = |interface: &str| Change::Qdisc {
        interface: interface.parse().unwrap(),
        handle: "fa17:".to_owned(),
    };
    for made in [
        &[][..],
        &["add table inet faultlane_ab_here_f1"],
        &[
            "add table inet faultlane_ab_here_f1",
            "add chain inet faultlane_ab_here_f1 input { type filter hook input priority -10; }",
            "add rule inet faultlane_ab_here_f1 input counter drop",
        ],
    ] {
        for words in made {
            nft(words);
        }
        undo(&table).unwrap();
        undo(&table).unwrap();
        assert_eq!(shown(), before, "{made:?}");
    }
    assert!(undo(&qdisc("eth0")).unwrap().contains("no qdisc"));
    assert!(undo(&qdisc("absent0")).unwrap().contains("no qdisc"));
    tc("qdisc add dev eth0 root handle fa17: tbf rate 1mbit burst 16kb latency 50ms");
    undo(&qdisc("eth0")).unwrap();
    undo(&qdisc("eth0")).unwrap();
    assert_eq!(shown(), before);

    // Others' under a handle of their own, or of another kind under this one, stay.
    for handle in ["1:", "fa17:"] {
        tc(&format!(
            "qdisc add dev eth0 root handle {handle} htb default 1"
        ));
        let theirs = shown();
        undo(&qdisc("eth0")).unwrap();
        assert_eq!(shown(), theirs);
        tc("qdisc del dev eth0 root");
    }
    undo(&Change::Sockets).unwrap();
}
