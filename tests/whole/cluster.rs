//! A cluster of five hosts, which are network namespaces with a bridge between them, an agent on each, and the conductor on a
//! sixth. Needs root.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::netns::{Lab, skipped};
use crate::support::{
    Evidence, Finished, Running, alive, descendants, faultlane, machine, output, signal, until,
};

const AGENTS: [&str; 5] = ["n1", "n2", "n3", "n4", "n5"];
/// Where the conductor is.
const CONDUCTOR: u8 = 6;
const PORT: u16 = 7400;

/// Who runs what in the drills across hosts.
const RUNS: [&str; 5] = ["lane, tokens", "clients", "clients", "clients", "publisher"];

/// What the scenarios have in common.
const COMMON: &str = "
workload: { clients: 30, streams: 6, ramp: 1s }
target:
  accept_rate: 400/s
  token_rate: 20/s
  token_burst: 5
  profile:
    refresh_lead: 500ms
    heartbeat: 500ms
    server_tick: 400ms
    heartbeat_timeout: 1500ms
    read_idle: 1500ms
    connect_timeout: 1500ms
    backoff_cap: 1s
    stable_after: 1s
steady: { window: 1500ms, delivery_p99: 400ms }
bounds:
  recovery: { p50: 6s, p99: 10s, max: 12s }
  time_to_steady: 14s
limits: { duplicate_delivery: 2%, attempts_per_client: 12, delivery_p95: 1s }
deadline: 18s
";

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

/// Every host is off the network, but for its agent.
const CUT_OFF: &str = "
name: cut-off
timeline:
  - { at: 200ms, fault: { partition: {} }, for: 30s, nodes: { pick: all } }
affected: 1%
";

struct Cluster {
    lab: Lab,
    folder: TempDir,
    agents: Vec<Running>,
}

impl Cluster {
    /// Five hosts with agents, whose certificates `pki init` has made.
    fn new(runs: &[&str]) -> Self {
        let lab = Lab::new(CONDUCTOR);
        let folder = TempDir::new().expect("a folder");
        let root = folder.path();
        let pki = root.join("pki");
        let mut init = vec![
            "pki",
            "init",
            pki.to_str().expect("UTF-8"),
            "--conductor",
            "night-drill",
            "--operator",
            "ada",
        ];
        let named: Vec<String> = (1..)
            .zip(AGENTS)
            .map(|(n, name)| format!("--agent={name}=10.77.0.{n}"))
            .collect();
        init.extend(named.iter().map(String::as_str));
        output(&init).expect_code(0);
        for holder in ["night-drill", "ada"] {
            let files =
                format!("ca: pki/ca.pem, certificate: pki/{holder}.pem, key: pki/{holder}.key");
            let mut text = format!("tls: {{ {files} }}\nagents:\n");
            for (n, name) in (1..).zip(AGENTS) {
                let runs = runs.get(n - 1).copied().unwrap_or_default();
                let role = runs.split(',').next().unwrap_or_default();
                let _ = writeln!(
                    text,
                    "  - {{ name: {name}, address: \"10.77.0.{n}:{PORT}\", labels: {{ role: \"{role}\" }}, runs: [{runs}] }}"
                );
            }
            fs::write(root.join(format!("{holder}.yaml")), text).expect("an inventory");
        }
        let mut cluster = Self {
            lab,
            folder,
            agents: Vec::new(),
        };
        for n in 1..=5 {
            let agent = cluster.start(n);
            cluster.agents.push(agent);
        }
        cluster
    }

    fn path(&self, name: &str) -> String {
        self.folder
            .path()
            .join(name)
            .to_str()
            .expect("UTF-8")
            .to_owned()
    }

    /// Starts the agent of a host; it listens when this returns.
    fn start(&self, n: u8) -> Running {
        let name = AGENTS[usize::from(n) - 1];
        let text = format!(
            "name: {name}\nstate_dir: state-{name}\nlog_dir: logs-{name}\nlisten: 10.77.0.{n}:{PORT}\n\
             tls: {{ certificate: pki/{name}.pem, key: pki/{name}.key, client_ca: pki/ca.pem }}\n\
             policy: {{ children: [lane, tokens, proxy, shard] }}\n"
        );
        let file = self.path(&format!("{name}.yaml"));
        fs::write(&file, text).expect("its configuration");
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.path(&format!("{name}.log")))
            .expect("its log");
        let mut command = faultlane(&["agent", "--config", &file]);
        command.stdout(Stdio::piped()).stderr(log);
        let mut running = Running(self.lab.on(n, || command.spawn().expect("it starts")));
        let mut line = String::new();
        let stdout = running.0.stdout.take().expect("its stdout");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let log = || fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default();
        assert!(line.starts_with("listening on "), "{line}{}", log());
        running
    }

    /// A command where the conductor is.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = faultlane(args);
        command.current_dir(self.folder.path());
        command
    }

    fn run(&self, args: &[&str]) -> Finished {
        let mut command = self.command(args);
        Finished::from(
            self.lab
                .on(CONDUCTOR, || command.output().expect("it starts")),
        )
    }

    fn scenario(&self, name: &str, text: &str) -> String {
        let file = self.path(&format!("{name}.yaml"));
        fs::write(&file, format!("{text}{COMMON}")).expect("a scenario");
        file
    }

    fn tables(&self) -> Vec<String> {
        (1..=5)
            .map(|n| self.lab.run(n, "nft", &["list", "tables"]))
            .collect()
    }

    /// Nothing of a drill is left anywhere.
    fn is_clean(&self) {
        for (n, agent) in (1..=5).zip(&self.agents) {
            assert_eq!(self.lab.run(n, "nft", &["list", "tables"]), "", "on {n}");
            let children: Vec<String> = descendants(agent.0.id())
                .into_iter()
                .map(|pid| {
                    fs::read_to_string(format!("/proc/{pid}/cmdline"))
                        .unwrap_or_default()
                        .replace('\0', " ")
                })
                .filter(|line| !line.contains(" watchdog "))
                .collect();
            assert_eq!(children, [""; 0], "on {n}");
        }
        let seen = self
            .run(&["agents", "--inventory", "night-drill.yaml"])
            .expect_code(0);
        let lines: Vec<_> = seen.stdout.lines().collect();
        assert_eq!(lines.len(), 5, "{}", seen.stdout);
        for line in lines {
            let clean = line.contains("faults: none; children: none; no run has it");
            assert!(clean, "{line}");
        }
    }
}

