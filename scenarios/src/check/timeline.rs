//! The faults of a timeline.

use model::fault::{CrashLoop, Fault, Holder};
use model::quantity::{ByteSize, Span};

use super::{Checks, MAX_WAIT, network, resource, toxics};
use crate::resolve::{DEFAULT_NODE, lasts};
use crate::scenario::{Entry, Scenario};
use crate::target::Target;
use crate::typed::nearest;

/// Which processes node faults can be done to.
const NODES: [&str; 2] = ["lane", TOKENS];
const TOKENS: &str = "tokens";
/// Renewals go out well within a lease; below this a busy host could miss one.
const LEASES: (Span, Span) = (Span::from_millis(500), Span::from_secs(10));
/// How old the data that come back may be: something must have changed since.
const AGES: (Span, Span) = (Span::from_millis(500), Span::from_secs(600));
/// How long a node in a crash loop is left alone: it has to come back, and to crash again before it is undone.
const PERIODS: (Span, Span) = (Span::from_millis(100), Span::from_secs(600));
/// What the Close frame of RFC 6455 has room for.
const MAX_REASON_BYTES: usize = 123;

pub(super) fn check(checks: &mut Checks<'_>, scenario: &Scenario) {
    if scenario.timeline.is_empty() {
        let hint = "write - { at: 1s, fault: { hold: {} }, for: 5s }";
        checks.error(
            &["timeline"],
            "the timeline is empty: a drill without a fault shows nothing",
            hint,
        );
    }
    for (place, entry) in scenario.timeline.iter().enumerate() {
        let place = place.to_string();
        let path = ["timeline", place.as_str()];
        end(checks, path, entry);
        whom(checks, path, entry);
        settings(checks, path, entry, scenario);
        if let (Fault::Hold(_), Some(lasts)) = (&entry.fault, entry.lasts) {
            hold(checks, path, lasts, scenario);
        }
    }
    one_at_a_time(checks, scenario);
}

/// A node's process can be under one fault at a time: what is killed cannot be paused. Its kernel can be under several.
fn one_at_a_time(checks: &mut Checks<'_>, scenario: &Scenario) {
    let end = |entry: &Entry| {
        let begun = entry.at.plus(entry.fault.lead());
        begun.plus(lasts(&entry.fault, entry.lasts))
    };
    let default = checks.target.and_then(Target::default_node);
    let node = |entry: &Entry| {
        let node = entry.node.as_deref();
        node.or(default).unwrap_or(DEFAULT_NODE).to_owned()
    };
    let on_nodes: Vec<_> = scenario
        .timeline
        .iter()
        .enumerate()
        .filter(|(_, Entry { fault, .. })| {
            fault.holder() == Holder::Agent && !fault.in_kernel() && !fault.on_machine()
        })
        // Which these take is not known before there is an inventory.
        .filter(|(_, entry)| entry.nodes.is_none())
        .collect();
    for (n, (place, entry)) in on_nodes.iter().enumerate() {
        let other = on_nodes[..n].iter().find(|(_, other)| {
            node(other) == node(entry) && entry.at <= end(other) && other.at <= end(entry)
        });
        if let Some((_, other)) = other {
            let place = place.to_string();
            let message = format!(
                "node `{}` is still under `{}` of {} to {}",
                node(entry),
                other.fault.name(),
                other.at,
                end(other)
            );
            let hint = "begin after the other has ended, or choose another node";
            checks.error(&at(["timeline", &place], &["at"]), message, hint);
        }
    }
}

fn entry_node(entry: &Entry) -> &str {
    entry.node.as_deref().unwrap_or(DEFAULT_NODE)
}

