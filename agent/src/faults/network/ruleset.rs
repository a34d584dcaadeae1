//! What nft is told: one table a fault, with a chain for each way. Pure.
//!
//! A chain lets pass what the fault must not touch, and then stops what it takes. `accept` speaks for its own chain only:
//! other tables are asked all the same. Counters are objects of their own, so that they are still there when the chains
//! are gone: the undo heals first, and reads then.

use std::num::NonZeroU16;

use model::fault::{Action, Flow};
use model::net::Cidr;
use serde_json::{Value, json};

/// Before the host's own filters: what they would accept or count is stopped first.
const PRIORITY: i32 = -10;
/// The throw of a packet is one of so many.
const SIDES: u32 = 1_000_000;

/// What a table is to stop.
#[derive(Debug, Clone)]
pub(super) struct Stopped {
    pub(super) peers: Vec<Cidr>,
    pub(super) ports: Vec<NonZeroU16>,
    pub(super) direction: Flow,
    pub(super) action: Action,
    /// So many of the packets, from 0 to 1.
    pub(super) ratio: f64,
}

/// What it lets pass whatever else is said.
#[derive(Debug, Clone, Default)]
pub(super) struct Spared {
    /// TCP ports at this end: the agent's own API.
    pub(super) own: Vec<u16>,
    /// TCP ports at either end: SSH.
    pub(super) either: Vec<u16>,
}

/// A chain, by the way that it stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    In,
    Out,
}

impl Way {
    /// The name of its chain, which is that of its hook too.
    pub(super) const fn chain(self) -> &'static str {
        match self {
            Self::In => "input",
            Self::Out => "output",
        }
    }

    /// The name of its counter.
    pub(super) const fn counter(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }

    const fn peer(self) -> &'static str {
        match self {
            Self::In => "saddr",
            Self::Out => "daddr",
        }
    }

    const fn own_port(self) -> &'static str {
        match self {
            Self::In => "dport",
            Self::Out => "sport",
        }
    }

    const fn far_port(self) -> &'static str {
        match self {
            Self::In => Self::Out.own_port(),
            Self::Out => Self::In.own_port(),
        }
    }

    const fn interface(self) -> &'static str {
        match self {
            Self::In => "iifname",
            Self::Out => "oifname",
        }
    }
}

