//! What must be undone, on disk before it is done. Each fault leaves up to four entries: the intent before anything is
//! changed, that it was applied, that it was seen to be, and that it was undone. A fault whose last entry is not the
//! last of these is undone when the agent starts anew; as every undo is idempotent, it does not matter how far it came.

use std::io;
use std::path::Path;

use host::clock;
use host::jsonl::{self, Appender};
use model::fault::FaultOrder;
use model::ids::FaultId;
use model::instant::Mono;
use serde::{Deserialize, Serialize};

use crate::faults::network::{self, Change};
use crate::process;

/// What an undo in a later life must know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Undo {
    /// A child is started again. A later life of the agent has no child to start: they all ended with it.
    Restart {
        /// Its name.
        node: String,
        /// The process that was ended.
        pid: u32,
    },
    /// A process is continued.
    Continue {
        /// The child's name.
        node: String,
        /// The process.
        pid: u32,
        /// Its start, as [`crate::procfs::Stat::started`], so that no other process of that id is continued.
        started: u64,
    },
    /// Children undo it. They ended with the agent, and their faults with them.
    Relay {
        /// Their names.
        children: Vec<String>,
    },
    /// What is ours in the kernel is taken away.
    Network(Change),
}

/// A step in a fault's life.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// It is about to be applied.
    Intent {
        /// As it was ordered.
        order: FaultOrder,
        /// What its undo must know.
        undo: Undo,
    },
    /// The change was asked for.
    Applied,
    /// The change was seen.
    Observed,
    /// It is undone.
    Undone {
        /// Who asked, or why there was nothing to undo.
        reason: String,
    },
}

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The fault.
    pub id: FaultId,
    /// When, on the monotonic clock of that boot. Nothing is decided by it.
    #[serde(rename = "at_us")]
    pub at: Mono,
    /// What happened.
    pub event: Event,
}

/// The journal of an agent.
#[derive(Debug)]
pub struct Journal {
    appender: Appender,
}

impl Journal {
    /// Opens the journal, undoes what an earlier life of the agent left in force, and returns those faults' ids.
    ///
    /// # Errors
    /// The journal cannot be read (a torn last line is no error), or an undo failed: the fault stays open, and the next
    /// start tries again.
    pub fn open(path: &Path) -> io::Result<(Self, Vec<FaultId>)> {
        let entries = match jsonl::read::<Entry>(path) {
            Ok(lines) => lines.values,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut journal = Self {
            appender: Appender::open(path)?,
        };
        let mut healed = Vec::new();
        for (id, undo) in open_faults(entries) {
            let reason = undo_of_an_earlier_life(&undo)?;
            tracing::warn!(
                fault = id,
                reason,
                "an earlier life of this agent left it in force"
            );
            journal.record(&id, Event::Undone { reason })?;
            healed.push(id);
        }
        Ok((journal, healed))
    }

    /// Adds an entry and waits until it is on disk.
    ///
    /// # Errors
    /// It could not be written.
    pub fn record(&mut self, id: &str, event: Event) -> io::Result<()> {
        self.appender.append(&Entry {
            id: id.to_owned(),
            at: clock::now(),
            event,
        })
    }
}

/// The faults that were begun and not undone, oldest first. An id is used again in another life of the agent.
fn open_faults(entries: Vec<Entry>) -> Vec<(FaultId, Undo)> {
    let mut open: Vec<(FaultId, Undo)> = Vec::new();
    for entry in entries {
        match entry.event {
            Event::Intent { undo, .. } => open.push((entry.id, undo)),
            Event::Undone { .. } => open.retain(|(id, _)| *id != entry.id),
            Event::Applied | Event::Observed => {}
        }
    }
    open
}

/// Undoes what another life of the agent, or another process, has done: idempotent, from any half-applied state, and
/// without a runtime. A word on how.
///
/// # Errors
/// It is not undone.
pub fn undo_of_an_earlier_life(undo: &Undo) -> io::Result<String> {
    Ok(match undo {
        Undo::Restart { node, .. } => {
            format!("the agent was restarted: `{node}` is not its child any more")
        }
        Undo::Continue { pid, started, .. } => {
            if process::continue_orphan(*pid, *started)? {
                format!("the agent was restarted: process {pid} was continued")
            } else {
                format!("the agent was restarted: process {pid} is gone")
            }
        }
        Undo::Relay { children } => format!(
            "the agent was restarted: its children ({}) ended, and their faults with them",
            children.join(", ")
        ),
        Undo::Network(change) => format!("the agent was restarted: {}", network::undo(change)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::fault::{Fault, Kill};
    use model::quantity::{Share, Span};
    use proptest::prelude::*;

    fn event(step: usize) -> Event {
        match step {
            0 => Event::Intent {
                order: FaultOrder {
                    id: String::new(),
                    fault: Fault::Kill(Kill {}),
                    node: None,
                    share: Share::ALL,
                    seed: 7,
                    lease: Span::from_secs(2),
                },
                undo: Undo::Restart {
                    node: "lane".to_owned(),
                    pid: 12,
                },
            },
            1 => Event::Applied,
            2 => Event::Observed,
            _ => Event::Undone {
                reason: "asked".to_owned(),
            },
        }
    }

    proptest! {
        /// However the lives of some faults interleave, and wherever the agent died, even in the middle of a line.
        #[test]
        fn after_a_start_nothing_is_open(picks in prop::collection::vec(0_usize..4, 0..20), cut in 0.0_f64..=1.0) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("journal.jsonl");
            let (mut journal, healed) = Journal::open(&path).unwrap();
            prop_assert!(healed.is_empty());
            let mut steps = [0_usize; 4];
            for pick in picks {
                if steps[pick] < 4 {
                    journal.record(&format!("f{pick}"), event(steps[pick])).unwrap();
                    steps[pick] += 1;
                }
            }
            drop(journal);
            let bytes = std::fs::read(&path).unwrap();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a length")]
            let keep = (bytes.len() as f64 * cut) as usize;
            std::fs::write(&path, &bytes[..keep]).unwrap();
            let kept = jsonl::read::<Entry>(&path).unwrap().values;
            let count = |wanted: fn(&Event) -> bool| kept.iter().filter(|entry| wanted(&entry.event)).count();
            let begun = count(|event| matches!(event, Event::Intent { .. }));
            let undone = count(|event| matches!(event, Event::Undone { .. }));

            let (_, healed) = Journal::open(&path).unwrap();
            prop_assert_eq!(healed.len(), begun - undone);
            let (_, again) = Journal::open(&path).unwrap();
            prop_assert!(again.is_empty(), "{:?}", again);
        }
    }

    #[test]
    fn a_journal_that_is_damaged_in_the_middle_is_named_and_not_guessed_at() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        std::fs::write(&path, "nonsense\n{}\n").unwrap();
        let error = Journal::open(&path).unwrap_err().to_string();
        assert!(error.contains("journal.jsonl:1"), "{error}");
    }
}
