//! What the kernel's network is set to, without what it counts: nft tables, qdiscs, policy rules. Looked at only where
//! this process could change it: a drill without that right can leave nothing there.

use std::collections::BTreeMap;
use std::sync::Once;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Fingerprint, Thing};
use crate::faults::network::{Network, hex, is_own_qdisc};
use crate::preflight::kernel::has_net_admin;
use crate::tool::{self, ToolError};

/// Fields that change by themselves, or with every change: counters, places in lists.
const VOLATILE: [&str; 7] = [
    "handle",
    "position",
    "packets",
    "bytes",
    "refcnt",
    "expires",
    "direct_packets_stat",
];

/// Looks at everything. What cannot be looked at is left out, and that is said once.
pub(super) async fn take(network: &Network) -> Fingerprint {
    let own_tables = network.own_tables();
    let looked = tokio::task::spawn_blocking(move || look(&own_tables)).await;
    looked.unwrap_or_default()
}

fn look(own_tables: &str) -> Fingerprint {
    static UNPRIVILEGED: Once = Once::new();
    if !has_net_admin() {
        UNPRIVILEGED.call_once(|| {
            tracing::info!(
                "without CAP_NET_ADMIN: what the kernel's network is set to is no part of the residue"
            );
        });
        return Fingerprint::new();
    }
    let mut found = Fingerprint::new();
    std::thread::scope(|scope| {
        let tables = scope.spawn(|| tables(own_tables));
        let qdiscs = scope.spawn(qdiscs);
        let rules = scope.spawn(rules);
        for (what, looked) in [("nft", tables), ("tc", qdiscs), ("ip rule", rules)] {
            match looked.join() {
                Ok(Ok(things)) => found.extend(things),
                Ok(Err(error)) => left_out(what, &error),
                Err(_) => {}
            }
        }
    });
    found
}

fn left_out(what: &str, error: &ToolError) {
    static SAID: Once = Once::new();
    SAID.call_once(|| tracing::warn!(what, %error, "it is no part of the residue"));
}

/// Each table by what is in it.
fn tables(own: &str) -> Result<Fingerprint, ToolError> {
    let said = tool::run("nft", &["-j", "-s", "list", "ruleset"], b"")?;
    Ok(tables_of(&parsed(&said), own))
}

fn tables_of(said: &Value, own: &str) -> Fingerprint {
    let mut contents: BTreeMap<(String, String), Sha256> = BTreeMap::new();
    for object in said["nftables"].as_array().into_iter().flatten() {
        let Some((kind, inside)) = object.as_object().and_then(|object| object.iter().next())
        else {
            continue;
        };
        let name = if kind == "table" { "name" } else { "table" };
        let (Some(family), Some(table)) = (inside["family"].as_str(), inside[name].as_str()) else {
            continue;
        };
        let mut still = object.clone();
        hold_still(&mut still);
        contents
            .entry((family.to_owned(), table.to_owned()))
            .or_default()
            .update(still.to_string());
    }
    contents
        .into_iter()
        .map(|((family, table), content)| {
            let owned = table.starts_with(own);
            let thing = Thing::Network(format!("nft table `{family} {table}`"), owned);
            (thing, brief(content))
        })
        .collect()
}

/// Each by its interface and place.
fn qdiscs() -> Result<Fingerprint, ToolError> {
    let said = tool::run("tc", &["-j", "qdisc", "show"], b"")?;
    Ok(qdiscs_of(&parsed(&said)))
}

fn qdiscs_of(said: &Value) -> Fingerprint {
    let mut found = Fingerprint::new();
    for qdisc in said.as_array().into_iter().flatten() {
        let text = |field: &str| qdisc[field].as_str().unwrap_or_default();
        let (dev, kind, handle) = (text("dev"), text("kind"), text("handle"));
        let place = if qdisc["root"] == true {
            "root"
        } else {
            text("parent")
        };
        let owned = is_own_qdisc(kind, handle);
        let mut still = qdisc.clone();
        hold_still(&mut still);
        let thing = Thing::Network(format!("{place} qdisc of `{dev}`"), owned);
        // The kernel's defaults come and go with their interfaces; one that came back is the one that was there.
        found.insert(
            thing,
            format!(
                "{kind} {handle} {}",
                brief(Sha256::new_with_prefix(still.to_string()))
            ),
        );
    }
    found
}

fn rules() -> Result<Fingerprint, ToolError> {
    let mut found = Fingerprint::new();
    for family in ["-4", "-6"] {
        let said = tool::run("ip", &[family, "-j", "rule", "show"], b"")?;
        let content = brief(Sha256::new_with_prefix(parsed(&said).to_string()));
        found.insert(Thing::Network(format!("ip {family} rule"), false), content);
    }
    Ok(found)
}

fn parsed(said: &[u8]) -> Value {
    serde_json::from_slice(said).unwrap_or_default()
}

/// Removes whatever changes by itself.
fn hold_still(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !VOLATILE.contains(&name.as_str()));
            fields.values_mut().for_each(hold_still);
        }
        Value::Array(items) => items.iter_mut().for_each(hold_still),
        _ => {}
    }
}

/// Enough of it to tell one content from another.
fn brief(hash: Sha256) -> String {
    hex(&hash.finalize()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ruleset(packets: u64, port: u16) -> Value {
        serde_json::json!({"nftables": [
            {"metainfo": {"version": "1.0.6"}},
            {"table": {"family": "inet", "name": "filter", "handle": packets}},
            {"chain": {"family": "inet", "table": "filter", "name": "input", "handle": 1}},
            {"rule": {"family": "inet", "table": "filter", "chain": "input", "handle": 2, "expr": [
                {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": port}},
                {"counter": {"packets": packets, "bytes": packets * 60}}]}},
            {"table": {"family": "inet", "name": "faultlane_0011_here_f1", "handle": 9}}
        ]})
    }

    #[test]
    fn counters_and_handles_are_no_change_and_a_rule_is() {
        let before = tables_of(&ruleset(1, 80), "faultlane_0011_");
        assert_eq!(before, tables_of(&ruleset(7, 80), "faultlane_0011_"));
        assert_ne!(before, tables_of(&ruleset(1, 81), "faultlane_0011_"));
        let owned: Vec<bool> = before
            .keys()
            .filter_map(|thing| match thing {
                Thing::Network(_, owned) => Some(*owned),
                _ => None,
            })
            .collect();
        assert_eq!(owned.iter().filter(|owned| **owned).count(), 1);
        assert_eq!(owned.len(), 2);
    }

    #[test]
    fn a_qdisc_of_a_fault_is_told_from_others() {
        let qdisc = |kind: &str, handle: &str| {
            let said = serde_json::json!([{"kind": kind, "handle": handle, "root": true, "dev": "eth0", "refcnt": 2}]);
            qdiscs_of(&said).into_iter().next().unwrap()
        };
        assert!(matches!(qdisc("tbf", "fa17:").0, Thing::Network(_, true)));
        assert!(matches!(qdisc("htb", "fa17:").0, Thing::Network(_, false)));
        assert!(matches!(qdisc("tbf", "1:").0, Thing::Network(_, false)));
        assert_ne!(qdisc("htb", "1:").1, qdisc("htb", "2:").1);
    }
}
