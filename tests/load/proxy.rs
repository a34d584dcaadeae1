//! The proxy under load, its descriptors and its memory.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use host::http::{Client, Method};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::ProxyArgs;

/// How long a call may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A proxy process and the way to its API.
pub(crate) struct Proxy {
    process: Child,
    pub(crate) api: Api,
    /// Of a proxy without names: where it listens.
    pub(crate) data: Option<SocketAddr>,
}

impl Proxy {
    /// With Toxiproxy's API.
    pub(crate) async fn standalone(args: &ProxyArgs) -> io::Result<Self> {
        let workers = args.workers.to_string();
        Self::start(args, &["--port", "0", "--workers", &workers]).await
    }

    /// With leased faults.
    pub(crate) async fn leased(args: &ProxyArgs, upstream: SocketAddr) -> io::Result<Self> {
        Self::start(args, &["--upstream", &upstream.to_string()]).await
    }

    async fn start(args: &ProxyArgs, flags: &[&str]) -> io::Result<Self> {
        let mut process = Command::new(&args.binary)
            .arg("proxy")
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", args.binary.display()))
            })?;
        let stdout = process.stdout.take().expect("it is piped");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).await?;
        let ready: Value = serde_json::from_str(&line)?;
        let addr = |value: &Value| value.as_str().and_then(|addr| addr.parse().ok());
        let api = addr(&ready["control"]).ok_or_else(|| io::Error::other("no ready line"))?;
        Ok(Self {
            process,
            api: Api::at(api),
            data: addr(&ready["listen"]["data"]),
        })
    }

    /// It and its workers.
    fn pids(&self) -> Vec<u32> {
        let pid = self.process.id().expect("it runs");
        let children =
            fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let children = children
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok());
        // A worker is a child of the thread that started it.
        let threads = fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten();
        let more: Vec<u32> = threads
            .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
            .flat_map(|children| {
                children
                    .split_whitespace()
                    .filter_map(|pid| pid.parse().ok())
                    .collect::<Vec<u32>>()
            })
            .collect();
        let mut pids: Vec<u32> = [pid].into_iter().chain(children).chain(more).collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Open descriptors of all its processes.
    pub(crate) fn descriptors(&self) -> usize {
        let of = |pid: &u32| fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        self.pids().iter().map(of).sum()
    }

    /// Kibibytes of memory, by the name of a line of `/proc/PID/status`: `VmRSS`, or `VmHWM`, its highest.
    pub(crate) fn memory(&self, line: &str) -> u64 {
        let of = |pid: &u32| -> u64 {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = status.lines().find(|other| other.starts_with(line));
            let value = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
            value.unwrap_or(0)
        };
        self.pids().iter().map(of).sum()
    }
}

/// The way to an API.
pub(crate) struct Api {
    pub(crate) client: Client,
}

impl Api {
    pub(crate) fn at(addr: SocketAddr) -> Self {
        Self {
            client: Client::new(addr),
        }
    }

    /// Makes the proxy `p`: where it listens.
    pub(crate) async fn create(&self, upstream: SocketAddr) -> io::Result<SocketAddr> {
        let body = json!({"name": "p", "listen": "127.0.0.1:0", "upstream": upstream.to_string()});
        let proxy = self.call(Method::POST, "/proxies", &body).await?;
        let listen = proxy["listen"].as_str().and_then(|addr| addr.parse().ok());
        listen.ok_or_else(|| io::Error::other(format!("no address: {proxy}")))
    }

    pub(crate) async fn toxic(&self, toxic: &Value) -> io::Result<()> {
        self.call(Method::POST, "/proxies/p/toxics", toxic)
            .await
            .map(drop)
    }

    pub(crate) async fn remove(&self, toxic: &str) -> io::Result<()> {
        let path = format!("/proxies/p/toxics/{toxic}");
        self.call(Method::DELETE, &path, &Value::Null)
            .await
            .map(drop)
    }

    pub(crate) async fn call(&self, method: Method, path: &str, body: &Value) -> io::Result<Value> {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let sent = self
            .client
            .send(method.clone(), path, &[], body.into(), PATIENCE)
            .await;
        let answer = sent.map_err(io::Error::other)?;
        if !answer.status.is_success() {
            let text = String::from_utf8_lossy(&answer.body);
            return Err(io::Error::other(format!(
                "{method} {path}: {} {text}",
                answer.status
            )));
        }
        let json = serde_json::from_slice(&answer.body);
        Ok(json.unwrap_or_else(|_| String::from_utf8_lossy(&answer.body).into_owned().into()))
    }

    /// A figure of `/metrics`.
    pub(crate) async fn metric(&self, begins: &str) -> io::Result<u64> {
        let text = self.call(Method::GET, "/metrics", &Value::Null).await?;
        let text = text.as_str().unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(begins));
        let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
        value.ok_or_else(|| io::Error::other(format!("no metric {begins}")))
    }
}
