//! What a command line adds to a scenario.

use std::rc::Rc;
use std::sync::Arc;

use model::defect::Defect;
use model::ids::Lane;
use model::target::{Kind, Wire};
use serde_json::Number;

use crate::diagnostic::{Diagnostic, Place};
use crate::inventory::Inventory;
use crate::parse;
use crate::target::Target;
use crate::tree::{Node, Origin, Value};

/// How a scenario is to be planned.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// On which lane.
    pub lane: Lane,
    /// Against which target; the embedded one when absent.
    pub target: Option<Arc<Target>>,
    /// With which seed.
    pub seed: u64,
    /// How many clients, instead of `workload.clients`.
    pub clients: Option<u32>,
    /// Dotted keys and their values in YAML, laid over the scenario in this order: `("bounds.recovery.p99", "5s")`.
    /// A place in a list is a number from 0: `timeline.0.for`.
    pub set: Vec<(String, String)>,
    /// Whether the scenario's short form is wanted.
    pub quick: bool,
    /// Against which built-in target, where no target file is given.
    pub kind: Kind,
    /// How spacetime messages are encoded, where no target file says it.
    pub wire: Wire,
    /// A defect to plant. Not part of the plan's digest.
    pub defect: Option<Defect>,
    /// The agents that there are.
    pub inventory: Option<Arc<Inventory>>,
}

impl Settings {
    /// A lane and a seed, and the scenario as it is written.
    #[must_use]
    pub const fn new(lane: Lane, seed: u64) -> Self {
        Self {
            lane,
            target: None,
            seed,
            clients: None,
            set: Vec::new(),
            quick: false,
            kind: Kind::Embedded,
            wire: Wire::Json,
            defect: None,
            inventory: None,
        }
    }

    /// Lays all of this over a scenario's tree: the short form, then the number of clients, then each setting.
    pub(crate) fn lay_over(&self, tree: &mut Node) -> Vec<Diagnostic> {
        let quick = tree.take("quick");
        if let Some(quick) = quick.filter(|_| self.quick) {
            lay_quick_over(tree, quick);
        }
        let mut mistakes = Vec::new();
        let mut set = |key: &str, node: Node, typed: &str| {
            let path: Vec<&str> = key.split('.').map(str::trim).collect();
            if let Err(message) = tree.set(&path, node) {
                mistakes.push(Diagnostic::error(Place::Setting(typed.to_owned()), message));
            }
        };
        if let Some(clients) = self.clients {
            let typed = format!("--clients {clients}");
            let origin = Origin::Setting(Rc::from(typed.as_str()));
            set(
                "workload.clients",
                Node {
                    origin,
                    value: Value::Number(Number::from(clients)),
                },
                &typed,
            );
        }
        let mut unreadable = Vec::new();
        for (key, value) in &self.set {
            let typed: Rc<str> = Rc::from(format!("--set {key}={value}"));
            match parse::setting(value, &typed) {
                Ok(node) => set(key, node, &typed),
                Err(diagnostics) => unreadable.extend(diagnostics.iter().cloned()),
            }
        }
        mistakes.append(&mut unreadable);
        mistakes
    }
}

/// Anything but a map is left for the types to refuse.
pub(crate) fn lay_quick_over(tree: &mut Node, quick: Node) {
    if matches!(quick.value, Value::Map(_)) {
        tree.overlay(quick);
    }
}
