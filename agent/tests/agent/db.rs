//! An operator's node of a test's own: real processes, started by a script that leaves a pid file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use agent::procfs::{self, Identity, Life};
use model::command::CommandConfig;
use model::node::NodeConfig;
use model::quantity::Span;

use crate::support::{Named, until};

/// Each start has a number of its own, which its processes have in their environment.
const START: &str = r#"cd "$(dirname "$0")" || exit 1
test -e broken && { echo 'out of luck' >&2; exit 3; }
test -e slow && sleep 0.4
test -e hangs && sleep 60
gen=$(($(cat gen 2>/dev/null || echo 0) + 1))
echo $gen > gen.new && mv gen.new gen
GEN=$gen setsid sh main.sh &
echo $! > db.pid.new && mv db.pid.new db.pid
"#;
const ALONE: &str = "exec sleep 300\n";
/// A process, two children, and a child of one of them.
const A_TREE: &str = "sleep 300 & sh -c 'sleep 300 & wait; exit' & wait; exit\n";
/// New children all the time; each lives for a moment.
const FORKING: &str =
    "sleep 300 & while :; do sh -c 'sleep 0.01 & wait; exit' & sh -c 'sleep 0.02; exit'; done\n";

/// Nothing but SIGKILL ends it.
const DEAF: &str = "trap '' TERM; exec sleep 300\n";
/// Many children.
const A_BUSH: &str = "for child in $(seq 300); do sleep 300 & done; wait; exit\n";

/// What the node consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Made {
    Alone,
    Tree,
    Forking,
    Bush,
    Deaf,
}

/// The node. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Db {
    folder: PathBuf,
    made: Made,
}

impl Db {
    /// Starts one in that folder.
    pub(crate) async fn start(folder: &Path, made: Made) -> Self {
        fs::create_dir_all(folder).unwrap();
        let main = match made {
            Made::Alone => ALONE,
            Made::Tree => A_TREE,
            Made::Forking => FORKING,
            Made::Bush => A_BUSH,
            Made::Deaf => DEAF,
        };
        fs::write(folder.join("main.sh"), main).unwrap();
        fs::write(folder.join("start.sh"), START).unwrap();
        let db = Self {
            folder: folder.canonicalize().unwrap(),
            made,
        };
        db.start_again();
        db.is_whole().await;
        db
    }

    /// Waits until all of it is up, and nothing but that: a process of it is known once it has begun its program.
    pub(crate) async fn is_whole(&self) {
        until("the node is whole", || async {
            let left = self.left();
            if !left.is_empty() {
                eprintln!("{left:?}");
            }
            left.is_empty()
        })
        .await;
    }

    /// As whoever keeps it does.
    pub(crate) fn start_again(&self) {
        let started = Command::new("/bin/sh")
            .arg(self.folder.join("start.sh"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(started.unwrap().success());
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn pid_file(&self) -> PathBuf {
        self.folder.join("db.pid")
    }

    /// Its process, as the pid file has it.
    pub(crate) fn pid(&self) -> u32 {
        let text = fs::read_to_string(self.pid_file()).unwrap();
        text.trim().parse().unwrap()
    }

    /// How often it has been started.
    pub(crate) fn starts(&self) -> u32 {
        let text = fs::read_to_string(self.folder.join("gen")).unwrap();
        text.trim().parse().unwrap()
    }

    /// Makes a start command `broken`, `slow` or one that `hangs`, or mends it.
    pub(crate) fn make(&self, how: &str, so: bool) {
        let mark = self.folder.join(how);
        if so {
            fs::write(mark, "").unwrap();
        } else {
            fs::remove_file(mark).unwrap();
        }
    }

    pub(crate) fn start_command(&self) -> CommandConfig {
        let script = self.folder.join("start.sh").display().to_string();
        CommandConfig {
            run: vec!["/bin/sh".to_owned(), script],
            within: Span::from_secs(2),
        }
    }

    /// As a configuration has it, by its pid file and its start command.
    pub(crate) fn named(&self) -> Named {
        let node = NodeConfig {
            pid_file: Some(self.pid_file()),
            start: Some("start-db".to_owned()),
            ..NodeConfig::default()
        };
        Named {
            commands: [("start-db".to_owned(), self.start_command())].into(),
            nodes: [("db".to_owned(), node)].into(),
        }
    }

    /// All its processes, of whatever start, with that start's number.
    pub(crate) fn processes(&self) -> Vec<(Identity, u32)> {
        let pids = fs::read_dir("/proc").unwrap();
        pids.filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let cwd = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
            // Also when the folder has been removed before its node.
            let cwd = cwd.to_str()?;
            if Path::new(cwd.strip_suffix(" (deleted)").unwrap_or(cwd)) != self.folder {
                return None;
            }
            let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
            let start = environment.split(|byte| *byte == 0).find_map(|variable| {
                let number = variable.strip_prefix(b"GEN=")?;
                std::str::from_utf8(number).ok()?.parse().ok()
            })?;
            Some((Identity::of(pid)?, start))
        })
        .collect()
    }

    /// What is not as it was: it is not up, or twice, or some of it is stopped or is left of an earlier start.
    pub(crate) fn left(&self) -> Vec<String> {
        let all = self.processes();
        let mut left = Vec::new();
        let latest = self.starts();
        let whole = match self.made {
            Made::Tree => 4..=4,
            Made::Forking => 2..=usize::MAX,
            Made::Alone | Made::Deaf => 1..=1,
            Made::Bush => 301..=301,
        };
        if !whole.contains(&all.len()) {
            left.push(format!("the node has {} processes: {all:?}", all.len()));
        }
        if fs::read_to_string(self.pid_file()).is_err()
            || Identity::of(self.pid()).is_none_or(|process| process.life() != Life::Lives)
        {
            left.push("the node's process is not there".to_owned());
        }
        for (process, start) in all {
            let pid = process.pid;
            if start != latest {
                left.push(format!("process {pid} is of start {start} of {latest}"));
            }
            if procfs::is_stopped(pid) == Some(true) {
                left.push(format!("process {pid} of the node is stopped"));
            }
        }
        left
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        // Again, as one of them may just have had a child.
        for _ in 0..100 {
            let all = self.processes();
            if all.is_empty() {
                return;
            }
            for (process, _) in all {
                let pid = rustix::process::Pid::from_raw(i32::try_from(process.pid).unwrap());
                let _ = rustix::process::kill_process(pid.unwrap(), rustix::process::Signal::KILL);
            }
        }
    }
}
