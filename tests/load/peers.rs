//! Clients and upstreams, in processes of their own. One is told what to do by lines on its stdin, and answers by lines on
//! its stdout; it ends with its stdin.

use std::io;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::{Args, ValueEnum};
use model::instant::Mono;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{Notify, Semaphore};

use crate::Outcome;

/// Connects under way at once.
const CONNECTING: usize = 256;
/// Of peers that are to stall: so that a thousand of them do not take gigabytes of the kernel.
const SMALL: u32 = 16 << 10;
/// A connection that takes nothing for so long is stalled.
const STALLED: Duration = Duration::from_millis(300);

/// What a process is.
#[derive(Debug, Clone, Args)]
pub(crate) struct Role {
    #[arg(value_enum)]
    does: Does,
    /// Clients connect there.
    #[arg(long)]
    to: Option<SocketAddr>,
    #[arg(long, default_value_t = 0)]
    many: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Does {
    /// An upstream that reads.
    Read,
    /// An upstream that does not read.
    Ignore,
    /// Clients that send a byte when they are told to, and read.
    Click,
    /// Clients that send until nobody takes any more.
    Flood,
}

/// What connections a process has, and what became of others.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) begun: u64,
    pub(crate) reset: u64,
    /// Ended otherwise.
    pub(crate) closed: u64,
    pub(crate) bytes: u64,
    /// Of `reset`, the last.
    pub(crate) last_reset: Mono,
}

/// What was seen, and the connections on which a reset was: to close each at once would have the others wait to see theirs.
#[derive(Debug, Default)]
struct Record {
    seen: Seen,
    reset: Vec<TcpStream>,
}

type Tally = Arc<Mutex<Record>>;

fn saw(tally: &Tally, change: impl FnOnce(&mut Seen)) {
    change(&mut tally.lock().expect("no panic holds it").seen);
}

/// The process itself.
pub(crate) async fn main(role: Role) -> Outcome {
    let (tally, click) = (Tally::default(), Arc::new(Notify::new()));
    match role.does {
        Does::Read | Does::Ignore => {
            let listener = if role.does == Does::Read {
                host::net::listen(([127, 0, 0, 1], 0).into())?
            } else {
                let socket = TcpSocket::new_v4()?;
                socket.set_recv_buffer_size(SMALL)?;
                socket.bind(([127, 0, 0, 1], 0).into())?;
                socket.listen(host::net::BACKLOG)?
            };
            println!("{}", listener.local_addr()?);
            tokio::spawn(accept(listener, role.does, Arc::clone(&tally)));
        }
        Does::Click | Does::Flood => {
            let to = role.to.ok_or("clients of whom?")?;
            let connecting = Arc::new(Semaphore::new(CONNECTING));
            let mut clients = tokio::task::JoinSet::new();
            for _ in 0..role.many {
                let connecting = Arc::clone(&connecting);
                clients.spawn(async move {
                    let _permit = connecting.acquire_owned().await;
                    let socket = TcpSocket::new_v4()?;
                    if role.does == Does::Flood {
                        socket.set_send_buffer_size(SMALL)?;
                    }
                    socket.connect(to).await
                });
            }
            let mut stalling = tokio::task::JoinSet::new();
            while let Some(client) = clients.join_next().await {
                let client = client??;
                saw(&tally, |seen| seen.begun += 1);
                if role.does == Does::Flood {
                    stalling.spawn(flood(client));
                } else {
                    tokio::spawn(watch(client, Arc::clone(&tally), Some(Arc::clone(&click))));
                }
            }
            let stalled = stalling.join_all().await;
            println!("{}", role.many);
            hear(&tally, &click).await?;
            drop(stalled);
            return Ok(true);
        }
    }
    hear(&tally, &click).await?;
    Ok(true)
}

/// Does as it is told until stdin ends.
async fn hear(tally: &Tally, click: &Notify) -> io::Result<()> {
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    while let Some(order) = orders.next_line().await? {
        if order == "click" {
            click.notify_waiters();
        }
        let seen = tally.lock().expect("no panic holds it").seen;
        println!("{}", serde_json::to_string(&seen)?);
    }
    Ok(())
}

