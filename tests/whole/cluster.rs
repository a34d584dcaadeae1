//! A cluster of five hosts, which are network namespaces with a bridge between them, an agent on each, and the conductor on a
//! sixth. Needs root.
//!
//! ```text
//! across  the four scenarios, with target and clients on different hosts
//! apart   hosts that cannot do what others can
//! lever   the conductor goes; the lever
//! nodes   what an operator runs on a host
//! ```

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::netns::Lab;
use crate::support::{Evidence, Finished, Running, alive, descendants, faultlane, output, until};

mod across;
mod apart;
mod lever;
mod nodes;

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

/// Every host is off the network, but for its agent.
const CUT_OFF: &str = "
name: cut-off
timeline:
  - { at: 200ms, fault: { partition: {} }, for: 30s, nodes: { pick: all } }
affected: 1%
";

/// How an agent is started.
#[derive(Default)]
struct How {
    /// Further rules.
    policy: &'static str,
    /// Further lines of its configuration.
    further: String,
    /// So many seconds are its host's monotonic clock and its own apart.
    ahead: u32,
}

struct Cluster {
    lab: Lab,
    folder: TempDir,
    agents: Vec<Running>,
}

impl Cluster {
    /// Five hosts with agents, whose certificates `pki init` has made.
    fn new(runs: &[&str]) -> Self {
        Self::with(runs, |_| How::default())
    }

    /// The same, each agent as is said by its number.
    fn with(runs: &[&str], how: impl Fn(u8) -> How) -> Self {
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
            let agent = cluster.start(n, &how(n));
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
    fn start(&self, n: u8, how: &How) -> Running {
        let name = AGENTS[usize::from(n) - 1];
        let text = format!(
            "name: {name}\nstate_dir: state-{name}\nlog_dir: logs-{name}\nlisten: 10.77.0.{n}:{PORT}\n\
             tls: {{ certificate: pki/{name}.pem, key: pki/{name}.key, client_ca: pki/ca.pem }}\n\
             policy: {{ children: [lane, tokens, proxy, shard]{} }}\n{}",
            how.policy, how.further
        );
        let file = self.path(&format!("{name}.yaml"));
        fs::write(&file, text).expect("its configuration");
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.path(&format!("{name}.log")))
            .expect("its log");
        let mut command = faultlane(&["agent", "--config", &file]);
        if how.ahead > 0 {
            // The first child of a time namespace is in it, and is killed with the program that made it.
            let seconds = how.ahead.to_string();
            let plain = command;
            command = Command::new("unshare");
            command.args(["--time", "--monotonic", &seconds, "--fork", "--kill-child"]);
            command
                .arg(plain.get_program())
                .args(plain.get_args())
                .stdin(Stdio::null());
        }
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

    /// A drill under way that has every host cut off.
    fn cut_off(&self, scenario: &str, evidence: &Evidence) -> Running {
        let mut drill = self.command(&[
            "run",
            scenario,
            "--lane",
            "khala",
            "--inventory",
            "night-drill.yaml",
            "--output-dir",
            evidence.arg(),
        ]);
        let log = fs::File::create(self.path("drill.log")).expect("a log");
        drill.stdout(log.try_clone().expect("a handle")).stderr(log);
        let drill = Running(self.lab.on(CONDUCTOR, || drill.spawn().expect("it starts")));
        until("every host is cut off", Duration::from_secs(40), || {
            assert!(alive(drill.0.id()), "{}", self.drill_log());
            self.tables()
                .iter()
                .all(|tables| tables.contains("faultlane_"))
                .then_some(())
        });
        drill
    }

    fn drill_log(&self) -> String {
        fs::read_to_string(self.path("drill.log")).unwrap_or_default()
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
                .filter(|line| !line.contains(" watchdog ") && !line.contains(" agent --config "))
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
