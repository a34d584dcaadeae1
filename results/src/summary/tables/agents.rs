//! What a summary says of the agents of an inventory: who did what, who heard whom, and how their clocks were.

use std::collections::BTreeMap;

use model::crew::{ClockOffset, Reach, When};

use super::{section, table, with};
use crate::record::{FaultEvidence, Row};
use crate::text;

/// A fault's id, and by which agents it was done.
pub(super) fn done_by(fault: &FaultEvidence) -> String {
    if fault.nodes.is_empty() {
        return fault.id.clone();
    }
    format!("{} by {}", fault.id, fault.nodes.join(", "))
}

/// Which ways a partition cut.
pub(super) fn reach(out: &mut String, rows: &[&Row]) {
    let lines: Vec<_> = rows.iter().flat_map(|row| ways(row)).collect();
    if lines.is_empty() {
        return;
    }
    let about =
        "Datagrams heard, of those sent, one way. A way that was cut by no fault is left out.";
    section(out, "Who heard whom", about);
    let head = [
        "scenario", "lane", "trial", "fault", "from", "to", "before", "during", "after",
    ];
    table(out, &head, lines.into_iter());
}

fn ways(row: &Row) -> Vec<Vec<String>> {
    let mut lines = Vec::new();
    for fault in &row.faults {
        let mut by_way: BTreeMap<(&str, &str), BTreeMap<When, &Reach>> = BTreeMap::new();
        for reach in &fault.reach {
            let way = by_way.entry((&reach.from, &reach.to)).or_default();
            way.insert(reach.phase, reach);
        }
        for ((from, to), tried) in by_way {
            if tried.values().all(|reach| reach.received == reach.sent) {
                continue;
            }
            let heard = |phase| {
                tried.get(&phase).map_or_else(text::dash, |reach| {
                    format!("{}/{}", reach.received, reach.sent)
                })
            };
            let cells = [
                fault.id.clone(),
                from.to_owned(),
                to.to_owned(),
                heard(When::Before),
                heard(When::During),
                heard(When::After),
            ];
            lines.push(with(row, cells));
        }
    }
    lines
}

/// Which agents there were.
pub(super) fn clocks(out: &mut String, rows: &[&Row]) {
    let mut lines = rows
        .iter()
        .flat_map(|row| row.nodes.iter().map(move |node| (*row, node)))
        .peekable();
    if lines.peek().is_none() {
        return;
    }
    let about = "How far the wall clocks of the agents' hosts were ahead of the conductor's, before and after the trial. Of one \
                 kernel are hosts that are namespaces or containers of the conductor's machine.";
    section(out, "Agents", about);
    let head = [
        "scenario",
        "lane",
        "trial",
        "agent",
        "runs",
        "kernel",
        "clock before",
        "clock after",
    ];
    let lines = lines.map(|(row, node)| {
        let runs: Vec<_> = node.runs.iter().map(|part| part.name()).collect();
        let cells = [
            node.name.clone(),
            if runs.is_empty() {
                text::dash()
            } else {
                runs.join(", ")
            },
            if node.same_kernel { "one" } else { "its own" }.to_owned(),
            ahead(&node.before),
            node.after.as_ref().map_or_else(text::dash, ahead),
        ];
        with(row, cells)
    });
    table(out, &head, lines);
}

fn ahead(offset: &ClockOffset) -> String {
    let milliseconds = |micros: f64| micros / 1e3;
    format!(
        "{:.3} ± {:.3} ms",
        milliseconds(offset.wall_us as f64),
        milliseconds(offset.within_us as f64)
    )
}
