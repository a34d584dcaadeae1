use std::process::{ExitStatus, Stdio};

use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::support::{program, send, until_gone};

/// A guarded shell script.
struct Guarded {
    guard: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Guarded {
    fn start(script: &str) -> Self {
        let mut guard = Command::new(program())
            .args(["guard", "/bin/sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stdin = guard.stdin.take();
        let lines = BufReader::new(guard.stdout.take().unwrap()).lines();
        Self {
            guard,
            stdin,
            lines,
        }
    }

    /// The ids that the script prints, one a line.
    async fn pids<const N: usize>(&mut self) -> [u32; N] {
        let mut pids = [0; N];
        for pid in &mut pids {
            *pid = self
                .lines
                .next_line()
                .await
                .unwrap()
                .unwrap()
                .parse()
                .unwrap();
        }
        pids
    }

    fn pid(&self) -> u32 {
        self.guard.id().unwrap()
    }

    async fn ended(&mut self) -> ExitStatus {
        self.guard.wait().await.unwrap()
    }
}

/// A program with a child of its own, both printed.
const FAMILY: &str = "sleep 100 & echo $!; echo $$; wait";

#[tokio::test]
async fn the_programs_exit_is_passed_on() {
    assert_eq!(Guarded::start("exit 5").ended().await.code(), Some(5));
    assert_eq!(Guarded::start("kill -9 $$").ended().await.code(), Some(137));
}

#[tokio::test]
async fn the_whole_group_ends_with_guards_stdin() {
    let mut guarded = Guarded::start(FAMILY);
    let pids: [u32; 2] = guarded.pids().await;
    drop(guarded.stdin.take());
    assert_eq!(guarded.ended().await.code(), Some(143));
    for pid in pids {
        until_gone(pid).await;
    }
}

#[tokio::test]
async fn a_signal_to_guard_ends_the_group_and_who_ignores_it_is_killed() {
    let mut guarded = Guarded::start("trap '' TERM; sleep 100 & echo $!; echo $$; wait; sleep 100");
    let pids: [u32; 2] = guarded.pids().await;
    send(guarded.pid(), Signal::INT);
    assert_eq!(guarded.ended().await.code(), Some(137));
    for pid in pids {
        until_gone(pid).await;
    }
}

#[tokio::test]
async fn what_a_program_leaves_in_its_group_ends_with_it() {
    let mut guarded = Guarded::start("sleep 100 & echo $!; exit 0");
    let [left]: [u32; 1] = guarded.pids().await;
    assert_eq!(guarded.ended().await.code(), Some(0));
    until_gone(left).await;
}

#[tokio::test]
async fn the_group_does_not_outlive_a_guard_that_is_killed() {
    let mut guarded = Guarded::start(FAMILY);
    let pids: [u32; 2] = guarded.pids().await;
    send(guarded.pid(), Signal::KILL);
    for pid in pids {
        until_gone(pid).await;
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_is_an_error_and_leaves_nothing() {
    let output = Command::new(program())
        .args(["guard", "/nonexistent/program"])
        .stdin(Stdio::piped())
        .output()
        .await
        .unwrap();
    assert!(!output.status.success());
}
