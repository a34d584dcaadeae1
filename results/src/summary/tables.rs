//! The tables of a summary: a row of results, or a part of one, per line.

use std::fmt::Write as _;

use model::anomaly::Anomaly;
use model::criteria::Phase;
use model::instant::Mono;
use model::quantity::Span;
use model::shard::ProbeTally;

use crate::figures::Figures;
use crate::record::{FaultEvidence, Interval, Row};
use crate::terminal::maximum;
use crate::text;

mod agents;

/// Every table.
pub(super) fn all(out: &mut String, rows: &[&Row]) {
    recovery(out, rows);
    phases(out, rows);
    delivery(out, rows);
    census(out, rows);
    anomalies(out, rows);
    faults(out, rows);
    agents::reach(out, rows);
    agents::clocks(out, rows);
    storms(out, rows);
    probes(out, rows);
    external(out, rows);
    harness(out, rows);
}

/// A table in Markdown.
pub(super) fn table(out: &mut String, head: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let _ = writeln!(out, "| {} |", head.join(" | "));
    let _ = writeln!(out, "|{}", "---|".repeat(head.len()));
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .map(|cell| cell.replace('|', "\\|").replace('\n', " "))
            .collect();
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    }
}

fn section(out: &mut String, title: &str, about: &str) {
    let _ = writeln!(out, "\n## {title}\n\n{about}\n");
}

fn start(row: &Row) -> Vec<String> {
    vec![
        row.scenario.clone(),
        row.lane.to_string(),
        row.trial.to_string(),
    ]
}

fn with(row: &Row, cells: impl IntoIterator<Item = String>) -> Vec<String> {
    start(row).into_iter().chain(cells).collect()
}

fn against(figure: String, bound: Option<Span>) -> String {
    match bound {
        Some(bound) => format!("{figure} / {bound}"),
        None => figure,
    }
}

fn recovery(out: &mut String, rows: &[&Row]) {
    section(
        out,
        "Recovery against bounds",
        "Figure / bound. Recovery counts from the heal, outage from the fault; affected clients only.",
    );
    let head = [
        "scenario",
        "lane",
        "trial",
        "affected",
        "detect p99",
        "recovery p50",
        "recovery p99",
        "recovery max",
        "outage p99",
        "steady after",
        "verdict",
    ];
    let lines = rows.iter().map(|row| {
        let figure = |phase: Phase, show: fn(&Figures) -> (String, Option<Span>)| {
            row.phases.get(&phase).map_or_else(text::dash, |figures| {
                let (figure, bound) = show(figures);
                let figure = if figures.samples() == 0 {
                    text::dash()
                } else {
                    figure
                };
                against(figure, bound)
            })
        };
        let p99: fn(&Figures) -> (String, Option<Span>) =
            |figures| (text::quantile(figures.p99_us), figures.bound.p99);
        with(
            row,
            [
                format!("{}/{}", row.clients.affected, row.clients.intended),
                figure(Phase::Detect, p99),
                figure(Phase::Recovery, |figures| {
                    (text::quantile(figures.p50_us), figures.bound.p50)
                }),
                figure(Phase::Recovery, p99),
                figure(Phase::Recovery, |figures| {
                    (maximum(figures), figures.bound.max)
                }),
                figure(Phase::Outage, p99),
                against(text::micros(row.time_to_steady_us), row.criteria.steady),
                row.status.to_string(),
            ],
        )
    });
    table(out, &head, lines);
}

