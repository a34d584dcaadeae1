//! Running faultlane, reading evidence.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// One drill at a time: two would take each other's processor, and the harness would say so.
static DRILLS: Mutex<()> = Mutex::new(());

/// Takes the machine for a drill.
pub(crate) fn machine() -> MutexGuard<'static, ()> {
    DRILLS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The binary under test, with arguments.
pub(crate) fn faultlane(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_faultlane"));
    command
        .args(args)
        .stdin(Stdio::null())
        .env_remove("FAULTLANE_LOG");
    command
}

/// Runs it to its end.
pub(crate) fn output(args: &[&str]) -> Finished {
    Finished::from(faultlane(args).output().expect("faultlane starts"))
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Finished {
    fn from(output: Output) -> Self {
        Self {
            status: output.status,
            stdout: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
        }
    }
}

impl Finished {
    /// Its exit code, checked; on a mismatch everything it said is shown.
    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Self {
        assert_eq!(
            self.status.code(),
            Some(code),
            "stdout:\n{}\nstderr:\n{}",
            self.stdout,
            self.stderr
        );
        self
    }

    /// What it said contains a text.
    #[track_caller]
    pub(crate) fn says(&self, text: &str) -> &Self {
        let said = self.stdout.contains(text) || self.stderr.contains(text);
        assert!(
            said,
            "no `{text}` in\nstdout:\n{}\nstderr:\n{}",
            self.stdout, self.stderr
        );
        self
    }
}

/// An evidence folder that is removed with the test.
pub(crate) struct Evidence {
    _root: TempDir,
    pub(crate) dir: PathBuf,
}

impl Evidence {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().expect("a temporary folder");
        let dir = root.path().join("run");
        Self { _root: root, dir }
    }

    pub(crate) fn arg(&self) -> &str {
        self.dir.to_str().expect("the path is UTF-8")
    }

    /// The lines of results.jsonl.
    pub(crate) fn rows(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.dir.join("results.jsonl")).expect("results.jsonl");
        text.lines()
            .map(|line| serde_json::from_str(line).expect("a row is JSON"))
            .collect()
    }

    pub(crate) fn file(&self, name: &str) -> String {
        let path = self.dir.join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// All logs of all trials.
    pub(crate) fn logs(&self) -> String {
        fn collect(dir: &Path, text: &mut String) {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    collect(&entry.path(), text);
                } else {
                    text.push_str(&String::from_utf8_lossy(
                        &fs::read(entry.path()).unwrap_or_default(),
                    ));
                }
            }
        }
        let mut text = String::new();
        collect(&self.dir.join("logs"), &mut text);
        text
    }
}

/// Asks again until there is an answer; panics, saying what was awaited, when there is none in time.
#[track_caller]
pub(crate) fn until<T>(what: &str, within: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(began.elapsed() < within, "{what}: not within {within:?}");
        // A pause between two questions, not a synchronisation: the answer decides.
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The process ids below a process, itself not included.
pub(crate) fn descendants(root: u32) -> Vec<u32> {
    let mut parents: Vec<(u32, u32)> = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        // `pid (name) state ppid …`; the name may hold anything, so the fields are counted from its end.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        if let Some(parent) = after_name
            .split_whitespace()
            .nth(1)
            .and_then(|field| field.parse().ok())
        {
            parents.push((pid, parent));
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(pid, _)| *pid),
        );
        next += 1;
    }
    found.split_off(1)
}

/// Whether a process is there and not a zombie.
pub(crate) fn alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit_once(')')
            .is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
    })
}

/// Sends a signal to a process of ours.
pub(crate) fn signal(pid: u32, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
    nix::sys::signal::kill(pid, signal).expect("the process is there and ours");
}

/// A command under way, killed when the test ends before it does.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends back what it gets.
pub(crate) fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            std::thread::spawn(move || {
                let mut reader = stream.try_clone().expect("a second handle");
                let _ = std::io::copy(&mut reader, &mut stream);
            });
        }
    });
    addr
}
