//! An agent that is killed while it has a fault of some kind, and what it leaves.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use agent::client::Agent;
use agent::crash;
use agent::journal::{Entry, Event};
use agent::procfs;
use host::child::{Child, SpawnError};
use host::clock;
use model::fault::{
    Action, CrashLoop, DropSockets, Fault, FaultOrder, Flow, KillTree, PacketLoss, Partition,
    Restore, Throttle,
};
use model::instant::Mono;
use model::net::Cidr;
use model::quantity::{ByteSize, Share, Span};
use model::role::Role;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::db::{Db, Made};
use crate::machine::{cpu_burn, disk_fill, memory_fill};
use crate::netns::{Lab, said, skipped};
use crate::support::{
    Named, agent_in, kill, lane, order, pause, program, send, terminate, until, watchdogs, workers,
};

/// A kind of fault that an agent makes itself.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    fault: fn() -> Fault,
    /// The operator's node to which it is done, if not to the agent's own lane.
    db: Option<Made>,
    /// What is left of it on the machine that this thread is on. With none it needs no machine of its own.
    left_in_kernel: Option<fn() -> Vec<String>>,
}

impl Kind {
    /// Of a node's process, or of the machine: what is left of it is in the agent's folder, or a process.
    const fn of_node(name: &'static str, fault: fn() -> Fault) -> Self {
        Self {
            name,
            fault,
            db: None,
            left_in_kernel: None,
        }
    }

    const fn of_operators(name: &'static str, made: Made, fault: fn() -> Fault) -> Self {
        Self {
            db: Some(made),
            ..Self::of_node(name, fault)
        }
    }

    const fn of_kernel(
        name: &'static str,
        fault: fn() -> Fault,
        left: fn() -> Vec<String>,
    ) -> Self {
        Self {
            name,
            fault,
            db: None,
            left_in_kernel: Some(left),
        }
    }

    /// Whether it is over as soon as it is made.
    pub(crate) fn is_momentary(&self) -> bool {
        (self.fault)().ends_after() == Some(Span::ZERO)
    }

    /// An order of it.
    pub(crate) fn order(&self, lease: Span) -> FaultOrder {
        FaultOrder {
            node: self.db.map(|_| "db".to_owned()),
            lease,
            ..order("f1", (self.fault)())
        }
    }
}

fn crash_loop() -> Fault {
    Fault::CrashLoop(CrashLoop {
        every: Span::from_millis(100),
        times: None,
    })
}

fn kill_tree() -> Fault {
    Fault::KillTree(KillTree {})
}

/// All of them.
pub(crate) static KINDS: [Kind; 18] = [
    Kind::of_node("kill", kill),
    Kind::of_node("terminate", || terminate(Span::from_secs(2))),
    Kind::of_node("pause", pause),
    Kind::of_node("restore", || {
        Fault::Restore(Restore {
            age: Span::from_millis(50),
        })
    }),
    Kind::of_node("cpu_burn", cpu_burn),
    Kind::of_node("memory_fill", || memory_fill(4 << 20)),
    Kind::of_node("disk_fill", || disk_fill(8 << 20)),
    Kind::of_node("kill_tree", kill_tree),
    Kind::of_node("crash_loop", crash_loop),
    Kind::of_operators("kill of db", Made::Alone, kill),
    Kind::of_operators("terminate of db", Made::Alone, || {
        terminate(Span::from_millis(200))
    }),
    Kind::of_operators("pause of db", Made::Alone, pause),
    Kind::of_operators("kill_tree of db", Made::Tree, kill_tree),
    Kind::of_operators("crash_loop of db", Made::Alone, crash_loop),
    Kind::of_kernel(
        "partition",
        || {
            Fault::Partition(Partition {
                peers: somebody(),
                ports: Vec::new(),
                direction: Flow::Both,
                action: Action::Drop,
                of: None,
            })
        },
        tables,
    ),
    Kind::of_kernel(
        "packet_loss",
        || {
            Fault::PacketLoss(PacketLoss {
                peers: somebody(),
                ports: Vec::new(),
                direction: Flow::Both,
                rate: Share::ratio(0.5),
            })
        },
        tables,
    ),
    Kind::of_kernel(
        "throttle",
        || {
            Fault::Throttle(Throttle {
                interface: "eth0".parse().unwrap(),
                per_second: ByteSize::new(1_000_000),
                burst: None,
                latency: Span::from_millis(50),
            })
        },
        qdiscs,
    ),
    Kind::of_kernel(
        "drop_sockets",
        || {
            Fault::DropSockets(DropSockets {
                peers: somebody(),
                ports: Vec::new(),
            })
        },
        tables,
    ),
];

