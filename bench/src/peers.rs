//! What is compared. Each is a process of its own, under guard, so that none outlives the bench.

mod api;
mod haproxy;
mod tls;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use model::role::Ready;
use serde::Serialize;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use self::api::{Api, PLAIN, TLS};
use self::tls::{Certificate, Tls};
use crate::Settings;

pub(crate) const DIRECT: &str = "direct";
pub(crate) const HAPROXY: &str = "haproxy";
pub(crate) const TOXIPROXY: &str = "toxiproxy";
pub(crate) const FAULTLANE: &str = "faultlane";

/// All that there can be.
pub(crate) const NAMES: [&str; 4] = [DIRECT, HAPROXY, TOXIPROXY, FAULTLANE];

/// How long a peer may take to be there.
const READY: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// One of them.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    version: String,
    /// Where its clients connect.
    pub(crate) addr: SocketAddr,
    /// Where it ends TLS.
    pub(crate) tls: Option<Tls>,
    /// Its process, where it is one.
    pub(crate) pid: Option<u32>,
    /// Where it has toxics.
    pub(crate) api: Option<Api>,
    /// It ends when this is dropped.
    _process: Option<Process>,
}

/// A peer as the report names it.
#[derive(Debug, Clone, Serialize)]
pub struct Described {
    /// Its name.
    pub name: &'static str,
    /// What it says of itself.
    pub version: String,
}

impl Peer {
    /// What its threads have used of the processors.
    pub(crate) fn processor_time(&self) -> Option<Duration> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid?)).ok()?;
        let nanoseconds = tasks.filter_map(|task| {
            let stat = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            stat.split_whitespace().next()?.parse::<u64>().ok()
        });
        Some(Duration::from_nanos(nanoseconds.sum()))
    }

    pub(crate) fn describe(&self) -> Described {
        Described {
            name: self.name,
            version: self.version.clone(),
        }
    }
}

/// Starts all that are to be had, and says which are not.
pub(crate) async fn start(
    settings: &Settings,
    sink: &Sink,
) -> io::Result<(Vec<Peer>, Vec<&'static str>)> {
    let direct = Peer {
        name: DIRECT,
        version: String::new(),
        addr: sink.addr(DIRECT)?,
        tls: None,
        pid: None,
        api: None,
        _process: None,
    };
    let certificate = Certificate::issue()?;
    let (mut peers, mut absent) = (vec![direct], Vec::new());
    match on_the_path("haproxy") {
        Some(program) => {
            let own = &settings.own;
            peers.push(haproxy::start(own, &program, sink.addr(HAPROXY)?, &certificate).await?);
        }
        None => absent.push(HAPROXY),
    }
    match on_the_path("toxiproxy-server") {
        Some(program) => {
            let api = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
            let args = ["-host", "127.0.0.1", "-port", &api.port().to_string()];
            let process = Process::start(&settings.own, &program, &args, None)?;
            reachable(api).await?;
            let version = version(&program, "-version");
            peers.push(with_api(TOXIPROXY, version, api, sink, None, process).await?);
        }
        None => absent.push(TOXIPROXY),
    }
    let args = ["proxy", "--host", "127.0.0.1", "--port", "0"];
    let mut process = Process::start(&settings.own, &settings.measured, &args, None)?;
    let ready = process.ready().await?;
    let version = version(&settings.measured, "--version");
    peers.push(
        with_api(
            FAULTLANE,
            version,
            ready.control,
            sink,
            Some(&certificate),
            process,
        )
        .await?,
    );
    Ok((peers, absent))
}

