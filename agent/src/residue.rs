//! What faults can touch, before and after: faults in force here and at the children, the state of the child processes
//! and of the operator's nodes, processes that nobody asked for, what faults have on the machine, files in the agent's folder,
//! and what the kernel's network is set to (`network`).
//! Without counters: those may change.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::{join, join_all};
use model::fault::FaultView;
use model::role::{ProxyStatus, Role};
use model::trial::Residue;

use crate::faults::AgentHolder;
use crate::nodes::Node;
use crate::procfs;
use crate::supervisor::{Child, Supervisor};

mod network;

const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// So begins the state of a child that has ended by itself, or was ended by a stranger: nobody can tell which.
const ENDED: &str = "ended";
/// So begins that of a child that a fault has ended.
const TAKEN_DOWN: &str = "taken down";
const RUNS: &str = "runs";

/// The state of every thing that a fault can touch.
pub type Fingerprint = BTreeMap<Thing, String>;

/// A thing that a fault can touch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thing {
    /// A child that is part of the target, by name.
    Child(String),
    /// A child that is part of the harness, by name: a proxy or a shard.
    Harness(String),
    /// An operator's node, by name.
    Node(String),
    /// A fault in force, by id and holder.
    Fault(String, String),
    /// A process whose parent is the agent and that is none of its children.
    Process(u32),
    /// A file in the agent's folder.
    File(String),
    /// What a fault has on this machine, in words: a file, a worker.
    Trace(String),
    /// A setting of the kernel's network, in words, and whether it is this agent's.
    Network(String, bool),
}

/// Looks at everything.
pub async fn take(supervisor: &Supervisor, holder: &AgentHolder) -> Fingerprint {
    let in_force =
        |id: String, holder: &str| (Thing::Fault(id, holder.to_owned()), "in force".to_owned());
    let mut found: Fingerprint = holder
        .in_force()
        .into_iter()
        .map(|id| in_force(id, "agent"))
        .collect();
    let children = supervisor.matching(|_| true);
    let (held, kernel) = join(
        join_all(children.iter().map(|(_, child)| held_by(child))),
        network::take(holder.network()),
    )
    .await;
    found.extend(kernel);
    let mut own = Vec::from_iter(holder.watchdog().pid());
    for ((name, child), held) in children.into_iter().zip(held) {
        own.push(child.process.own_pid());
        let state = match held {
            Ok(ids) => {
                found.extend(ids.into_iter().map(|id| in_force(id, &name)));
                state_of(&child)
            }
            Err(reason) => format!(
                "{}, and cannot be asked for its faults: {reason}",
                state_of(&child)
            ),
        };
        let thing = match *child.role {
            Role::Proxy(_) | Role::Shard(_) => Thing::Harness(name),
            Role::Lane(_) | Role::Spacetimedb(_) | Role::Tokens(_) => Thing::Child(name),
        };
        found.insert(thing, state);
    }
    for (pid, stat) in procfs::children_of(std::process::id()) {
        if !own.contains(&pid) {
            found.insert(
                Thing::Process(pid),
                format!("{} ({})", stat.name, stat.state),
            );
        }
    }
    let traces = holder.traces().into_iter();
    found.extend(traces.map(|what| (Thing::Trace(what), "there".to_owned())));
    found.extend(nodes(holder).await);
    for name in holder.state().strangers() {
        found.insert(Thing::File(name), "there".to_owned());
    }
    found
}

