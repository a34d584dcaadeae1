//! Faults in a node's own kernel: settings, and which peers they take.

use std::num::NonZeroU16;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::decide;
use crate::net::{Cidr, Interface};
use crate::quantity::{ByteSize, Share, Span};

/// Settings of [`super::Fault::Partition`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Partition {
    /// From whom: addresses or ranges of them. Empty: from everyone but this machine itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<Cidr>,
    /// Only traffic of these ports, at either end. Empty: all traffic.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<NonZeroU16>,
    /// Which way.
    #[serde(default)]
    pub direction: Flow,
    /// What becomes of a packet.
    #[serde(default)]
    pub action: Action,
    /// From so many of the peers only, chosen by the seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<u32>,
}

impl Partition {
    /// The peers that it takes: all, or as many as `of` says. Each has a lot of its own, so that a peer more or less does
    /// not change the order of the others.
    #[must_use]
    pub fn taken(&self, seed: u64, rule: &str) -> Vec<Cidr> {
        let Some(of) = self.of else {
            return self.peers.clone();
        };
        let mut lots: Vec<(f64, Cidr)> = self
            .peers
            .iter()
            .map(|peer| (decide::unit(seed, rule, &peer.to_string(), 0), *peer))
            .collect();
        lots.sort_by(|a, b| a.0.total_cmp(&b.0));
        lots.truncate(of as usize);
        lots.into_iter().map(|(_, peer)| peer).collect()
    }
}

/// Settings of [`super::Fault::PacketLoss`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PacketLoss {
    /// Between this node and whom: addresses or ranges of them. Empty: everyone but this machine itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<Cidr>,
    /// Only traffic of these ports, at either end. Empty: all traffic.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<NonZeroU16>,
    /// Which way.
    #[serde(default)]
    pub direction: Flow,
    /// So many of the packets are lost, each by a throw of its own.
    pub rate: Share,
}

/// Settings of [`super::Fault::Throttle`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Throttle {
    /// The interface whose outgoing traffic is paced.
    pub interface: Interface,
    /// Bytes per second, headers included, of all connections together.
    pub per_second: ByteSize,
    /// So much may go at once after a silence. Without, what the rate brings in 10 ms, and at least two packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<ByteSize>,
    /// A packet that would have to wait longer is lost.
    #[serde(default = "default_latency")]
    pub latency: Span,
}

const fn default_latency() -> Span {
    Span::from_millis(50)
}

/// Settings of [`super::Fault::Netem`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Netem {
    /// The interface whose outgoing packets it takes.
    pub interface: Interface,
    /// Each waits so long.
    #[serde(default)]
    pub delay: Span,
    /// The delay varies by so much either way.
    #[serde(default)]
    pub jitter: Span,
    /// So many go at once instead, past those that wait.
    #[serde(default = "none", skip_serializing_if = "is_none")]
    pub reorder: Share,
    /// So many are sent twice.
    #[serde(default = "none", skip_serializing_if = "is_none")]
    pub duplicate: Share,
    /// In so many a bit is turned.
    #[serde(default = "none", skip_serializing_if = "is_none")]
    pub corrupt: Share,
    /// So many are lost.
    #[serde(default = "none", skip_serializing_if = "is_none")]
    pub loss: Share,
}

fn none() -> Share {
    Share::ratio(0.0)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_none(share: &Share) -> bool {
    share.as_ratio() <= 0.0
}

/// Settings of [`super::Fault::DropSockets`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DropSockets {
    /// Connections with whom: addresses or ranges of them. Empty: everyone but this machine itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<Cidr>,
    /// Only those of these ports, at either end. Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<NonZeroU16>,
}

/// Which way, as a node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Flow {
    /// What comes to it.
    In,
    /// What it sends.
    Out,
    /// Both ways.
    #[default]
    Both,
}

/// What becomes of a packet that a partition stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is lost, and nobody is told: connections hang until somebody's patience ends.
    #[default]
    Drop,
    /// Its sender is told: TCP by RST, all else by ICMP.
    Reject,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(of: Option<u32>, peers: &[&str]) -> Partition {
        Partition {
            peers: peers.iter().map(|peer| peer.parse().unwrap()).collect(),
            ports: Vec::new(),
            direction: Flow::Both,
            action: Action::Drop,
            of,
        }
    }

    #[test]
    fn k_of_n_is_the_same_for_a_seed_and_another_for_another() {
        let peers = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "fd00::/16"];
        let two = of(Some(2), &peers);
        assert_eq!(two.taken(7, "f1"), two.taken(7, "f1"));
        assert_eq!(two.taken(7, "f1").len(), 2);
        let mut drawn: Vec<_> = (0..50).map(|seed| two.taken(seed, "f1")).collect();
        drawn.sort();
        drawn.dedup();
        assert!(drawn.len() > 5, "{drawn:?}");
        assert_eq!(of(None, &peers).taken(7, "f1").len(), 5);
        assert_eq!(of(Some(9), &peers).taken(7, "f1").len(), 5);

        // The order in which they are written is no coordinate of the decision.
        let mut turned = peers;
        turned.reverse();
        assert_eq!(of(Some(2), &turned).taken(7, "f1"), two.taken(7, "f1"));
    }
}