fn phases(out: &mut String, rows: &[&Row]) {
    section(
        out,
        "Phases",
        "Per affected client. Censored: not finished when the deadline passed.",
    );
    let head = [
        "scenario", "lane", "trial", "phase", "count", "censored", "min", "p50", "p90", "p95",
        "p99", "p99.9", "max", "bounds", "within",
    ];
    let lines = rows.iter().flat_map(|row| {
        row.phases
            .iter()
            .filter(|(_, figures)| figures.samples() > 0 || figures.within_bound.is_some())
            .map(|(phase, figures)| {
                let bounds: Vec<String> = figures
                    .bound
                    .each()
                    .map(|(name, _, bound)| format!("{name} {bound}"))
                    .collect();
                with(
                    row,
                    [
                        phase.to_string(),
                        figures.count.to_string(),
                        figures.censored.to_string(),
                        text::micros(figures.min_us),
                        text::quantile(figures.p50_us),
                        text::quantile(figures.p90_us),
                        text::quantile(figures.p95_us),
                        text::quantile(figures.p99_us),
                        text::quantile(figures.p999_us),
                        maximum(figures),
                        if bounds.is_empty() {
                            text::dash()
                        } else {
                            bounds.join(", ")
                        },
                        match figures.within_bound {
                            Some(true) => "yes".to_owned(),
                            Some(false) => "NO".to_owned(),
                            None => text::dash(),
                        },
                    ],
                )
            })
    });
    table(out, &head, lines);
}

fn delivery(out: &mut String, rows: &[&Row]) {
    section(
        out,
        "Delivery",
        "Latency counts from the instant an event was meant to be sent, time spent disconnected and replaying included. \
         The uncorrected figure stands beside it.",
    );
    let head = [
        "scenario",
        "lane",
        "trial",
        "part",
        "count",
        "p50",
        "p95",
        "p99",
        "max",
        "p99 uncorrected",
        "delivered",
    ];
    let lines = rows.iter().flat_map(|row| {
        let delivered = match (row.delivered, row.expected_deliveries) {
            (Some(delivered), Some(expected)) => format!("{delivered}/{expected}"),
            _ => "unknown".to_owned(),
        };
        row.delivery.iter().map(move |(part, figures)| {
            let corrected = &figures.corrected;
            with(
                row,
                [
                    text::part(*part).to_owned(),
                    corrected.count.to_string(),
                    text::quantile(corrected.p50_us),
                    text::quantile(corrected.p95_us),
                    text::quantile(corrected.p99_us),
                    text::micros(corrected.max_us),
                    text::quantile(figures.uncorrected.p99_us),
                    delivered.clone(),
                ],
            )
        })
    });
    table(out, &head, lines);
}

/// What became of the events, by those who count them.
fn census(out: &mut String, rows: &[&Row]) {
    section(
        out,
        "Events",
        "Acknowledged ones, how many of them the final read found, and what it found beside them; how many the lane \
         itself counts, where it does. `lost` are those that it no longer has, `missed` (client, event) pairs of which \
         it still has the event.",
    );
    let head = [
        "scenario",
        "lane",
        "trial",
        "acknowledged",
        "read",
        "beside them",
        "counted by the lane",
        "lost",
        "missed",
    ];
    let lines = rows.iter().map(|row| {
        let census = &row.census;
        let counted = census.counted.map(|count| count.to_string());
        with(
            row,
            [
                census.acknowledged.to_string(),
                census.read.to_string(),
                census.unacknowledged.to_string(),
                counted.unwrap_or_else(text::dash),
                census.lost.to_string(),
                census.missed.to_string(),
            ],
        )
    });
    table(out, &head, lines);
}

fn anomalies(out: &mut String, rows: &[&Row]) {
    section(
        out,
        "Anomalies",
        &format!("{} kinds are looked for in every row.", Anomaly::ALL.len()),
    );
    let found: Vec<Vec<String>> = rows
        .iter()
        .flat_map(|row| {
            let unpromised = row.anomalies.iter().filter_map(|(anomaly, tally)| {
                let tally = tally.unpromised.as_ref()?;
                let examples: Vec<String> = tally.examples.iter().map(text::example).collect();
                Some(with(
                    row,
                    [
                        anomaly.to_string(),
                        tally.count.to_string(),
                        "not promised".to_owned(),
                        "yes".to_owned(),
                        examples.join("; "),
                    ],
                ))
            });
            let counted = row.anomalies.iter().filter_map(|(anomaly, tally)| {
                let count = match tally.count {
                    Some(0) => return None,
                    Some(count) => count.to_string(),
                    None => "not judged".to_owned(),
                };
                let examples: Vec<String> = tally.examples.iter().map(text::example).collect();
                Some(with(
                    row,
                    [
                        anomaly.to_string(),
                        count,
                        match tally.ratio {
                            Some(_) => format!("{} %", tally.limit * 100.0),
                            None => tally.limit.to_string(),
                        },
                        match (tally.waived(), tally.within) {
                            (Some(waiver), _) => waiver.to_string(),
                            (None, Some(true)) => "yes".to_owned(),
                            (None, Some(false)) => "NO".to_owned(),
                            (None, None) => text::dash(),
                        },
                        examples.join("; "),
                    ],
                ))
            });
            counted.chain(unpromised).collect::<Vec<_>>()
        })
        .collect();
    if found.is_empty() {
        out.push_str("None was found.\n");
    } else {
        let head = [
            "scenario", "lane", "trial", "anomaly", "count", "limit", "within", "examples",
        ];
        table(out, &head, found.into_iter());
    }
}

