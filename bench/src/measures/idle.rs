//! User memory of connections that are open and do nothing.

use std::fs;
use std::io;
use std::time::Duration;

use serde::Serialize;

use crate::load::{all, connect, round_trip};
use crate::peers::Peer;

/// Connections that are made at once.
const AT_ONCE: usize = 100;
/// For what a peer allocates once and not for each connection.
const WARM_UP: usize = 50;
const SETTLE: Duration = Duration::from_millis(500);

/// What a peer's process grew by.
#[derive(Debug, Clone, Serialize)]
pub struct Idle {
    /// Whose.
    pub peer: &'static str,
    /// How many there were.
    pub connections: usize,
    /// Anonymous resident memory for each.
    pub bytes_per_connection: f64,
}

/// `None` for a peer that is no process. To be measured first: what a process has freed under an earlier load would
/// be used again, and not be seen.
pub(crate) async fn measure(peer: &Peer, connections: usize) -> io::Result<Option<Idle>> {
    let Some(pid) = peer.pid else {
        return Ok(None);
    };
    let warm = open(peer, WARM_UP).await?;
    tokio::time::sleep(SETTLE).await;
    let before = anonymous(pid)?;
    let idle = open(peer, connections).await?;
    tokio::time::sleep(SETTLE).await;
    let after = anonymous(pid)?;
    drop((warm, idle));
    tokio::time::sleep(SETTLE).await;
    Ok(Some(Idle {
        peer: peer.name,
        connections,
        bytes_per_connection: (after as f64 - before as f64) / connections as f64,
    }))
}

/// Each has passed a request and its answer, so that it leads through.
async fn open(peer: &Peer, connections: usize) -> io::Result<Vec<tokio::net::TcpStream>> {
    let mut open = Vec::with_capacity(connections);
    while open.len() < connections {
        let more = (connections - open.len()).min(AT_ONCE);
        let addr = peer.addr;
        let tasks = (0..more).map(|_| {
            tokio::spawn(async move {
                let mut stream = connect(addr).await?;
                round_trip(&mut stream).await?;
                Ok(stream)
            })
        });
        open.extend(all(tasks.collect()).await?);
    }
    Ok(open)
}

/// Bytes of a process that are in memory and of no file.
fn anonymous(pid: u32) -> io::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path)?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes =
        line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kilobytes
        .map(|kilobytes| kilobytes << 10)
        .ok_or_else(|| io::Error::other(format!("{path} does not say RssAnon")))
}
