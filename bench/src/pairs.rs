//! Rounds in which every peer has its turn, and what the ratios of the rounds say.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::load::connect_all;
use crate::measures::{connects, micros, requests, throughput};
use crate::peers::{FAULTLANE, Peer};

/// What the peers are asked for in turn.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Load {
    /// As many bytes as go through so many streams.
    Streams(usize),
    /// As many bytes as go through a stream of TLS, which the peer ends.
    TlsStream,
    /// As many requests as are answered over so many connections.
    Requests(usize),
    /// As many new connections as are possible.
    Connects,
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Streams(1) => write!(f, "throughput of one stream"),
            Self::Streams(streams) => write!(f, "throughput of {streams} streams"),
            Self::TlsStream => write!(f, "throughput of one stream of TLS"),
            Self::Requests(1) => write!(f, "requests over one connection"),
            Self::Requests(connections) => write!(f, "requests over {connections} connections"),
            Self::Connects => write!(f, "new connections"),
        }
    }
}

impl Load {
    /// What is measured under it, with its unit.
    const fn figures(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Streams(1) => &[
                ("one-stream throughput", "MB/s"),
                ("one-stream processor time", "µs/MB"),
            ],
            Self::Streams(_) => &[
                ("50-stream throughput", "MB/s"),
                ("50-stream processor time", "µs/MB"),
            ],
            Self::TlsStream => &[
                ("one-stream throughput of TLS", "MB/s"),
                ("one-stream processor time of TLS", "µs/MB"),
            ],
            Self::Requests(1) => &[
                ("1-connection requests", "/s"),
                ("1-connection p50", "µs"),
                ("1-connection p99", "µs"),
                ("1-connection processor time", "µs/request"),
            ],
            Self::Requests(_) => &[
                ("50-connection requests", "/s"),
                ("50-connection p50", "µs"),
                ("50-connection p99", "µs"),
                ("50-connection processor time", "µs/request"),
            ],
            Self::Connects => &[
                ("new connections", "/s"),
                ("new connections' processor time", "µs/connection"),
            ],
        }
    }

    /// Whether that peer can be put under it.
    const fn suits(self, peer: &Peer) -> bool {
        !matches!(self, Self::TlsStream) || peer.tls.is_some()
    }

    /// How long a peer is left alone before its turn. The kernel gives a port that a connection has left to the same
    /// destination after a second again (`tcp_tw_reuse_delay`), and until then looks for others, longer and longer:
    /// whoever had just had a turn before, as the last of one round and the first of the next, would pay for that.
    const fn rest(self) -> Duration {
        match self {
            Self::Connects => Duration::from_millis(1_050),
            Self::Streams(_) | Self::TlsStream | Self::Requests(_) => Duration::ZERO,
        }
    }

    /// In the order of [`Self::figures`]; the last of them, the processor time, is none of a peer without a process.
    async fn put_on(self, peer: &Peer, span: Duration) -> io::Result<Vec<f64>> {
        let before = peer.processor_time();
        let begun = Instant::now();
        let mut figures = match self {
            Self::Streams(streams) => {
                let streams = connect_all(peer.addr, streams).await?;
                vec![throughput::measure(streams, span).await?]
            }
            Self::TlsStream => {
                let tls = peer.tls.as_ref();
                let tls = tls.ok_or_else(|| io::Error::other("it does not end TLS"))?;
                vec![throughput::measure(vec![tls.connect().await?], span).await?]
            }
            Self::Requests(connections) => {
                let found = requests::measure(peer.addr, connections, span).await?;
                vec![found.per_second, found.p50_us, found.p99_us]
            }
            Self::Connects => vec![connects::measure(peer.addr, span).await?],
        };
        if let (Some(before), Some(after)) = (before, peer.processor_time()) {
            let done = figures[0] * begun.elapsed().as_secs_f64();
            figures.push(micros(after.saturating_sub(before)) / done);
        }
        Ok(figures)
    }
}

/// One figure of all peers, round by round.
#[derive(Debug, Clone, Serialize)]
pub struct Paired {
    /// What it is.
    pub figure: &'static str,
    /// Of what.
    pub unit: &'static str,
    /// In the order of the rounds.
    pub samples: BTreeMap<&'static str, Vec<f64>>,
    /// Each peer's median.
    pub medians: BTreeMap<&'static str, f64>,
    /// faultlane's figure as a multiple of each other peer's.
    pub ratios: BTreeMap<&'static str, Ratio>,
}

/// A median with its interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ratio {
    /// Of the rounds' ratios.
    pub median: f64,
    /// The 95 % interval's lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// Puts a load on each peer in each round.
