//! Faults in the kernel of this machine: what the programs nft, tc and ss make of it. Each fault has things of its own,
//! named for it; nothing else is ever changed or removed.
//!
//! | fault | done by | seen by | undone by |
//! |---|---|---|---|
//! | partition, packet loss | one nft table | the table read back; its counters | the chains deleted, the counters read, the table deleted |
//! | throttle, netem | one root qdisc where the kernel's default is | the qdisc read back; its counters | the qdisc deleted |
//! | end of sockets | `SOCK_DESTROY` | the sockets gone | nothing: it is momentary |
//!
//! What an undo must know is a name, so that any process of the same right can do it, from any half-applied state:
//! [`undo`].

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use host::http::{Failure, StatusCode};
use model::fault::{Action, Fault, FaultOrder, Flow};
use model::net::Interface;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::deed::Deed;
use crate::preflight::kernel::{Capability, Kernel};
use crate::tool::ToolError;

mod qdisc;
mod ruleset;
mod sockets;
mod table;

use qdisc::QdiscFault;
use ruleset::{Spared, Stopped};
use sockets::SocketsFault;
use table::TableFault;

/// So begins the name of every table that a fault makes, whichever agent's.
pub(crate) const TABLES: &str = "faultlane_";
/// A part of a table's name is cut here: the kernel has room for 255 in all.
const LONGEST_PART: usize = 64;

/// What a fault changes in the kernel, as the journal names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// An nft table of the family inet is made.
    Table {
        /// Its name, which is this fault's alone.
        name: String,
    },
    /// The root qdisc of an interface is put in place of the kernel's default.
    Qdisc {
        /// Of which interface.
        interface: Interface,
        /// Its handle, such as `fa17:`.
        handle: String,
    },
    /// Connections are ended, which nothing brings back.
    Sockets,
}

/// Undoes a change from whatever state it is in, and any number of times; a word on how. It needs no runtime.
///
/// # Errors
/// A program is missing, or the kernel refuses.
pub fn undo(change: &Change) -> io::Result<String> {
    match change {
        Change::Table { name } => {
            table::delete(name)?;
            Ok(format!("there is no nft table `{name}` any more"))
        }
        Change::Qdisc { interface, handle } => Ok(qdisc::remove(interface, handle)?),
        Change::Sockets => Ok("ended connections stay ended".to_owned()),
    }
}

/// The kernel as an agent finds it, and what is the agent's there.
#[derive(Debug)]
pub struct Network {
    agent: String,
    /// Tells this agent's tables from those of another one of the same name.
    owner: String,
    channel: Mutex<Vec<u16>>,
    kernel: tokio::sync::Mutex<Option<Arc<Kernel>>>,
}

impl Network {
    /// That of an agent by name and folder. A later life in the same folder has the same names for things.
    #[must_use]
    pub fn new(agent: &str, state_dir: &Path) -> Self {
        let folder = state_dir
            .canonicalize()
            .unwrap_or_else(|_| state_dir.to_owned());
        Self {
            agent: agent.to_owned(),
            owner: digest(&[agent, &folder.to_string_lossy()]),
            channel: Mutex::default(),
            kernel: tokio::sync::Mutex::default(),
        }
    }

    /// The conductor speaks to the agent here: no fault cuts that, unless it names the port.
    pub fn serves_on(&self, addr: SocketAddr) {
        self.channel
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(addr.port());
    }

    /// What this kernel allows, looked at when it is first asked.
    pub async fn kernel(&self) -> Arc<Kernel> {
        let mut kernel = self.kernel.lock().await;
        if let Some(known) = &*kernel {
            return Arc::clone(known);
        }
        let found = Arc::new(looked_at().await);
        *kernel = Some(Arc::clone(&found));
        found
    }

    /// The same, looked at anew.
    pub async fn look_at_kernel(&self) -> Arc<Kernel> {
        *self.kernel.lock().await = None;
        self.kernel().await
    }

    /// So begin the names of the tables that are this agent's.
    #[must_use]
    pub fn own_tables(&self) -> String {
        format!("{TABLES}{}_", self.owner)
    }

