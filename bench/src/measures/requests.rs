//! Small requests and answers over connections that stay open: how many a second, and how long each takes.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{micros, quantile};
use crate::load::{all, connect_all, round_trip};

/// What was found.
pub(crate) struct Requests {
    pub(crate) per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// Each of so many connections asks again as soon as it is answered.
pub(crate) async fn measure(
    addr: SocketAddr,
    connections: usize,
    span: Duration,
) -> io::Result<Requests> {
    let mut streams = connect_all(addr, connections).await?;
    for stream in &mut streams {
        round_trip(stream).await?;
    }
    let begun = Instant::now();
    let tasks = streams.into_iter().map(|mut stream| {
        tokio::spawn(async move {
            let mut times = Vec::new();
            let mut asked = Instant::now();
            while asked.duration_since(begun) < span {
                round_trip(&mut stream).await?;
                let answered = Instant::now();
                times.push(answered.duration_since(asked));
                asked = answered;
            }
            Ok(times)
        })
    });
    let mut times = all(tasks.collect()).await?.concat();
    let elapsed = begun.elapsed();
    times.sort_unstable();
    Ok(Requests {
        per_second: times.len() as f64 / elapsed.as_secs_f64(),
        p50_us: micros(quantile(&times, 0.5)),
        p99_us: micros(quantile(&times, 0.99)),
    })
}
