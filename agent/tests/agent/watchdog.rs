//! The watchdog: it undoes what a killed agent does not come back for, and nothing else.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use agent::journal::Event;
use agent::procfs;
use host::clock;
use model::quantity::Span;
use rustix::process::{Pid, Signal, getsid};

use crate::crashes::A_SECOND;
use crate::netns::{said, skipped};
use crate::support::{Node, order, pause, refusal, send, until, until_gone, watchdogs};
use crate::victim::{KINDS, Kind, Remains, Victim, apart};

const LEASE: Span = Span::from_millis(600);

fn pausing() -> &'static Kind {
    KINDS.iter().find(|kind| kind.name == "pause").unwrap()
}

/// An agent with its lane paused.
async fn paused(lease: Span) -> Victim {
    let victim = Victim::start().await;
    let mut order = order("f1", pause());
    order.lease = lease;
    victim.agent.inject(&order).await.unwrap();
    victim
}

fn watchdog_of(folder: &std::path::Path) -> u32 {
    match watchdogs(folder)[..] {
        [only] => only,
        ref other => panic!("one watchdog: {other:?}"),
    }
}

/// Why each undo that the journal has was made.
fn reasons(remains: &Remains) -> Vec<String> {
    let reason = |event| match event {
        Event::Undone { reason } => Some(reason),
        _ => None,
    };
    remains
        .entries()
        .into_iter()
        .filter_map(|entry| reason(entry.event))
        .collect()
}

#[tokio::test]
async fn what_a_killed_agent_left_is_undone_when_its_lease_lapses_and_not_before() {
    let asked = clock::now();
    let victim = paused(LEASE).await;
    let renewed = clock::now();
    victim.agent.renew("f1", LEASE.times(2)).await.unwrap();
    let lane = victim.lane();
    let remains = victim.killed().await;
    assert_eq!(procfs::is_stopped(lane), Some(true), "nobody hung up on it");
    remains
        .clean(pausing(), renewed + LEASE.times(2), A_SECOND)
        .await
        .unwrap();
    let undone = remains.entries().last().unwrap().at;
    assert!(
        undone >= renewed + LEASE.times(2),
        "{}",
        undone.since(asked)
    );
    let reasons = reasons(&remains);
    assert!(
        reasons.len() == 1 && reasons[0].contains("its lease lapsed"),
        "{reasons:?}"
    );
    remains.unwatched(A_SECOND).await.unwrap();
}

#[tokio::test]
async fn it_is_of_a_session_of_its_own_and_no_residue_and_ends_with_the_agent() {
    let node = Node::with_lane("").await;
    let folder = node.state_dir().parent().unwrap().to_owned();
    let watchdog = watchdog_of(&folder);
    let pid = Pid::from_raw(i32::try_from(watchdog).unwrap());
    assert_eq!(getsid(pid).unwrap(), pid.unwrap());
    node.agent.mark_residue().await.unwrap();

    // A signal does not end it while the agent lives; where it is killed, another takes its place.
    send(watchdog, Signal::TERM);
    send(watchdog, Signal::KILL);
    until_gone(watchdog).await;
    until("another watches", || async {
        watchdogs(&folder).len() == 1
    })
    .await;
    until("it is known", || async {
        node.agent.residue().await.unwrap().owned.is_empty()
    })
    .await;
    let next = watchdog_of(&folder);
    let _folder = node.end().await;
    assert_eq!(procfs::stat(next), None);
    assert!(!folder.join("agent").exists());
}

#[tokio::test]
async fn the_one_that_takes_the_place_of_another_does_its_work() {
    let victim = paused(Span::from_secs(60)).await;
    let first = watchdog_of(victim.folder());
    send(first, Signal::KILL);
    until_gone(first).await;
    // Until there is another, faults are refused for that.
    let mut second = order("f2", pause());
    second.node = Some("nobody".to_owned());
    until("another watches", || async {
        refusal(victim.agent.inject(&second).await).0 == 404
    })
    .await;
    let renewed = clock::now();
    victim.agent.renew("f1", LEASE).await.unwrap();
    let remains = victim.killed().await;
    remains
        .clean(pausing(), renewed + LEASE, A_SECOND)
        .await
        .unwrap();
}

#[tokio::test]
async fn where_both_are_killed_it_takes_an_agent_that_comes_back() {
    let victim = paused(LEASE).await;
    let asked = clock::now();
    // The agent first: it would start another.
    let watchdog = watchdog_of(victim.folder());
    let lane = victim.lane();
    send(victim.pid(), Signal::KILL);
    send(watchdog, Signal::KILL);
    let remains = victim.dead().await;
    until("the lease has lapsed", || async {
        clock::now() > asked + LEASE.times(2)
    })
    .await;
    assert_eq!(procfs::is_stopped(lane), Some(true));
    let next = remains.come_back(None).await.unwrap();
    remains
        .clean(pausing(), clock::now(), A_SECOND)
        .await
        .unwrap();
    assert!(next.end(Duration::from_secs(5)).await);
    remains.unwatched(A_SECOND).await.unwrap();
}

