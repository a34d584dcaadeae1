//! Rows for a terminal: a table, and an explanation of a row that did not pass.

use model::anomaly::Anomaly;
use model::criteria::Phase;
use model::ids::ClientId;

use crate::figures::Figures;
use crate::record::{Row, Status};
use crate::text;

/// The most examples of one anomaly in an explanation.
const EXAMPLES_SHOWN: usize = 3;

/// A line per row, in aligned columns, without colours; ends with a line break.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut cells = vec![
        [
            "scenario",
            "lane",
            "trial",
            "status",
            "affected",
            "recovery p50",
            "p99",
            "max",
            "outage p99",
            "steady after",
            "anomalies",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    cells.extend(rows.iter().map(line));
    align(&cells)
}

fn line(row: &Row) -> Vec<String> {
    let recovery = row.phases.get(&Phase::Recovery);
    let outage = row.phases.get(&Phase::Outage);
    vec![
        row.scenario.clone(),
        row.lane.to_string(),
        row.trial.to_string(),
        row.status.to_string(),
        format!("{}/{}", row.clients.affected, row.clients.intended),
        figure(recovery, |figures| text::quantile(figures.p50_us)),
        figure(recovery, |figures| text::quantile(figures.p99_us)),
        figure(recovery, maximum),
        figure(outage, |figures| text::quantile(figures.p99_us)),
        text::micros(row.time_to_steady_us),
        anomalies(row),
    ]
}

/// The largest, or `never` where somebody did not finish.
pub(crate) fn maximum(figures: &Figures) -> String {
    if figures.censored > 0 {
        "never".to_owned()
    } else {
        text::micros(figures.max_us)
    }
}

fn figure(figures: Option<&Figures>, show: impl Fn(&Figures) -> String) -> String {
    figures
        .filter(|figures| figures.samples() > 0)
        .map_or_else(text::dash, show)
}

/// What was found; `none` only where everything was looked for.
fn anomalies(row: &Row) -> String {
    let unpromised = row.anomalies.iter().filter_map(|(anomaly, tally)| {
        let count = tally.unpromised.as_ref()?.count;
        Some(format!("{anomaly} {count} (not promised)"))
    });
    let found: Vec<String> = row
        .anomalies
        .iter()
        .filter_map(|(anomaly, tally)| {
            let count = tally.count.filter(|count| *count > 0)?;
            let allowed = if tally.waived().is_some() {
                " (waived)"
            } else if tally.within == Some(true) {
                " (allowed)"
            } else {
                ""
            };
            Some(format!("{anomaly} {count}{allowed}"))
        })
        .chain(unpromised)
        .collect();
    let unjudged =
        row.anomalies.is_empty() || row.anomalies.values().any(|tally| tally.count.is_none());
    match (found.is_empty(), unjudged) {
        (false, _) => found.join(", "),
        (true, true) => "not judged".to_owned(),
        (true, false) => "none".to_owned(),
    }
}

fn align(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            lines
                .iter()
                .map(|line| line[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut out = String::new();
    for line in lines {
        let padded: Vec<String> = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        out.push_str(padded.join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// A client whose moments are surely kept: the first of a kind that its own shard noticed.
fn explicable(row: &Row) -> Option<ClientId> {
    row.anomalies
        .iter()
        .filter(|(_, tally)| tally.within == Some(false))
        .flat_map(|(anomaly, tally)| tally.examples.iter().map(move |one| (*anomaly, one)))
        .filter(|(anomaly, example)| *anomaly == Anomaly::NotRecovered || example.at.is_some())
        .find_map(|(_, example)| example.client)
}

/// Why a row did not pass, with examples and where to look; a single line for one that did. Ends with a line break.
#[must_use]
pub fn explain(row: &Row) -> String {
    let name = row.name();
    if row.status == Status::Passed {
        return format!("{name}: passed\n");
    }
    let mut lines = vec![format!("{name}: {}", row.status)];
    lines.extend(
        row.verdict
            .reasons
            .iter()
            .map(|reason| format!("  - {reason}")),
    );
    for (anomaly, tally) in &row.anomalies {
        if let (Some(waiver), Some(count @ 1..)) = (tally.waived(), tally.count) {
            lines.push(format!("    {anomaly}: {count}, {waiver}"));
            let shown = tally.examples.iter().take(EXAMPLES_SHOWN);
            lines.extend(shown.map(|example| format!("      {}", text::example(example))));
        } else if tally.within == Some(false) {
            // The first example is part of the reason.
            let more = tally.examples.iter().skip(1).take(EXAMPLES_SHOWN - 1);
            lines.extend(more.map(|example| format!("    {anomaly}: {}", text::example(example))));
        }
    }
    lines.push(format!("  see {}", row.log_file));
    if let Some(client) = explicable(row) {
        lines.push(format!("  ask `faultlane why DIR --client {client}`"));
    }
    lines.join("\n") + "\n"
}