async fn with_api(
    name: &'static str,
    version: String,
    api: SocketAddr,
    sink: &Sink,
    certificate: Option<&Certificate>,
    process: Process,
) -> io::Result<Peer> {
    let api = Api::new(api);
    let addr = api.create_proxy(PLAIN, sink.addr(name)?, None).await?;
    let tls = match certificate {
        None => None,
        Some(certificate) => {
            let identity = Some(&certificate.identity);
            let addr = api.create_proxy(TLS, sink.addr(name)?, identity).await?;
            Some(certificate.shown_at(addr))
        }
    };
    Ok(Peer {
        name,
        version,
        addr,
        tls,
        pid: Some(process.guarded().await?),
        api: Some(api),
        _process: Some(process),
    })
}

/// The server behind the peers: a child of this program.
#[derive(Debug)]
pub(crate) struct Sink {
    ready: Ready,
    _process: Child,
}

impl Sink {
    pub(crate) async fn start(own: &Path) -> io::Result<Self> {
        let mut process = Command::new(own)
            .args(["bench", "sink"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let ready = read_ready(&mut process).await?;
        Ok(Self {
            ready,
            _process: process,
        })
    }

    /// Where it serves the peer of that name.
    fn addr(&self, name: &str) -> io::Result<SocketAddr> {
        let addr = self.ready.listen.get(name).copied();
        addr.ok_or_else(|| io::Error::other(format!("the sink does not serve {name}")))
    }
}

/// A program under guard. Guard ends it when this is dropped, and with this process.
#[derive(Debug)]
struct Process {
    guard: Child,
    program: PathBuf,
    /// Its configuration.
    _folder: Option<TempDir>,
}

impl Process {
    fn start(
        own: &Path,
        program: &Path,
        args: &[impl AsRef<OsStr>],
        folder: Option<TempDir>,
    ) -> io::Result<Self> {
        let guard = Command::new(own)
            .args([OsStr::new("guard"), OsStr::new("--"), program.as_os_str()])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self {
            guard,
            program: program.to_owned(),
            _folder: folder,
        })
    }

    async fn ready(&mut self) -> io::Result<Ready> {
        read_ready(&mut self.guard).await
    }

    /// The program's process id: that child of guard's which runs it.
    async fn guarded(&self) -> io::Result<u32> {
        let guard = self.guard.id().unwrap_or_default();
        let program = fs::canonicalize(&self.program)?;
        let begun = Instant::now();
        while begun.elapsed() < READY {
            for task in fs::read_dir(format!("/proc/{guard}/task"))? {
                let children =
                    fs::read_to_string(task?.path().join("children")).unwrap_or_default();
                let mut children = children
                    .split_whitespace()
                    .filter_map(|pid| pid.parse().ok());
                let runs = |pid: &u32| {
                    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program)
                };
                if let Some(pid) = children.find(runs) {
                    return Ok(pid);
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let program = self.program.display();
        Err(io::Error::other(format!("`{program}` did not start")))
    }
}

/// The ready line on a child's stdout.
async fn read_ready(child: &mut Child) -> io::Result<Ready> {
    let stdout = child.stdout.take();
    let stdout = stdout.ok_or_else(|| io::Error::other("no pipe"))?;
    let mut line = String::new();
    let mut stdout = BufReader::new(stdout);
    tokio::time::timeout(READY, stdout.read_line(&mut line)).await??;
    serde_json::from_str(&line).map_err(|error| {
        let line = line.trim_end();
        io::Error::other(format!("not a ready line ({error}): {line}"))
    })
}

/// Waits until somebody listens there.
async fn reachable(addr: SocketAddr) -> io::Result<()> {
    let begun = Instant::now();
    loop {
        match TcpStream::connect(addr).await {
            Ok(_) => return Ok(()),
            Err(error) if begun.elapsed() > READY => return Err(error),
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

fn on_the_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|program| program.is_file())
}

/// A port that nobody listens on, for programs that cannot take any and say which.
fn free_port() -> io::Result<u16> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

/// The first line of what a program says of its version.
fn version(program: &Path, flag: &str) -> String {
    let said = std::process::Command::new(program).arg(flag).output();
    let said = said.map(|said| said.stdout).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    said.lines().next().unwrap_or_default().trim().to_owned()
}
