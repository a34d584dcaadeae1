//! The processes by themselves, and the guard.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{Running, alive, faultlane, output, signal, until};

/// Starts a process and reads its ready line.
pub(crate) fn ready(mut command: Command) -> (Running, Value) {
    let child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut running = Running(child.expect("it starts"));
    let mut line = String::new();
    let stdout = running.0.stdout.take().expect("stdout is piped");
    BufReader::new(stdout)
        .read_line(&mut line)
        .expect("a ready line");
    let ready = serde_json::from_str(&line).expect("the ready line is JSON");
    (running, ready)
}

#[test]
fn a_proxy_by_hand_passes_bytes_both_ways() {
    let upstream = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = upstream.local_addr().expect("its address").to_string();
    let (_proxy, ready) = ready(faultlane(&["proxy", "--upstream", &addr]));
    let listen = ready["listen"]["data"].as_str().expect("where it listens");
    let mut client = TcpStream::connect(listen).expect("the proxy accepts");
    let (mut server, _) = upstream.accept().expect("the proxy dials");
    for (from, to) in [(&client, &server), (&server, &client)] {
        let (mut from, to) = (from, to);
        from.write_all(b"hello\n").expect("written");
        let mut line = String::new();
        BufReader::new(to).read_line(&mut line).expect("passed on");
        assert_eq!(line, "hello\n");
    }
    let _ = (client.flush(), server.flush());
}

#[test]
fn a_lane_by_hand_answers_pings() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let dir = data.path().to_str().expect("UTF-8");
    let (_lane, ready) = ready(faultlane(&[
        "lane",
        "spacetime",
        "--profile",
        "real",
        "--data-dir",
        dir,
    ]));
    let listen = ready["listen"]["data"].as_str().expect("where it listens");
    let mut client = TcpStream::connect(listen).expect("it accepts");
    client
        .write_all(b"GET /v1/ping HTTP/1.1\r\nHost: lane\r\nConnection: close\r\n\r\n")
        .expect("written");
    let mut line = String::new();
    BufReader::new(client)
        .read_line(&mut line)
        .expect("an answer");
    assert!(line.starts_with("HTTP/1.1 200"), "{line}");
}

#[test]
fn a_guarded_program_ends_with_the_guards_stdin_and_its_children_too() {
    let script = "sleep 300 & echo $!; wait";
    let mut command = faultlane(&["guard", "sh", "-c", script]);
    let child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut guard = Running(child);
    let mut line = String::new();
    let stdout = guard.0.stdout.take().expect("stdout is piped");
    BufReader::new(stdout)
        .read_line(&mut line)
        .expect("the child's pid");
    let sleeper: u32 = line.trim().parse().expect("a pid");
    assert!(alive(sleeper));
    drop(guard.0.stdin.take());
    until(
        "the guarded program is gone",
        Duration::from_secs(5),
        || (!alive(sleeper)).then_some(()),
    );
    until("the guard is gone", Duration::from_secs(5), || {
        guard.0.try_wait().expect("it is ours")
    });
}

#[test]
fn a_guard_passes_the_exit_code_on_and_names_what_it_cannot_start() {
    let ended = |args: &[&str]| {
        let child = faultlane(args)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut guard = Running(child.expect("it starts"));
        // Held open: the end of stdin would be an order to end.
        let _stdin = guard.0.stdin.take();
        let mut stderr = String::new();
        let pipe = guard.0.stderr.take().expect("stderr is piped");
        BufReader::new(pipe)
            .read_to_string(&mut stderr)
            .expect("UTF-8");
        (guard.0.wait().expect("it is ours").code(), stderr)
    };
    assert_eq!(ended(&["guard", "sh", "-c", "exit 7"]).0, Some(7));
    let (code, stderr) = ended(&["guard", "/no/such/program"]);
    assert_eq!(code, Some(4));
    assert!(stderr.contains("/no/such/program"), "{stderr}");
}

#[test]
fn a_launched_program_leaves_what_it_has_started_unless_its_time_is_over() {
    let launched = |within: &str, script: &str| {
        output(&["launch", "--within", within, "--", "sh", "-c", script])
    };
    let started = |said: &str| said.trim().parse::<u32>().expect("a process id");
    let done = launched("5s", "sleep 60 > /dev/null 2>&1 & echo $!; exit 7").expect_code(7);
    let pid = started(&done.stdout);
    assert!(alive(pid), "it is to stay");
    signal(pid, Signal::SIGKILL);

    let late = launched("200ms", "sleep 60 > /dev/null 2>&1 & echo $!; wait").expect_code(124);
    let pid = started(&late.stdout);
    until("all of it is gone", Duration::from_secs(5), || {
        (!alive(pid)).then_some(())
    });
    output(&["launch", "--within", "1s", "--", "/no/such/program"])
        .expect_code(4)
        .says("/no/such/program");
}

#[test]
fn a_secret_that_everybody_knows_is_refused_off_loopback() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let dir = data.path().to_str().expect("UTF-8");
    output(&["lane", "khala", "--listen", "0.0.0.0:0", "--data-dir", dir])
        .expect_code(2)
        .says("--publish-secret");
    output(&["tokens", "--listen", "0.0.0.0:0"])
        .expect_code(2)
        .says("--session-secret");
}

#[test]
fn an_empty_secret_is_refused_everywhere() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let dir = data.path().to_str().expect("UTF-8");
    for listen in ["127.0.0.1:0", "0.0.0.0:0"] {
        output(&["tokens", "--listen", listen, "--session-secret", ""])
            .expect_code(2)
            .says("--session-secret is empty");
        let lane = ["lane", "khala", "--listen", listen, "--data-dir", dir];
        output(&[lane.as_slice(), &["--publish-secret", ""]].concat())
            .expect_code(2)
            .says("--publish-secret is empty");
    }
}

#[test]
fn what_lets_anybody_in_is_refused_off_loopback_with_the_remedy() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let dir = data.path().to_str().expect("UTF-8");
    let off = ["--listen", "0.0.0.0:0"];
    let real = [
        "lane",
        "spacetime",
        "--profile",
        "real",
        "--publish-secret",
        "s",
        "--data-dir",
        dir,
    ];
    output(&[real.as_slice(), &off].concat())
        .expect_code(2)
        .says("--profile real")
        .says("--profile embedded");
    let proxy = ["proxy", "--upstream", "127.0.0.1:9"];
    output(&[proxy.as_slice(), &off].concat())
        .expect_code(2)
        .says("--upstream-authenticates");
    let meant = [proxy.as_slice(), &off, &["--upstream-authenticates"]].concat();
    let (_proxy, ready) = ready(faultlane(&meant));
    assert_eq!(ready["ready"], "proxy");
}
