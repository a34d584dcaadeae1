//! How exact a delay is, over 100 connections whose requests are spread evenly over time, and how exact a bare timerfd
//! is in the process that asks.

use std::io;
use std::time::{Duration, Instant};

use host::clock;
use host::timer::Timer;
use model::instant::Mono;
use model::quantity::Span;
use serde::Serialize;
use serde_json::json;

use super::{micros, quantile};
use crate::load::{all, connect, round_trip};
use crate::peers::Peer;

const CONNECTIONS: usize = 100;
/// Each connection asks so often, longer than any delay.
const EVERY: Span = Span::from_millis(100);

/// Turns of each peer and of the control.
const ROUNDS: u32 = 9;

/// How late what was to be late by `asked_ms` was.
#[derive(Debug, Clone, Serialize)]
pub struct Delay {
    /// Whose; `timerfd` for the control.
    pub peer: &'static str,
    /// The delay.
    pub asked_ms: u128,
    /// The median round trip without the delay, which is not the delay's error; 0 for the control.
    pub path_us: f64,
    /// How far from what was asked, the path taken off.
    pub error_p50_us: f64,
    /// As above.
    pub error_p99_us: f64,
    /// By how much the 99th percentile is beyond the control's: the median of rounds in which both had their turn.
    pub beyond_p99_us: Option<f64>,
}

/// The name of the control.
const CONTROL: &str = "timerfd";

/// The peers' errors and, first, the control's.
pub(crate) async fn measure(
    timer: &Timer,
    peers: &[&Peer],
    asked: Duration,
    span: Duration,
) -> io::Result<Vec<Delay>> {
    let slot = span / ROUNDS;
    let mut bare = Vec::new();
    let mut found = Vec::new();
    for peer in peers {
        let Some(api) = &peer.api else { continue };
        let path = quantile(&staggered(timer, Some(peer), None, slot).await?, 0.5);
        let (mut all, mut beyond) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let control = errors(&staggered(timer, None, Some(asked), slot).await?, asked);
            api.add_toxic("latency", &json!({ "latency": asked.as_millis() }))
                .await?;
            let delayed = staggered(timer, Some(peer), None, slot).await;
            api.remove_toxic().await?;
            let delayed = errors(&delayed?, asked + path);
            beyond.push(micros(quantile(&delayed, 0.99)) - micros(quantile(&control, 0.99)));
            bare.extend(control);
            all.extend(delayed);
        }
        beyond.sort_by(f64::total_cmp);
        found.push(Delay {
            path_us: micros(path),
            beyond_p99_us: Some(quantile(&beyond, 0.5)),
            ..Delay::of(peer.name, asked, all)
        });
    }
    found.insert(0, Delay::of(CONTROL, asked, bare));
    Ok(found)
}

impl Delay {
    fn of(peer: &'static str, asked: Duration, mut errors: Vec<Duration>) -> Self {
        errors.sort_unstable();
        Self {
            peer,
            asked_ms: asked.as_millis(),
            path_us: 0.0,
            error_p50_us: micros(quantile(&errors, 0.5)),
            error_p99_us: micros(quantile(&errors, 0.99)),
            beyond_p99_us: None,
        }
    }
}

/// How far each is from what was asked; sorted.
fn errors(times: &[Duration], asked: Duration) -> Vec<Duration> {
    let mut errors: Vec<Duration> = times.iter().map(|time| time.abs_diff(asked)).collect();
    errors.sort_unstable();
    errors
}

/// How long round trips through a peer take, or, without one, sleeps; sorted.
async fn staggered(
    timer: &Timer,
    peer: Option<&Peer>,
    sleep: Option<Duration>,
    span: Duration,
) -> io::Result<Vec<Duration>> {
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS {
        streams.push(match peer {
            Some(peer) => {
                let mut stream = connect(peer.addr).await?;
                round_trip(&mut stream).await?;
                Some(stream)
            }
            None => None,
        });
    }
    let start = clock::now() + EVERY;
    let end = start + Span::from_micros(u64::try_from(span.as_micros()).unwrap_or(u64::MAX));
    let apart = EVERY.as_micros() / CONNECTIONS as u64;
    let tasks = (0_u64..).zip(streams).map(|(ordinal, mut stream)| {
        let timer = timer.clone();
        let mut at: Mono = start + Span::from_micros(ordinal * apart);
        tokio::spawn(async move {
            let mut took = Vec::new();
            while at < end {
                timer.sleep_until(at).await;
                let begun = Instant::now();
                if let Some(stream) = &mut stream {
                    round_trip(stream).await?;
                }
                if let Some(sleep) = sleep {
                    let sleep = Span::from_micros(u64::try_from(sleep.as_micros()).unwrap_or(0));
                    timer.sleep_until(clock::now() + sleep).await;
                }
                took.push(begun.elapsed());
                at = at + EVERY;
            }
            Ok(took)
        })
    });
    let mut found = all(tasks.collect()).await?.concat();
    found.sort_unstable();
    Ok(found)
}
