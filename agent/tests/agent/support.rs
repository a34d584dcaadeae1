//! An agent of a test's own, and what tests ask of it.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::api::ChildView;
use agent::client::Agent;
use agent::procfs;
use host::child::{self, Child, SpawnError};
use host::http::{CallError, StatusCode};
use model::command::CommandConfig;
use model::event::Origin;
use model::fault::{Fault, FaultOrder, Hold, Kill, Pause, Terminate};
use model::ids::Lane;
use model::node::NodeConfig;
use model::profile::Profile;
use model::quantity::{Share, Span};
use model::role::{AgentConfig, LaneConfig, ProxyConfig, Role};
use model::shard::{ClientsConfig, Policy, ShardConfig, TokenSource};
use model::target::{Access, Promise};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

pub(crate) const ANY_PORT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
pub(crate) const SECOND: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(10);

/// The program that stands in for `faultlane`.
pub(crate) fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_agent-stand-in"))
}

/// An agent, its folders, and how to speak to it. Dropping it ends it.
pub(crate) struct Node {
    pub(crate) agent: Agent,
    process: Child,
    folder: TempDir,
}

impl Node {
    pub(crate) async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), Named::default()).await
    }

    /// An agent whose own configuration names these.
    pub(crate) async fn with_commands(commands: BTreeMap<String, CommandConfig>) -> Self {
        let own = Named {
            commands,
            ..Named::default()
        };
        Self::start_in(tempfile::tempdir().unwrap(), own).await
    }

    /// An agent that finds programs in this folder first.
    pub(crate) async fn with_tools(tools: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("PATH={}:{path}", tools.display());
        let args = [&path, program().to_str().unwrap(), "agent"];
        Self::start_by(Path::new("/usr/bin/env"), &args, folder, Named::default()).await
    }

    /// An agent that may not change the network, although it is root.
    pub(crate) async fn without_net_admin() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let args = [
            "--bounding-set=-net_admin",
            program().to_str().unwrap(),
            "agent",
        ];
        Self::start_by(
            Path::new("/usr/bin/setpriv"),
            &args,
            folder,
            Named::default(),
        )
        .await
    }

    /// An agent with a small file system at this place of its folder, which goes with it; only root can have one. `script` gets
    /// the place and then what to run.
    pub(crate) async fn with_small_disk(script: &str, place: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join(place);
        let args = [
            "--mount",
            "--propagation=private",
            "sh",
            "-c",
            script,
            place.to_str().unwrap(),
            program().to_str().unwrap(),
            "agent",
        ];
        let unshare = Path::new("/usr/bin/unshare");
        Self::start_by(unshare, &args, folder, Named::default()).await
    }

    pub(crate) async fn start_in(folder: TempDir, own: Named) -> Self {
        Self::start_by(program(), &["agent"], folder, own).await
    }

    pub(crate) async fn start_by(
        program: &Path,
        args: &[&str],
        folder: TempDir,
        own: Named,
    ) -> Self {
        let process = agent_in(folder.path(), own, program, args).await.unwrap();
        Self {
            agent: Agent::new(process.ready.control),
            process,
            folder,
        }
    }

    /// An agent with a lane that behaves as told.
    pub(crate) async fn with_lane(behaviour: &str) -> Self {
        let node = Self::start().await;
        node.agent
            .start_child("lane", &lane(behaviour))
            .await
            .unwrap();
        node
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.ready.pid
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.folder.path().join("agent")
    }

    /// Ends it by closing its stdin; its folder, to look into.
    pub(crate) async fn end(self) -> TempDir {
        assert!(
            self.process.end(PATIENCE).await,
            "the agent had to be killed"
        );
        self.folder
    }

    /// Kills it; its folder.
    pub(crate) async fn kill(mut self) -> TempDir {
        self.process.process.kill().await.unwrap();
        self.folder
    }

    /// Kills it, and starts another one in the same folder.
    pub(crate) async fn kill_and_start_again(mut self) -> Self {
        self.process.process.kill().await.unwrap();
        Self::start_in(self.folder, Named::default()).await
    }

    pub(crate) async fn child(&self, name: &str) -> ChildView {
        let children = self.agent.children().await.unwrap();
        children
            .into_iter()
            .find(|child| child.name == name)
            .unwrap()
    }
}

/// What an agent's own configuration names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Named {
    pub(crate) commands: BTreeMap<String, CommandConfig>,
    pub(crate) nodes: BTreeMap<String, NodeConfig>,
}

