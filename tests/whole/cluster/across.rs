//! Drills whose target and clients are on different hosts.

use serde_json::{Value, json};

use super::{AGENTS, Cluster, RUNS, one_way};
use crate::netns::skipped;
use crate::support::{Evidence, machine};

/// The lane's host is off the network while its process is killed and started again: nobody is told that it went.
const RESTART: &str = "
name: restart
timeline:
  - { at: 1s, fault: { partition: {} }, for: 3s, nodes: { pick: { named: [n1] } }, peers: { labels: { role: clients }, pick: all } }
  - { at: 1500ms, fault: { kill: {} }, for: 1s }
affected: 90%
";

/// The lane's host is heard by nobody who has clients, and hears all of them.
const PARTITION: &str = "
name: partition
timeline:
  - at: 1s
    fault: { partition: { direction: out } }
    for: 3s
    nodes: { pick: { named: [n1] } }
    peers: { labels: { role: clients }, pick: all }
affected: 90%
";

/// All tokens expire in one second, on a network that loses packets.
const TOKENS: &str = "
name: token-expiry-storm
timeline:
  - { at: 200ms, fault: { token_expiry: { after: 3s, spread: 1500ms } } }
  - { at: 2s, fault: { packet_loss: { rate: 3% } }, for: 2s, nodes: { labels: { role: clients }, pick: all }, peers: { pick: { named: [n1] } } }
affected: 25%
";

/// The kernel of the lane's host ends every connection of a client.
const RECONNECT: &str = "
name: reconnect-storm
timeline:
  - { at: 500ms, fault: { drop_sockets: {} }, nodes: { pick: { named: [n1] } }, peers: { labels: { role: clients }, pick: all } }
affected: 90%
";

#[test]
fn the_four_scenarios_pass_across_five_hosts_with_faults_in_their_kernels() {
    if skipped() {
        return;
    }
    let _machine = machine();
    let cluster = Cluster::new(&RUNS);
    let files = [
        cluster.scenario("restart", RESTART),
        cluster.scenario("partition", PARTITION),
        cluster.scenario("token-expiry-storm", TOKENS),
        cluster.scenario("reconnect-storm", RECONNECT),
    ];
    let evidence = Evidence::new();
    let mut args = vec![
        "drill",
        "--lane",
        "spacetime",
        "--inventory",
        "night-drill.yaml",
        "--output-dir",
        evidence.arg(),
    ];
    args.extend(files.iter().map(String::as_str));
    let drilled = cluster.run(&args);
    eprintln!("{}{}", drilled.stdout, drilled.stderr);
    drilled.expect_code(0);
    let rows = evidence.rows();
    assert_eq!(rows.len(), 4);
    for (row, fidelity) in rows
        .iter()
        .zip(["process+kernel", "kernel", "kernel+token", "kernel"])
    {
        assert_eq!(row["status"], "passed", "{row}");
        assert_eq!(row["fidelity"], fidelity);
        let nodes = row["nodes"].as_array().expect("its agents");
        let names: Vec<_> = nodes
            .iter()
            .map(|node| node["name"].as_str().expect("a name"))
            .collect();
        assert_eq!(names, AGENTS);
        for node in nodes {
            assert_eq!(
                (&node["protocol"], &node["same_kernel"]),
                (&1.into(), &true.into()),
                "{node}"
            );
            for clocks in [&node["before"], &node["after"]] {
                let within = clocks["within_us"].as_i64().expect("a bound");
                let mono = clocks["mono_us"].as_i64().expect("an offset");
                // It is one clock: whatever is measured is the error.
                assert!(mono.abs() <= within && within < 1_000_000, "{node}");
            }
        }
        assert!(!evidence_has_addresses(row), "{row}");
    }
    // What was killed was the lane on its own host.
    assert_eq!(rows[0]["faults"][1]["nodes"], json!(["n1"]));
    one_way(&rows[1]["faults"][0], "n1", &["n2", "n3", "n4"]).expect("it is one-way");
    // n5 is no peer of the partition: it was tried, and is not cut off.
    one_way(&rows[1]["faults"][0], "n1", &["n5"]).expect_err("n5 hears n1");
    let gated = cluster.run(&["gate", evidence.arg()]);
    gated.expect_code(0);
    cluster.is_clean();

    // The other way, which is what the check must not take for this one.
    let evidence = Evidence::new();
    let flipped = cluster.run(&[
        "run",
        &files[1],
        "--lane",
        "khala",
        "--inventory",
        "night-drill.yaml",
        "--output-dir",
        evidence.arg(),
        "--set",
        "timeline.0.fault.partition.direction=in",
        "--set",
        "affected=1%",
    ]);
    eprintln!("{}{}", flipped.stdout, flipped.stderr);
    let fault = &evidence.rows()[0]["faults"][0];
    let told = one_way(fault, "n1", &["n2", "n3", "n4"]).expect_err("it is the other way");
    assert!(told.starts_with("during: "), "{told}");
    for other in ["n2", "n3", "n4"] {
        one_way(fault, other, &["n1"]).expect("it is one-way, towards n1");
    }
    cluster.is_clean();
}

/// Rows hold names, no addresses, but for the peers that a fault names.
fn evidence_has_addresses(row: &Value) -> bool {
    row["nodes"].to_string().contains("10.77.0.")
}

#[test]
fn link_faults_reach_every_host_with_clients() {
    if skipped() {
        return;
    }
    let _machine = machine();
    let cluster = Cluster::new(&RUNS);
    let evidence = Evidence::new();
    cluster
        .run(&[
            "run",
            "partition",
            "--quick",
            "--lane",
            "spacetime",
            "--inventory",
            "night-drill.yaml",
            "--output-dir",
            evidence.arg(),
        ])
        .expect_code(0);
    let row = &evidence.rows()[0];
    assert_eq!(row["faults"][0]["nodes"], json!(["n2", "n3", "n4"]));
    assert_eq!(row["fidelity"], "proxy");
    // All clients are held, wherever they are, and counted by all three proxies.
    assert_eq!(row["clients"]["affected"], 40);
    assert_eq!(
        row["faults"][0]["observation"]["figures"]["connections_held"]
            .as_u64()
            .map(|held| held >= 40),
        Some(true),
        "{row}"
    );
    cluster.is_clean();
}