fn faults(out: &mut String, rows: &[&Row]) {
    section(
        out,
        "Faults",
        "Instants are seconds since the trial began, as asked; in brackets how much later the change was seen to be in force.",
    );
    let head = [
        "scenario", "lane", "trial", "fault", "share", "fidelity", "injected", "healed", "bitten",
        "seen", "remarks",
    ];
    let lines = rows.iter().flat_map(|row| {
        row.faults.iter().map(|fault| {
            let figures: Vec<String> = fault
                .observation
                .figures
                .iter()
                .map(|(name, value)| format!("{name} {value}"))
                .collect();
            with(
                row,
                [
                    agents::done_by(fault),
                    fault.share.to_string(),
                    fault.fidelity.name().to_owned(),
                    bracket(row.started_mono, fault.injected),
                    bracket(row.started_mono, fault.healed),
                    fault.observation.bitten.to_string(),
                    figures.join(", "),
                    remarks(fault),
                ],
            )
        })
    });
    table(out, &head, lines);
}

fn bracket(started: Mono, bracket: Option<Interval>) -> String {
    bracket.map_or_else(text::dash, |bracket| {
        format!(
            "{:.3} s (+{})",
            bracket.asked.since(started).as_secs_f64(),
            text::span(Span::from_micros(bracket.width_us))
        )
    })
}

fn remarks(fault: &FaultEvidence) -> String {
    let mut remarks = Vec::new();
    if fault.lapsed {
        remarks.push("its lease lapsed".to_owned());
    }
    if fault.active {
        remarks.push("still in force".to_owned());
    }
    remarks.extend(fault.error.clone());
    if remarks.is_empty() {
        text::dash()
    } else {
        remarks.join("; ")
    }
}

fn storms(out: &mut String, rows: &[&Row]) {
    section(
        out,
        "Storms",
        "Arrivals since the fault, at the proxy. T50, T99, T100: so much of the affected fleet was reconnected, counted \
         from the heal or from detection, whichever is later.",
    );
    let head = [
        "scenario",
        "lane",
        "trial",
        "peak 1 s",
        "÷ capacity",
        "peak 100 ms",
        "÷ capacity",
        "2nd wave",
        "attempts mean/max",
        "wasted",
        "T50",
        "T99",
        "T100",
        "Retry-After obeyed",
        "replayed/missed",
        "planned reconnects",
        "rebootstraps",
    ];
    let lines = rows.iter().map(|row| {
        let storm = &row.storm;
        let times =
            |ratio: Option<f64>| ratio.map_or_else(text::dash, |ratio| format!("{ratio:.2}"));
        with(
            row,
            [
                storm.peak_1s.to_string(),
                times(storm.peak_1s_over_capacity),
                storm.peak_100ms.to_string(),
                times(storm.peak_100ms_over_capacity),
                storm.second_peak_1s.to_string(),
                match (storm.attempts_mean, storm.attempts_max) {
                    (Some(mean), Some(max)) => format!("{mean:.2}/{max}"),
                    _ => text::dash(),
                },
                storm.wasted.to_string(),
                text::quantile(storm.t50_us),
                text::quantile(storm.t99_us),
                text::quantile(storm.t100_us),
                format!("{}/{}", storm.retry_after_obeyed, storm.retry_after_given),
                format!("{}/{}", storm.replayed, storm.missed),
                row.planned_reconnects.to_string(),
                row.rebootstraps.to_string(),
            ],
        )
    });
    table(out, &head, lines);
}