/// What differs from the mark. A child that was started or ended on demand meanwhile is none. No fault ends a part of
/// the harness: where one ended, that is a loss for whoever needs it, and nothing that a fault left behind. Where a part
/// of the target ended and no fault had ended it, the target failed.
#[must_use]
pub fn compare(mark: &Fingerprint, now: &Fingerprint) -> Residue {
    let mut residue = Residue::default();
    for (thing, state) in now {
        let before = mark.get(thing);
        if before == Some(state) {
            continue;
        }
        match (thing, before) {
            (Thing::Harness(name), Some(_)) if state.starts_with(ENDED) => residue
                .foreign
                .push(format!("child `{name}`, a part of the harness, {state}")),
            (Thing::Child(name), Some(_)) if state.starts_with(ENDED) => residue.crashed.push(
                format!("`{name}` {}", state.replacen(ENDED, "ended by itself", 1)),
            ),
            (Thing::Child(name) | Thing::Harness(name), Some(before)) => residue
                .owned
                .push(format!("child `{name}`: {state}; before: {before}")),
            (Thing::Child(_) | Thing::Harness(_) | Thing::Node(_), None) => {}
            (Thing::Node(name), Some(before)) => {
                let change = format!("node `{name}`: {state}; before: {before}");
                // One that is up is what a fault has to leave behind, whoever brought it up.
                if state == RUNS {
                    residue.foreign.push(change);
                } else {
                    residue.owned.push(change);
                }
            }
            (Thing::Fault(id, holder), _) => residue
                .owned
                .push(format!("fault `{id}` is still in force at `{holder}`")),
            (Thing::Process(pid), _) => residue.owned.push(format!(
                "process {pid}, {state}, is a child of the agent that it does not know"
            )),
            (Thing::File(name), _) => residue.foreign.push(format!(
                "file `{name}` in the agent's folder is not the agent's"
            )),
            (Thing::Trace(what), _) => residue
                .owned
                .push(format!("{what} is a fault's and is left")),
            (Thing::Network(what, true), _) => residue
                .owned
                .push(format!("{what} is a fault's and is left: {state}")),
            (Thing::Network(what, false), Some(before)) => residue
                .foreign
                .push(format!("{what} was changed: {state}; before: {before}")),
            (Thing::Network(what, false), None) => {
                residue.foreign.push(format!("{what} is new: {state}"));
            }
        }
    }
    for thing in mark.keys().filter(|thing| !now.contains_key(thing)) {
        if let Thing::Network(what, false) = thing {
            residue.foreign.push(format!("{what} is gone"));
        }
    }
    residue
}

/// How the operator's nodes are. Which process one has is its own affair.
async fn nodes(holder: &AgentHolder) -> Fingerprint {
    let all: Vec<_> = holder.nodes().iter().cloned().collect();
    let looked = tokio::task::spawn_blocking(move || {
        let state = |node: &Node| match node.main.find() {
            Ok(found) => match found.living() {
                Some(process) if procfs::is_stopped(process.pid) == Some(true) => "paused",
                Some(_) => RUNS,
                None => "down",
            }
            .to_owned(),
            Err(error) => format!("cannot be looked at: {error}"),
        };
        all.iter()
            .map(|node| (Thing::Node(node.name.clone()), state(node)))
            .collect()
    });
    looked.await.unwrap_or_default()
}

fn state_of(child: &Child) -> String {
    if let Some(exit) = child.process.exit() {
        let how = if child.process.end_expected() {
            TAKEN_DOWN
        } else {
            ENDED
        };
        return format!("{how} ({exit})");
    }
    let paused = procfs::is_stopped(child.process.pid()) == Some(true);
    let state = if paused { "paused" } else { RUNS };
    match child.process.ready().listen.get("data") {
        Some(addr) => format!("{state}, on {addr}"),
        None => state.to_owned(),
    }
}

/// The faults that a child has in force.
async fn held_by(child: &Child) -> Result<Vec<String>, String> {
    if child.process.exit().is_some() {
        return Ok(Vec::new());
    }
    match &*child.role {
        Role::Proxy(_) => {
            let status: ProxyStatus = child
                .client
                .get("/status", ANSWER_WITHIN)
                .await
                .map_err(|error| error.to_string())?;
            Ok(status.faults)
        }
        Role::Tokens(_) => in_force_at(child).await,
        Role::Shard(config) if config.clients.is_some() => in_force_at(child).await,
        Role::Shard(_) | Role::Lane(_) | Role::Spacetimedb(_) => Ok(Vec::new()),
    }
}

