//! Inventories: what is refused, and which agents are taken.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use model::fault::Fault;
use model::quantity::Share;
use model::target::Kind;
use proptest::prelude::*;
use scenarios::inventory::{Inventory, Pick, Place, Selection, SelectionError, parse, select};
use scenarios::{Diagnostics, Settings};

use crate::support::{changed, plan as scenario_plan, points_at, settings, source};

const GOOD: &str = "\
agents:
  - { name: a, socket: /run/a.sock, labels: { zone: west } }
  - { name: b, socket: b.sock, labels: { zone: west, role: db } }
  - { name: c, address: '127.0.0.1:7400', token: c.token, labels: { zone: east } }
  - { name: d, socket: /run/d.sock, labels: { zone: east, role: db } }
";

fn read(text: &str) -> Result<Inventory, Diagnostics> {
    parse(&source(text), Path::new("/etc/faultlane"))
}

fn good() -> Inventory {
    read(GOOD).unwrap_or_else(|error| panic!("{error}"))
}

fn of(pick: Pick, labels: &[(&str, &str)]) -> Selection {
    Selection {
        labels: labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        pick,
    }
}

fn taken(inventory: &Inventory, selection: &Selection, seed: u64) -> Vec<String> {
    let selected =
        select(inventory, selection, seed, "f1").unwrap_or_else(|error| panic!("{error}"));
    selected
        .into_iter()
        .map(|agent| agent.name.clone())
        .collect()
}

#[test]
fn paths_are_seen_from_the_files_folder() {
    let inventory = good();
    assert_eq!(
        inventory.agents[1].at,
        Place::Socket("/etc/faultlane/b.sock".into())
    );
    assert!(
        matches!(&inventory.agents[2].at, Place::Loopback { token, .. } if token == Path::new("/etc/faultlane/c.token"))
    );
}

