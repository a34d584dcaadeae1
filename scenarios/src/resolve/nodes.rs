//! Which agents of the inventory take part: who runs the target and the clients, and by whom each fault is done.

use std::collections::BTreeSet;

use model::crew::Layout;
use model::fault::Holder;
use model::net::Cidr;
use model::quantity::Span;
use model::target::Kind;

use crate::check::Checks;
use crate::diagnostic::{Diagnostic, Diagnostics, Place};
use crate::inventory::{Entry, Inventory, SelectionError, choose, select};
use crate::plan::Step;
use crate::scenario::Scenario;
use crate::settings::Settings;

/// Who runs what.
///
/// # Errors
/// The target is one of which the drill starts nothing on agents.
pub(super) fn layout(settings: &Settings) -> Result<Layout, Diagnostics> {
    let Some(inventory) = &settings.inventory else {
        return Ok(Layout::default());
    };
    let layout = inventory.layout();
    let kind = match settings.target {
        Some(_) => Kind::Described,
        None => settings.kind,
    };
    if layout.is_local() || kind == Kind::Embedded {
        return Ok(layout);
    }
    let message = format!(
        "the inventory lets agents run parts of the drill, which only the embedded target can be divided into, and the \
         target is {}",
        kind.name()
    );
    let hint = "remove `runs` from the inventory: agents do faults with every target";
    Err(
        Diagnostic::error(Place::Setting("--inventory".to_owned()), message)
            .hint(hint.to_owned())
            .into(),
    )
}

/// Writes into each step the names of its agents, and the addresses of its peers. What is wrong is in `checks`.
pub(super) fn resolve(
    checks: &mut Checks<'_>,
    steps: Vec<(usize, Step)>,
    scenario: &Scenario,
    settings: &Settings,
    layout: &Layout,
) -> Vec<Step> {
    let inventory = settings.inventory.as_deref();
    let mut resolved: Vec<(usize, Step)> = Vec::new();
    for (written, mut step) in steps {
        let entry = &scenario.timeline[written];
        let index = written.to_string();
        let nodes = entry.nodes.as_ref().and_then(|selection| {
            let path = ["timeline", index.as_str(), "nodes"];
            find(checks, &path, inventory, |inventory| {
                select(inventory, selection, settings.seed, &step.id)
            })
        });
        let peers = entry.peers.as_ref().and_then(|selection| {
            let path = ["timeline", index.as_str(), "peers"];
            // A draw of its own, or one of the same labels would be the node itself.
            let draw = format!("{}/peers", step.id);
            find(checks, &path, inventory, |inventory| {
                choose(inventory, selection, settings.seed, &draw)
            })
        });
        step.nodes = nodes
            .into_iter()
            .flatten()
            .map(|agent| agent.name.clone())
            .collect();
        let alone = peers.as_ref().and_then(|peers| {
            let is_only_peer = |node: &&String| peers.iter().all(|peer| peer.name == **node);
            step.nodes.iter().find(is_only_peer).cloned()
        });
        if let Some(node) = alone {
            let message =
                format!("of `peers` only `{node}` is chosen, which does the fault itself");
            let hint = "choose others: a fault without peers is done to all";
            checks.error(&["timeline", &index, "peers"], message, hint);
        }
        for peer in peers.into_iter().flatten() {
            match (peer.host, step.fault.peers_mut()) {
                // Nobody is cut off from itself.
                _ if step.nodes == [peer.name.as_str()] => {}
                (Some(host), Some(peers)) => {
                    let host = Cidr::from(host);
                    if !peers.contains(&host) {
                        peers.push(host);
                    }
                }
                (None, _) => {
                    let message = format!(
                        "nothing says at which address the host of `{}` is reached",
                        peer.name
                    );
                    let hint = "add host: 10.0.0.5 to that agent in the inventory";
                    checks.error(&["timeline", &index, "peers"], message, hint);
                }
                (Some(_), None) => {}
            }
        }
        if let Some(inventory) = inventory {
            overlapping(checks, &index, &step, &resolved, inventory, layout);
        }
        resolved.push((written, step));
    }
    resolved.into_iter().map(|(_, step)| step).collect()
}

fn find<'a>(
    checks: &mut Checks<'_>,
    path: &[&str],
    inventory: Option<&'a Inventory>,
    choice: impl FnOnce(&'a Inventory) -> Result<Vec<&'a Entry>, SelectionError>,
) -> Option<Vec<&'a Entry>> {
    let Some(inventory) = inventory else {
        let message = "agents are chosen, and there is no inventory to choose them from".to_owned();
        checks.key_error(
            path,
            message,
            "name the file that lists them: --inventory inventory.yaml",
        );
        return None;
    };
    match choice(inventory) {
        Ok(agents) => Some(agents),
        Err(error) => {
            checks.error(
                path,
                error.to_string(),
                "see `labels` and `pick` in docs/agent.md, and the inventory's `agents`",
            );
            None
        }
    }
}

/// Over all faults that are in force at one time: no more nodes than the inventory allows, and no process twice.
fn overlapping(
    checks: &mut Checks<'_>,
    index: &str,
    step: &Step,
    earlier: &[(usize, Step)],
    inventory: &Inventory,
    layout: &Layout,
) {
    let mine = hit(step, layout);
    let at_once = earlier.iter().filter(|(_, other)| step.at <= end(other));
    let mut nodes: BTreeSet<&str> = mine.iter().copied().collect();
    for (_, other) in at_once {
        let theirs = hit(other, layout);
        let on_process = |step: &Step| {
            let fault = &step.fault;
            fault.holder() == Holder::Agent && !fault.in_kernel() && !fault.on_machine()
        };
        let both = mine.iter().find(|name| theirs.contains(name));
        if let Some(name) = both
            && on_process(step)
            && on_process(other)
            && step.node == other.node
        {
            let node = step.node.as_deref().unwrap_or_default();
            let message = format!(
                "node `{node}` of agent `{name}` is still under `{}` until {}",
                other.id,
                end(other)
            );
            checks.error(
                &["timeline", index, "at"],
                message,
                "begin after the other has ended, or choose another agent",
            );
        }
        nodes.extend(theirs);
    }
    let most = inventory.nodes_at_once.map_or(usize::MAX, |most| {
        usize::try_from(most).unwrap_or(usize::MAX)
    });
    if nodes.len() > most && mine.len() <= most {
        let all = Vec::from_iter(nodes).join(", ");
        let message =
            format!("limit `nodes_at_once`: {all} are under faults at once, at most {most} may be");
        let hint =
            "begin after the others have ended, or raise `limits.nodes_at_once` in the inventory";
        checks.error(&["timeline", index, "at"], message, hint);
    }
}

fn end(step: &Step) -> Span {
    step.at.plus(step.fault.lead()).plus(step.lasts)
}

/// The agents whose hosts a fault of a process or a kernel hits. What is done to links and tokens hits no node.
fn hit<'a>(step: &'a Step, layout: &'a Layout) -> Vec<&'a str> {
    if step.fault.holder() != Holder::Agent {
        return Vec::new();
    }
    if step.nodes.is_empty() {
        let runner = layout.runner(step.node.as_deref());
        return runner.into_iter().collect();
    }
    step.nodes.iter().map(String::as_str).collect()
}
