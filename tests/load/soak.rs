//! Gigabytes both ways while toxics come and go: every byte, in order, and both ends.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use model::decide;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::proxy::{Api, Proxy};
use crate::{Outcome, ProxyArgs};

/// Connections at once.
const LANES: u64 = 3;
/// The longest that one direction of a connection is.
const LONGEST: u64 = 200_000_000;
/// The longest piece that is written at once.
const PIECE: u64 = 150_000;
/// How long a toxic stays.
const TOGGLE: Duration = Duration::from_millis(10);

/// Toxics that lose nothing, and some that would, of which nobody is taken.
fn toxics() -> [Value; 9] {
    [
        json!({"type": "latency", "attributes": {"latency": 1}}),
        json!({"type": "slicer", "attributes": {"average_size": 9_000, "size_variation": 4_000, "delay": 3}}),
        json!({"type": "bandwidth", "attributes": {"rate": 500_000}}),
        json!({"type": "down"}),
        json!({"type": "slow_close", "attributes": {"delay": 1}}),
        json!({"type": "loss_stall", "attributes": {"percent": 1, "rto": 1}}),
        json!({"type": "corrupt", "attributes": {"rate": 500_000}, "toxicity": 0}),
        json!({"type": "timeout", "attributes": {"timeout": 1}, "toxicity": 0}),
        json!({"type": "limit_data", "attributes": {"bytes": 10}, "toxicity": 0}),
    ]
}

pub(crate) async fn run(args: &ProxyArgs, gigabytes: u64, seed: u64) -> Outcome {
    let proxy = Proxy::standalone(args).await?;
    let upstream = Arc::new(host::net::listen(([127, 0, 0, 1], 0).into())?);
    let listen = proxy.api.create(upstream.local_addr()?).await?;
    let (done, stop) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
    let begun = Instant::now();
    let mut lanes = tokio::task::JoinSet::new();
    // One after the other, so that what connects is what is accepted.
    let pairing = Arc::new(tokio::sync::Mutex::new(()));
    for lane in 0..LANES {
        let (upstream, done, pairing) = (
            Arc::clone(&upstream),
            Arc::clone(&done),
            Arc::clone(&pairing),
        );
        lanes.spawn(async move {
            let mut connections = 0;
            while done.load(Ordering::Relaxed) < gigabytes * 1_000_000_000 {
                let (client, far) = {
                    let _one = pairing.lock().await;
                    pair(&upstream, listen).await?
                };
                let stream = |way: u64| Stream::new(seed, lane << 40 | connections << 1 | way);
                let (from_client, to_client) = client.into_split();
                let (from_far, to_far) = far.into_split();
                tokio::try_join!(
                    write(to_client, stream(0)),
                    read(from_far, stream(0), &done),
                    write(to_far, stream(1)),
                    read(from_client, stream(1), &done),
                )?;
                connections += 1;
            }
            Ok::<_, io::Error>(connections)
        });
    }
    // On a thread of its own: comparing takes whole processors.
    let (addr, stopped) = (proxy.api.client.addr(), stop.clone());
    let toggling = std::thread::spawn(move || toggle(&Api::at(addr), seed, &stopped));
    let traffic = async {
        let mut connections = 0;
        let mut failure = Ok(());
        while let Some(lane) = lanes.join_next().await {
            match lane.expect("it does not panic") {
                Ok(count) => connections += count,
                Err(error) => {
                    failure = Err(error);
                    lanes.abort_all();
                    break;
                }
            }
        }
        stop.cancel();
        failure.map(|()| connections)
    };
    let connections = traffic.await;
    let toggles = toggling.join().expect("it does not panic");
    let (bytes, took) = (done.load(Ordering::Relaxed), begun.elapsed());
    println!(
        "{bytes} bytes on {} connections compared in {took:.1?} ({} MB/s) beside {} toggles",
        connections?,
        u128::from(bytes) / 1_000 / took.as_millis(),
        toggles?,
    );
    Ok(true)
}

