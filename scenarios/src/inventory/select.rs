//! Which agents a fault takes: a pure function of the inventory, the selection, the seed and the fault's id, so that a plan can
//! be walked again, whatever the order in which the inventory names them.

use std::collections::BTreeMap;

use model::decide;
use model::quantity::Share;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Entry, Inventory};

/// Which of the agents that have these labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// Only agents that bear all of these.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// How many of them, or which.
    pub pick: Pick,
}

/// How many, or which. Where not all are taken, the seed says which.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pick {
    /// All.
    All,
    /// One.
    One,
    /// So many.
    Count(u32),
    /// This share of them, rounded up.
    Share(Share),
    /// These, by name.
    Named(Vec<String>),
}

/// A selection that no fault can be injected with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    /// Nothing bears the labels, or nothing was asked for.
    #[error("no agent matches {wanted}; the inventory has {known}")]
    Nothing {
        /// What was wanted.
        wanted: String,
        /// The agents' names.
        known: String,
    },
    /// One is not there.
    #[error("there is no agent `{name}` that matches; there are {known}")]
    Unknown {
        /// Which.
        name: String,
        /// Those that match.
        known: String,
    },
    /// There are not so many.
    #[error("{wanted} agents are wanted where {matching} match; ask for fewer, or for all")]
    TooFew {
        /// As was asked.
        wanted: u32,
        /// As there are.
        matching: usize,
    },
    /// More than may be hit.
    #[error(
        "limit `nodes_at_once`: {selected} nodes are selected, at most {most} may be under faults at once"
    )]
    TooMany {
        /// As were selected.
        selected: usize,
        /// The inventory's limit.
        most: u32,
    },
}

/// The agents that the fault `fault` takes, by name.
///
/// # Errors
/// As of [`choose`], and more than the inventory allows.
pub fn select<'a>(
    inventory: &'a Inventory,
    selection: &Selection,
    seed: u64,
    fault: &str,
) -> Result<Vec<&'a Entry>, SelectionError> {
    let selected = choose(inventory, selection, seed, fault)?;
    match inventory.nodes_at_once {
        Some(most) if selected.len() > usize::try_from(most).unwrap_or(usize::MAX) => {
            Err(SelectionError::TooMany {
                selected: selected.len(),
                most,
            })
        }
        _ => Ok(selected),
    }
}

/// Agents by name, be it that nothing is done to them. `draw` names what the seed is drawn for.
///
/// # Errors
/// None, other than those named, or fewer than wanted.
pub fn choose<'a>(
    inventory: &'a Inventory,
    selection: &Selection,
    seed: u64,
    draw: &str,
) -> Result<Vec<&'a Entry>, SelectionError> {
    let mut matching: Vec<&Entry> = inventory
        .agents
        .iter()
        .filter(|agent| {
            let bears = |(key, value)| agent.labels.get(key) == Some(value);
            selection.labels.iter().all(bears)
        })
        .collect();
    matching.sort_by(|a, b| a.name.cmp(&b.name));
    let mut selected = match &selection.pick {
        Pick::All => matching,
        Pick::Named(names) => named(&matching, names)?,
        Pick::One => seeded(matching, 1, seed, draw)?,
        Pick::Count(count) => seeded(matching, *count, seed, draw)?,
        Pick::Share(share) => {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share of a small number"
            )]
            let count = (matching.len() as f64 * share.as_ratio()).ceil() as u32;
            seeded(matching, count, seed, draw)?
        }
    };
    if selected.is_empty() {
        return Err(SelectionError::Nothing {
            wanted: wanted(selection),
            known: names(&inventory.agents),
        });
    }
    selected.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(selected)
}

fn named<'a>(matching: &[&'a Entry], wanted: &[String]) -> Result<Vec<&'a Entry>, SelectionError> {
    let mut found: Vec<&Entry> = Vec::new();
    for name in wanted {
        let agent = matching.iter().find(|agent| agent.name == *name);
        let agent = agent.ok_or_else(|| SelectionError::Unknown {
            name: name.clone(),
            known: names(matching.iter().copied()),
        })?;
        if !found.iter().any(|known| known.name == *name) {
            found.push(agent);
        }
    }
    Ok(found)
}

/// Each agent draws a number of its own; the lowest are taken. So an agent that is added changes as little as it can.
fn seeded<'a>(
    mut matching: Vec<&'a Entry>,
    count: u32,
    seed: u64,
    fault: &str,
) -> Result<Vec<&'a Entry>, SelectionError> {
    let wanted = usize::try_from(count).unwrap_or(usize::MAX);
    if wanted > matching.len() && !matching.is_empty() {
        return Err(SelectionError::TooFew {
            wanted: count,
            matching: matching.len(),
        });
    }
    let drawn = |agent: &Entry| decide::unit(seed, fault, &agent.name, 0);
    matching.sort_by(|a, b| drawn(a).total_cmp(&drawn(b)));
    matching.truncate(wanted);
    Ok(matching)
}

fn wanted(selection: &Selection) -> String {
    let labels: Vec<_> = selection
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    match (&selection.pick, labels.is_empty()) {
        (Pick::Named(_), _) => "an empty list of names".to_owned(),
        (_, true) => "a selection of none".to_owned(),
        (_, false) => labels.join(", "),
    }
}

fn names<'a>(agents: impl IntoIterator<Item = &'a Entry>) -> String {
    let names: Vec<&str> = agents
        .into_iter()
        .map(|agent| agent.name.as_str())
        .collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}