fn somebody() -> Vec<Cidr> {
    vec!["10.77.0.2".parse().unwrap()]
}

/// There are none but those of faults.
fn tables() -> Vec<String> {
    let all = said("nft", &["list", "tables"]);
    all.lines().map(str::to_owned).collect()
}

/// An interface has none of its own.
fn qdiscs() -> Vec<String> {
    let all = said("tc", &["qdisc", "show", "dev", "eth0"]);
    let shown = all.lines().map(str::to_owned);
    shown.filter(|line| !line.contains("noqueue")).collect()
}

/// Held by a test that kills many: two of them at once would measure how busy they keep the machine.
pub(crate) static ALONE: Mutex<()> = Mutex::new(());

/// The kinds that can be tried here.
pub(crate) fn kinds() -> Vec<&'static Kind> {
    let kernel = !skipped();
    let here = |kind: &&Kind| kernel || kind.left_in_kernel.is_none();
    KINDS.iter().filter(here).collect()
}

/// Runs something on a thread and a runtime of its own; where there are kernel faults, on a machine of its own too.
pub(crate) fn apart<F: Future<Output = T>, T: Send + 'static>(
    work: impl FnOnce() -> F + Send + 'static,
) -> thread::JoinHandle<T> {
    thread::spawn(move || {
        let lab = (!skipped()).then(|| Lab::new(1));
        if let Some(lab) = &lab {
            lab.move_to(1);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(work())
    })
}

/// An agent with a lane that has data, below a first process that hangs up on nobody.
pub(crate) struct Victim {
    pub(crate) agent: Agent,
    process: Child,
    lane: u32,
    db: Option<Db>,
    folder: TempDir,
}

impl Victim {
    /// One with a lane alone.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[], None).await
    }

    /// One to which such a fault can be done, and which dies at that point of its code.
    pub(crate) async fn of(kind: &Kind, crash_at: Option<&str>) -> Self {
        let variables = crash_at.map(|point| format!("{}={point}", crash::VARIABLE));
        Self::start_with(variables.as_slice(), kind.db).await
    }

    /// One with these in its environment.
    pub(crate) async fn start_with(variables: &[String], db: Option<Made>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let db = match db {
            Some(made) => Some(Db::start(&folder.path().join("db"), made).await),
            None => None,
        };
        let named = db.as_ref().map(Db::named).unwrap_or_default();
        let process = agent_with(folder.path(), variables, named).await.unwrap();
        let agent = Agent::new(process.ready.control);
        let Role::Lane(mut config) = lane("") else {
            unreachable!("it is a lane")
        };
        config.data_dir = folder.path().join("agent/data/lane");
        fs::create_dir_all(&config.data_dir).unwrap();
        fs::write(config.data_dir.join("log"), "1").unwrap();
        let ready = agent
            .start_child("lane", &Role::Lane(config))
            .await
            .unwrap();
        Self {
            agent,
            process,
            lane: ready.pid,
            db,
            folder,
        }
    }

    /// The agent's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.ready.pid
    }

    /// The lane's.
    pub(crate) fn lane(&self) -> u32 {
        self.lane
    }

    /// Where its folders are.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Waits for the death of the agent; what it leaves.
    pub(crate) async fn dead(self) -> Remains {
        let pid = self.pid();
        // Not when it is a zombie: its other threads may still hold what it held. The first process takes it away.
        until("the agent is dead", || async move {
            procfs::stat(pid).is_none()
        })
        .await;
        let Self {
            process,
            lane,
            db,
            folder,
            ..
        } = self;
        Remains {
            db,
            folder,
            lane,
            _first: process,
        }
    }

    /// Kills the agent.
    pub(crate) async fn killed(self) -> Remains {
        send(self.pid(), Signal::KILL);
        self.dead().await
    }
}