/// Has toxics come and go until it is stopped: how many.
#[tokio::main(flavor = "current_thread")]
async fn toggle(api: &Api, seed: u64, stopped: &CancellationToken) -> io::Result<u64> {
    let mut toggles = 0_u64;
    while !stopped.is_cancelled() {
        let draw = |what, limit: usize| {
            let unit = decide::unit(seed, "toggle", what, toggles);
            let found = (0..limit)
                .rev()
                .find(|at| unit * limit as f64 >= *at as f64);
            found.unwrap_or(0)
        };
        let mut toxic = toxics()[draw("toxic", toxics().len())].clone();
        toxic["stream"] = ["upstream", "downstream", "both"][draw("stream", 3)].into();
        toxic["name"] = "t".into();
        api.toxic(&toxic).await?;
        tokio::time::sleep(TOGGLE).await;
        api.remove("t").await?;
        toggles += 1;
    }
    Ok(toggles)
}

async fn pair(
    upstream: &TcpListener,
    listen: std::net::SocketAddr,
) -> io::Result<(TcpStream, TcpStream)> {
    let (client, accepted) = tokio::join!(TcpStream::connect(listen), upstream.accept());
    Ok((client?, accepted?.0))
}

/// Bytes that both ends know.
struct Stream {
    state: u64,
    left: u64,
    seed: u64,
    number: u64,
    pieces: u64,
}

impl Stream {
    fn new(seed: u64, number: u64) -> Self {
        let length = decide::unit(seed, "length", "stream", number) * LONGEST as f64;
        let whole = Duration::from_secs_f64(length / 1e9).as_nanos();
        Self {
            state: seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            left: u64::try_from(whole).unwrap_or(0),
            seed,
            number,
            pieces: 0,
        }
    }

    /// The next bytes, eight from each state.
    fn fill(&mut self, spare: &mut Vec<u8>, count: usize) {
        while spare.len() < count {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            spare.extend_from_slice(&self.state.to_le_bytes());
        }
    }

    /// How long the next piece is.
    fn piece(&mut self) -> usize {
        self.pieces += 1;
        let unit = decide::unit(
            self.seed,
            "piece",
            "stream",
            self.number << 20 | self.pieces,
        );
        // As many short ones as long ones.
        let longest = [7, 1_500, PIECE][usize::try_from(self.pieces % 3).unwrap_or(0)] as f64;
        let length = Duration::from_secs_f64(unit * longest / 1e9).as_nanos();
        usize::try_from(u64::try_from(length).unwrap_or(0).max(1).min(self.left)).unwrap_or(1)
    }
}

async fn write(mut to: OwnedWriteHalf, mut stream: Stream) -> io::Result<()> {
    let mut spare = Vec::new();
    while stream.left > 0 {
        let piece = stream.piece();
        stream.fill(&mut spare, piece);
        to.write_all(&spare[..piece]).await?;
        spare.drain(..piece);
        stream.left -= piece as u64;
    }
    to.shutdown().await
}

async fn read(mut from: OwnedReadHalf, mut stream: Stream, done: &AtomicU64) -> io::Result<()> {
    let (mut spare, mut buffer) = (Vec::new(), vec![0; 128 << 10]);
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            break;
        }
        if count as u64 > stream.left {
            return Err(io::Error::other("more bytes than were sent"));
        }
        stream.fill(&mut spare, count);
        if spare[..count] != buffer[..count] {
            return Err(io::Error::other(format!(
                "other bytes, {} before the end",
                stream.left
            )));
        }
        spare.drain(..count);
        stream.left -= count as u64;
        done.fetch_add(count as u64, Ordering::Relaxed);
    }
    if stream.left > 0 {
        return Err(io::Error::other(format!(
            "{} bytes are missing",
            stream.left
        )));
    }
    Ok(())
}
