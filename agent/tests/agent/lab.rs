//! Where agents are killed: a network namespace of the test's own, and one fault after another in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use agent::client::Agent;
use agent::crash;
use agent::journal::{Entry, Event};
use agent::procfs;
use host::child::{Child, SpawnError};
use host::clock;
use model::fault::{Fault, Restore};
use model::instant::Mono;
use model::quantity::Span;
use model::role::Role;
use nix::sched::{CloneFlags, unshare};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{
    agent_in, kill, lane, pause, program, send, terminate, until_gone, watchdogs,
};

/// A kind of fault, and what is left of it in the namespace of this thread.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) fault: fn() -> Fault,
    /// Whether it needs a namespace of its own, and root.
    pub(crate) kernel: bool,
    pub(crate) left: fn() -> Vec<String>,
}

const fn nothing() -> Vec<String> {
    Vec::new()
}

/// Every kind that an agent does itself.
pub(crate) static KINDS: [Kind; 4] = [
    Kind {
        name: "kill",
        fault: kill,
        kernel: false,
        left: nothing,
    },
    Kind {
        name: "terminate",
        fault: || terminate(Span::from_secs(2)),
        kernel: false,
        left: nothing,
    },
    Kind {
        name: "pause",
        fault: pause,
        kernel: false,
        left: nothing,
    },
    Kind {
        name: "restore",
        fault: || {
            Fault::Restore(Restore {
                age: Span::from_millis(50),
            })
        },
        kernel: false,
        left: nothing,
    },
];

/// Whether this process may make a network namespace; says so when not.
pub(crate) fn has_namespaces(test: &str) -> bool {
    let may = thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET));
    let may = may.join().unwrap();
    if let Err(error) = may {
        eprintln!(
            "{test}: no network namespace can be made here ({error}): kernel faults are left out"
        );
    }
    may.is_ok()
}

/// Runs something on a thread and a runtime of its own. With `apart`, in a network namespace of its own too, which has a
/// loopback and nothing else, and goes with the last process in it.
pub(crate) fn in_a_lab<F: Future<Output = T>, T: Send + 'static>(
    apart: bool,
    work: impl FnOnce() -> F + Send + 'static,
) -> thread::JoinHandle<T> {
    thread::spawn(move || {
        if apart {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            run("ip", &["link", "set", "lo", "up"]);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(work())
    })
}

/// Runs a command in this thread's namespace; what it said.
pub(crate) fn run(command: &str, args: &[&str]) -> String {
    let done = Command::new(command).args(args).output().unwrap();
    assert!(done.status.success(), "{command} {args:?}: {done:?}");
    String::from_utf8(done.stdout).unwrap()
}

/// An agent with a lane that has data, below a first process that hangs up on nobody.
pub(crate) struct Victim {
    pub(crate) agent: Agent,
    process: Child,
    lane: u32,
    folder: TempDir,
}

impl Victim {
    /// One that dies at that point of its code.
    pub(crate) async fn start(crash_at: Option<&str>) -> Self {
        let variables = crash_at.map(|point| format!("{}={point}", crash::VARIABLE));
        Self::start_with(variables.as_slice()).await
    }

    /// One with these in its environment.
    pub(crate) async fn start_with(variables: &[String]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let process = agent_with(folder.path(), variables).await.unwrap();
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
        until_gone(self.pid()).await;
        let Self {
            process,
            lane,
            folder,
            ..
        } = self;
        Remains {
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
async fn agent_with(folder: &Path, variables: &[String]) -> Result<Child, SpawnError> {
    let program = program().to_str().unwrap();
    let mut args: Vec<&str> = variables.iter().map(String::as_str).collect();
    args.extend([program, "first-process", "agent"]);
    agent_in(folder, [].into(), Path::new("/usr/bin/env"), &args).await
}

/// What an agent left that was killed. Dropping it ends what is still there.
pub(crate) struct Remains {
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
    pub(crate) async fn come_back(&self, crash_at: Option<&str>) -> Result<Child, SpawnError> {
        let variables = crash_at.map(|point| format!("{}={point}", crash::VARIABLE));
        agent_with(self.folder(), variables.as_slice()).await
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
        let mut left = (kind.left)();
        if let Some(stat) = procfs::stat(self.lane) {
            left.push(format!("the lane is there: {stat:?}"));
        }
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
            tokio::time::sleep(Duration::from_millis(5)).await;
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
