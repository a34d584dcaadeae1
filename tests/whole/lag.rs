//! A harness that was held up itself proves nothing, and says so.

use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::{Evidence, Running, descendants, faultlane, machine, signal, until};

/// How often, and for how long, the process stands still in each execution: far less than what would cut a client off.
const STALLS: u32 = 3;
const STALL: Duration = Duration::from_millis(400);

/// The last child of the drill that was started in a role.
fn child(drill: u32, role: &str) -> Option<u32> {
    let is_one = |pid: &u32| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.split(|byte| *byte == 0).nth(1) == Some(role.as_bytes()))
    };
    descendants(drill).into_iter().filter(is_one).max()
}

/// Lets a process stand still again and again; it may end meanwhile.
fn stall(pid: u32) {
    for _ in 0..STALLS {
        signal(pid, Signal::SIGSTOP);
        // The stall itself, and a pause in which the process does what waited for it.
        std::thread::sleep(STALL);
        signal(pid, Signal::SIGCONT);
        std::thread::sleep(STALL / 4);
    }
}

/// A restart in which, each time that it is executed, a process in this role is stalled while the fault is in force.
#[track_caller]
fn is_called_lag_when_stalled(role: &str) {
    let _machine = machine();
    let evidence = Evidence::new();
    let args = [
        "run",
        "restart",
        "--lane",
        "khala",
        "--quick",
        "--seed",
        "7",
        "--output-dir",
        evidence.arg(),
    ];
    let child_of_ours = faultlane(&args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut running = Running(child_of_ours);
    let logs = evidence.dir.join("logs/restart-khala-1");
    let mut to_come = vec!["trial-repeated.log", "trial.log"];
    let began = Instant::now();
    let ended = until("the drill ends", Duration::from_mins(2), || {
        let under_fault = to_come.last().is_some_and(|log| {
            std::fs::read_to_string(logs.join(log)).is_ok_and(|text| text.contains("injected"))
        });
        if under_fault {
            to_come.pop();
            stall(child(running.0.id(), role).expect("the process is there"));
        }
        running.0.try_wait().expect("it is ours")
    });
    let rows = evidence.rows();
    let said = format!("after {:?}: {}", began.elapsed(), rows[0]["verdict"]);
    assert_eq!(ended.code(), Some(3), "{said}");
    assert_eq!(rows[0]["status"], "inconclusive", "{said}");
    let reasons = rows[0]["verdict"]["reasons"].to_string();
    assert!(reasons.contains("harness lag: receive p99"), "{said}");
    assert!(
        rows[0]["harness"]["receive_lag"]["p99_us"].as_u64() > Some(100_000),
        "{}",
        rows[0]["harness"]
    );
}

#[test]
fn a_stalled_shard_makes_the_trial_inconclusive() {
    is_called_lag_when_stalled("shard");
}

#[test]
fn a_stalled_proxy_makes_the_trial_inconclusive() {
    is_called_lag_when_stalled("proxy");
}