async fn accept(listener: TcpListener, does: Does, tally: Tally) {
    let mut ignored = Vec::new();
    while let Ok((stream, _)) = listener.accept().await {
        saw(&tally, |seen| seen.begun += 1);
        if does == Does::Ignore {
            ignored.push(stream);
        } else {
            tokio::spawn(watch(stream, Arc::clone(&tally), None));
        }
    }
}

/// Reads to the end.
async fn watch(mut stream: TcpStream, tally: Tally, click: Option<Arc<Notify>>) {
    let mut buffer = [0; 64];
    loop {
        let read = match &click {
            None => stream.read(&mut buffer).await,
            Some(click) => tokio::select! {
                read = stream.read(&mut buffer) => read,
                () = click.notified() => {
                    let _ = stream.write_all(b"x").await;
                    continue;
                }
            },
        };
        match read {
            Ok(count @ 1..) => saw(&tally, |seen| seen.bytes += count as u64),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                let now = host::clock::now();
                let mut record = tally.lock().expect("no panic holds it");
                record.seen.reset += 1;
                record.seen.last_reset = record.seen.last_reset.max(now);
                record.reset.push(stream);
                return;
            }
            _ => return saw(&tally, |seen| seen.closed += 1),
        }
    }
}

/// Sends until nobody takes any more.
async fn flood(mut client: TcpStream) -> TcpStream {
    let chunk = vec![7; 64 << 10];
    while let Ok(Ok(1..)) = tokio::time::timeout(STALLED, client.write(&chunk)).await {}
    client
}

/// Such a process, from outside.
pub(crate) struct Peers {
    process: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    /// What it said first: an upstream's address.
    pub(crate) first: String,
}

impl Peers {
    async fn start(args: &[&str]) -> io::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("peers")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let orders = process.stdin.take().expect("it is piped");
        let mut answers = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        let first = answers
            .next_line()
            .await?
            .ok_or_else(|| io::Error::other("peers ended"))?;
        Ok(Self {
            process,
            orders,
            answers,
            first,
        })
    }

    /// Upstreams, and where they listen.
    pub(crate) async fn upstream(does: &str) -> io::Result<(Self, SocketAddr)> {
        let peers = Self::start(&[does]).await?;
        let addr = peers.first.parse().map_err(io::Error::other)?;
        Ok((peers, addr))
    }

    /// Clients that have connected; those that flood have stalled.
    pub(crate) async fn clients(does: &str, to: SocketAddr, many: usize) -> io::Result<Self> {
        Self::start(&[does, "--to", &to.to_string(), "--many", &many.to_string()]).await
    }

    async fn ask(&mut self, order: &str) -> io::Result<Seen> {
        self.orders
            .write_all(format!("{order}\n").as_bytes())
            .await?;
        let line = self.answers.next_line().await?;
        let line = line.ok_or_else(|| io::Error::other("peers ended"))?;
        Ok(serde_json::from_str(&line)?)
    }

    /// What they have seen.
    pub(crate) async fn seen(&mut self) -> io::Result<Seen> {
        self.ask("seen").await
    }

    /// Has each of them send a byte.
    pub(crate) async fn click(&mut self) -> io::Result<()> {
        self.ask("click").await.map(drop)
    }

    /// Waits until they have seen something.
    pub(crate) async fn until(
        &mut self,
        what: &str,
        so: impl Fn(&Seen) -> bool,
    ) -> io::Result<Seen> {
        for _ in 0..1_000 {
            let seen = self.seen().await?;
            if so(&seen) {
                return Ok(seen);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let seen = self.seen().await?;
        Err(io::Error::other(format!("{what}: {seen:?}")))
    }

    pub(crate) async fn end(mut self) -> io::Result<()> {
        drop(self.orders);
        self.process.wait().await.map(drop)
    }
}