#[tokio::test]
async fn an_agent_that_comes_back_undoes_at_once_and_the_old_watchdog_goes() {
    let remains = paused(Span::from_secs(60)).await.killed().await;
    let old = watchdog_of(remains.folder());
    let next = remains.come_back(None).await.unwrap();
    let reasons = reasons(&remains);
    assert!(
        reasons.len() == 1 && reasons[0].contains("restarted"),
        "{reasons:?}"
    );
    until_gone(old).await;
    assert_eq!(watchdogs(remains.folder()).len(), 1);
    assert!(next.end(Duration::from_secs(5)).await);
    remains.unwatched(A_SECOND).await.unwrap();
}

#[tokio::test]
async fn when_an_agent_comes_back_just_as_the_lease_lapses_one_of_them_undoes() {
    for early_ms in [0, 5, 10, 15, 20, 25] {
        let victim = paused(LEASE).await;
        let asked = clock::now();
        let remains = victim.killed().await;
        let back = (asked + LEASE - Span::from_millis(early_ms)).since(clock::now());
        tokio::time::sleep(back.duration()).await;
        let next = remains.come_back(None).await.unwrap();
        assert_eq!(reasons(&remains).len(), 1, "{early_ms} ms early");
        assert!(next.end(Duration::from_secs(5)).await);
    }
}

#[tokio::test]
async fn when_it_is_told_to_end_it_undoes_at_once() {
    let remains = paused(Span::from_secs(60)).await.killed().await;
    send(watchdog_of(remains.folder()), Signal::TERM);
    remains
        .clean(pausing(), clock::now(), A_SECOND)
        .await
        .unwrap();
    remains.unwatched(A_SECOND).await.unwrap();
}

#[tokio::test]
async fn a_folder_that_is_removed_does_not_keep_it_from_undoing() {
    let victim = paused(LEASE).await;
    let asked = clock::now();
    let lane = victim.lane();
    let remains = victim.killed().await;
    let watchdog = watchdog_of(remains.folder());
    fs::remove_dir_all(remains.folder().join("agent")).unwrap();
    until_gone(lane).await;
    assert!(clock::now() < asked + LEASE + A_SECOND);
    until_gone(watchdog).await;
    assert!(
        !remains.folder().join("agent").exists(),
        "it has made nothing"
    );
}

/// Stands before the real nft, and is slow to change anything once `slow` is there.
const SLOW_NFT: &str = r#"#!/bin/sh
dir=$(dirname "$0")
PATH=${PATH#*:}
case "$*" in *-f*) [ -e "$dir/slow" ] && { : > "$dir/begun"; sleep 0.5; } ;; esac
nft "$@"
status=$?
[ -e "$dir/begun" ] && : > "$dir/done"
exit $status
"#;

#[test]
fn a_program_that_outlives_the_agent_does_not_change_anything_after_the_undo() {
    if skipped() {
        return;
    }
    for comes_back in [true, false] {
        let lab = apart(move || async move {
            let tools = tempfile::tempdir().unwrap();
            let there = |name: &str| tools.path().join(name).exists();
            let script = tools.path().join("nft");
            fs::write(&script, SLOW_NFT).unwrap();
            fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
            let path = std::env::var("PATH").unwrap();
            let victim =
                Victim::start_with(&[format!("PATH={}:{path}", tools.path().display())], None)
                    .await;
            // The kernel is tried with the same program, once.
            victim.agent.preflight().await.unwrap();
            fs::write(tools.path().join("slow"), "").unwrap();
            let kind = KINDS.iter().find(|kind| kind.name == "partition").unwrap();
            // It lapses while nft has yet to begin.
            let order = kind.order(Span::from_millis(100));
            let agent = victim.agent.clone();
            let injecting = tokio::spawn(async move { agent.inject(&order).await });
            until("nft is under way", || async { there("begun") }).await;
            let remains = victim.killed().await;
            fs::remove_file(tools.path().join("slow")).unwrap();
            assert!(injecting.await.unwrap().is_err());
            let next = if comes_back {
                Some(remains.come_back(None).await.unwrap())
            } else {
                None
            };
            until("nft has ended", || async { there("done") }).await;
            remains.clean(kind, clock::now(), A_SECOND).await.unwrap();
            assert_eq!(reasons(&remains).len(), 1);
            if let Some(next) = next {
                assert!(next.end(Duration::from_secs(5)).await);
            }
            remains.unwatched(A_SECOND).await.unwrap();
            assert_eq!(said("nft", &["list", "tables"]), "");
        });
        lab.join().unwrap();
    }
}