fn probes(out: &mut String, rows: &[&Row]) {
    section(
        out,
        "Probes",
        "Clients that must be refused, and clients with stale cursors, throughout the trial. What found the lane away \
         proves nothing either way. Those that were only ever answered as expected share a line; `results.jsonl` has \
         each.",
    );
    let head = [
        "scenario",
        "lane",
        "trial",
        "probe",
        "expected",
        "met",
        "unreachable",
        "answers",
    ];
    let lines = rows.iter().flat_map(|row| {
        let (kept, broken): (Vec<_>, Vec<_>) = row
            .probes
            .iter()
            .partition(|probe| probe.met > 0 && probe.met == probe.answers.values().sum::<u64>());
        let (each, folded) = match kept.len() {
            0 | 1 => (kept, None),
            count => {
                let sum = |of: fn(&ProbeTally) -> u64| kept.iter().map(|probe| of(probe)).sum();
                let (met, unreachable): (u64, u64) =
                    (sum(|probe| probe.met), sum(|probe| probe.unreachable));
                let words = [
                    format!("{count} probes"),
                    "as each has to be".to_owned(),
                    met.to_string(),
                    unreachable.to_string(),
                    String::new(),
                ];
                (Vec::new(), Some(with(row, words)))
            }
        };
        let each = broken.into_iter().chain(each).map(|probe| {
            let answers: Vec<String> = probe
                .answers
                .iter()
                .map(|(answer, count)| format!("{answer} {count}"))
                .collect();
            with(
                row,
                [
                    probe.probe.clone(),
                    probe.expected.clone(),
                    probe.met.to_string(),
                    probe.unreachable.to_string(),
                    answers.join(", "),
                ],
            )
        });
        each.chain(folded).collect::<Vec<_>>()
    });
    table(out, &head, lines);
}

fn external(out: &mut String, rows: &[&Row]) {
    if rows.iter().all(|row| row.external.is_empty()) {
        return;
    }
    section(
        out,
        "External probes",
        "What the scenario asks beside the lane, from the fleet's first connection to the end of the way back. While one of \
         `steady` fails, the system is not steady; one of `abort` ends the trial when it fails for long.",
    );
    let head = [
        "scenario",
        "lane",
        "trial",
        "probe",
        "for",
        "asks",
        "wanted",
        "asked",
        "good",
        "failed",
        "longest failing",
        "last failure",
    ];
    let lines = rows.iter().flat_map(|row| {
        row.external.iter().map(|probe| {
            with(
                row,
                [
                    probe.name.clone(),
                    probe.rule.to_string(),
                    probe.ask.clone(),
                    probe.wanted.clone(),
                    probe.asked.to_string(),
                    probe.good.to_string(),
                    probe.failed.to_string(),
                    match probe.failed {
                        0 => text::dash(),
                        _ => text::micros(Some(probe.longest_failing_us)),
                    },
                    probe.last_failure.clone().unwrap_or_else(text::dash),
                ],
            )
        })
    });
    table(out, &head, lines);
}

fn harness(out: &mut String, rows: &[&Row]) {
    section(
        out,
        "The harness itself",
        "Above the limit a trial is inconclusive. Receive: a canary timer in every shard. Send: the publisher.",
    );
    let head = [
        "scenario",
        "lane",
        "trial",
        "receive p99",
        "send p99",
        "limit",
        "busiest shard",
        "limit",
        "duration",
    ];
    let lines = rows.iter().map(|row| {
        let harness = &row.harness;
        with(
            row,
            [
                text::quantile(harness.receive_lag.p99_us),
                text::quantile(harness.send_lag.p99_us),
                text::micros(Some(harness.limit_us)),
                format!("{:.0} % of a core", harness.busiest * 100.0),
                format!("{:.0} %", harness.busiest_limit * 100.0),
                format!("{:.1} s", row.duration_seconds),
            ],
        )
    });
    table(out, &head, lines);
}
