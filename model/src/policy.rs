//! How far an agent lets a drill go, whoever asks: rules of its own configuration. What a rule does not mention it does not
//! restrict.

use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::fault::{DiskFill, Fault, FaultOrder, Holder};
use crate::net::Cidr;
use crate::quantity::Span;

/// The rules.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Policy {
    /// The kinds of faults that may be injected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faults: Option<Vec<String>>,
    /// The nodes to which the agent itself may do something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targets: Option<Vec<String>>,
    /// The addresses from which a fault may cut this host off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers: Option<Vec<Cidr>>,
    /// The longest lease that a fault may ask for, each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest_lease: Option<Span>,
    /// How long a fault may be in force in all, however often it is renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest_fault: Option<Span>,
    /// How many faults may be in force at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faults_at_once: Option<u32>,
    /// What the agent may start: `proxy`, `shard`, `lane`, `tokens`, `spacetimedb`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub children: Option<Vec<String>>,
    /// The folders that a fault may fill beside those of the agent's own nodes. None where nothing is said: this rule
    /// allows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disk_folders: Vec<PathBuf>,
}

/// A rule that would be broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("policy rule `{rule}`: {message}")]
pub struct Breach {
    /// The rule's name.
    pub rule: &'static str,
    /// What it allows, and what was asked for.
    pub message: String,
}

impl Breach {
    const fn of(rule: &'static str, message: String) -> Self {
        Self { rule, message }
    }
}

impl Policy {
    /// Whether a fault may be injected while so many others are in force.
    ///
    /// # Errors
    /// The first rule that forbids it.
    pub fn admits(&self, order: &FaultOrder, in_force: usize) -> Result<(), Breach> {
        let kind = order.fault.name();
        listed("faults", self.faults.as_deref(), "the fault", kind)?;
        // Link and token faults are done to children of the agent's own, and to clients that are the drill's.
        if order.fault.holder() == Holder::Agent
            && let Some(targets) = &self.targets
        {
            let node = order.node.as_deref().ok_or_else(|| {
                let message = format!(
                    "the order names no node, and only {} may be hit",
                    all(targets)
                );
                Breach::of("targets", message)
            })?;
            listed("targets", Some(targets), "the node", node)?;
        }
        self.folder(&order.fault)?;
        if let Some(allowed) = &self.peers {
            peers(&order.fault, allowed)?;
        }
        self.lease(order.lease)?;
        if let Some(longest) = self.longest_fault
            && order.lease > longest
        {
            let message = format!("a lease of {} is longer than {longest} in all", order.lease);
            return Err(Breach::of("longest_fault", message));
        }
        if let Some(most) = self.faults_at_once
            && in_force >= usize::try_from(most).unwrap_or(usize::MAX)
        {
            let message = format!("{in_force} in force already, at most {most} at once");
            return Err(Breach::of("faults_at_once", message));
        }
        Ok(())
    }

    /// Whether a fault that has been in force for `lived` may have that lease from now on.
    ///
    /// # Errors
    /// The first rule that forbids it.
    pub fn renews(&self, lived: Span, lease: Span) -> Result<(), Breach> {
        self.lease(lease)?;
        match self.longest_fault {
            Some(longest) if lived.plus(lease) > longest => {
                let message = format!(
                    "{lease} more after {lived} would be longer than {longest} in all; it lapses with the lease it has"
                );
                Err(Breach::of("longest_fault", message))
            }
            _ => Ok(()),
        }
    }

    /// Whether datagrams may be sent to an address, to learn whether they arrive.
    ///
    /// # Errors
    /// It is not among the peers that may be cut off: nobody else needs to be asked.
    pub fn sends(&self, to: IpAddr) -> Result<(), Breach> {
        let Some(allowed) = &self.peers else {
            return Ok(());
        };
        if allowed
            .iter()
            .any(|allowed| allowed.contains(Cidr::from(to)))
        {
            return Ok(());
        }
        let message = format!("{to} is not within {}", listing(allowed));
        Err(Breach::of("peers", message))
    }

    /// Whether a child in that role may be started.
    ///
    /// # Errors
    /// It may not.
    pub fn starts(&self, role: &str) -> Result<(), Breach> {
        listed("children", self.children.as_deref(), "the role", role)
    }

