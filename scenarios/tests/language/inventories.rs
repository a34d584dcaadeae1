//! Inventories: what is refused, and which agents are taken.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use model::quantity::Share;
use proptest::prelude::*;
use scenarios::Diagnostics;
use scenarios::inventory::{Inventory, Pick, Place, Selection, SelectionError, parse, select};

use crate::support::{points_at, source};

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
