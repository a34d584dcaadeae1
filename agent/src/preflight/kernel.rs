//! What this kernel and these rights allow. It is tried, in a network namespace of its own that is gone with the trial, so
//! that nothing of the machine's is touched: neither a version nor a list of modules tells as much.

use std::fs;
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use model::fault::Fault;
use model::quantity::ByteSize;
use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};

use crate::faults::network::trial_table;
use crate::memory::Memory;
use crate::tool::{self, ToolError};

/// In `/proc/self/status`, as `linux/capability.h` has it.
const CAP_NET_ADMIN: u32 = 12;
const SSH: u16 = 22;
/// How long a socket that was destroyed may take to say so.
const RESET_WITHIN: Duration = Duration::from_secs(1);

/// `GET /preflight`: what can be done to this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// The right to change the network at all.
    pub net_admin: Capability,
    /// Partition and packet loss: nftables with `reject` and `numgen`.
    pub nft: Capability,
    /// Throttle: the qdisc tbf.
    pub tbf: Capability,
    /// Netem: the qdisc of that name.
    pub netem: Capability,
    /// Kill of established sockets: `SOCK_DESTROY`.
    pub sock_destroy: Capability,
    /// Memory fill: the machine and its control groups tell what is available, and it is more than the reserve.
    pub memory: Capability,
    /// Cores that this agent may use: what a burn takes a share of.
    pub cores: u32,
    /// TCP ports that no fault takes unless it names them: 22, and where an sshd listens.
    pub ssh_ports: Vec<u16>,
}

/// Whether something is possible, and why, or why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capability {
    /// Whether it is.
    pub possible: bool,
    /// Why, or why not.
    pub reason: String,
}

impl Capability {
    fn yes(reason: &str) -> Self {
        Self {
            possible: true,
            reason: reason.to_owned(),
        }
    }

    fn no(reason: impl Into<String>) -> Self {
        Self {
            possible: false,
            reason: reason.into(),
        }
    }

    fn tried(outcome: &Result<(), ToolError>) -> Self {
        match outcome {
            Ok(()) => Self::yes("it was tried, in a network namespace of its own"),
            Err(error) => Self::no(error.to_string()),
        }
    }
}

impl Kernel {
    /// Tries everything; some 50 ms.
    #[must_use]
    pub fn look() -> Self {
        if !has_net_admin() {
            return Self::all(&Capability::no(
                "this process lacks CAP_NET_ADMIN; run the agent as root, or grant it that capability",
            ));
        }
        // A thread of its own: a namespace is a thread's, and goes with it.
        let tried = std::thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET).map(|()| try_all()));
        let kernel = match tried.join() {
            Ok(Ok(kernel)) => kernel,
            Ok(Err(error)) => Self::all(&Capability::yes(&format!(
                "not tried, as no network namespace could be made for that ({error}); the right to it is there"
            ))),
            Err(_) => Self::unknown("the trial broke off"),
        };
        Self {
            ssh_ports: ssh_ports(),
            ..kernel
        }
    }

    /// What a fault of the machine needs; `None` for those that need nothing of it.
    #[must_use]
    pub const fn needed_by(&self, fault: &Fault) -> Option<&Capability> {
        match fault {
            Fault::Partition(_) | Fault::PacketLoss(_) => Some(&self.nft),
            Fault::Throttle(_) => Some(&self.tbf),
            Fault::Netem(_) => Some(&self.netem),
            Fault::DropSockets(_) => Some(&self.sock_destroy),
            Fault::MemoryFill(_) => Some(&self.memory),
            _ => None,
        }
    }

    /// Nothing is held for possible.
    #[must_use]
    pub fn unknown(reason: &str) -> Self {
        Self::all(&Capability::no(format!("it could not be tried: {reason}")))
    }

    fn all(capability: &Capability) -> Self {
        Self {
            net_admin: capability.clone(),
            nft: capability.clone(),
            tbf: capability.clone(),
            netem: capability.clone(),
            sock_destroy: capability.clone(),
            memory: memory(),
            cores: cores(),
            ssh_ports: vec![SSH],
        }
    }
}

/// Whether this process may change the network of its namespace.
#[must_use]
pub fn has_net_admin() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & (1 << CAP_NET_ADMIN) != 0)
}

/// In the namespace of this thread.
fn try_all() -> Kernel {
    let qdisc = |kind: &[&str]| {
        let mut add = vec!["qdisc", "add", "dev", "lo", "root", "handle", "fa00:"];
        add.extend(kind);
        let added = tool::run("tc", &add, b"");
        let _ = tool::run("tc", &["qdisc", "del", "dev", "lo", "root"], b"");
        Capability::tried(&added.map(drop))
    };
    let net_admin = tool::run("ip", &["link", "set", "lo", "up"], b"").map(drop);
    let sock_destroy = match destroys() {
        Ok(outcome) => Capability::tried(&outcome),
        Err(error) => Capability::no(format!(
            "ss -K was asked to, and did not end a socket: {error}"
        )),
    };
    let table = trial_table().to_string();
    let nft = tool::run("nft", &["-j", "-f", "-"], table.as_bytes()).map(drop);
    Kernel {
        net_admin: Capability::tried(&net_admin),
        nft: Capability::tried(&nft),
        tbf: qdisc(&["tbf", "rate", "8mbit", "burst", "128kb", "latency", "50ms"]),
        netem: qdisc(&["netem", "delay", "1ms"]),
        sock_destroy,
        memory: memory(),
        cores: cores(),
        ssh_ports: Vec::new(),
    }
}

fn memory() -> Capability {
    let memory = match Memory::look() {
        Ok(memory) => memory,
        Err(error) => return Capability::no(error.to_string()),
    };
    let reserve = memory.reserve(ByteSize::new(0));
    let mib = |bytes: u64| bytes >> 20;
    let told = format!(
        "{} MiB are available, of which {} MiB stay",
        mib(memory.available),
        mib(reserve)
    );
    Capability {
        possible: memory.available > reserve,
        reason: told,
    }
}

fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1))
}

/// Ends a connection of this thread's own.
fn destroys() -> io::Result<Result<(), ToolError>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let addr = listener.local_addr()?;
    let mut client = TcpStream::connect(addr)?;
    let (_server, _) = listener.accept()?;
    let filter = format!(":{}", addr.port());
    let args = [
        "-H",
        "-t",
        "-n",
        "-K",
        "state",
        "established",
        "sport",
        "=",
        &filter,
    ];
    if let Err(error) = tool::run("ss", &args, b"") {
        return Ok(Err(error));
    }
    client.set_read_timeout(Some(RESET_WITHIN))?;
    match client.read(&mut [0]) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(Ok(())),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::other("the connection was closed, not reset")),
    }
}

/// 22, and every port at which a process called sshd listens.
fn ssh_ports() -> Vec<u16> {
    let said = tool::run("ss", &["-H", "-l", "-t", "-n", "-p"], b"").unwrap_or_default();
    let mut ports = vec![SSH];
    ports.extend(
        String::from_utf8_lossy(&said)
            .lines()
            .filter(|line| line.contains("\"sshd"))
            .filter_map(|line| {
                let local = line.split_whitespace().nth(3)?;
                local.rsplit_once(':')?.1.parse::<u16>().ok()
            }),
    );
    ports.sort_unstable();
    ports.dedup();
    ports
}
