//! The agents of an inventory as a trial has them: which parts of it each runs, how far their clocks are from the
//! conductor's, and who hears whom.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// A part of a drill, which an agent's host can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The embedded lane server.
    Lane,
    /// The embedded token service.
    Tokens,
    /// The publisher and the probes, which reach the lane without a proxy.
    Publisher,
    /// Clients, behind a proxy of that host's own.
    Clients,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Lane, Self::Tokens, Self::Publisher, Self::Clients];

    /// As inventories write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lane => "lane",
            Self::Tokens => "tokens",
            Self::Publisher => "publisher",
            Self::Clients => "clients",
        }
    }
}

/// Which agent runs which part. What nobody runs, the conductor's own agent does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Layout {
    /// Who runs the lane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<String>,
    /// Who runs the token service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<String>,
    /// Who runs the publisher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publisher: Option<String>,
    /// Among whom the clients are divided.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<String>,
}

impl Layout {
    /// Whether the conductor's own agent runs everything.
    #[must_use]
    pub fn is_local(&self) -> bool {
        *self == Self::default()
    }

    /// Who runs a node by name: the token service, or else the lane.
    #[must_use]
    pub fn runner(&self, node: Option<&str>) -> Option<&str> {
        match node {
            Some("tokens") => self.tokens.as_deref(),
            _ => self.lane.as_deref(),
        }
    }

    /// The parts that an agent runs.
    #[must_use]
    pub fn parts_of(&self, name: &str) -> BTreeSet<Part> {
        let is = |agent: &Option<String>| agent.as_deref() == Some(name);
        Part::ALL
            .into_iter()
            .filter(|part| match part {
                Part::Lane => is(&self.lane),
                Part::Tokens => is(&self.tokens),
                Part::Publisher => is(&self.publisher),
                Part::Clients => self.clients.iter().any(|agent| agent == name),
            })
            .collect()
    }
}

/// How far the clocks of an agent's host are from the conductor's, and how well that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockOffset {
    /// Of the monotonic clocks, in micro-seconds: positive where the agent's is ahead.
    pub mono_us: i64,
    /// Of the wall clocks, likewise.
    pub wall_us: i64,
    /// Either is off by no more than this, in micro-seconds: half of a round trip.
    pub within_us: u64,
}

/// An agent that a trial had. Where it is reached is not told here; the words of a call that failed, and peers that a fault
/// names, have addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// What the inventory calls it.
    pub name: String,
    /// The version of the protocol that it speaks.
    pub protocol: u32,
    /// Whether its host's kernel is the conductor's: a namespace or container of the same machine. Clocks are then one.
    pub same_kernel: bool,
    /// The parts of the drill that it ran.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub runs: BTreeSet<Part>,
    /// Its clocks before the trial.
    pub before: ClockOffset,
    /// And after it; `None` where it did not answer any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<ClockOffset>,
}

/// When it was tried who hears whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// Before the fault.
    Before,
    /// While it was in force.
    During,
    /// After it was undone.
    After,
}

impl When {
    /// As evidence has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::During => "during",
            Self::After => "after",
        }
    }
}

/// How much of what one agent sent another one was heard: datagrams, one way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// Who sent.
    pub from: String,
    /// Who listened.
    pub to: String,
    /// When.
    pub phase: When,
    /// How many were sent, those included that the sender's own kernel stopped.
    pub sent: u32,
    /// How many of them were heard.
    pub received: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_may_run_several_parts_and_others_none() {
        let layout = Layout {
            lane: Some("a".to_owned()),
            tokens: Some("a".to_owned()),
            publisher: None,
            clients: vec!["b".to_owned(), "c".to_owned()],
        };
        let parts = |name| Vec::from_iter(layout.parts_of(name));
        assert_eq!(parts("a"), [Part::Lane, Part::Tokens]);
        assert_eq!(parts("c"), [Part::Clients]);
        assert_eq!(parts("d"), []);
        assert!(!layout.is_local() && Layout::default().is_local());
    }
}
