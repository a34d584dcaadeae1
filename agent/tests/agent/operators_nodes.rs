//! Process faults of nodes that an operator runs: found by a pid file, a unit or a command, and started again. There is no
//! systemd where tests run: a script stands in for systemctl.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use agent::procfs;
use agent::reach::reach;
use host::clock;
use model::command::CommandConfig;
use model::fault::{CrashLoop, Fault, FaultOrder, KillTree};
use model::node::NodeConfig;
use model::quantity::Span;
use rustix::process::Signal;
use scenarios::inventory::Place;
use tempfile::TempDir;

use crate::db::{Db, Made};
use crate::operated::Operated;
use crate::support::{
    Named, Node, agent_in, kill, lane, order, pause, program, refusal, send, terminate, until,
    until_gone, watchdogs,
};

fn on_db(id: &str, fault: Fault) -> FaultOrder {
    FaultOrder {
        node: Some("db".to_owned()),
        ..order(id, fault)
    }
}

fn kill_tree() -> Fault {
    Fault::KillTree(KillTree {})
}

fn crash_loop(every: u64, times: Option<u32>) -> Fault {
    Fault::CrashLoop(CrashLoop {
        every: Span::from_millis(every),
        times,
    })
}

/// An agent beside such a node.
async fn beside(made: Made) -> (Node, Db, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::start(&folder.path().join("db"), made).await;
    let node = Node::start_in(tempfile::tempdir().unwrap(), db.named()).await;
    (node, db, folder)
}

#[tokio::test]
async fn a_node_of_a_pid_file_is_ended_and_started_again() {
    let (node, db, _folder) = beside(Made::Alone).await;
    node.agent.mark_residue().await.unwrap();
    for (id, fault) in [("f1", kill()), ("f2", terminate(Span::from_secs(2)))] {
        let (before, starts) = (db.pid(), db.starts());
        let view = node.agent.inject(&on_db(id, fault)).await.unwrap();
        assert_eq!(view.observation.bitten, 1);
        assert_eq!(view.observation.figures["pid_before"], u64::from(before));
        assert!(procfs::Identity::of(before).is_none());
        let owned = node.agent.residue().await.unwrap().owned;
        assert!(
            owned.iter().any(|left| left.contains("`db`: down")),
            "{owned:?}"
        );

        let healed = node.agent.undo(id).await.unwrap();
        let bracket = healed.healed.unwrap();
        assert!(bracket.asked > view.injected.observed && bracket.asked < bracket.observed);
        assert_eq!(healed.observation.figures["pid_after"], u64::from(db.pid()));
        db.is_whole().await;
        assert_eq!(db.starts(), starts + 1);
        assert_eq!(node.agent.undo(id).await.unwrap(), healed);
        assert_eq!(db.starts(), starts + 1, "it is started once");
    }
    let residue = node.agent.residue().await.unwrap();
    assert_eq!(
        (residue.owned.len(), residue.foreign.len()),
        (0, 0),
        "{residue:?}"
    );
}

