//! `faultlane bench proxy`: the proxy beside its peers, in one run.
//!
//! ```text
//! peers      what is compared: no proxy at all, HAProxy, toxiproxy-server, faultlane; each a process of its own
//! sink       the server behind all of them, a process of its own too
//! load       connections to it, with the role that the sink is to play
//! measures/  one file for each thing that is measured
//! pairs      rounds in which every peer has its turn, and what their ratios say
//! criteria   what the proxy has to reach
//! report     the table and the JSON
//! ```
//!
//! The machine's noise is larger than the differences: no figure is compared with one of another minute. In each round
//! every peer is measured once, in turn, and what counts is the median of the rounds' ratios with its 95 % interval.

mod criteria;
mod load;
mod measures;
mod pairs;
mod peers;
mod report;
mod sink;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use host::timer::Timer;

use self::report::Processors;
pub use self::report::Report;
pub use self::sink::main as sink;

use self::measures::{bandwidth, delay, idle};
use self::pairs::{Load, Paired};
use self::peers::{Peer, Sink};

/// What is to be measured.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This program: it guards the peers, and is the sink.
    pub own: PathBuf,
    /// The faultlane that is measured.
    pub measured: PathBuf,
    /// Rounds of each comparison.
    pub rounds: usize,
    /// A smoke run: its figures mean nothing.
    pub quick: bool,
    /// Only what has this in its name.
    pub only: Option<String>,
}

impl Settings {
    fn wants(&self, what: &str) -> bool {
        let only = self.only.as_ref();
        only.is_none_or(|only| what.contains(only.as_str()))
    }

    /// How long each peer is loaded in each round.
    const fn slot(&self) -> Duration {
        Duration::from_millis(if self.quick { 60 } else { 500 })
    }

    const fn idle_connections(&self) -> usize {
        if self.quick { 200 } else { 5_000 }
    }

    /// How long each delay and each rate is looked at.
    const fn toxic_span(&self) -> Duration {
        Duration::from_millis(if self.quick { 500 } else { 5_000 })
    }
}

/// What all of them are asked for in turn.
const LOADS: [Load; 5] = [
    Load::Streams(1),
    Load::Streams(50),
    Load::TlsStream,
    Load::Requests(1),
    Load::Requests(50),
];
/// Comes last of all: a minute later the kernel forgets what it has kept of those connections, thousands at a time, and
/// nobody's delay is exact meanwhile.
const LAST: Load = Load::Connects;

async fn put_on_all(
    load: Load,
    settings: &Settings,
    peers: &[Peer],
    tell: &mut impl FnMut(&str),
) -> io::Result<Vec<Paired>> {
    let what = load.to_string();
    if !settings.wants(&what) {
        return Ok(Vec::new());
    }
    tell(&what);
    pairs::measure(load, peers, settings.rounds, settings.slot()).await
}

/// Measures everything; takes about five minutes. `tell` hears what is being done. To be run on a current-thread
/// runtime, so that the load itself takes one core at most.
///
/// # Errors
/// The sink or faultlane could not be started, or a connection through a peer failed.
pub async fn run(settings: &Settings, mut tell: impl FnMut(&str)) -> io::Result<Report> {
    let sink = Sink::start(&settings.own).await?;
    let (peers, absent) = peers::start(settings, &sink).await?;
    for name in &absent {
        tell(&format!("{name}: not on the PATH, left out"));
    }
    let load_before = report::load_average();
    let processors = Processors::now();

    let connections = settings.idle_connections();
    let mut idle = Vec::new();
    let what = format!("memory of {connections} idle connections");
    if settings.wants(&what) {
        tell(&what);
        for peer in &peers {
            idle.extend(idle::measure(peer, connections).await?);
        }
    }

    let mut paired: Vec<Paired> = Vec::new();
    for load in LOADS {
        paired.extend(put_on_all(load, settings, &peers, &mut tell).await?);
    }

    let timer = Timer::start()?;
    let with_toxics: Vec<&Peer> = peers.iter().filter(|peer| peer.api.is_some()).collect();
    let mut delays = Vec::new();
    for millis in [1, 5, 50] {
        let what = format!("delay of {millis} ms");
        if !settings.wants(&what) {
            continue;
        }
        tell(&what);
        let asked = Duration::from_millis(millis);
        delays.extend(delay::measure(&timer, &with_toxics, asked, settings.toxic_span()).await?);
    }
    let mut rates = Vec::new();
    for kilobytes in [1_000, 10_000, 100_000] {
        let what = format!("bandwidth of {kilobytes} kB/s");
        if !settings.wants(&what) {
            continue;
        }
        tell(&what);
        for peer in &with_toxics {
            rates.push(bandwidth::measure(peer, kilobytes, settings.toxic_span()).await?);
        }
    }

    paired.extend(put_on_all(LAST, settings, &peers, &mut tell).await?);

    let criteria = criteria::judge(&paired, &idle, &delays, &rates);
    Ok(Report {
        quick: settings.quick,
        rounds: settings.rounds,
        cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        load_average: (load_before, report::load_average()),
        stolen_percent: Processors::now().stolen_percent_since(processors),
        peers: peers.iter().map(Peer::describe).collect(),
        absent,
        paired,
        idle,
        delays,
        rates,
        criteria,
    })
}