impl Stopped {
    pub(super) fn ways(&self) -> &'static [Way] {
        match self.direction {
            Flow::In => &[Way::In],
            Flow::Out => &[Way::Out],
            Flow::Both => &[Way::In, Way::Out],
        }
    }

    /// The rules of a chain, each a list of expressions.
    pub(super) fn rules(&self, way: Way, spared: &Spared) -> Vec<Value> {
        let mut rules = self.spare(way, spared);
        for whom in self.whom(way) {
            for port in self.by_port() {
                rules.extend(self.stop(way, &whom, &port));
            }
        }
        rules
    }

    fn spare(&self, way: Way, spared: &Spared) -> Vec<Value> {
        let mut rules = Vec::new();
        let mut pass = |tests: &[Value]| {
            let mut rule = tests.to_vec();
            rule.push(json!({"accept": null}));
            rules.push(Value::from(rule));
        };
        let own = self.not_named(&spared.own);
        if !own.is_empty() {
            let end = |field| equals(&payload("tcp", field), &json!({"set": own}));
            pass(&[end(way.own_port())]);
            // The conductor may be on this machine too: both ends of the channel are then here.
            let loopback = equals(&meta(way.interface()), &json!("lo"));
            pass(&[loopback, end(way.far_port())]);
        }
        let either = self.not_named(&spared.either);
        if !either.is_empty() {
            for field in ["dport", "sport"] {
                pass(&[equals(&payload("tcp", field), &json!({"set": either}))]);
            }
        }
        if self.action == Action::Reject {
            // The refusal of one chain has to get through the other.
            pass(&[
                json!({"match": {"op": "in", "left": payload("tcp", "flags"), "right": ["rst"]}}),
            ]);
            for protocol in ["icmp", "icmpv6"] {
                let kind = payload(protocol, "type");
                pass(&[equals(&kind, &json!("destination-unreachable"))]);
            }
        }
        if self.ports.is_empty() {
            // What ARP is to IPv4, which no such table sees. Without it the heal would wait for it.
            let discovery = json!({"set": ["nd-neighbor-solicit", "nd-neighbor-advert"]});
            pass(&[equals(&payload("icmpv6", "type"), &discovery)]);
        }
        if self.peers.is_empty() {
            pass(&[equals(&meta(way.interface()), &json!("lo"))]);
        }
        rules
    }

    /// A port that an order names is taken, whatever it is for.
    fn not_named(&self, ports: &[u16]) -> Vec<u16> {
        let named = |port: &u16| self.ports.iter().any(|named| named.get() == *port);
        ports.iter().copied().filter(|port| !named(port)).collect()
    }

    /// Tests for the peers: one for each family that they are of; none at all where everyone is meant.
    fn whom(&self, way: Way) -> Vec<Vec<Value>> {
        if self.peers.is_empty() {
            return vec![Vec::new()];
        }
        let mut families = Vec::new();
        for (protocol, v4) in [("ip", true), ("ip6", false)] {
            let peers = widest(self.peers.iter().filter(|peer| peer.addr().is_ipv4() == v4));
            if peers.iter().any(|peer| peer.prefix_len() == 0) {
                let family = if v4 { "ipv4" } else { "ipv6" };
                families.push(vec![equals(&meta("nfproto"), &json!(family))]);
            } else if !peers.is_empty() {
                let set: Vec<Value> = peers.into_iter().map(element).collect();
                families.push(vec![equals(
                    &payload(protocol, way.peer()),
                    &json!({"set": set}),
                )]);
            }
        }
        families
    }

    fn by_port(&self) -> Vec<Vec<Value>> {
        if self.ports.is_empty() {
            return vec![Vec::new()];
        }
        let ports = json!({"set": self.ports});
        ["dport", "sport"]
            .map(|end| vec![equals(&payload("th", end), &ports)])
            .into()
    }

    fn stop(&self, way: Way, whom: &[Value], port: &[Value]) -> Vec<Value> {
        let with = |tests: &[Value], verdict: Value| {
            let mut rule = [whom, tests, port].concat();
            if self.ratio < 1.0 {
                let throw = json!({"numgen": {"mode": "random", "mod": SIDES, "offset": 0}});
                rule.push(json!({"match": {"op": "<", "left": throw, "right": self.below()}}));
            }
            rule.push(json!({"counter": way.counter()}));
            rule.push(verdict);
            Value::from(rule)
        };
        // Only these have ports.
        let transport = equals(&meta("l4proto"), &json!({"set": ["tcp", "udp"]}));
        let any = if port.is_empty() {
            None
        } else {
            Some(transport)
        };
        match self.action {
            Action::Drop => vec![with(any.as_slice(), json!({"drop": null}))],
            Action::Reject => {
                let tcp = equals(&meta("l4proto"), &json!("tcp"));
                let unreachable = json!({"type": "icmpx", "expr": "port-unreachable"});
                vec![
                    with(&[tcp], json!({"reject": {"type": "tcp reset"}})),
                    with(any.as_slice(), json!({"reject": unreachable})),
                ]
            }
        }
    }

    fn below(&self) -> u32 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a float cast saturates"
        )]
        let below = (self.ratio * f64::from(SIDES)).round() as u32;
        below.clamp(1, SIDES)
    }

    /// The transaction that makes a table. It fails where there is one of that name, whoever's it is.
    pub(super) fn create(&self, table: &str, spared: &Spared) -> Value {
        let mut commands = vec![json!({"create": {"table": named(table)}})];
        for way in self.ways() {
            let (chain, counter) = (way.chain(), way.counter());
            commands.push(json!({"add": {"counter": {
                "family": "inet", "table": table, "name": counter
            }}}));
            commands.push(json!({"add": {"chain": {
                "family": "inet", "table": table, "name": chain,
                "type": "filter", "hook": chain, "prio": PRIORITY, "policy": "accept"
            }}}));
            commands.extend(self.rules(*way, spared).into_iter().map(|rule| {
                json!({"add": {"rule": {
                    "family": "inet", "table": table, "chain": chain, "expr": rule
                }}})
            }));
        }
        json!({ "nftables": commands })
    }

    /// The transaction that takes the chains away, so that everything passes, and leaves what they counted.
    pub(super) fn heal(&self, table: &str) -> Value {
        let commands: Vec<Value> = self
            .ways()
            .iter()
            .map(|way| {
                json!({"delete": {"chain": {"family": "inet", "table": table, "name": way.chain()}}})
            })
            .collect();
        json!({ "nftables": commands })
    }
}