#[tokio::test]
async fn a_node_that_has_no_start_can_be_paused_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::start(&folder.path().join("db"), Made::Alone).await;
    let mut named = db.named();
    named.nodes.get_mut("db").unwrap().start = None;
    let node = Node::start_in(tempfile::tempdir().unwrap(), named).await;
    for fault in [
        kill(),
        terminate(Span::ZERO),
        kill_tree(),
        crash_loop(100, None),
    ] {
        let (status, message) = refusal(node.agent.inject(&on_db("f0", fault)).await);
        assert!(status == 422 && message.contains("add start:"), "{message}");
    }
    let view = node.agent.inject(&on_db("f1", pause())).await.unwrap();
    assert_eq!(view.observation.figures["stopped"], 1);
    assert_eq!(procfs::is_stopped(db.pid()), Some(true));
    let pid = db.pid();
    assert!(node.agent.undo("f1").await.unwrap().healed.is_some());
    assert_eq!((db.pid(), procfs::is_stopped(pid)), (pid, Some(false)));
    // One that came in its place is a stranger to the fault.
    node.agent.inject(&on_db("f2", pause())).await.unwrap();
    send(pid, Signal::KILL);
    until_gone(pid).await;
    db.start_again();
    send(db.pid(), Signal::STOP);
    until("it is stopped", || async {
        procfs::is_stopped(db.pid()) == Some(true)
    })
    .await;
    let view = node.agent.undo("f2").await.unwrap();
    assert_eq!(view.observation.figures["ended_meanwhile"], 1);
    assert_eq!(procfs::is_stopped(db.pid()), Some(true));
    let (status, message) = refusal(node.agent.inject(&on_db("f3", pause())).await);
    assert!(
        status == 409 && message.contains("stopped already"),
        "{message}"
    );
    assert_eq!(procfs::is_stopped(db.pid()), Some(true));
}

#[tokio::test]
async fn what_its_own_keeper_has_brought_back_is_not_started_a_second_time() {
    let (node, db, _folder) = beside(Made::Alone).await;
    node.agent.inject(&on_db("f1", kill())).await.unwrap();
    db.start_again();
    let asked = clock::now();
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let healed = node.agent.undo("f1").await.unwrap();
    assert_eq!(db.starts(), 2);
    db.is_whole().await;
    // The heal is when it was brought back, and not when that was noticed.
    let heal = healed.healed.unwrap();
    assert!(
        heal.asked <= asked && heal.asked >= healed.injected.observed,
        "{healed:?}"
    );
}

#[tokio::test]
async fn processes_that_no_fault_may_be_done_to_are_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::start(&folder.path().join("db"), Made::Alone).await;
    let mut named = db.named();
    let file = folder.path().join("named.pid");
    named.nodes.get_mut("db").unwrap().pid_file = Some(file.clone());
    let node = Node::start_in(tempfile::tempdir().unwrap(), named).await;
    node.agent.start_child("lane", &lane("")).await.unwrap();
    let lane = node.child("lane").await.pid;
    let watchdog = watchdogs(node.state_dir().parent().unwrap())[0];
    let attempt = async || refusal(node.agent.inject(&on_db("f", kill())).await);

    let (status, message) = attempt().await;
    assert!(
        status == 409 && message.contains("is not there"),
        "{message}"
    );
    for (pid, status, words) in [
        (1, 403, "first process"),
        (node.pid(), 403, "the agent itself"),
        (std::process::id(), 403, "ancestor of the agent"),
        (lane, 403, "by its own name"),
        (watchdog, 403, "the agent's own"),
        (4_194_305, 409, "no such process"),
    ] {
        fs::write(&file, pid.to_string()).unwrap();
        let (found, message) = attempt().await;
        assert!(
            found == status && message.contains(words),
            "{pid}: {message}"
        );
        assert!(
            message.contains("`db`") && message.contains("configuration"),
            "{message}"
        );
    }
    // Written long before the process that has the id now.
    fs::write(&file, db.pid().to_string()).unwrap();
    let before = std::time::SystemTime::now() - std::time::Duration::from_hours(1);
    fs::File::open(&file).unwrap().set_modified(before).unwrap();
    let (status, message) = attempt().await;
    assert!(status == 409 && message.contains("is stale"), "{message}");
    db.is_whole().await;

    let (status, message) = refusal(node.agent.start_child("db", &self::lane("")).await);
    assert!(status == 409 && message.contains("`db`"), "{message}");
    let mut unknown = on_db("f", kill());
    unknown.node = Some("other".to_owned());
    assert_eq!(refusal(node.agent.inject(&unknown).await).0, 404);
    node.end().await;
}

