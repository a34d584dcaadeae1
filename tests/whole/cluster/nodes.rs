//! A process that an operator runs on a host is killed by a drill, and is up again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;
use tempfile::TempDir;

use super::{Cluster, How};
use crate::netns::skipped;
use crate::support::{Evidence, alive, machine, signal, until};

/// Clients that run elsewhere have something else to recover from.
const KILL: &str = "
name: operators-node
timeline:
  - { at: 500ms, fault: { kill: {} }, for: 1s, node: db, nodes: { pick: { named: [n5] } } }
  - { at: 700ms, fault: { reset: {} } }
affected: 90%
";
const START: &str = "cd \"$(dirname \"$0\")\" || exit 1\nsetsid sleep 300 &\necho $! > db.pid.new && mv db.pid.new db.pid\n";

/// A process that outlives whoever started it, and ends with this.
struct Db(TempDir);

impl Db {
    fn start() -> Self {
        let folder = TempDir::new().expect("a folder");
        fs::write(folder.path().join("start.sh"), START).expect("a script");
        let db = Self(folder);
        let started = Command::new("/bin/sh").arg(db.script()).status();
        assert!(started.expect("it starts").success());
        db
    }

    fn script(&self) -> PathBuf {
        self.0.path().join("start.sh")
    }

    fn pid_file(&self) -> PathBuf {
        self.0.path().join("db.pid")
    }

    fn pid(&self) -> u32 {
        let text = fs::read_to_string(self.pid_file()).expect("a pid file");
        text.trim().parse().expect("a pid")
    }

    /// What the agent's operator writes about it.
    fn configuration(&self) -> String {
        let shown = |path: &Path| path.display().to_string();
        format!(
            "commands: {{ start-db: {{ run: [/bin/sh, \"{}\"] }} }}\n\
             nodes: {{ db: {{ pid_file: \"{}\", start: start-db }} }}\n",
            shown(&self.script()),
            shown(&self.pid_file())
        )
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        let pid = self.pid();
        if alive(pid) {
            signal(pid, Signal::SIGKILL);
        }
    }
}

#[test]
fn a_drill_kills_what_an_operator_runs_on_a_host_and_it_is_started_again() {
    if skipped() {
        return;
    }
    let _machine = machine();
    let db = Db::start();
    let first = db.pid();
    let cluster = Cluster::with(&[], |n| How {
        further: if n == 5 {
            db.configuration()
        } else {
            String::new()
        },
        ..How::default()
    });
    let file = cluster.scenario("operators-node", KILL);
    let evidence = Evidence::new();
    let run = |evidence: &Evidence, set: &[&str]| {
        let mut args = vec!["run", &file, "--lane", "khala", "--inventory"];
        args.extend(["night-drill.yaml", "--output-dir", evidence.arg()]);
        args.extend(set);
        cluster.run(&args)
    };
    let drilled = run(&evidence, &[]);
    eprintln!("{}{}", drilled.stdout, drilled.stderr);
    drilled.expect_code(0);
    let row = &evidence.rows()[0];
    assert_eq!(row["status"], "passed", "{row}");
    assert_eq!(row["fidelity"], "proxy+process");
    let fault = &row["faults"][0];
    assert_eq!(fault["nodes"], json!(["n5"]));
    let figures = &fault["observation"]["figures"];
    let second = db.pid();
    assert_eq!(
        (&figures["pid_before"], &figures["pid_after"]),
        (&first.into(), &second.into()),
        "{fault}"
    );
    assert!(first != second && alive(second));
    until("the first has gone", Duration::from_secs(5), || {
        (!alive(first)).then_some(())
    });
    cluster.is_clean();

    // An agent that has no such node says so, and nothing is killed anywhere.
    let elsewhere = Evidence::new();
    run(&elsewhere, &["--set", "timeline.0.nodes={ pick: all }"]).expect_code(3);
    let row = &elsewhere.rows()[0];
    let reason = row["verdict"]["reason"].as_str().expect("a reason");
    assert!(
        reason.contains("node `n1`") && reason.contains("`db`"),
        "{reason}"
    );
    until("it is up", Duration::from_secs(5), || {
        alive(db.pid()).then_some(())
    });
    cluster.is_clean();
}
