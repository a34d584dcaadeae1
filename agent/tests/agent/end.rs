use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use agent::journal::{Entry, Event, Journal, Undo};
use agent::procfs;
use host::clock;
use model::lease::Deadline;
use rustix::process::Signal;

use crate::support::{
    Node, hold, kill, lane, order, pause, proxy, refusal, send, shard, until, until_gone,
};

async fn with_everything() -> (Node, Vec<u32>) {
    let node = Node::with_lane("").await;
    for (name, role) in [
        ("proxy", proxy(0)),
        ("shard-1", shard(true)),
        ("deaf", lane("stubborn")),
    ] {
        node.agent.start_child(name, &role).await.unwrap();
    }
    let pids = node
        .agent
        .children()
        .await
        .unwrap()
        .iter()
        .map(|child| child.pid)
        .collect();
    (node, pids)
}

#[tokio::test]
async fn everything_ends_with_stdin_whatever_is_in_force_and_nothing_is_left() {
    let (node, pids) = with_everything().await;
    node.agent.inject(&order("f1", pause())).await.unwrap();
    node.agent.inject(&order("f2", hold())).await.unwrap();
    let mut deaf = order("f3", kill());
    deaf.node = Some("deaf".to_owned());
    node.agent
        .start_child("second", &lane("stubborn"))
        .await
        .unwrap();
    let second = node.child("second").await.pid;
    node.agent.inject(&deaf).await.unwrap();

    let began = Instant::now();
    let folder = node.end().await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
    for pid in pids.into_iter().chain([second]) {
        assert_eq!(procfs::stat(pid), None, "process {pid}");
    }
    assert!(!folder.path().join("agent").exists());
    let log = fs::read_to_string(folder.path().join("logs/deaf.log")).unwrap();
    assert_eq!(
        log.matches("started").count(),
        1,
        "a killed node was started again"
    );
}

#[tokio::test]
async fn children_do_not_outlive_an_agent_that_is_killed_even_when_they_are_paused() {
    let node = Node::with_lane("").await;
    node.agent.start_child("proxy", &proxy(0)).await.unwrap();
    node.agent.inject(&order("f1", pause())).await.unwrap();
    node.agent.inject(&order("f2", hold())).await.unwrap();
    let (paused, proxy) = (node.child("lane").await.pid, node.child("proxy").await.pid);

    let journal = node.state_dir().join("journal.jsonl");
    let node = node.kill_and_start_again().await;
    until_gone(paused).await;
    until_gone(proxy).await;
    assert!(node.agent.status().await.unwrap().faults.is_empty());
    let entries = host::jsonl::read::<Entry>(&journal).unwrap().values;
    let mut undone: Vec<_> = entries
        .iter()
        .filter(|entry| matches!(entry.event, Event::Undone { .. }))
        .map(|entry| entry.id.as_str())
        .collect();
    // None waits for another.
    undone.sort_unstable();
    assert_eq!(undone, ["f1", "f2"]);
}

#[tokio::test]
async fn every_step_is_in_the_journal_before_the_next() {
    let node = Node::with_lane("").await;
    let journal = node.state_dir().join("journal.jsonl");
    node.agent.inject(&order("f1", kill())).await.unwrap();
    node.agent.undo("f1").await.unwrap();
    let entries = host::jsonl::read::<Entry>(&journal).unwrap().values;
    let steps: Vec<_> = entries
        .iter()
        .map(|entry| match &entry.event {
            Event::Intent { .. } => "intent",
            Event::Applied => "applied",
            Event::Observed => "observed",
            Event::Renewed { .. } => "renewed",
            Event::Undone { .. } => "undone",
        })
        .collect();
    assert_eq!(steps, ["intent", "applied", "observed", "undone"]);
    assert!(entries.is_sorted_by_key(|entry| entry.at));
}

#[tokio::test]
async fn a_halt_undoes_everything_and_refuses_work_until_it_is_cleared_even_after_a_restart() {
    let node = Node::with_lane("").await;
    node.agent.inject(&order("f1", kill())).await.unwrap();
    let halted = node.agent.halt().await.unwrap();
    assert_eq!(halted.undone, ["f1"]);
    assert!(halted.status.halted && halted.status.faults.is_empty());
    assert!(node.child("lane").await.alive);
    assert_eq!(
        refusal(node.agent.inject(&order("f2", kill())).await).0,
        423
    );

    let node = node.kill_and_start_again().await;
    assert!(node.agent.status().await.unwrap().halted);
    let (status, message) = refusal(node.agent.start_child("lane", &lane("")).await);
    assert!(
        status == 423 && message.contains("/halt/clear"),
        "{message}"
    );
    assert!(!node.agent.clear_halt().await.unwrap().halted);
    node.agent.start_child("lane", &lane("")).await.unwrap();
    node.agent.inject(&order("f2", kill())).await.unwrap();
}

#[tokio::test]
async fn what_nobody_asked_for_is_named_as_residue() {
    let node = Node::with_lane("").await;
    assert_eq!(refusal(node.agent.residue().await).0, 409);
    node.agent.mark_residue().await.unwrap();
    send(node.child("lane").await.pid, Signal::STOP);
    fs::write(node.state_dir().join("core"), "").unwrap();
    until("the lane is paused", || async {
        !node.agent.residue().await.unwrap().owned.is_empty()
    })
    .await;
    let residue = node.agent.residue().await.unwrap();
    assert!(
        residue.owned.len() == 1 && residue.owned[0].contains("paused"),
        "{residue:?}"
    );
    assert!(
        residue.foreign.len() == 1 && residue.foreign[0].contains("`core`"),
        "{residue:?}"
    );
    assert!(node.pid() > 0);
}

/// The agent died after each of its steps, and its paused child for some reason lived on.
#[tokio::test]
async fn a_pause_is_undone_from_every_step_and_only_on_the_very_process() {
    for written in 1..=3 {
        for same in [true, false] {
            let mut sleeper = Command::new("sleep")
                .arg("60")
                .stdin(Stdio::null())
                .spawn()
                .unwrap();
            let pid = sleeper.id();
            send(pid, Signal::STOP);
            until("it is stopped", || async {
                procfs::is_stopped(pid) == Some(true)
            })
            .await;
            let started = procfs::stat(pid).unwrap().started + u64::from(!same);
            let intent = Event::Intent {
                order: Box::new(order("f1", pause())),
                undo: Undo::Continue {
                    node: "lane".to_owned(),
                    pid,
                    started,
                },
                lease: Deadline {
                    until: clock::now(),
                    boot: clock::boot().to_owned(),
                },
            };
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("journal.jsonl");
            let lines: Vec<String> = [intent, Event::Applied, Event::Observed]
                .into_iter()
                .take(written)
                .map(|event| {
                    let entry = Entry {
                        id: "f1".to_owned(),
                        at: clock::now(),
                        event,
                    };
                    serde_json::to_string(&entry).unwrap() + "\n"
                })
                .collect();
            // The last line that it began to write is torn.
            fs::write(&path, lines.concat() + "{\"id\":\"f1\",\"at").unwrap();

            let (_journal, healed) = Journal::open(&path).unwrap();
            assert_eq!(healed, ["f1"]);
            if same {
                until("it goes on", || async {
                    procfs::is_stopped(pid) == Some(false)
                })
                .await;
            } else {
                assert_eq!(
                    procfs::is_stopped(pid),
                    Some(true),
                    "another process of that id"
                );
            }
            sleeper.kill().unwrap();
            sleeper.wait().unwrap();
        }
    }
}