#[tokio::test]
async fn the_policy_says_which_of_the_operators_nodes_may_be_hit() {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::start(&folder.path().join("db"), Made::Alone).await;
    let start = db.start_command().run.join(", ");
    let agent = Operated::start(
        folder,
        &format!(
            "commands: {{ start-db: {{ run: [{start}] }} }}
nodes:
  db: {{ pid_file: db/db.pid, start: start-db }}
  spared: {{ pid_file: db/db.pid, start: start-db }}
policy: {{ targets: [db] }}
"
        ),
    )
    .await;
    let node = reach(&Place::Socket(agent.at.clone().into()))
        .await
        .unwrap();
    let mut spared = on_db("f1", kill());
    spared.node = Some("spared".to_owned());
    for refused in [spared, order("f2", kill())] {
        let (status, message) = refusal(node.inject(&refused).await);
        assert!(status == 403 && message.contains("`targets`"), "{message}");
    }
    db.is_whole().await;
    assert_eq!(db.starts(), 1);
    node.inject(&on_db("f3", kill())).await.unwrap();
    node.undo("f3").await.unwrap();
    db.is_whole().await;
    assert_eq!(db.starts(), 2);
}

/// Has the main process of a unit in a file. A unit that was started three times is refused until its failures are forgotten,
/// as systemd's limit has it.
const SYSTEMCTL: &str = r#"#!/bin/sh
cd "$(dirname "$0")"
echo "$*" >> calls
test "$(echo "$*" | tr ' ' '\n' | tail -1)" = gate.service || exit 5
case $1 in
show)
    pid=$(cat ../db/db.pid 2>/dev/null)
    kill -0 "${pid:-none}" 2>/dev/null || pid=0
    echo $pid ;;
reset-failed) rm -f failures ;;
start)
    test "$(cat failures 2>/dev/null | wc -l)" -lt 3 || { echo 'start-limit-hit' >&2; exit 1; }
    echo >> failures
    setsid sh ../db/start.sh > /dev/null 2>&1 ;;
esac
"#;

/// An agent that finds such a systemctl.
async fn with_systemctl(folder: &Path) -> Node {
    let tools = folder.join("tools");
    fs::create_dir(&tools).unwrap();
    let script = tools.join("systemctl");
    fs::write(&script, SYSTEMCTL).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("PATH={}:{path}", tools.display());
    let args = [&path, program().to_str().unwrap(), "agent"];
    let unit = NodeConfig {
        systemd: Some("gate.service".to_owned()),
        ..NodeConfig::default()
    };
    let named = Named {
        nodes: [("db".to_owned(), unit)].into(),
        ..Named::default()
    };
    Node::start_by(
        Path::new("/usr/bin/env"),
        &args,
        tempfile::tempdir().unwrap(),
        named,
    )
    .await
}

#[tokio::test]
async fn a_unit_of_systemd_is_ended_and_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::start(&folder.path().join("db"), Made::Alone).await;
    let node = with_systemctl(folder.path()).await;
    for (id, fault) in [
        ("f1", kill()),
        ("f2", kill_tree()),
        ("f3", terminate(Span::from_secs(1))),
    ] {
        let before = db.pid();
        node.agent.inject(&on_db(id, fault)).await.unwrap();
        assert!(procfs::Identity::of(before).is_none());
        let healed = node.agent.undo(id).await.unwrap();
        assert_eq!(healed.observation.figures["pid_after"], u64::from(db.pid()));
        db.is_whole().await;
    }
    // More often than the limit allows.
    node.agent
        .inject(&on_db("f4", crash_loop(100, None)))
        .await
        .unwrap();
    until("it has crashed often", || async {
        node.agent.look("f4").await.unwrap().observation.figures["crashes"] >= 5
    })
    .await;
    let healed = node.agent.undo("f4").await.unwrap();
    assert_eq!(healed.observation.figures["failed_starts"], 0);
    db.is_whole().await;
    let calls = fs::read_to_string(folder.path().join("tools/calls")).unwrap();
    assert!(
        calls.contains("show -p MainPID --value gate.service"),
        "{calls}"
    );
    assert!(calls.contains("start --no-block gate.service"), "{calls}");
}