/// The transaction after which there is no such table, whether there was one or not.
pub(super) fn delete(table: &str) -> Value {
    json!({"nftables": [
        {"add": {"table": named(table)}},
        {"delete": {"table": named(table)}}
    ]})
}

fn named(table: &str) -> Value {
    json!({"family": "inet", "name": table})
}

/// Without those that are a part of another: an interval set has no room for both.
fn widest<'a>(peers: impl Iterator<Item = &'a Cidr>) -> Vec<Cidr> {
    let mut kept: Vec<Cidr> = Vec::new();
    for peer in peers {
        if !kept.iter().any(|other| other.contains(*peer)) {
            kept.retain(|other| !peer.contains(*other));
            kept.push(*peer);
        }
    }
    kept
}

fn element(peer: Cidr) -> Value {
    let addr = peer.addr().to_string();
    if peer.is_single() {
        json!(addr)
    } else {
        json!({"prefix": {"addr": addr, "len": peer.prefix_len()}})
    }
}

fn payload(protocol: &str, field: &str) -> Value {
    json!({"payload": {"protocol": protocol, "field": field}})
}

fn meta(key: &str) -> Value {
    json!({"meta": {"key": key}})
}

fn equals(left: &Value, right: &Value) -> Value {
    json!({"match": {"op": "==", "left": left, "right": right}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stopped(peers: &[&str], ports: &[u16]) -> Stopped {
        Stopped {
            peers: peers.iter().map(|peer| peer.parse().unwrap()).collect(),
            ports: ports
                .iter()
                .map(|port| (*port).try_into().unwrap())
                .collect(),
            direction: Flow::Both,
            action: Action::Drop,
            ratio: 1.0,
        }
    }

    fn ssh() -> Spared {
        Spared {
            own: vec![4000],
            either: vec![22],
        }
    }

    #[test]
    fn the_channel_and_ssh_pass_first_unless_they_are_named() {
        let accepted = |stopped: &Stopped, way| {
            let rules = stopped.rules(way, &ssh());
            let rules = rules.iter().map(Value::to_string);
            let passed = |rule: &String| rule.contains("accept") && rule.contains("tcp");
            rules.take_while(passed).collect::<Vec<_>>()
        };
        let all = stopped(&[], &[]);
        let input = accepted(&all, Way::In);
        assert_eq!(input.len(), 4, "{input:?}");
        assert!(input[0].contains("dport") && input[0].contains("4000"));
        assert!(accepted(&all, Way::Out)[0].contains("sport"));
        assert_eq!(accepted(&stopped(&[], &[22]), Way::In).len(), 2);
        assert_eq!(accepted(&stopped(&[], &[22, 4000]), Way::In).len(), 0);
    }

    #[test]
    fn a_range_swallows_what_is_a_part_of_it_and_families_have_rules_of_their_own() {
        let peers = ["10.1.0.1", "10.0.0.0/8", "10.2.0.0/16", "fd00::1"];
        let rules = stopped(&peers, &[]).whom(Way::In);
        assert_eq!(rules.len(), 2);
        let v4 = rules[0][0].to_string();
        assert!(v4.contains("10.0.0.0") && !v4.contains("10.2.0.0") && !v4.contains("10.1.0.1"));
        let everyone = stopped(&["0.0.0.0/0", "10.0.0.1"], &[]).whom(Way::Out);
        assert!(
            everyone[0][0].to_string().contains("nfproto"),
            "{everyone:?}"
        );
    }

    #[test]
    fn a_tiny_share_is_not_none() {
        let mut tiny = stopped(&[], &[]);
        tiny.ratio = 1e-9;
        assert_eq!(tiny.below(), 1);
    }
}
