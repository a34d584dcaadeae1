//! The settings of faults in a node's kernel.

use model::fault::{DropSockets, Fault, Netem, PacketLoss, Partition, Throttle};
use model::quantity::{ByteSize, Span};

use super::{Checks, MAX_WAIT};

const SSH: u16 = 22;

pub(super) fn check(checks: &mut Checks<'_>, path: [&str; 2], fault: &Fault) {
    let place = |key| [path[0], path[1], "fault", fault.name(), key];
    match fault {
        Fault::Partition(settings) => partition(checks, place, settings),
        Fault::PacketLoss(settings) => packet_loss(checks, place, settings),
        Fault::Throttle(settings) => throttle(checks, place, settings),
        Fault::Netem(settings) => netem(checks, place, settings),
        _ => {}
    }
    if let Fault::Partition(Partition { ports, .. })
    | Fault::PacketLoss(PacketLoss { ports, .. })
    | Fault::DropSockets(DropSockets { ports, .. }) = fault
        && ports.iter().any(|port| port.get() == SSH)
    {
        checks.warning(
            &place("ports"),
            "port 22 is named, so that SSH to the node is cut too".to_owned(),
            "leave it out: a fault that names no port spares SSH and the conductor's channel",
        );
    }
}

fn partition<'a>(
    checks: &mut Checks<'_>,
    place: impl Fn(&'a str) -> [&'a str; 5],
    settings: &Partition,
) {
    let Some(of) = settings.of else { return };
    let peers = settings.peers.len();
    if of == 0 || of as usize > peers {
        let message = format!("{of} of {peers} peers cannot be chosen");
        let hint = if peers == 0 {
            "name the peers, of which so many are taken"
        } else {
            "`of` is at least 1 and at most the number of `peers`"
        };
        checks.error(&place("of"), message, hint);
    }
}

fn packet_loss<'a>(
    checks: &mut Checks<'_>,
    place: impl Fn(&'a str) -> [&'a str; 5],
    settings: &PacketLoss,
) {
    let ratio = settings.rate.as_ratio();
    if ratio <= 0.0 {
        checks.error(
            &place("rate"),
            "a loss of 0% is none".to_owned(),
            "write 5%",
        );
    } else if ratio >= 1.0 {
        checks.error(
            &place("rate"),
            "at 100% nothing passes".to_owned(),
            "use partition for that",
        );
    }
}

fn throttle<'a>(
    checks: &mut Checks<'_>,
    place: impl Fn(&'a str) -> [&'a str; 5],
    settings: &Throttle,
) {
    if settings.per_second == ByteSize::new(0) {
        checks.error(
            &place("per_second"),
            "at 0B a second nothing passes".to_owned(),
            "use partition for that",
        );
    }
    if settings.latency == Span::ZERO || settings.latency > MAX_WAIT {
        checks.error(
            &place("latency"),
            format!("no packet can wait {} for its turn", settings.latency),
            "write 50ms",
        );
    }
}

fn netem<'a>(checks: &mut Checks<'_>, place: impl Fn(&'a str) -> [&'a str; 5], settings: &Netem) {
    let shares = [
        ("reorder", settings.reorder),
        ("duplicate", settings.duplicate),
        ("corrupt", settings.corrupt),
        ("loss", settings.loss),
    ];
    let none = shares.iter().all(|(_, share)| share.as_ratio() <= 0.0);
    if none && settings.delay == Span::ZERO {
        checks.error(
            &place("interface"),
            "netem that does nothing to a packet is none".to_owned(),
            "add delay: 50ms, or one of reorder, duplicate, corrupt and loss",
        );
    }
    if settings.jitter > settings.delay {
        let message = format!(
            "the jitter ({}) exceeds the delay ({})",
            settings.jitter, settings.delay
        );
        let hint = "the delay varies by the jitter either way, and time does not run backwards";
        checks.error(&place("jitter"), message, hint);
    }
    if settings.delay > MAX_WAIT {
        let message = format!("{} is longer than an hour", settings.delay);
        checks.error(&place("delay"), message, "was another unit meant?");
    }
    if settings.reorder.as_ratio() > 0.0 && settings.delay == Span::ZERO {
        let message = "packets can only go past others that wait".to_owned();
        checks.error(&place("reorder"), message, "add delay: 10ms");
    }
}