#[tokio::test]
async fn a_command_may_tell_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::start(&folder.path().join("db"), Made::Alone).await;
    let mut named = db.named();
    let print = format!("cat {}", db.pid_file().display());
    let print = CommandConfig {
        run: ["/bin/sh", "-c", &print].map(str::to_owned).to_vec(),
        within: Span::from_secs(2),
    };
    named.commands.insert("db-pid".to_owned(), print);
    let config = named.nodes.get_mut("db").unwrap();
    (config.pid_file, config.pid) = (None, Some("db-pid".to_owned()));
    let node = Node::start_in(tempfile::tempdir().unwrap(), named).await;
    node.agent.inject(&on_db("f1", kill())).await.unwrap();
    node.agent.undo("f1").await.unwrap();
    db.is_whole().await;
    assert_eq!(db.starts(), 2);
}

#[tokio::test]
async fn of_a_tree_nobody_is_left_however_fast_it_forks() {
    for made in [Made::Tree, Made::Forking] {
        let (node, db, _folder) = beside(made).await;
        for id in ["f1", "f2", "f3"] {
            let view = node.agent.inject(&on_db(id, kill_tree())).await.unwrap();
            let killed = view.observation.figures["processes_killed"];
            assert!(killed >= if made == Made::Tree { 4 } else { 2 }, "{killed}");
            assert_eq!(view.observation.bitten, killed);
            let left = db.processes();
            assert!(left.is_empty(), "{made:?}: {left:?}");
            let healed = node.agent.undo(id).await.unwrap();
            assert_eq!(healed.observation.figures["pid_after"], u64::from(db.pid()));
            db.is_whole().await;
        }
        // What kill leaves of a tree is the difference.
        if made == Made::Tree {
            node.agent.inject(&on_db("f4", kill())).await.unwrap();
            assert_eq!(db.processes().len(), 3);
        }
        node.end().await;
    }
}

#[tokio::test]
async fn a_node_in_a_crash_loop_crashes_until_the_undo_and_stays_up_then() {
    let (node, db, _folder) = beside(Made::Alone).await;
    let crashes =
        async |id: &str| node.agent.look(id).await.unwrap().observation.figures["crashes"];
    node.agent
        .inject(&on_db("f1", crash_loop(100, None)))
        .await
        .unwrap();
    until("it has crashed thrice", || async {
        crashes("f1").await >= 3
    })
    .await;
    let healed = node.agent.undo("f1").await.unwrap();
    let count = healed.observation.figures["crashes"];
    assert_eq!(healed.observation.bitten, count);
    assert_eq!(healed.observation.figures["pid_after"], u64::from(db.pid()));
    assert!(healed.healed.unwrap().asked > healed.injected.asked);
    let starts = u64::from(db.starts());
    assert_eq!(starts, count + 1, "each crash but none more has a start");
    tokio::time::sleep(std::time::Duration::from_millis(250)).await;
    db.is_whole().await;
    assert_eq!(u64::from(db.starts()), starts);

    node.agent
        .inject(&on_db("f2", crash_loop(100, Some(2))))
        .await
        .unwrap();
    until("it has crashed twice", || async {
        crashes("f2").await == 2
    })
    .await;
    db.is_whole().await;
    let pid = db.pid();
    tokio::time::sleep(std::time::Duration::from_millis(250)).await;
    let healed = node.agent.undo("f2").await.unwrap();
    assert_eq!(healed.observation.figures["crashes"], 2);
    assert_eq!(db.pid(), pid);

    // A lease that lapses ends it too.
    let mut short = on_db("f3", crash_loop(100, None));
    short.lease = Span::from_millis(300);
    node.agent.inject(&short).await.unwrap();
    until("it has lapsed", || async {
        !node.agent.look("f3").await.unwrap().active
    })
    .await;
    db.is_whole().await;
}