/// Starts an agent with these in its environment.
async fn agent_with(
    folder: &Path,
    variables: &[String],
    named: Named,
) -> Result<Child, SpawnError> {
    let program = program().to_str().unwrap();
    let mut args: Vec<&str> = variables.iter().map(String::as_str).collect();
    args.extend([program, "first-process", "agent"]);
    agent_in(folder, named, Path::new("/usr/bin/env"), &args).await
}

/// What an agent left that was killed. Dropping it ends what is still there.
pub(crate) struct Remains {
    /// Dropped before its folder.
    db: Option<Db>,
    folder: TempDir,
    lane: u32,
    /// The first process is not killed with this: it takes away the zombies of those that are.
    _first: Child,
}

impl Remains {
    /// Where its folders are.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// An agent comes back, and dies at that point of its code.
    pub(crate) async fn come_back(&self, crash_at: Option<&str>) -> Result<Child, String> {
        let variables = crash_at.map(|point| format!("{}={point}", crash::VARIABLE));
        // The operator's nodes are known from the journal alone.
        let came = agent_with(self.folder(), variables.as_slice(), Named::default()).await;
        came.map_err(|error| {
            let log = fs::read_to_string(self.folder().join("agent.log")).unwrap_or_default();
            format!("{error}: {log}")
        })
    }

    fn journal(&self) -> PathBuf {
        self.folder.path().join("agent/journal.jsonl")
    }

    /// What the journal says; torn lines are left out.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        host::jsonl::read(&self.journal()).unwrap().values
    }

    /// Everything that a fault can have left.
    pub(crate) fn left(&self, kind: &Kind) -> Vec<String> {
        let mut left = kind.left_in_kernel.map_or_else(Vec::new, |left| left());
        if let Some(stat) = procfs::stat(self.lane) {
            left.push(format!("the lane is there: {stat:?}"));
        }
        left.extend(self.db.iter().flat_map(Db::left));
        let mut open = Vec::new();
        for entry in self.entries() {
            match entry.event {
                Event::Intent { .. } => open.push(entry.id),
                Event::Undone { .. } => open.retain(|id| *id != entry.id),
                _ => {}
            }
        }
        left.extend(
            open.iter()
                .map(|id| format!("`{id}` is open in the journal")),
        );
        let data = self.folder.path().join("agent/data");
        for entry in fs::read_dir(&data).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name != "lane" {
                left.push(format!("{} is beside the data", name.display()));
            }
        }
        if !data.join("lane/log").exists() {
            left.push("the data are gone".to_owned());
        }
        for entry in fs::read_dir(data.join("lane"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name();
            if name != "log" {
                left.push(format!("{} is among the data", name.display()));
            }
        }
        let workers = workers(self.folder.path()).into_iter();
        left.extend(workers.map(|pid| format!("worker {pid} is there")));
        left
    }

    /// Waits until nothing is left; how long after `since` that was seen.
    pub(crate) async fn clean(
        &self,
        kind: &Kind,
        since: Mono,
        limit: Span,
    ) -> Result<Span, String> {
        loop {
            let now = clock::now();
            let left = self.left(kind);
            if left.is_empty() {
                return Ok(now.since(since));
            }
            if now.since(since) > limit {
                return Err(format!("{} after the lease: {left:?}", now.since(since)));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until no watchdog is left either.
    pub(crate) async fn unwatched(&self, limit: Span) -> Result<(), String> {
        let began = clock::now();
        while !watchdogs(self.folder.path()).is_empty() {
            if clock::now().since(began) > limit {
                return Err("a watchdog stays, with nothing to do".to_owned());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

impl Drop for Remains {
    fn drop(&mut self) {
        for pid in watchdogs(self.folder.path()).into_iter().chain(
            procfs::stat(self.lane)
                .is_some_and(|stat| stat.name.starts_with("agent-stand-in"))
                .then_some(self.lane),
        ) {
            let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}
