//! A scenario against a target other than the embedded one.

use model::criteria::Phase;
use model::fault::{Fault, Holder};
use model::quantity::Span;
use model::target::{ExpiryEnforcement, TokenSupply};

use super::Checks;
use crate::scenario::{self, Scenario};
use crate::target::Target;
use crate::typed::nearest;

pub(super) fn check(checks: &mut Checks<'_>, scenario: &Scenario) {
    let Some(target) = checks.target else { return };
    load(checks, scenario, target);
    if scenario.target != scenario::Target::default() {
        let message = format!("`{}` keeps none of these settings", target.name);
        let hint =
            "they are the embedded target's; a target file states its own in promise.profile";
        checks.warning(&["target"], message, hint);
    }
    for (place, entry) in scenario.timeline.iter().enumerate() {
        let place = place.to_string();
        let fault = ["timeline", &place, "fault", entry.fault.name()];
        // By agents that an inventory names, whatever the target file knows of them.
        if entry.fault.holder() == Holder::Agent && entry.nodes.is_none() {
            node(checks, &place, entry, target);
        }
        match entry.fault {
            Fault::TokenExpiry(_) => token_expiry(checks, &fault, target),
            Fault::ClockSkew(_) => clock_skew(checks, &fault, target),
            _ => {}
        }
    }
    storm(checks, scenario, target);
}

fn load(checks: &mut Checks<'_>, scenario: &Scenario, target: &Target) {
    let (asked, there) = (scenario.workload.streams as usize, target.streams.len());
    if asked > there {
        let message = format!(
            "{asked} streams are asked for, and `{}` has {there}",
            target.name
        );
        let hint = format!("write --set workload.streams={there}, or name more in the target file");
        checks.error(&["workload", "streams"], message, hint);
    }
    let clients = scenario.workload.clients;
    if let Some(identities) = target.identities.filter(|count| *count < clients) {
        let message = format!("{clients} clients share {identities} identities");
        let hint = "limits by identity are then met sooner than in the field; raise tokens.identities if there are more";
        checks.warning(&["workload", "clients"], message, hint);
    }
}

fn node(checks: &mut Checks<'_>, place: &str, entry: &scenario::Entry, target: &Target) {
    let fault = entry.fault.name();
    let name = &target.name;
    let names: Vec<&str> = target.nodes.iter().map(|node| node.name.as_str()).collect();
    let at_fault = ["timeline", place, "fault", fault];
    if names.is_empty() {
        let message = format!("`{fault}` is done to a node, and `{name}` has none");
        let hint = "name its nodes and their agents under `nodes`, or choose a link fault such as reset or hold";
        checks.error(&at_fault, message, hint);
        return;
    }
    match entry.node.as_deref() {
        Some(node) if !names.contains(&node) => {
            let message = format!("`{name}` has no node `{node}`");
            checks.error(&["timeline", place, "node"], message, nearest(node, &names));
        }
        None if target.default_node().is_none() => {
            let message = format!("`{fault}` does not say to which node of `{name}`");
            let hint = format!("add node: with one of {}", names.join(", "));
            checks.error(&at_fault, message, hint);
        }
        _ => {
            let message = format!(
                "a drill refuses `{fault}` on `{name}`: it does not speak to agents on other hosts yet"
            );
            let hint = "drill scenarios with faults on links and tokens, such as partition and reconnect-storm";
            checks.warning(&at_fault, message, hint);
        }
    }
}

/// A storm is made by asking for tokens whose lifetimes end in the same second.
fn token_expiry(checks: &mut Checks<'_>, path: &[&str], target: &Target) {
    match &target.tokens {
        TokenSupply::Files(_) => {
            let hint = "a token from a file lives as long as it does; use http or service to ask for lifetimes";
            let message = "`token_expiry` needs tokens of a lifetime that can be asked for";
            checks.error(path, message, hint);
        }
        TokenSupply::Http(http) if !http.body.reveal().contains("{ttl_seconds}") => {
            let hint = "put {ttl_seconds} into tokens.http.body where the service expects it";
            let message = "`token_expiry` needs tokens of a lifetime that can be asked for";
            checks.error(path, message, hint);
        }
        _ => {}
    }
    if target.promise.expiry_enforcement == ExpiryEnforcement::AtConnect {
        let message = format!(
            "`{}` looks at expiry when a client connects: no connection will be cut off",
            target.name
        );
        let hint = "it will show that clients renew in time and that an expired token is refused; it will affect few \
                    clients, and not show how a cut-off fleet comes back";
        checks.warning(path, message, hint);
    }
}

/// Only the embedded service lets its clock be told.
fn clock_skew(checks: &mut Checks<'_>, path: &[&str], target: &Target) {
    if !matches!(target.tokens, TokenSupply::Service(None)) {
        let message = format!(
            "`clock_skew` needs a token service that the drill starts, and `{}` has its own",
            target.name
        );
        let hint = "write tokens: { service: {} }, or drill the embedded target; no other service's clock can be told";
        checks.error(path, message, hint);
    }
}

/// The gate judges a storm by the target's own figure, so a bound above it can pass here and fail there.
fn storm(checks: &mut Checks<'_>, scenario: &Scenario, target: &Target) {
    let limit = target.limits.storm_target;
    let mut compare = |path: &[&str], bound: Span| {
        if bound > limit {
            let message =
                format!("this bound ({bound}) is above the target's storm_target ({limit})");
            let hint = "the lower of the two is what a client's recovery is judged by";
            checks.warning(path, message, hint);
        }
    };
    for (name, _, bound) in scenario.bounds.of(Phase::Recovery).each() {
        compare(&["bounds", "recovery", name], bound);
    }
    if let Some(bound) = scenario.bounds.time_to_steady {
        compare(&["bounds", "time_to_steady"], bound);
    }
}