    /// Where links lead is looked at by the agent.
    fn folder(&self, fault: &Fault) -> Result<(), Breach> {
        let Fault::DiskFill(DiskFill {
            folder: Some(folder),
            ..
        }) = fault
        else {
            return Ok(());
        };
        let steps_back = folder.components().any(|part| part == Component::ParentDir);
        let within = |allowed: &PathBuf| folder.starts_with(allowed);
        if !steps_back && self.disk_folders.iter().any(within) {
            return Ok(());
        }
        let shown: Vec<_> = self.disk_folders.iter().map(|path| shown(path)).collect();
        let message = format!(
            "the folder `{}` is not within {}; without `folder` the node's own data folder is filled",
            folder.display(),
            all(&shown)
        );
        Err(Breach::of("disk_folders", message))
    }

    fn lease(&self, lease: Span) -> Result<(), Breach> {
        match self.longest_lease {
            Some(longest) if lease > longest => {
                let message = format!("a lease of {lease} is longer than {longest}");
                Err(Breach::of("longest_lease", message))
            }
            _ => Ok(()),
        }
    }
}

fn listed(
    rule: &'static str,
    allowed: Option<&[String]>,
    what: &str,
    asked: &str,
) -> Result<(), Breach> {
    match allowed {
        Some(allowed) if !allowed.iter().any(|name| name == asked) => {
            let message = format!("{what} `{asked}` is not among {}", all(allowed));
            Err(Breach::of(rule, message))
        }
        _ => Ok(()),
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn all(allowed: &[String]) -> String {
    if allowed.is_empty() {
        "none".to_owned()
    } else {
        allowed.join(", ")
    }
}

fn listing(allowed: &[Cidr]) -> String {
    let texts: Vec<_> = allowed.iter().map(ToString::to_string).collect();
    all(&texts)
}

/// A fault that reaches peers and names none reaches all.
fn peers(fault: &Fault, allowed: &[Cidr]) -> Result<(), Breach> {
    let Some(named) = fault.peers() else {
        return Ok(());
    };
    if named.is_empty() {
        let message = format!(
            "it names no peers, which means all, and only {} may be cut off",
            listing(allowed)
        );
        return Err(Breach::of("peers", message));
    }
    let outside = named
        .iter()
        .find(|peer| !allowed.iter().any(|allowed| allowed.contains(**peer)));
    match outside {
        None => Ok(()),
        Some(peer) => {
            let message = format!("peer {peer} is not within {}", listing(allowed));
            Err(Breach::of("peers", message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Hold, Kill};
    use crate::quantity::Share;

    fn order(fault: Fault, node: Option<&str>, lease: u64) -> FaultOrder {
        FaultOrder {
            id: "f".to_owned(),
            fault,
            node: node.map(str::to_owned),
            share: Share::ALL,
            seed: 1,
            lease: Span::from_secs(lease),
        }
    }

    fn rule(outcome: Result<(), Breach>) -> &'static str {
        outcome.map_or_else(|breach| breach.rule, |()| "none")
    }

    #[test]
    fn without_rules_nothing_is_forbidden() {
        let policy = Policy::default();
        let order = order(Fault::Kill(Kill {}), None, 9_999);
        assert_eq!(rule(policy.admits(&order, 9_999)), "none");
        let hour = Span::from_secs(3_600);
        assert_eq!(rule(policy.renews(hour, hour)), "none");
        assert_eq!(rule(policy.starts("lane")), "none");
    }

    #[test]
    fn each_rule_refuses_by_its_name() {
        let kill = |node, lease| order(Fault::Kill(Kill {}), node, lease);
        let policy = Policy {
            faults: Some(vec!["kill".to_owned()]),
            targets: Some(vec!["lane".to_owned()]),
            longest_lease: Some(Span::from_secs(10)),
            longest_fault: Some(Span::from_secs(30)),
            faults_at_once: Some(1),
            children: Some(vec!["proxy".to_owned()]),
            peers: None,
            disk_folders: Vec::new(),
        };
        assert_eq!(rule(policy.admits(&kill(Some("lane"), 10), 0)), "none");
        let hold = order(Fault::Hold(Hold {}), None, 1);
        assert_eq!(rule(policy.admits(&hold, 0)), "faults");
        assert_eq!(rule(policy.admits(&kill(None, 1), 0)), "targets");
        assert_eq!(rule(policy.admits(&kill(Some("db"), 1), 0)), "targets");
        assert_eq!(
            rule(policy.admits(&kill(Some("lane"), 11), 0)),
            "longest_lease"
        );
        assert_eq!(
            rule(policy.admits(&kill(Some("lane"), 1), 1)),
            "faults_at_once"
        );
        let span = Span::from_secs;
        assert_eq!(rule(policy.renews(span(20), span(10))), "none");
        assert_eq!(rule(policy.renews(span(21), span(10))), "longest_fault");
        assert_eq!(rule(policy.renews(span(0), span(11))), "longest_lease");
        assert_eq!(rule(policy.starts("lane")), "children");
        let unlimited_lease = Policy {
            longest_lease: None,
            ..policy
        };
        let breach = unlimited_lease.admits(&kill(Some("lane"), 31), 0);
        assert_eq!(rule(breach), "longest_fault");
    }

    #[test]
    fn a_link_fault_is_done_to_no_target() {
        let policy = Policy {
            targets: Some(Vec::new()),
            ..Policy::default()
        };
        let hold = order(Fault::Hold(Hold {}), None, 1);
        assert_eq!(rule(policy.admits(&hold, 0)), "none");
    }

    #[test]
    fn datagrams_go_where_peers_may_be() {
        let policy = Policy {
            peers: Some(vec!["10.0.0.0/8".parse().unwrap()]),
            ..Policy::default()
        };
        let sends = |policy: &Policy, to: &str| rule(policy.sends(to.parse().unwrap()));
        assert_eq!(sends(&policy, "10.1.2.3"), "none");
        assert_eq!(sends(&policy, "11.1.2.3"), "peers");
        assert_eq!(sends(&Policy::default(), "11.1.2.3"), "none");
    }

    #[test]
    fn a_fault_may_only_reach_the_peers_that_it_names_and_the_policy_allows() {
        let policy = Policy {
            peers: Some(vec!["10.0.0.0/8".parse().unwrap()]),
            ..Policy::default()
        };
        let found = |fault: &str| {
            let fault = serde_json::from_str(fault).unwrap();
            rule(policy.admits(&order(fault, None, 1), 0))
        };
        for within in [
            r#"{"partition": {"peers": ["10.1.2.3", "10.9.0.0/16"]}}"#,
            r#"{"packet_loss": {"peers": ["10.0.0.0/8"], "rate": "10%"}}"#,
            r#"{"hold": {}}"#,
            r#"{"kill": {}}"#,
        ] {
            assert_eq!(found(within), "none", "{within}");
        }
        for beyond in [
            r#"{"partition": {}}"#,
            r#"{"partition": {"peers": ["10.1.2.3", "11.0.0.1"]}}"#,
            r#"{"packet_loss": {"peers": ["0.0.0.0/0"], "rate": "10%"}}"#,
            r#"{"drop_sockets": {}}"#,
            r#"{"throttle": {"interface": "eth0", "per_second": "1MiB"}}"#,
            r#"{"netem": {"interface": "eth0", "delay": "9ms"}}"#,
        ] {
            assert_eq!(found(beyond), "peers", "{beyond}");
        }
    }

    #[test]
    fn only_folders_that_are_named_may_be_filled_beside_the_nodes_own() {
        let policy = Policy {
            disk_folders: vec!["/srv/data".into()],
            ..Policy::default()
        };
        let found = |policy: &Policy, folder: &str| {
            let fault = serde_json::from_str(folder).unwrap();
            rule(policy.admits(&order(fault, Some("lane"), 1), 0))
        };
        let own = r#"{"disk_fill": {"size": "1MiB"}}"#;
        let named = r#"{"disk_fill": {"size": "1MiB", "folder": "/srv/data/lane"}}"#;
        assert_eq!(found(&policy, own), "none");
        assert_eq!(found(&policy, named), "none");
        assert_eq!(found(&Policy::default(), own), "none");
        assert_eq!(found(&Policy::default(), named), "disk_folders");
        for beyond in ["/srv", "/srv/database", "/srv/data/../../etc", "data"] {
            let fault = format!(r#"{{"disk_fill": {{"size": "1MiB", "folder": "{beyond}"}}}}"#);
            assert_eq!(found(&policy, &fault), "disk_folders", "{beyond}");
        }
    }
}
