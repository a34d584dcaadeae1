//! Bytes a second, from the first that is written to the sink's word that it has them all.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::load::{Role, all};

/// What is written at once.
const PIECE: usize = 256 << 10;

/// Megabytes (1,000,000 bytes) a second over all of these streams at once.
pub(crate) async fn measure<S>(streams: Vec<S>, span: Duration) -> io::Result<f64>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let begun = Instant::now();
    let tasks = streams.into_iter().map(|mut stream| {
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