    /// What an order means here.
    ///
    /// # Errors
    /// 422 for what this kernel or its rights do not allow, with the reason; 409 where somebody else's is in the way.
    pub(crate) async fn aim(&self, order: &FaultOrder) -> Result<Arc<dyn Deed>, Failure> {
        let kernel = self.kernel().await;
        if let Some(Capability {
            possible: false,
            reason,
        }) = kernel.needed_by(&order.fault)
        {
            return Err(impossible(&format_args!(
                "`{}` is not possible here: {reason}",
                order.fault.name()
            )));
        }
        Ok(match &order.fault {
            Fault::Partition(settings) => {
                let peers = settings.taken(order.seed, &order.id);
                if peers.len() < settings.peers.len().min(1) {
                    let text =
                        "a partition from 0 of its peers is none; leave `of` out, or raise it";
                    return Err(impossible(&text));
                }
                let stopped = Stopped {
                    peers,
                    ports: settings.ports.clone(),
                    direction: settings.direction,
                    action: settings.action,
                    ratio: 1.0,
                };
                Arc::new(TableFault::new(
                    self.table(order),
                    stopped,
                    self.spared(&kernel),
                ))
            }
            Fault::PacketLoss(settings) => {
                let stopped = Stopped {
                    peers: settings.peers.clone(),
                    ports: settings.ports.clone(),
                    direction: settings.direction,
                    action: Action::Drop,
                    ratio: settings.rate.as_ratio(),
                };
                Arc::new(TableFault::new(
                    self.table(order),
                    stopped,
                    self.spared(&kernel),
                ))
            }
            Fault::Throttle(settings) => {
                Arc::new(QdiscFault::throttle(settings, self.handle(order)).await?)
            }
            Fault::Netem(settings) => {
                Arc::new(QdiscFault::netem(settings, self.handle(order)).await?)
            }
            Fault::DropSockets(settings) => {
                Arc::new(SocketsFault::new(settings, &self.spared(&kernel)))
            }
            other => {
                return Err(impossible(&format_args!(
                    "`{}` is not a fault of a kernel",
                    other.name()
                )));
            }
        })
    }

    fn spared(&self, kernel: &Kernel) -> Spared {
        let channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        Spared {
            own: channel.clone(),
            either: kernel.ssh_ports.clone(),
        }
    }

    fn table(&self, order: &FaultOrder) -> String {
        let (agent, id) = (plain(&self.agent), plain(&order.id));
        format!("{}{agent}_{id}", self.own_tables())
    }

    fn handle(&self, order: &FaultOrder) -> String {
        let byte = &digest(&[&self.owner, &order.id])[..2];
        format!("{}{byte}:", qdisc::HANDLES)
    }
}

/// Whether a qdisc is one that a fault has put there.
#[must_use]
pub(crate) fn is_own_qdisc(kind: &str, handle: &str) -> bool {
    qdisc::is_own(kind, handle)
}

/// A table as faults make it, to try whether this kernel takes it.
pub(crate) fn trial_table() -> serde_json::Value {
    let stopped = Stopped {
        peers: Vec::new(),
        ports: Vec::new(),
        direction: Flow::Both,
        action: Action::Reject,
        ratio: 0.5,
    };
    stopped.create("faultlane_trial", &Spared::default())
}

async fn looked_at() -> Kernel {
    let looked = tokio::task::spawn_blocking(Kernel::look).await;
    looked.unwrap_or_else(|error| Kernel::unknown(&error.to_string()))
}

/// The first 4 bytes of a SHA-256, in hexadecimal.
pub(super) fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hex(&hash.finalize()[..4])
}

/// In hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What can be a part of a table's name, and of a file's.
pub(super) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .take(LONGEST_PART)
        .collect()
}

/// Runs what blocks where it may.
async fn away<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ToolError> + Send + 'static,
) -> Result<T, ToolError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        Err(ToolError::Start {
            command: "a blocking call".to_owned(),
            source: io::Error::other(error),
        })
    })
}

fn failed(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

fn impossible(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string())
}

fn in_the_way(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(StatusCode::CONFLICT, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_of_their_agent_alone() {
        let folder = tempfile::tempdir().unwrap();
        let here = Network::new("node 1", folder.path());
        let again = Network::new("node 1", folder.path());
        assert_eq!(here.own_tables(), again.own_tables());
        let other = tempfile::tempdir().unwrap();
        assert_ne!(
            here.own_tables(),
            Network::new("node 1", other.path()).own_tables()
        );
        assert_eq!(plain("f1-partition; drop"), "f1_partition__drop");
        assert_eq!(plain(&"x".repeat(500)).len(), LONGEST_PART);
    }
}
