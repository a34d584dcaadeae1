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
}

/// The name of the control.
pub(crate) const CONTROL: &str = "timerfd";

/// The peers' errors and, first, the control's.
pub(crate) async fn measure(
    timer: &Timer,
    peers: &[&Peer],
    asked: Duration,
    span: Duration,
) -> io::Result<Vec<Delay>> {
    let bare = staggered(timer, None, Some(asked), span).await?;
    let mut found = vec![errors(CONTROL, asked, Duration::ZERO, &bare)];
    for peer in peers {
        let Some(api) = &peer.api else { continue };
        let path = staggered(timer, Some(peer), None, span / 3).await?;
        let milliseconds = asked.as_millis();
        api.add_toxic("latency", &json!({ "latency": milliseconds }))
            .await?;
        let delayed = staggered(timer, Some(peer), None, span).await;
        api.remove_toxic().await?;
        found.push(errors(peer.name, asked, quantile(&path, 0.5), &delayed?));
    }
    Ok(found)
}

fn errors(peer: &'static str, asked: Duration, path: Duration, times: &[Duration]) -> Delay {
    let mut errors: Vec<Duration> = times
        .iter()
        .map(|time| time.abs_diff(asked + path))
        .collect();
    errors.sort_unstable();
    Delay {
        peer,
        asked_ms: asked.as_millis(),
        path_us: micros(path),
        error_p50_us: micros(quantile(&errors, 0.5)),
        error_p99_us: micros(quantile(&errors, 0.99)),
    }
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