/// Whether a partition cut the way from one agent to the others, and that way only, for as long as it lasted.
fn one_way(fault: &Value, from: &str, to: &[&str]) -> Result<(), String> {
    let reach = fault["reach"].as_array().ok_or("no reach was recorded")?;
    let tried = |a: &str, b: &str, phase: &str| {
        let way = reach
            .iter()
            .find(|way| way["from"] == a && way["to"] == b && way["phase"] == phase);
        let way = way.ok_or_else(|| format!("{a} → {b} was not tried {phase}"))?;
        match (way["sent"].as_u64(), way["received"].as_u64()) {
            (Some(sent), Some(received)) if sent > 0 => Ok((sent, received)),
            _ => Err(format!("{way} says nothing")),
        }
    };
    for other in to {
        for (a, b, phase, cut) in [
            (from, *other, "before", false),
            (*other, from, "before", false),
            (from, *other, "during", true),
            (*other, from, "during", false),
            (from, *other, "after", false),
            (*other, from, "after", false),
        ] {
            let (sent, received) = tried(a, b, phase)?;
            if received != if cut { 0 } else { sent } {
                return Err(format!("{phase}: of {a} {b} heard {received} of {sent}"));
            }
        }
    }
    Ok(())
}

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
    assert_eq!(rows[0]["faults"][1]["nodes"], serde_json::json!(["n1"]));
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
fn five_agents_under_fault_are_halted_by_one_command_and_refuse_work_after_a_restart() {
    if skipped() {
        return;
    }
    let _machine = machine();
    let mut cluster = Cluster::new(&[]);
    let file = cluster.scenario("cut-off", CUT_OFF);
    let evidence = Evidence::new();
    let mut drill = cluster.command(&[
        "run",
        &file,
        "--lane",
        "khala",
        "--inventory",
        "night-drill.yaml",
        "--output-dir",
        evidence.arg(),
    ]);
    let log = fs::File::create(cluster.path("drill.log")).expect("a log");
    drill.stdout(log.try_clone().expect("a handle")).stderr(log);
    let mut drill = Running(
        cluster
            .lab
            .on(CONDUCTOR, || drill.spawn().expect("it starts")),
    );
    let shown =
        |cluster: &Cluster| fs::read_to_string(cluster.path("drill.log")).unwrap_or_default();
    until("every host is cut off", Duration::from_secs(40), || {
        assert!(alive(drill.0.id()), "{}", shown(&cluster));
        cluster
            .tables()
            .iter()
            .all(|tables| tables.contains("faultlane_"))
            .then_some(())
    });

    // Another conductor is told who has them.
    let second = Evidence::new();
    cluster
        .run(&[
            "run",
            &file,
            "--lane",
            "khala",
            "--inventory",
            "night-drill.yaml",
            "--output-dir",
            second.arg(),
        ])
        .expect_code(4)
        .says("agent `n1`")
        .says("agent `n5`")
        .says("held by run");

    let began = Instant::now();
    let halted = cluster
        .run(&["halt", "--inventory", "ada.yaml"])
        .expect_code(0);
    let took = began.elapsed();
    assert_eq!(cluster.tables(), [""; 5]);
    for name in AGENTS {
        halted.says(&format!("{name}: halted; undone: f1-partition"));
    }
    assert!(took < Duration::from_secs(2), "{took:?}");
    eprintln!("five agents were halted within {took:?}");

    signal(drill.0.id(), Signal::SIGINT);
    let status = drill.0.wait().expect("it ends");
    assert_ne!(status.code(), Some(0), "{}", shown(&cluster));

    // It is remembered.
    let n1 = cluster.agents.remove(0);
    let pid = n1.0.id();
    signal(pid, Signal::SIGTERM);
    until("n1 has ended", Duration::from_secs(10), || {
        (!alive(pid)).then_some(())
    });
    drop(n1);
    let n1 = cluster.start(1);
    cluster.agents.insert(0, n1);
    let third = Evidence::new();
    let again = [
        "run",
        &file,
        "--lane",
        "khala",
        "--inventory",
        "night-drill.yaml",
        "--output-dir",
        third.arg(),
    ];
    let refused = cluster.run(&again).expect_code(4);
    for name in AGENTS {
        refused.says(&format!("agent `{name}`"));
    }
    refused.says("halted").says("/halt/clear");
    cluster
        .run(&["halt", "--inventory", "ada.yaml", "--clear"])
        .expect_code(0);
    cluster.is_clean();
    assert!(Path::new(&cluster.path("state-n1")).exists());
}