#[test]
fn every_mistake_has_its_place_and_a_remedy() {
    let wrong = |line: &str, at: &str, words: &[&str]| {
        let line = format!("  - {line}");
        let column = line.find(at).expect("the piece is in the line") + 1;
        let shown = read(&format!("agents:\n{line}\n"))
            .expect_err("it is wrong")
            .to_string();
        points_at(&shown, 2, column, words);
    };
    wrong(
        "{ name: a b, socket: /s }",
        "a b",
        &["`a b` is not an agent's name"],
    );
    wrong(
        "{ name: a, address: host, token: t }",
        "host",
        &["`host` is no address", "HOST:PORT"],
    );
    wrong(
        "{ name: a, address: 'db:7400' }",
        "'db",
        &["there is no `tls`"],
    );
    wrong(
        "{ name: a, address: 'db:7400', token: t }",
        "token",
        &["loopback only", "tls"],
    );
    wrong("{ name: a, socket: /s, token: t }", "token", &["of no use"]);
    wrong(
        "{ name: a, socket: /s, adress: x }",
        "adress",
        &["unknown field", "address"],
    );
    for both in ["{ name: a }", "{ name: a, socket: /s, address: 'db:1' }"] {
        let error = read(&format!("agents:\n  - {both}\n"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("one of `address` and `socket`"), "{error}");
    }
    let twice = read("agents:\n  - { name: a, socket: /s }\n  - { name: a, socket: /t }\n");
    assert!(
        twice
            .unwrap_err()
            .to_string()
            .contains("another agent is called `a`")
    );
    let files = "tls: { ca: /no/ca.pem, certificate: /no/c.pem, key: /no/c.key }\nagents:\n  - { name: a, address: 'db:1' }\n";
    let missing = read(files).unwrap_err().to_string();
    assert!(
        missing.contains("test.yaml:1:12") && missing.contains("/no/ca.pem"),
        "{missing}"
    );
    let none = read("agents: []\n").unwrap_err().to_string();
    assert!(none.contains("has no agents"), "{none}");
}

#[test]
fn agents_are_taken_by_labels_names_and_number() {
    let inventory = good();
    assert_eq!(
        taken(&inventory, &of(Pick::All, &[]), 1),
        ["a", "b", "c", "d"]
    );
    assert_eq!(
        taken(&inventory, &of(Pick::All, &[("role", "db")]), 1),
        ["b", "d"]
    );
    assert_eq!(
        taken(
            &inventory,
            &of(Pick::One, &[("role", "db"), ("zone", "east")]),
            1
        ),
        ["d"]
    );
    let names = |names: &[&str]| Pick::Named(names.iter().map(|name| (*name).to_owned()).collect());
    assert_eq!(
        taken(&inventory, &of(names(&["c", "a", "c"]), &[]), 1),
        ["a", "c"]
    );
    assert_eq!(taken(&inventory, &of(Pick::Count(3), &[]), 1).len(), 3);
    assert_eq!(
        taken(&inventory, &of(Pick::Share(Share::ratio(0.3)), &[]), 1).len(),
        2
    );
    let ones: BTreeSet<_> = (0..64)
        .map(|seed| taken(&inventory, &of(Pick::One, &[]), seed))
        .collect();
    assert_eq!(ones.len(), 4, "the seed does not decide");
}

#[test]
fn a_selection_of_nothing_of_too_many_or_of_strangers_is_an_error() {
    let mut inventory = good();
    let names = |name: &str| Pick::Named(vec![name.to_owned()]);
    let refused = |inventory: &Inventory, selection| {
        select(inventory, &selection, 1, "f1").expect_err("it is refused")
    };
    for nothing in [
        of(Pick::All, &[("zone", "north")]),
        of(Pick::One, &[("zone", "north")]),
        of(Pick::Count(0), &[]),
        of(Pick::Named(Vec::new()), &[]),
    ] {
        let error = refused(&inventory, nothing);
        assert!(matches!(error, SelectionError::Nothing { .. }), "{error}");
    }
    for selection in [of(names("e"), &[]), of(names("a"), &[("zone", "east")])] {
        assert!(matches!(
            refused(&inventory, selection),
            SelectionError::Unknown { .. }
        ));
    }
    let five = refused(&inventory, of(Pick::Count(5), &[]));
    assert!(matches!(five, SelectionError::TooFew { .. }));
    inventory.nodes_at_once = Some(2);
    taken(&inventory, &of(Pick::Count(2), &[]), 1);
    let three = refused(&inventory, of(Pick::Count(3), &[])).to_string();
    assert!(three.contains("`nodes_at_once`"), "{three}");
}

proptest! {
    /// Whatever the order of the inventory; and an agent that is added takes the place of one at most.
    #[test]
    fn what_is_taken_depends_on_names_and_seed_alone(seed: u64, count in 1_u32..=4, turn in 0_usize..4) {
        let inventory = good();
        let mut turned = inventory.clone();
        turned.agents.rotate_left(turn);
        let selection = of(Pick::Count(count), &[]);
        let before = taken(&inventory, &selection, seed);
        prop_assert_eq!(&taken(&turned, &selection, seed), &before);
        let mut more = turned.agents[0].clone();
        (more.name, more.labels) = ("e".to_owned(), BTreeMap::new());
        turned.agents.push(more);
        let after = taken(&turned, &selection, seed);
        let kept = after.iter().filter(|name| before.contains(name)).count();
        prop_assert!(kept + 1 >= before.len());
    }
}

const CLUSTER: &str = "\
agents:
  - { name: a, address: '10.0.0.1:7400', tls: { ca: /dev/null, certificate: /dev/null, key: /dev/null }, labels: { zone: west }, runs: [lane, tokens] }
  - { name: b, socket: /run/b.sock, host: 10.0.0.2, labels: { zone: west }, runs: [clients] }
  - { name: c, socket: /run/c.sock, host: 10.0.0.3, labels: { zone: east }, runs: [clients] }
  - { name: d, socket: /run/d.sock, labels: { zone: east } }
";

fn with_cluster(text: &str) -> Settings {
    Settings {
        inventory: Some(Arc::new(
            read(text).unwrap_or_else(|error| panic!("{error}")),
        )),
        ..settings()
    }
}

const CUT: &str = "timeline:\n  - { at: 2s, fault: { partition: { direction: in } }, for: 1s, nodes: { pick: { named: [a] } }, peers: { labels: { zone: west }, pick: all } }";

#[test]
fn a_plan_has_the_names_and_addresses_of_the_agents_and_who_runs_what() {
    let plan = scenario_plan(&changed("timeline:", CUT), &with_cluster(CLUSTER)).expect("a plan");
    let cut = &plan.steps[1];
    assert_eq!(cut.nodes, ["a"]);
    let Fault::Partition(partition) = &cut.fault else {
        panic!("{cut:?}")
    };
    // Nobody is cut off from itself.
    assert_eq!(partition.peers, ["10.0.0.2".parse().unwrap()]);
    assert_eq!(plan.layout.lane.as_deref(), Some("a"));
    assert_eq!(plan.layout.clients, ["b", "c"]);
    assert_eq!(plan.layout.publisher, None);
    // Link faults are done wherever there are clients.
    assert_eq!(plan.done_by(&plan.steps[0]), ["b", "c"]);
    let shown = plan.describe();
    assert!(
        shown.contains("by a") && shown.contains("clients b, c"),
        "{shown}"
    );

    let alone = scenario_plan(crate::support::GOOD, &settings()).expect("a plan");
    assert!(alone.layout.is_local() && alone.done_by(&alone.steps[0]).is_empty());
}

#[test]
fn who_cannot_be_chosen_is_told_at_its_place() {
    let wrong = |entry: &str, settings: &Settings, words: &[&str]| {
        let source = source(&changed("timeline:", &format!("timeline:\n  - {entry}")));
        let planned = scenarios::parse(&source)
            .and_then(|checked| scenarios::plan(&checked.scenario, &source, settings));
        let shown = planned.expect_err("it is wrong").to_string();
        for word in words {
            assert!(shown.contains(word), "{word}: {shown}");
        }
    };
    let cluster = with_cluster(CLUSTER);
    let kill =
        |nodes: &str| format!("{{ at: 2s, fault: {{ kill: {{}} }}, for: 1s, nodes: {nodes} }}");
    wrong(
        &kill("{ pick: all }"),
        &settings(),
        &["no inventory", "--inventory", "7:45"],
    );
    wrong(
        &kill("{ labels: { zone: north }, pick: all }"),
        &cluster,
        &["no agent matches zone=north", "a, b, c, d"],
    );
    wrong(
        &kill("{ pick: { named: [x] } }"),
        &cluster,
        &["no agent `x`"],
    );
    let cut = "{ at: 2s, fault: { partition: {} }, for: 1s, nodes: { pick: { named: [a] } }, peers: { pick: { named: [d] } } }";
    wrong(cut, &cluster, &["host of `d`", "host: 10.0.0.5"]);
    wrong(
        "{ at: 2s, fault: { reset: {} }, nodes: { pick: all } }",
        &cluster,
        &["`reset`", "remove `nodes`"],
    );
    wrong(
        "{ at: 2s, fault: { kill: {} }, for: 1s, peers: { pick: all } }",
        &cluster,
        &["`kill` names no peers"],
    );
    let limited = with_cluster(&format!("limits: {{ nodes_at_once: 2 }}\n{CLUSTER}"));
    let pause = |at: &str, names: &str| {
        format!(
            "{{ at: {at}, fault: {{ pause: {{}} }}, for: 1s, nodes: {{ pick: {{ named: [{names}] }} }} }}"
        )
    };
    let overlapping = format!("{}\n  - {}", pause("2s", "a, b"), pause("2500ms", "c"));
    wrong(&overlapping, &limited, &["nodes_at_once", "a, b, c"]);
    let later = format!("{}\n  - {}", pause("2s", "a, b"), pause("3500ms", "c"));
    scenario_plan(
        &changed("timeline:", &format!("timeline:\n  - {later}")),
        &limited,
    )
    .expect("one after the other");
    // Without peers it would be done to all.
    let alone = "{ at: 2s, fault: { partition: {} }, for: 1s, nodes: { pick: { named: [b] } }, peers: { pick: { named: [b] } } }";
    wrong(alone, &cluster, &["only `b` is chosen", "choose others"]);
    // To its peers nothing is done.
    let one = with_cluster(&format!("limits: {{ nodes_at_once: 1 }}\n{CLUSTER}"));
    scenario_plan(&changed("timeline:", CUT), &one).expect("one node, two peers");
    // What else runs on a host its agent knows.
    let db =
        |nodes: &str| format!("{{ at: 2s, fault: {{ kill: {{}} }}, for: 1s, node: db{nodes} }}");
    let chosen = db(", nodes: { pick: { named: [a] } }");
    let changed_to = |entry: &str| changed("timeline:", &format!("timeline:\n  - {entry}"));
    let plan = scenario_plan(&changed_to(&chosen), &cluster).expect("an operator's node");
    assert_eq!(plan.steps[1].node.as_deref(), Some("db"));
    wrong(&db(""), &cluster, &["there is no node `db`"]);
    let twice = format!("{}\n  - {}", pause("2s", "a"), pause("2500ms", "a"));
    wrong(&twice, &cluster, &["`lane` of agent `a`", "f2-pause"]);
}

#[test]
fn parts_run_where_others_can_reach_them() {
    for (text, words) in [
        (
            CLUSTER.replace("runs: [lane, tokens]", "runs: [lane]"),
            "nobody runs it",
        ),
        (
            CLUSTER.replace(
                "host: 10.0.0.2, labels: { zone: west }, runs: [clients]",
                "runs: [lane]",
            ),
            "`a` runs `lane` already",
        ),
        (
            CLUSTER.replace("'10.0.0.1:7400'", "'a.example:7400'"),
            "nothing says where its host is reached",
        ),
        (
            CLUSTER.replace("host: 10.0.0.2", "host: b.example"),
            "`b.example` is not an IP address",
        ),
        (
            CLUSTER.replace("runs: [clients]", "runs: [client]"),
            "clients",
        ),
    ] {
        let shown = read(&text).expect_err("it is wrong").to_string();
        assert!(shown.contains(words), "{words}: {shown}");
    }
    let described = Settings {
        kind: Kind::Spacetimedb,
        ..with_cluster(CLUSTER)
    };
    let shown = scenario_plan(crate::support::GOOD, &described)
        .expect_err("not divisible")
        .to_string();
    assert!(shown.contains("remove `runs`"), "{shown}");
}
