//! Bytes a second, from the first that is written to the sink's word that it has them all.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::load::{Role, all, connect};

/// What is written at once.
const PIECE: usize = 256 << 10;

/// Megabytes (1,000,000 bytes) a second over so many streams at once.
pub(crate) async fn measure(addr: SocketAddr, streams: usize, span: Duration) -> io::Result<f64> {
    let mut connections = Vec::with_capacity(streams);
    for _ in 0..streams {
        connections.push(connect(addr).await?);
    }
    let begun = Instant::now();
    let tasks = connections.into_iter().map(|mut stream| {
        tokio::spawn(async move {
            let piece = vec![Role::Drain.byte(); PIECE];
            let mut sent = 0;
            // At least once, for the sink has to be told its role.
            while sent == 0 || begun.elapsed() < span {
                stream.write_all(&piece).await?;
                sent += PIECE as u64;
                // A socket that always has room would keep the others from their turn.
                tokio::task::yield_now().await;
            }
            stream.shutdown().await?;
            let arrived = stream.read_u64_le().await?;
            if arrived == sent {
                Ok(sent)
            } else {
                let text = format!("{sent} bytes were sent and {arrived} arrived");
                Err(io::Error::other(text))
            }
        })
    });
    let sent: u64 = all(tasks.collect()).await?.into_iter().sum();
    Ok(sent as f64 / 1e6 / begun.elapsed().as_secs_f64())
}
