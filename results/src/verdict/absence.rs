//! Evidence that a row must hold, or nothing in it could have shown a failure. What the row itself lists as missing is
//! what was noticed when the trial was judged; this is looked for anew each time.

use model::anomaly::Anomaly;
use model::target::Kind;
use model::trial::Abort;

use super::cut_short;
use crate::record::Row;

/// A probe that was asked so often and never answered was not merely unlucky.
const HANGING: u64 = 3;

/// What is absent, a phrase each.
pub(super) fn all(row: &Row) -> Vec<String> {
    let mut absent = Vec::new();
    if row.residue.is_none() {
        absent.push("the look for residue".to_owned());
    }
    if row
        .open_world
        .as_ref()
        .is_some_and(|world| world.clean_up.is_none())
    {
        absent.push("what became of the events that this run published".to_owned());
    }
    if cut_short(row) {
        return absent;
    }
    // A target that breached a limit may be too far gone to be read; that is its failure, not the evidence's.
    let readable = !matches!(row.abort, Some(Abort::Limit(_)));
    let uncounted: Vec<_> = Anomaly::ALL
        .into_iter()
        .filter(|anomaly| readable || *anomaly != Anomaly::Vanished)
        .filter(|anomaly| {
            row.anomalies
                .get(anomaly)
                .is_none_or(|tally| tally.count.is_none())
        })
        .map(Anomaly::name)
        .collect();
    if !uncounted.is_empty() {
        absent.push(format!("the count of {}", uncounted.join(", ")));
    }
    if row.proxy_status.is_none() {
        absent.push("the proxy's counters".to_owned());
    }
    if readable {
        if row.lane_status.is_none() && row.target != Kind::Described {
            absent.push("the lane's counters".to_owned());
        }
        let answers: u64 = row
            .probes
            .iter()
            .flat_map(|probe| probe.answers.values())
            .sum();
        if answers == 0 {
            absent.push("answers to the probes: there was none".to_owned());
        } else {
            absent.extend(never_answered(row));
        }
        absent.extend(deliveries(row));
    }
    absent
}

/// A lane that leaves those hanging who have to be refused has not refused them. Once or twice it may have been away.
fn never_answered(row: &Row) -> Option<String> {
    let hanging: Vec<_> = row
        .probes
        .iter()
        .filter(|probe| probe.answers.is_empty() && probe.unreachable >= HANGING)
        .collect();
    let first = hanging.first()?;
    let why = first.last_unreachable.as_deref().unwrap_or("no answer");
    let others = match hanging.len() - 1 {
        0 => String::new(),
        more => format!(", nor to {more} others"),
    };
    Some(format!(
        "an answer to the probe {} in {} attempts{others}: {why}",
        first.probe, first.unreachable
    ))
}

/// What had to be delivered was, or a finding says why not.
fn deliveries(row: &Row) -> Option<String> {
    let (Some(expected), Some(delivered)) = (row.expected_deliveries, row.delivered) else {
        return Some("the count of deliveries".to_owned());
    };
    // What the target does not promise to keep is found as well.
    let found = |anomaly| {
        row.anomalies.get(&anomaly).map_or(0, |tally| {
            let unpromised = tally.unpromised.as_ref().map_or(0, |tally| tally.count);
            tally.count.unwrap_or(0) + unpromised
        })
    };
    let short = expected.saturating_sub(delivered);
    // What the lane has lost is no delivery that was due, and a finding of its own.
    let missed = found(Anomaly::Lost).saturating_sub(row.census.lost);
    let explained = missed >= short || found(Anomaly::NotRecovered) > 0;
    if expected == 0 {
        Some("deliveries: none was expected".to_owned())
    } else if delivered > expected || !explained {
        Some(format!(
            "what became of the deliveries: {delivered} of {expected} came, and no finding accounts for it"
        ))
    } else if delivered > 0 && row.rows_received.values().sum::<u64>() == 0 {
        Some(format!(
            "the rows received: there is none for {delivered} deliveries"
        ))
    } else {
        None
    }
}