#[tokio::test]
async fn a_child_of_the_agents_own_crashes_and_its_tree_is_killed_too() {
    let node = Node::with_lane("").await;
    node.agent.mark_residue().await.unwrap();
    node.agent
        .inject(&order("f1", crash_loop(100, None)))
        .await
        .unwrap();
    until("it has crashed thrice", || async {
        node.agent.look("f1").await.unwrap().observation.figures["crashes"] >= 3
    })
    .await;
    let healed = node.agent.undo("f1").await.unwrap();
    let lane = node.child("lane").await;
    assert!(lane.alive);
    assert_eq!(
        u64::from(lane.restarts),
        healed.observation.figures["crashes"]
    );
    assert_eq!(healed.observation.figures["pid_after"], u64::from(lane.pid));

    let view = node.agent.inject(&order("f2", kill_tree())).await.unwrap();
    assert_eq!(view.observation.figures["processes_killed"], 1);
    until("the end is seen", || async {
        !node.child("lane").await.alive
    })
    .await;
    node.agent.undo("f2").await.unwrap();
    assert!(node.child("lane").await.alive);
    assert_eq!(node.agent.residue().await.unwrap().owned, [""; 0]);
}

#[tokio::test]
async fn a_start_that_fails_is_said_with_its_words_and_tried_again() {
    let (node, db, _folder) = beside(Made::Alone).await;
    db.make("broken", true);
    node.agent.inject(&on_db("f1", kill())).await.unwrap();
    let (status, message) = refusal(node.agent.undo("f1").await);
    assert!(
        status == 500 && message.contains("out of luck") && message.contains("start.sh"),
        "{message}"
    );
    db.make("broken", false);
    node.agent.undo("f1").await.unwrap();
    db.is_whole().await;

    db.make("hangs", true);
    node.agent.inject(&on_db("f2", kill())).await.unwrap();
    let (_, message) = refusal(node.agent.undo("f2").await);
    assert!(message.contains("did not return within 2s"), "{message}");
    db.make("hangs", false);
    node.agent.undo("f2").await.unwrap();
    db.is_whole().await;
    assert_eq!(db.starts(), 3);
}

#[tokio::test]
async fn an_agent_that_ends_starts_the_operators_node_again() {
    for (id, fault) in [
        ("f1", kill()),
        ("f2", kill_tree()),
        ("f3", crash_loop(100, None)),
    ] {
        let (node, db, _folder) = beside(Made::Alone).await;
        node.agent.inject(&on_db(id, fault)).await.unwrap();
        node.end().await;
        db.is_whole().await;
    }
}

#[tokio::test]
async fn what_a_watchdog_starts_has_nothing_of_the_watchdogs() {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::start(&folder.path().join("db"), Made::Alone).await;
    let mut named = db.named();
    // It waits for nobody: a shell that has waited blocks no signal any more.
    let start = format!(
        "cd {}; echo 2 > gen; GEN=2 setsid sleep 300 & echo $! > db.pid",
        db.folder().display()
    );
    let command = named.commands.get_mut("start-db").unwrap();
    command.run = ["/bin/sh", "-c", &start].map(str::to_owned).to_vec();
    let node = Node::start_in(tempfile::tempdir().unwrap(), named).await;
    let mut short = on_db("f1", kill());
    short.lease = Span::from_millis(300);
    node.agent.inject(&short).await.unwrap();
    let state = node.kill().await;
    db.is_whole().await;
    let of = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", db.pid())).unwrap();
    let blocked = of("status");
    let blocked = blocked.lines().find(|line| line.starts_with("SigBlk:"));
    assert_eq!(
        blocked.unwrap().trim_start_matches("SigBlk:").trim(),
        "0".repeat(16)
    );
    assert_eq!(of("oom_score_adj").trim(), "0");
    until("nobody watches", || async {
        watchdogs(state.path()).is_empty()
    })
    .await;
}

