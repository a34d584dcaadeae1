//! What becomes of hosts under fault when the conductor goes, and when somebody pulls the lever.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{AGENTS, CUT_OFF, Cluster, How};
use crate::netns::skipped;
use crate::support::{Evidence, alive, machine, signal, until};

#[test]
fn five_agents_under_fault_are_free_when_the_conductor_is_gone_and_one_command_halts_them_for_good()
{
    if skipped() {
        return;
    }
    let _machine = machine();
    let mut cluster = Cluster::new(&[]);
    let file = cluster.scenario("cut-off", CUT_OFF);
    let nothing_cut = |cluster: &Cluster| cluster.tables().iter().all(String::is_empty);

    // A conductor that is killed: the faults end with their leases, and the agents are free when its hold has lapsed.
    let evidence = Evidence::new();
    let mut killed = cluster.cut_off(&file, &evidence);
    killed.0.kill().expect("SIGKILL");
    until("no host is cut off", Duration::from_secs(3), || {
        nothing_cut(&cluster).then_some(())
    });
    until("no run has them", Duration::from_secs(20), || {
        let seen = cluster.run(&["agents", "--inventory", "night-drill.yaml"]);
        (seen.stdout.matches("no run has it").count() == 5).then_some(())
    });
    cluster.is_clean();

    // One that is interrupted gives them back itself.
    let evidence = Evidence::new();
    let mut interrupted = cluster.cut_off(&file, &evidence);
    signal(interrupted.0.id(), Signal::SIGINT);
    let status = interrupted.0.wait().expect("it ends");
    assert_eq!(status.code(), Some(3), "{}", cluster.drill_log());
    assert_eq!(
        evidence.rows()[0]["verdict"]["reason"],
        "stopped by the operator: interrupted"
    );
    cluster.is_clean();

    let evidence = Evidence::new();
    let mut drill = cluster.cut_off(&file, &evidence);

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

    // The drill under way notices, and says so.
    let status = drill.0.wait().expect("it ends");
    assert_eq!(status.code(), Some(3), "{}", cluster.drill_log());
    let reason = &evidence.rows()[0]["verdict"]["reason"];
    let reason = reason.as_str().expect("a reason");
    assert!(
        reason.starts_with("stopped by the operator: agent `n") && reason.ends_with("was halted"),
        "{reason}"
    );

    // It is remembered.
    let n1 = cluster.agents.remove(0);
    let pid = n1.0.id();
    signal(pid, Signal::SIGTERM);
    until("n1 has ended", Duration::from_secs(10), || {
        (!alive(pid)).then_some(())
    });
    drop(n1);
    let n1 = cluster.start(1, &How::default());
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
