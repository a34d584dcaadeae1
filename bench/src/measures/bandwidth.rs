//! How exact a bandwidth is.

use std::io;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::load::{Role, connect};
use crate::peers::Peer;

/// What a stream needs to find its pace.
const WARM_UP: Duration = Duration::from_millis(200);

/// A rate as asked for and as measured.
#[derive(Debug, Clone, Serialize)]
pub struct Rate {
    /// Whose.
    pub peer: &'static str,
    /// Kilobytes (1,000 bytes) a second.
    pub asked: u64,
    /// As above.
    pub measured: f64,
    /// By how much of what was asked for it was missed.
    pub error_percent: f64,
}

/// Measures a peer that has toxics.
pub(crate) async fn measure(peer: &Peer, asked: u64, span: Duration) -> io::Result<Rate> {
    let api = peer.api.as_ref();
    let api = api.ok_or_else(|| io::Error::other(format!("{} has no toxics", peer.name)))?;
    api.add_toxic("bandwidth", &json!({ "rate": asked }))
        .await?;
    let measured = rate(peer, span).await;
    api.remove_toxic().await?;
    let measured = measured? / 1e3;
    Ok(Rate {
        peer: peer.name,
        asked,
        measured,
        error_percent: (measured / asked as f64 - 1.0) * 100.0,
    })
}

/// Bytes a second, between two arrivals some `span` apart.
async fn rate(peer: &Peer, span: Duration) -> io::Result<f64> {
    let mut stream = connect(peer.addr).await?;
    stream.write_all(&[Role::Source.byte()]).await?;
    let mut buffer = vec![0; 256 << 10];
    let begun = Instant::now();
    let mut first: Option<Instant> = None;
    let mut bytes = 0_u64;
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let now = Instant::now();
        match first {
            None if now.duration_since(begun) >= WARM_UP => first = Some(now),
            None => {}
            Some(first) => {
                bytes += read as u64;
                let elapsed = now.duration_since(first);
                if elapsed >= span {
                    return Ok(bytes as f64 / elapsed.as_secs_f64());
                }
            }
        }
    }
}
