//! Faults in a node's kernel, in words.

use std::fmt::Display;
use std::num::NonZeroU16;

use model::fault::{Action, Fault, Flow, Netem, Partition, Throttle};
use model::net::Cidr;
use model::quantity::Span;

pub(super) fn action(fault: &Fault) -> String {
    match fault {
        Fault::Partition(settings) => partition(settings),
        Fault::PacketLoss(settings) => format!(
            "lose {} of the packets with {}{}, {}",
            settings.rate,
            peers(&settings.peers),
            ports(&settings.ports),
            way(settings.direction)
        ),
        Fault::Throttle(settings) => throttle(settings),
        Fault::Netem(settings) => netem(settings),
        Fault::DropSockets(settings) => format!(
            "end every established connection with {}{}",
            peers(&settings.peers),
            ports(&settings.ports)
        ),
        other => other.name().to_owned(),
    }
}

fn partition(settings: &Partition) -> String {
    let verb = match settings.action {
        Action::Drop => "drop",
        Action::Reject => "reject",
    };
    let chosen = settings.of.map(|of| format!("{of} of "));
    format!(
        "{verb} packets with {}{}{}, {}",
        chosen.unwrap_or_default(),
        peers(&settings.peers),
        ports(&settings.ports),
        way(settings.direction)
    )
}

fn throttle(settings: &Throttle) -> String {
    let burst = settings.burst.map(|burst| format!(", {burst} at once"));
    format!(
        "let `{}` send {} a second{}; what would wait longer than {} is lost",
        settings.interface,
        settings.per_second,
        burst.unwrap_or_default(),
        settings.latency
    )
}

fn netem(settings: &Netem) -> String {
    let mut words = Vec::new();
    if settings.delay > Span::ZERO {
        let jitter = format!(" ± {}", settings.jitter);
        let jitter = if settings.jitter > Span::ZERO {
            jitter.as_str()
        } else {
            ""
        };
        words.push(format!("delay by {}{jitter}", settings.delay));
    }
    for (verb, share) in [
        ("reorder", settings.reorder),
        ("duplicate", settings.duplicate),
        ("corrupt", settings.corrupt),
        ("lose", settings.loss),
    ] {
        if share.as_ratio() > 0.0 {
            words.push(format!("{verb} {share}"));
        }
    }
    format!(
        "of what `{}` sends: {}",
        settings.interface,
        words.join(", ")
    )
}

fn peers(peers: &[Cidr]) -> String {
    if peers.is_empty() {
        "everyone".to_owned()
    } else {
        list(peers)
    }
}

fn ports(ports: &[NonZeroU16]) -> String {
    match ports {
        [] => String::new(),
        [port] => format!(" on port {port}"),
        ports => format!(" on ports {}", list(ports)),
    }
}

fn list(items: &[impl Display]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    items.join(", ")
}

const fn way(direction: Flow) -> &'static str {
    match direction {
        Flow::In => "coming in",
        Flow::Out => "going out",
        Flow::Both => "both ways",
    }
}