/// The agent is killed while its start command is under way, which goes on without it.
#[tokio::test]
async fn a_node_that_is_being_started_is_not_started_a_second_time() {
    let (node, db, _folder) = beside(Made::Alone).await;
    let mut short = on_db("f1", kill());
    short.lease = Span::from_millis(300);
    node.agent.inject(&short).await.unwrap();
    db.make("slow", true);
    let agent = node.agent.clone();
    let undoing = tokio::spawn(async move { agent.undo("f1").await.is_ok() });
    let launching = || {
        let all = fs::read_dir("/proc").unwrap().flatten();
        all.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
            .any(|line| {
                let script = db.folder().join("start.sh");
                let script = script.as_os_str().as_encoded_bytes();
                line.windows(7).any(|word| word == b"launch\0")
                    && line.windows(script.len()).any(|word| word == script)
            })
    };
    until("it is being started", || async { launching() }).await;
    let folder = node.kill().await;
    assert!(!undoing.await.unwrap());
    until("nobody watches", || async {
        watchdogs(folder.path()).is_empty()
    })
    .await;
    db.is_whole().await;
    assert_eq!(db.starts(), 2);
}

/// An agent beside two of them, of which `db` can be made not to start for longer than the other's lease.
async fn beside_two() -> (Node, Named, [Db; 2], TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::start(&folder.path().join("db"), Made::Alone).await;
    let other = Db::start(&folder.path().join("other"), Made::Alone).await;
    let mut named = db.named();
    let command = named.commands.get_mut("start-db").unwrap();
    command.within = Span::from_secs(4);
    let one_more = NodeConfig {
        pid_file: Some(other.pid_file()),
        ..NodeConfig::default()
    };
    named.nodes.insert("other".to_owned(), one_more);
    let node = Node::start_in(tempfile::tempdir().unwrap(), named.clone()).await;
    (node, named, [db, other], folder)
}

fn on_other(id: &str, fault: Fault) -> FaultOrder {
    FaultOrder {
        node: Some("other".to_owned()),
        ..order(id, fault)
    }
}

#[tokio::test]
async fn a_node_that_takes_long_to_start_does_not_keep_a_watchdog_from_the_leases_that_lapse_meanwhile()
 {
    let (node, _, [db, other], _folder) = beside_two().await;
    db.make("hangs", true);
    let (mut first, mut second) = (on_db("f1", kill()), on_other("f2", pause()));
    first.lease = Span::from_millis(700);
    second.lease = Span::from_millis(1_200);
    node.agent.inject(&first).await.unwrap();
    let asked = clock::now();
    node.agent.inject(&second).await.unwrap();
    let state = node.kill().await;
    let paused = async || procfs::is_stopped(other.pid()) == Some(true);
    assert!(paused().await);
    until("it goes on", async || !paused().await).await;
    let late = clock::now().since(asked + second.lease);
    assert!(late < Span::from_secs(1), "{late} after its lease");
    db.make("hangs", false);
    until("nobody watches", || async {
        watchdogs(state.path()).is_empty()
    })
    .await;
    db.is_whole().await;
}

#[tokio::test]
async fn a_node_that_does_not_start_does_not_keep_an_agent_that_comes_back_from_undoing_the_others()
{
    let (node, named, [db, other], _folder) = beside_two().await;
    db.make("broken", true);
    node.agent.inject(&on_db("f1", kill())).await.unwrap();
    let paused = on_other("f2", pause());
    node.agent.inject(&paused).await.unwrap();
    let state = node.kill().await;
    assert_eq!(procfs::is_stopped(other.pid()), Some(true));
    let back = agent_in(state.path(), named.clone(), program(), &["agent"]).await;
    assert!(back.is_err(), "it does not serve before all is undone");
    assert_eq!(procfs::is_stopped(other.pid()), Some(false));
    db.make("broken", false);
    let node = Node::start_in(state, named).await;
    db.is_whole().await;
    node.end().await;
}

