//! A trial's histograms as an `HdrHistogram` interval log, version 1.3, for the tools that read those.
//!
//! Tags are `metric.phase.fault`, the faults joined by `+`. Instants are seconds since the trial's start, values are
//! micro-seconds.

use std::fmt::Write as _;

use chrono::DateTime;
use model::criteria::Phase;
use model::histogram::Micros;
use model::instant::Mono;
use model::shard::DeliveryPart;

use crate::record::Row;
use crate::text;

/// The log.
pub(crate) fn render(row: &Row) -> String {
    let started = DateTime::parse_from_rfc3339(&row.started)
        .map_or(0.0, |at| at.timestamp_millis() as f64 / 1e3);
    let mut log = String::from("#[Histogram log format version 1.3]\n");
    let _ = writeln!(
        log,
        "#[StartTime: {started:.3} (seconds since epoch), {}]",
        row.started
    );
    let _ = writeln!(log, "#[BaseTime: {started:.3} (seconds since epoch)]");
    let _ = writeln!(log, "#[Trial: {}, values in micro-seconds]", row.name());
    log.push_str(
        "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n",
    );
    let mut intervals = intervals(row);
    intervals.sort_by_key(|interval| interval.from);
    for Interval {
        tag,
        from,
        until,
        histogram,
    } in intervals
    {
        let _ = writeln!(
            log,
            "Tag={tag},{:.3},{:.3},{:.3},{}",
            from.since(row.started_mono).as_secs_f64(),
            until.since(from).as_secs_f64(),
            histogram.max().map_or(0, model::quantity::Span::as_micros) as f64,
            histogram.encode()
        );
    }
    log
}

struct Interval<'a> {
    tag: String,
    from: Mono,
    until: Mono,
    histogram: &'a Micros,
}

fn intervals(row: &Row) -> Vec<Interval<'_>> {
    let faults: Vec<&str> = row.faults.iter().map(|fault| fault.id.as_str()).collect();
    let faults = tag_text(&if faults.is_empty() {
        "none".to_owned()
    } else {
        faults.join("+")
    });
    let (start, end) = (row.started_mono, row.ended_mono);
    let (t0, th) = row.episode().unwrap_or((end, end));
    let interval = |name: String, from: Mono, until: Mono, histogram| Interval {
        tag: format!("{name}.{faults}"),
        from,
        until,
        histogram,
    };
    let phases = row.phases.iter().map(|(phase, figures)| {
        let from = match phase {
            Phase::Detect | Phase::Outage => t0,
            _ => th,
        };
        interval(format!("recovery.{phase}"), from, end, &figures.histogram)
    });
    let deliveries = row.delivery.iter().flat_map(|(part, delivery)| {
        let (from, until) = match part {
            DeliveryPart::Before => (start, t0),
            DeliveryPart::During => (t0, th),
            DeliveryPart::After => (th, end),
        };
        let part = text::part(*part);
        [
            interval(
                format!("delivery.{part}"),
                from,
                until,
                &delivery.corrected.histogram,
            ),
            interval(
                format!("delivery_uncorrected.{part}"),
                from,
                until,
                &delivery.uncorrected.histogram,
            ),
        ]
    });
    let harness = [
        interval(
            "harness.send_lag".to_owned(),
            start,
            end,
            &row.harness.send_lag.histogram,
        ),
        interval(
            "harness.receive_lag".to_owned(),
            start,
            end,
            &row.harness.receive_lag.histogram,
        ),
    ];
    phases.chain(deliveries).chain(harness).collect()
}

/// A tag has no commas and no white space.
fn tag_text(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c == ',' || c.is_whitespace() {
                '_'
            } else {
                c
            }
        })
        .collect()
}
