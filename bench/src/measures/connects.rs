//! New connections a second: connect, one round trip, close.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::load::{all, connect, round_trip};

/// So many are under way at any time.
const AT_ONCE: usize = 16;

/// Connections a second.
pub(crate) async fn measure(addr: SocketAddr, span: Duration) -> io::Result<f64> {
    let begun = Instant::now();
    let tasks = (0..AT_ONCE).map(|_| {
        tokio::spawn(async move {
            let mut done = 0_u64;
            while begun.elapsed() < span {
                let mut stream = connect(addr).await?;
                round_trip(&mut stream).await?;
                drop(stream);
                done += 1;
            }
            Ok(done)
        })
    });
    let done: u64 = all(tasks.collect()).await?.into_iter().sum();
    Ok(done as f64 / begun.elapsed().as_secs_f64())
}