#[tokio::test]
async fn what_comes_back_as_a_process_that_no_fault_may_be_done_to_crashes_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::start(&folder.path().join("db"), Made::Alone).await;
    let mut named = db.named();
    let wrong = folder.path().join("wrong.pid");
    let start = format!("cp {} {}", wrong.display(), db.pid_file().display());
    let command = named.commands.get_mut("start-db").unwrap();
    command.run = ["/bin/sh", "-c", &start].map(str::to_owned).to_vec();
    let node = Node::start_in(tempfile::tempdir().unwrap(), named).await;
    fs::write(&wrong, node.pid().to_string()).unwrap();
    node.agent
        .inject(&on_db("f1", crash_loop(50, None)))
        .await
        .unwrap();
    until("it is back as that", || async { db.pid() == node.pid() }).await;
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    let healed = node.agent.undo("f1").await.expect("the agent lives");
    assert_eq!(healed.observation.figures["crashes"], 1);
    db.start_again();
    node.end().await;
}

#[tokio::test]
async fn a_tree_that_is_not_stopped_within_its_lease_goes_on_or_is_started_again() {
    let (node, db, _folder) = beside(Made::Bush).await;
    let mut said = Vec::new();
    let wanted = ["before anything was done", "before all were stopped"];
    let has = |said: &[String], words: &str| said.iter().any(|said| said.contains(words));
    // How long it takes depends on the machine: sooner or later one lapses in the middle.
    for (number, lease) in (1..).zip([1, 20, 30, 40, 60, 80, 100, 120].repeat(10)) {
        if wanted.iter().all(|words| has(&said, words)) {
            break;
        }
        let mut short = on_db(&format!("f{number}"), kill_tree());
        short.lease = Span::from_millis(lease);
        if let Err(error) = node.agent.inject(&short).await {
            said.push(error.to_string());
        }
        db.is_whole().await;
    }
    for words in wanted {
        assert!(has(&said, words), "{words}: {said:?}");
    }
    node.end().await;
}

#[tokio::test]
async fn a_process_that_does_not_heed_sigterm_is_killed_no_later_than_the_lease() {
    let (node, db, _folder) = beside(Made::Deaf).await;
    let mut patient = on_db("f1", terminate(Span::from_secs(30)));
    patient.lease = Span::from_millis(600);
    let asked = clock::now();
    let view = node.agent.inject(&patient).await.unwrap();
    assert_eq!(view.observation.figures["killed_after_grace"], 1);
    until("it is undone", || async {
        !node.agent.look("f1").await.unwrap().active
    })
    .await;
    let late = clock::now().since(asked + patient.lease);
    assert!(late < Span::from_secs(1), "{late} after its lease");
    db.is_whole().await;

    // The same where the agent dies meanwhile.
    patient.id = "f2".to_owned();
    patient.lease = Span::from_secs(3);
    let agent = node.agent.clone();
    let asked = clock::now();
    let lease = patient.lease;
    let injecting = tokio::spawn(async move { agent.inject(&patient).await });
    let journal = node.state_dir().join("journal.jsonl");
    until("it is on record", || async {
        let entries = fs::read_to_string(&journal).unwrap();
        entries
            .lines()
            .any(|line| line.contains("f2") && line.contains("applied"))
    })
    .await;
    let state = node.kill().await;
    assert!(injecting.await.unwrap().is_err());
    until("nobody watches", || async {
        watchdogs(state.path()).is_empty()
    })
    .await;
    let late = clock::now().since(asked + lease);
    assert!(late < Span::from_secs(2), "{late} after its lease");
    db.is_whole().await;
    assert_eq!(db.starts(), 3);
}