/// Starts an agent by whatever ends in it, in a folder that may have had another.
pub(crate) async fn agent_in(
    folder: &Path,
    own: Named,
    program: &Path,
    args: &[&str],
) -> Result<Child, SpawnError> {
    let config = AgentConfig {
        spacetimedb: None,
        commands: own.commands,
        nodes: own.nodes,
        name: "here".to_owned(),
        state_dir: folder.join("agent"),
        log_dir: folder.join("logs"),
    };
    child::spawn(program, args, &config, &folder.join("agent.log"), PATIENCE).await
}

/// Waits until something is so.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let look = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, look).await;
    assert!(in_time.is_ok(), "{what}: not within {PATIENCE:?}");
}

/// The watchdogs of an agent's folder, by what they were started with.
pub(crate) fn watchdogs(folder: &Path) -> Vec<u32> {
    over_journal(folder, b"watchdog")
}

/// The workers of its faults, by the same.
pub(crate) fn workers(folder: &Path) -> Vec<u32> {
    over_journal(folder, b"pressure")
}

fn over_journal(folder: &Path, role: &[u8]) -> Vec<u32> {
    let journal = folder.join("agent/journal.jsonl");
    let journal = journal.as_os_str().as_encoded_bytes();
    processes()
        .filter(|pid| {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut args = command.split(|byte| *byte == 0).skip(1);
            args.next() == Some(role) && args.nth(1) == Some(journal)
        })
        .collect()
}

fn processes() -> impl Iterator<Item = u32> {
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Waits until a process is gone, or at least a zombie that nobody has taken away.
pub(crate) async fn until_gone(pid: u32) {
    until(&format!("process {pid} is gone"), || async move {
        procfs::stat(pid).is_none_or(|stat| stat.state == 'Z')
    })
    .await;
}

pub(crate) fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// The status and the words of a refusal.
pub(crate) fn refusal<T: std::fmt::Debug>(answer: Result<T, CallError>) -> (u16, String) {
    match answer {
        Err(CallError::Refused {
            status, message, ..
        }) => (StatusCode::as_u16(&status), message),
        other => panic!("not a refusal: {other:?}"),
    }
}

pub(crate) fn lane(behaviour: &str) -> Role {
    Role::Lane(LaneConfig {
        lane: Lane::Khala,
        listen: ANY_PORT,
        data_dir: PathBuf::new(),
        profile: Profile::embedded(),
        strict: true,
        accept_rate: None,
        database: behaviour.to_owned(),
        issuer: String::new(),
        key_file: PathBuf::new(),
        publish_secret: String::new(),
        stream_budgets: [].into(),
        defect: None,
    })
}

/// A proxy that behaves as the stand-in makes of this number.
pub(crate) fn proxy(behaviour: u16) -> Role {
    Role::Proxy(ProxyConfig {
        listen: ANY_PORT,
        upstream: (Ipv4Addr::LOCALHOST, behaviour).into(),
        tls: None,
    })
}

pub(crate) fn shard(with_clients: bool) -> Role {
    let clients = with_clients.then(|| ClientsConfig {
        first: 0,
        count: 1,
        fleet: 1,
        streams: Vec::new(),
        per_client: 1,
        ramp: Span::ZERO,
        policy: Policy::Spread,
        capacity: None,
        late_after: Span::from_secs(1),
    });
    Role::Shard(Box::new(ShardConfig {
        ordinal: 1,
        origin: Origin {
            run: "test".to_owned(),
            seed: 7,
            padding: 0,
        },
        lane: Lane::Khala,
        access: Access::plain(ANY_PORT, ANY_PORT),
        promise: Promise::strict(Span::ZERO),
        tokens: TokenSource::service(ANY_PORT, "", ""),
        profile: Profile::embedded(),
        stream_budgets: [].into(),
        clients,
        publish: None,
        probes: None,
        defect: None,
    }))
}

/// An order with a lease that outlives the test.
pub(crate) fn order(id: &str, fault: Fault) -> FaultOrder {
    FaultOrder {
        id: id.to_owned(),
        fault,
        node: None,
        share: Share::ALL,
        seed: 7,
        lease: Span::from_secs(60),
    }
}

pub(crate) fn kill() -> Fault {
    Fault::Kill(Kill {})
}

pub(crate) fn pause() -> Fault {
    Fault::Pause(Pause {})
}

pub(crate) fn terminate(grace: Span) -> Fault {
    Fault::Terminate(Terminate { grace })
}

pub(crate) fn hold() -> Fault {
    Fault::Hold(Hold {})
}
