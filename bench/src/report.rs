//! What was found: as JSON, and as tables in Markdown.

use std::fmt::{self, Write as _};
use std::fs;

use serde::Serialize;

use crate::criteria::Criterion;
use crate::measures::bandwidth::Rate;
use crate::measures::delay::Delay;
use crate::measures::idle::Idle;
use crate::pairs::{Paired, Ratio};
use crate::peers::{Described, FAULTLANE};

/// One run of the bench.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// A smoke run: the figures mean nothing.
    pub quick: bool,
    /// Rounds of each comparison.
    pub rounds: usize,
    /// Of the machine.
    pub cores: usize,
    /// Runnable tasks over the last minute, before and after.
    pub load_average: (f64, f64),
    /// Of the processors' time, what the host gave to others; 0 on a machine that is nobody's guest.
    pub stolen_percent: f64,
    /// What was compared.
    pub peers: Vec<Described>,
    /// What was not on the PATH.
    pub absent: Vec<&'static str>,
    /// What was measured in rounds.
    pub paired: Vec<Paired>,
    /// User memory.
    pub idle: Vec<Idle>,
    /// Delays.
    pub delays: Vec<Delay>,
    /// Bandwidths.
    pub rates: Vec<Rate>,
    /// What had to be reached.
    pub criteria: Vec<Criterion>,
}

/// The load of the last minute; 0 where the kernel does not say.
pub(crate) fn load_average() -> f64 {
    let said = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = said.split_whitespace().next();
    first.and_then(|load| load.parse().ok()).unwrap_or(0.0)
}

/// What the processors have done since they started, and what of it the host has stolen, in ticks.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Processors {
    all: u64,
    stolen: u64,
}

impl Processors {
    /// Of the first line of `/proc/stat` (proc(5)), whose eighth figure is what was stolen.
    pub(crate) fn now() -> Self {
        let said = fs::read_to_string("/proc/stat").unwrap_or_default();
        let ticks: Vec<u64> = said
            .lines()
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .filter_map(|ticks| ticks.parse().ok())
            .take(8)
            .collect();
        Self {
            all: ticks.iter().sum(),
            stolen: ticks.get(7).copied().unwrap_or(0),
        }
    }

    pub(crate) fn stolen_percent_since(self, before: Self) -> f64 {
        let all = self.all.saturating_sub(before.all).max(1);
        self.stolen.saturating_sub(before.stolen) as f64 / all as f64 * 100.0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = self.load_average;
        writeln!(
            f,
            "{} cores, load {before:.2} before and {after:.2} after, {:.1} % stolen, {} rounds{}",
            self.cores,
            self.stolen_percent,
            self.rounds,
            if self.quick { ", a smoke run" } else { "" }
        )?;
        for peer in self.peers.iter().filter(|peer| !peer.version.is_empty()) {
            writeln!(f, "{}: {}", peer.name, peer.version)?;
        }
        for name in &self.absent {
            writeln!(f, "{name}: not on the PATH")?;
        }
        writeln!(f, "\n{}", self.paired_table())?;
        writeln!(f, "{}", self.idle_table())?;
        writeln!(f, "{}", self.delay_table())?;
        writeln!(f, "{}", self.rate_table())?;
        write!(f, "{}", self.criteria_table())
    }
}

impl Report {
    fn paired_table(&self) -> Table {
        let names: Vec<_> = self.peers.iter().map(|peer| peer.name).collect();
        let others = names.iter().filter(|name| **name != FAULTLANE);
        let mut table = Table::new(
            ["medians".to_owned()]
                .into_iter()
                .chain(names.iter().map(|name| (*name).to_owned()))
                .chain(others.clone().map(|name| format!("{FAULTLANE} ÷ {name}"))),
        );
        for paired in &self.paired {
            let median = |name: &&str| {
                paired
                    .medians
                    .get(name)
                    .map_or_else(String::new, |median| number(*median))
            };
            let ratio = |name: &&str| {
                let ratio = paired.ratios.get(name);
                ratio.map_or_else(String::new, |Ratio { median, low, high }| {
                    format!("{median:.2} ({low:.2} to {high:.2})")
                })
            };
            table.row(
                [format!("{}, {}", paired.figure, paired.unit)]
                    .into_iter()
                    .chain(names.iter().map(median))
                    .chain(others.clone().map(ratio)),
            );
        }
        table
    }

    fn idle_table(&self) -> Table {
        let heads = ["idle connections", "peer", "user memory of each, B"];
        let mut table = Table::new(heads.map(str::to_owned));
        for idle in &self.idle {
            table.row([
                idle.connections.to_string(),
                idle.peer.to_owned(),
                format!("{:.0}", idle.bytes_per_connection),
            ]);
        }
        table
    }

    fn delay_table(&self) -> Table {
        let heads = [
            "delay, ms",
            "peer",
            "path, µs",
            "error p50, µs",
            "error p99, µs",
            "beyond timerfd, p99, µs",
        ];
        let mut table = Table::new(heads.map(str::to_owned));
        for delay in &self.delays {
            table.row([
                delay.asked_ms.to_string(),
                delay.peer.to_owned(),
                format!("{:.0}", delay.path_us),
                format!("{:.0}", delay.error_p50_us),
                format!("{:.0}", delay.error_p99_us),
                delay
                    .beyond_p99_us
                    .map_or_else(String::new, |beyond| format!("{beyond:+.0}")),
            ]);
        }
        table
    }

    fn rate_table(&self) -> Table {
        let heads = ["bandwidth, kB/s", "peer", "measured, kB/s", "error"];
        let mut table = Table::new(heads.map(str::to_owned));
        for rate in &self.rates {
            table.row([
                rate.asked.to_string(),
                rate.peer.to_owned(),
                format!("{:.1}", rate.measured),
                format!("{:+.2} %", rate.error_percent),
            ]);
        }
        table
    }

    fn criteria_table(&self) -> Table {
        let mut table = Table::new(["criterion", "found", ""].map(str::to_owned));
        for criterion in &self.criteria {
            let met = match criterion.met {
                Some(true) => "met",
                Some(false) => "not met",
                None => "not measured",
            };
            table.row([
                criterion.wanted.clone(),
                criterion.found.clone(),
                met.to_owned(),
            ]);
        }
        table
    }
}

fn number(value: f64) -> String {
    if value < 100.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

/// Columns as wide as what is in them.
struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(heads: impl IntoIterator<Item = String>) -> Self {
        Self {
            rows: vec![heads.into_iter().collect()],
        }
    }

    fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for (at, row) in self.rows.iter().enumerate() {
            let mut line = String::from("|");
            for (cell, width) in row.iter().zip(&widths) {
                write!(line, " {cell:width$} |")?;
            }
            writeln!(f, "{line}")?;
            if at == 0 {
                let rules = widths.iter().map(|width| "-".repeat(width + 2));
                writeln!(f, "|{}|", rules.collect::<Vec<_>>().join("|"))?;
            }
        }
        Ok(())
    }
}