fn at<'a>(path: [&'a str; 2], rest: &[&'a str]) -> Vec<&'a str> {
    path.iter().chain(rest).copied().collect()
}

/// Law 1: a scenario cannot express a fault without an end.
fn end(checks: &mut Checks<'_>, path: [&str; 2], entry: &Entry) {
    let name = entry.fault.name();
    match (entry.fault.ends_after(), entry.lasts) {
        (None, None) => {
            let message = format!("`{name}` has no end: its `for` is missing");
            checks.error(
                &at(path, &["fault", name]),
                message,
                "add for: 2s beside `fault`",
            );
        }
        (Some(_), Some(_)) => {
            let message = format!("`{name}` ends by itself and takes no `for`");
            checks.error(&at(path, &["for"]), message, "remove it");
        }
        (None, Some(lasts)) if lasts < Span::from_millis(100) => {
            let message = format!("`{name}` for {lasts} is over before it can be seen to bite");
            checks.error(&at(path, &["for"]), message, "make it 100ms or longer");
        }
        _ => {}
    }
    for (key, wait) in [("at", Some(entry.at)), ("for", entry.lasts)] {
        if let Some(wait) = wait {
            checks.wait(&at(path, &[key]), wait);
        }
    }
    let (shortest, longest) = LEASES;
    if !(shortest..=longest).contains(&entry.lease) {
        let message = format!("a lease of {} is out of range", entry.lease);
        checks.error(
            &at(path, &["lease"]),
            message,
            format!("it is {shortest} to {longest}"),
        );
    }
}

fn whom(checks: &mut Checks<'_>, path: [&str; 2], entry: &Entry) {
    let name = entry.fault.name();
    let share = entry.share.as_ratio();
    if share <= 0.0 {
        let hint = "write a share such as 25%, or leave it out for all";
        checks.error(
            &at(path, &["share"]),
            format!("`{name}` takes 0% of the clients"),
            hint,
        );
    }
    let on_node = entry.fault.holder() == Holder::Agent;
    if let Some(node) = &entry.node {
        if entry.fault.holder() == Holder::Tokens {
            if node != TOKENS {
                let message = format!("`{name}` is for the token service, not for `{node}`");
                let hint = "remove `node`, or write node: tokens";
                checks.error(&at(path, &["node"]), message, hint);
            }
        } else if !on_node {
            let message = format!("`{name}` is not done to a node");
            checks.error(
                &at(path, &["node"]),
                message,
                "remove `node`; faults of processes and kernels have one",
            );
        // The agents that are chosen know their operators' nodes.
        } else if checks.target.is_none()
            && entry.nodes.is_none()
            && !NODES.contains(&node.as_str())
        {
            checks.error(
                &at(path, &["node"]),
                format!("there is no node `{node}`"),
                nearest(node, &NODES),
            );
        }
    }
    if entry.nodes.is_some() && !on_node {
        let message = format!(
            "`{name}` is done to clients' links or tokens, wherever they are, and by no chosen agents"
        );
        let hint = "remove `nodes`; faults of processes and kernels are done by agents";
        checks.key_error(&at(path, &["nodes"]), message, hint);
    }
    if entry.peers.is_some() && entry.fault.clone().peers_mut().is_none() {
        let message = format!("`{name}` names no peers");
        let hint = "remove `peers`; partition, packet_loss and drop_sockets have them";
        checks.key_error(&at(path, &["peers"]), message, hint);
    }
    if (on_node || entry.fault.holder() == Holder::Tokens) && share < 1.0 {
        let message = format!(
            "`{name}` takes every client of its node, not {}",
            entry.share
        );
        checks.error(&at(path, &["share"]), message, "remove `share`");
    }
}

fn settings(checks: &mut Checks<'_>, path: [&str; 2], entry: &Entry, scenario: &Scenario) {
    let fault = &entry.fault;
    let name = fault.name();
    let mut wrong = |key: &str, message: String, hint: &str| {
        checks.error(&at(path, &["fault", name, key]), message, hint);
    };
    match fault {
        Fault::Latency(latency) => {
            if latency.delay == Span::ZERO {
                wrong("delay", "a delay of 0s is none".to_owned(), "write 50ms");
            }
            if latency.jitter > latency.delay {
                let message = format!(
                    "the jitter ({}) exceeds the delay ({})",
                    latency.jitter, latency.delay
                );
                wrong(
                    "jitter",
                    message,
                    "the delay varies by the jitter either way, and time does not run backwards",
                );
            }
            if latency.delay > MAX_WAIT {
                wrong(
                    "delay",
                    format!("{} is longer than an hour", latency.delay),
                    "was another unit meant?",
                );
            }
        }
        Fault::Bandwidth(bandwidth) if bandwidth.per_second == ByteSize::new(0) => {
            wrong(
                "per_second",
                "at 0B a second nothing passes".to_owned(),
                "use hold: {} for that",
            );
        }
        Fault::WsClose(close) => {
            // RFC 6455, section 7.4: the reserved ones never appear in a frame.
            if !(1000..=4999).contains(&close.code)
                || [1004, 1005, 1006, 1015].contains(&close.code)
            {
                let message = format!("{} is not a close code that can be sent", close.code);
                wrong(
                    "code",
                    message,
                    "it is 1000 to 4999 without 1004, 1005, 1006 and 1015; 1012 is a restart",
                );
            }
            if close.reason.len() > MAX_REASON_BYTES {
                let message = format!("the reason has {} bytes", close.reason.len());
                wrong("reason", message, "a Close frame has room for 123");
            }
        }
        Fault::RefuseUpgrade(refuse) if !(400..=599).contains(&refuse.status) => {
            let message = format!("{} is not the status of an error", refuse.status);
            wrong("status", message, "it is 400 to 599, such as 503");
        }
        Fault::Toxic(toxic) => toxics::check(checks, path, toxic),
        Fault::Restore(restore) => {
            let (youngest, oldest) = AGES;
            if !(youngest..=oldest).contains(&restore.age) {
                let message = format!("an age of {} is out of range", restore.age);
                let hint = format!("it is {youngest} to {oldest}");
                checks.error(&at(path, &["fault", name, "age"]), message, hint);
            }
            if entry_node(entry) != DEFAULT_NODE {
                let message = format!(
                    "node `{}` has no data that could go back",
                    entry_node(entry)
                );
                checks.error(&at(path, &["node"]), message, "restore is for `lane`");
            }
        }
        Fault::CrashLoop(settings) => crash_loop(checks, path, settings, entry.lasts),
        Fault::TokenExpiry(expiry) => {
            token_expiry(checks, path, expiry.after, expiry.spread, scenario);
        }
        fault if fault.on_machine() => resource::check(checks, path, fault),
        Fault::ClockSkew(skew) => resource::clock_skew(checks, path, skew),
        fault => network::check(checks, path, fault),
    }
}

fn crash_loop(checks: &mut Checks<'_>, path: [&str; 2], settings: &CrashLoop, lasts: Option<Span>) {
    let key = |key| at(path, &["fault", "crash_loop", key]);
    let (shortest, longest) = PERIODS;
    if !(shortest..=longest).contains(&settings.every) {
        let message = format!("a period of {} is out of range", settings.every);
        let hint = format!("it is {shortest} to {longest}");
        checks.error(&key("every"), message, hint);
    } else if lasts.is_some_and(|lasts| lasts <= settings.every) {
        let message = format!(
            "`crash_loop` is over before the node has been up for {}: it crashes once",
            settings.every
        );
        let hint = "lengthen `for`, shorten `every`, or use kill: {}";
        checks.warning(&at(path, &["for"]), message, hint);
    }
    if let Some(times @ ..2) = settings.times {
        let message = format!("{times} is no loop");
        checks.error(&key("times"), message, "make it 2 or more, or use kill: {}");
    }
}

fn token_expiry(
    checks: &mut Checks<'_>,
    path: [&str; 2],
    after: Span,
    spread: Span,
    scenario: &Scenario,
) {
    let key = |key| at(path, &["fault", "token_expiry", key]);
    let profile = checks.clocks(scenario);
    // Lifetimes are whole seconds, and a token has to outlive the second in which it is taken on.
    let least = spread
        .plus(Span::from_secs(1))
        .max(spread.plus(profile.refresh_lead));
    if after < least {
        let message = format!(
            "tokens taken on over {spread} cannot all live until {after} after the injection"
        );
        checks.error(
            &key("after"),
            message,
            format!("make `after` at least {least}, or `spread` shorter"),
        );
    }
    if after > Span::from_secs(900) {
        let message = format!("a token of {after} is longer than the token service grants");
        checks.error(&key("after"), message, "it is at most 15m");
    }
    let rate = scenario.target.token_rate;
    if let Some(rate) = rate.filter(|_| checks.target.is_none()) {
        let waiting = scenario
            .workload
            .clients
            .saturating_sub(scenario.target.token_burst);
        let needed = f64::from(waiting) / rate.as_per_second().max(f64::MIN_POSITIVE);
        if needed > spread.as_secs_f64() {
            let message = format!(
                "at {rate} the clients need {needed:.1}s to take on new tokens, not {spread}"
            );
            let hint = "lengthen `spread` (and `after`), or raise target.token_rate";
            checks.warning(&key("spread"), message, hint);
        }
    }
}

/// A user-space proxy cannot lose packets; a hold that ends before anybody's timer is only a delay.
fn hold(checks: &mut Checks<'_>, path: [&str; 2], lasts: Span, scenario: &Scenario) {
    let read_idle = checks.clocks(scenario).read_idle;
    if lasts <= read_idle {
        let message =
            format!("a hold of {lasts} is never detected: clients give up after {read_idle}");
        let hint = format!(
            "hold for longer than {read_idle}, or lower `read_idle` in the target's profile"
        );
        checks.warning(&at(path, &["for"]), message, hint);
    }
}