async fn in_force_at(child: &Child) -> Result<Vec<String>, String> {
    let views: Vec<FaultView> = child
        .client
        .get("/faults", ANSWER_WITHIN)
        .await
        .map_err(|error| error.to_string())?;
    Ok(views
        .into_iter()
        .filter(|view| view.active)
        .map(|view| view.id)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn child(state: &str) -> (Thing, String) {
        (Thing::Child("lane".to_owned()), state.to_owned())
    }

    #[test]
    fn what_was_there_before_is_no_residue_and_what_is_new_is_named() {
        let process = (Thing::Process(7), "nc (S)".to_owned());
        let mark = Fingerprint::from([child("runs"), process.clone()]);
        assert_eq!(compare(&mark, &mark), Residue::default());

        let fault = Thing::Fault("f1".to_owned(), "proxy".to_owned());
        let now = Fingerprint::from([
            child("ended (signal: 9 (SIGKILL))"),
            process,
            (Thing::Process(8), "sh (Z)".to_owned()),
            (fault, "in force".to_owned()),
            (Thing::File("core".to_owned()), "there".to_owned()),
        ]);
        let residue = compare(&mark, &now);
        assert_eq!(residue.owned.len(), 2, "{residue:?}");
        for (owned, named) in residue.owned.iter().zip(["`f1`", "process 8"]) {
            assert!(owned.contains(named), "{owned}");
        }
        assert_eq!(residue.foreign.len(), 1);
        assert_eq!(
            residue.crashed,
            ["`lane` ended by itself (signal: 9 (SIGKILL))"]
        );
    }

    #[test]
    fn of_the_network_what_is_ours_is_left_behind_and_what_is_others_is_told() {
        let setting = |name: &str, owned, state: &str| {
            (Thing::Network(name.to_owned(), owned), state.to_owned())
        };
        let mark = Fingerprint::from([
            setting("table a", false, "1"),
            setting("table b", false, "1"),
        ]);
        let now = Fingerprint::from([
            setting("table a", false, "2"),
            setting("table c", false, "1"),
            setting("table f1", true, "1"),
        ]);
        let residue = compare(&mark, &now);
        assert!(residue.owned.len() == 1 && residue.owned[0].contains("table f1"));
        assert_eq!(residue.foreign.len(), 3, "{residue:?}");
        assert_eq!(compare(&mark, &mark), Residue::default());
    }

    #[test]
    fn an_operators_node_that_is_down_or_paused_is_left_behind_and_one_that_is_up_is_not() {
        let node =
            |state: &str| Fingerprint::from([(Thing::Node("db".to_owned()), state.to_owned())]);
        for left in ["down", "paused"] {
            let residue = compare(&node(RUNS), &node(left));
            assert!(residue.owned[0].contains("`db`"), "{residue:?}");
            let mended = compare(&node(left), &node(RUNS));
            assert_eq!((mended.owned.len(), mended.foreign.len()), (0, 1));
        }
        assert_eq!(compare(&node(RUNS), &node(RUNS)), Residue::default());
    }

    #[test]
    fn a_node_that_a_fault_took_down_and_nobody_brought_back_is_left_behind() {
        let down = format!("{TAKEN_DOWN} (signal: 9 (SIGKILL))");
        let residue = compare(
            &Fingerprint::from([child("runs")]),
            &Fingerprint::from([child(&down)]),
        );
        assert_eq!(residue.crashed, [""; 0]);
        assert!(residue.owned[0].contains("`lane`"), "{residue:?}");
    }

    #[test]
    fn a_part_of_the_harness_that_was_lost_is_not_left_behind_but_a_paused_one_is() {
        let part = |state: &str| {
            let proxy = Thing::Harness("proxy".to_owned());
            Fingerprint::from([(proxy, state.to_owned())])
        };
        let lost = compare(&part("runs"), &part("ended (signal: 9 (SIGKILL))"));
        assert!(lost.owned.is_empty(), "{lost:?}");
        assert!(lost.foreign[0].contains("`proxy`"), "{lost:?}");
        let paused = compare(&part("runs"), &part("paused"));
        assert_eq!((paused.owned.len(), paused.foreign.len()), (1, 0));
    }
}