pub(crate) async fn measure(
    load: Load,
    peers: &[Peer],
    rounds: usize,
    span: Duration,
) -> io::Result<Vec<Paired>> {
    let mut samples: Vec<BTreeMap<&'static str, Vec<f64>>> =
        vec![BTreeMap::new(); load.figures().len()];
    let peers: Vec<&Peer> = peers.iter().filter(|peer| load.suits(peer)).collect();
    for peer in &peers {
        // Not counted: the first load on a peer finds everything cold.
        put_on(load, peer, span / 5).await?;
    }
    for round in 0..rounds {
        // Nobody is always the first, or always behind the same other.
        let order: Vec<&Peer> = if round % 2 == 0 {
            peers.clone()
        } else {
            peers.iter().rev().copied().collect()
        };
        for peer in order {
            let found = put_on(load, peer, span).await?;
            for (samples, figure) in samples.iter_mut().zip(found) {
                samples.entry(peer.name).or_default().push(figure);
            }
        }
    }
    let figures = load.figures().iter().zip(samples);
    Ok(figures
        .map(|((figure, unit), samples)| summary(figure, unit, samples))
        .collect())
}

async fn put_on(load: Load, peer: &Peer, span: Duration) -> io::Result<Vec<f64>> {
    tokio::time::sleep(load.rest()).await;
    load.put_on(peer, span).await.map_err(|error| {
        let text = format!("{load} through {}: {error}", peer.name);
        io::Error::new(error.kind(), text)
    })
}

fn summary(
    figure: &'static str,
    unit: &'static str,
    samples: BTreeMap<&'static str, Vec<f64>>,
) -> Paired {
    let medians = samples
        .iter()
        .map(|(peer, samples)| (*peer, median(&sorted(samples.clone()))))
        .collect();
    let own = samples.get(FAULTLANE).cloned().unwrap_or_default();
    let ratios = samples
        .iter()
        .filter(|(peer, _)| **peer != FAULTLANE)
        .map(|(peer, others)| {
            let ratios = own.iter().zip(others).map(|(own, other)| own / other);
            (*peer, Ratio::of(ratios.collect()))
        })
        .collect();
    Paired {
        figure,
        unit,
        samples,
        medians,
        ratios,
    }
}

impl Ratio {
    /// The median of independent ratios, with the interval between two order statistics that holds it with a
    /// probability of at least 95 %, whatever their distribution. Of fewer than 6 there is none, and it is all of them.
    fn of(ratios: Vec<f64>) -> Self {
        let ratios = sorted(ratios);
        let (Some(first), Some(last)) = (ratios.first(), ratios.last()) else {
            return Self {
                median: f64::NAN,
                low: f64::NAN,
                high: f64::NAN,
            };
        };
        let skip = outside(ratios.len());
        Self {
            median: median(&ratios),
            low: *ratios.get(skip).unwrap_or(first),
            high: *ratios.get(ratios.len() - 1 - skip).unwrap_or(last),
        }
    }
}

/// How many of `count` order statistics can be left out at either end of a 95 % interval of the median: as many as
/// that fewer heads of `count` coins are no likelier than 2.5 %.
fn outside(count: usize) -> usize {
    let mut ways = 0.5_f64.powi(i32::try_from(count).unwrap_or(i32::MAX));
    let mut likely = 0.0;
    for heads in 0..count {
        likely += ways;
        if likely > 0.025 {
            return heads.saturating_sub(1);
        }
        ways *= (count - heads) as f64 / (heads + 1) as f64;
    }
    0
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    match sorted.get(middle) {
        None => f64::NAN,
        Some(upper) if sorted.len() % 2 == 1 => *upper,
        Some(upper) => f64::midpoint(sorted[middle - 1], *upper),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_the_narrowest_of_order_statistics_that_holds_95_percent() {
        // From tables of the sign test: ranks 1..6 of 6, 2..8 of 9, 4..12 of 15, 6..16 of 21.
        for (count, low, high) in [
            (6, 1.0, 6.0),
            (9, 2.0, 8.0),
            (15, 4.0, 12.0),
            (21, 6.0, 16.0),
        ] {
            let ratios = (1..=count).rev().map(f64::from).collect();
            let ratio = Ratio::of(ratios);
            assert_eq!((ratio.low, ratio.high), (low, high), "of {count}");
            let middle = f64::midpoint(1.0, f64::from(count));
            assert!((ratio.median - middle).abs() < 1e-9);
        }
    }

    #[test]
    fn few_rounds_have_all_of_them_as_their_interval() {
        assert_eq!(
            Ratio::of(vec![3.0, 1.0]),
            Ratio {
                median: 2.0,
                low: 1.0,
                high: 3.0
            }
        );
    }
}
