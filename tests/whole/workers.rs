//! The proxy with worker processes: connections are spread, changes reach all of them, and a lost process is made good.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::processes::ready;
use crate::support::{Running, alive, descendants, echo, faultlane, signal, until};

const SOON: Duration = Duration::from_secs(10);

/// A proxy with workers, and one named proxy `p` before an echo.
struct Proxy {
    process: Running,
    api: String,
    listen: SocketAddr,
}

impl Proxy {
    fn start() -> Self {
        Self::with_workers("3")
    }

    fn with_workers(workers: &str) -> Self {
        let (process, ready) = ready(faultlane(&["proxy", "--port", "0", "--workers", workers]));
        let api = ready["control"].as_str().expect("its API").to_owned();
        let body = json!({"name": "p", "listen": "127.0.0.1:0", "upstream": echo().to_string()});
        let (status, proxy) = call(&api, "POST", "/proxies", &body.to_string());
        assert_eq!(status, 201, "{proxy}");
        let listen = proxy["listen"]
            .as_str()
            .and_then(|listen| listen.parse().ok());
        Self {
            process,
            api,
            listen: listen.expect("where it listens"),
        }
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        call(&self.api, method, path, &body)
    }

    fn toxic(&self, body: &Value) {
        let (status, answer) = self.call("POST", "/proxies/p/toxics", body);
        assert_eq!(status, 200, "{answer}");
    }

    /// The value of a metric of `p`.
    fn metric(&self, begins: &str) -> u64 {
        let (_, text) = self.call("GET", "/metrics", &Value::Null);
        let text = text.as_str().expect("text").to_owned();
        let line = text.lines().find(|line| line.starts_with(begins));
        let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
        value.unwrap_or_else(|| panic!("no {begins} in {text}"))
    }

    fn workers(&self) -> Vec<u32> {
        descendants(self.process.0.id())
    }

    /// Connections through which a word has gone and come back.
    fn connect(&self, many: usize) -> Vec<TcpStream> {
        (0..many)
            .map(|_| {
                let mut stream = TcpStream::connect(self.listen).expect("the proxy accepts");
                stream.set_read_timeout(Some(SOON)).expect("a limit");
                echoes(&mut stream);
                stream
            })
            .collect()
    }
}

fn echoes(stream: &mut TcpStream) {
    stream.write_all(b"hello").expect("written");
    let mut back = [0; 5];
    stream.read_exact(&mut back).expect("it comes back");
}

/// How a connection ends; `None` when it has not after a moment.
fn ending(stream: &mut TcpStream) -> Option<ErrorKind> {
    match stream.read(&mut [0; 9]) {
        Ok(count) => {
            assert_eq!(count, 0, "nothing was sent");
            Some(ErrorKind::UnexpectedEof)
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => Some(error.kind()),
    }
}

/// One request: the status, and the body as JSON, or as text where it is none.
fn call(api: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(api).expect("the API accepts");
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("written");
    stream.write_all(body.as_bytes()).expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let body = serde_json::from_str(body).unwrap_or_else(|_| Value::from(body));
    (status.expect("a status"), body)
}

/// Connected sockets of a process.
fn sockets(pid: u32) -> usize {
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten();
    let targets = fds.filter_map(|fd| std::fs::read_link(fd.path()).ok());
    targets
        .filter(|target| target.to_string_lossy().starts_with("socket:"))
        .count()
}

#[test]
fn connections_are_spread_and_every_change_reaches_all_of_them() {
    let proxy = Proxy::start();
    let workers = proxy.workers();
    assert_eq!(workers.len(), 3);
    let before: Vec<usize> = workers.iter().map(|pid| sockets(*pid)).collect();
    let parent = sockets(proxy.process.0.id());
    let mut clients = proxy.connect(30);
    for (pid, before) in workers.iter().zip(before) {
        assert_eq!(sockets(*pid) - before, 2 * 10, "each has a third");
    }
    let now = sockets(proxy.process.0.id());
    assert!(now <= parent, "the parent keeps none");
    assert_eq!(proxy.metric("faultlane_proxy_connections"), 30);
    let sent = "toxiproxy_proxy_sent_bytes_total{direction=\"upstream\"";
    assert_eq!(proxy.metric(sent), 30 * 5);

    proxy.toxic(&json!({"type": "down"}));
    for client in &mut clients {
        client
            .set_read_timeout(Some(Duration::from_millis(20)))
            .expect("a limit");
        client.write_all(b"x").expect("written");
        assert_eq!(ending(client), None, "it is held");
    }
    let (status, _) = proxy.call("DELETE", "/proxies/p/toxics/down_downstream", &Value::Null);
    assert_eq!(status, 204);
    for client in &mut clients {
        client.set_read_timeout(Some(SOON)).expect("a limit");
        client.read_exact(&mut [0]).expect("what was held comes");
    }
    proxy.toxic(&json!({"type": "reset_peer", "stream": "upstream"}));
    for client in &mut clients {
        client.write_all(b"x").expect("written");
        assert_eq!(ending(client), Some(ErrorKind::ConnectionReset));
    }
    let gone = || (proxy.metric("faultlane_proxy_connections") == 0).then_some(());
    until("no connection is left", SOON, gone);
}

/// Which of these connections one after the other are closed by the toxics.
fn refused(workers: &str, toxic: &Value, connections: usize) -> Vec<bool> {
    let (_process, ready) = ready(faultlane(&["proxy", "--port", "0", "--workers", workers]));
    let api = ready["control"].as_str().expect("its API");
    let body = json!({"name": "p", "upstream": echo().to_string()}).to_string();
    let (_, proxy) = call(api, "POST", "/proxies", &body);
    let listen = proxy["listen"].as_str().expect("where it listens");
    let (status, _) = call(api, "POST", "/proxies/p/toxics", &toxic.to_string());
    assert_eq!(status, 200);
    let closed = |_| {
        let mut stream = TcpStream::connect(listen).expect("the proxy accepts");
        stream.set_read_timeout(Some(SOON)).expect("a limit");
        let _ = stream.write_all(b"hello");
        let read = stream.read_exact(&mut [0; 5]);
        let error = read.err().map(|error| error.kind());
        assert_ne!(error, Some(ErrorKind::WouldBlock), "it hangs");
        error.is_some()
    };
    (0..connections).map(closed).collect()
}

#[test]
fn decisions_are_those_of_one_process() {
    let toxic = json!({"type": "refuse", "toxicity": 0.5});
    let alone = refused("1", &toxic, 24);
    assert!(alone.contains(&true) && alone.contains(&false), "{alone:?}");
    assert_eq!(refused("3", &toxic, 24), alone);
}

#[test]
fn a_limit_on_connecting_is_one_for_all_workers() {
    let begun = Instant::now();
    let toxic = json!({"type": "accept_limit", "attributes": {"rate": 1}});
    let refused = refused("3", &toxic, 9);
    let through = refused.iter().filter(|refused| !**refused).count() as u64;
    let seconds = begun.elapsed().as_secs();
    assert!(
        (1..=1 + seconds).contains(&through),
        "{refused:?} in {seconds} s"
    );
}

#[test]
fn a_killed_worker_is_replaced_by_one_that_knows_the_toxics() {
    let proxy = Proxy::start();
    proxy.toxic(&json!({"type": "latency", "attributes": {"latency": 80}}));
    let mut clients = proxy.connect(6);
    let before = proxy.workers();
    let victim = before[0];
    signal(victim, Signal::SIGKILL);
    until("another worker takes its place", SOON, || {
        let workers = proxy.workers();
        let all = workers.len() == 3 && workers.iter().all(|pid| alive(*pid));
        (all && !workers.contains(&victim)).then_some(())
    });
    let mut lost = 0;
    for client in &mut clients {
        let moment = Some(Duration::from_millis(50));
        client.set_read_timeout(moment).expect("a limit");
        lost += usize::from(ending(client).is_some());
    }
    assert_eq!(lost, 2, "its own, and no other");
    assert_eq!(proxy.metric("faultlane_proxy_connections"), 4);
    let successor = proxy
        .workers()
        .into_iter()
        .find(|pid| !before.contains(pid));
    let successor = successor.expect("a new one");
    // It is ready a moment after it is there.
    until("the new one has connections", SOON, || {
        clients.extend(proxy.connect(1));
        // Its link, and two connections.
        (sockets(successor) > 2 * 2).then_some(())
    });
    for mut client in proxy.connect(3) {
        let begun = Instant::now();
        echoes(&mut client);
        assert!(begun.elapsed() >= Duration::from_millis(80));
    }
}

#[test]
fn nothing_outlives_the_parent() {
    for end in [Signal::SIGKILL, Signal::SIGTERM] {
        let mut proxy = Proxy::start();
        let _clients = proxy.connect(3);
        let workers = proxy.workers();
        assert_eq!(workers.len(), 3);
        signal(proxy.process.0.id(), end);
        until("the workers are gone", SOON, || {
            workers.iter().all(|pid| !alive(*pid)).then_some(())
        });
        until("the parent is gone", SOON, || {
            proxy.process.0.try_wait().expect("it is ours")
        });
        assert!(TcpStream::connect(proxy.listen).is_err(), "nobody listens");
    }
}

#[test]
fn a_stopped_worker_does_not_stop_the_api_for_long() {
    let proxy = Proxy::start();
    let victim = proxy.workers()[0];
    signal(victim, Signal::SIGSTOP);
    proxy.toxic(&json!({"type": "latency"}));
    until("it is replaced", SOON, || (!alive(victim)).then_some(()));
    proxy.toxic(&json!({"type": "slicer", "attributes": {"average_size": 9}}));
    drop(proxy.connect(6));
}

#[test]
fn a_storm_of_resets_leaves_no_connection_no_descriptor_and_no_task() {
    const MANY: usize = 500;
    for workers in ["1", "3"] {
        let proxy = Proxy::with_workers(workers);
        drop(proxy.connect(1));
        let processes = [vec![proxy.process.0.id()], proxy.workers()].concat();
        let descriptors = || processes.iter().map(|pid| sockets(*pid)).sum::<usize>();
        let left = || {
            let open = proxy.metric("faultlane_proxy_connections");
            (open == 0).then(|| (descriptors(), proxy.metric("faultlane_tasks")))
        };
        until("the first one is gone", SOON, left);
        // The API's own connection may still be closing when it is looked.
        let looks: Vec<_> = (0..20).filter_map(|_| left()).collect();
        let descriptors_before = looks.iter().map(|(descriptors, _)| *descriptors).min();
        let tasks_before = looks.iter().map(|(_, tasks)| *tasks).min();
        let before = descriptors_before.zip(tasks_before).expect("looked");
        let mut clients = proxy.connect(MANY);
        assert!(descriptors() >= before.0 + 2 * MANY);
        proxy.toxic(&json!({"type": "down"}));
        proxy.toxic(&json!({"type": "reset_peer", "stream": "upstream"}));
        for client in &mut clients {
            client.write_all(b"x").expect("written");
        }
        let (status, _) = proxy.call("DELETE", "/proxies/p/toxics/down_downstream", &Value::Null);
        assert_eq!(status, 204);
        for client in &mut clients {
            assert_eq!(ending(client), Some(ErrorKind::ConnectionReset));
        }
        let as_before = |left: (usize, u64)| left.0 <= before.0 && left.1 <= before.1;
        until("nothing is left", SOON, || {
            left().filter(|left| as_before(*left))
        });
    }
}

#[test]
fn a_process_without_seats_says_so_and_lets_the_rest_wait() {
    // 228 descriptors: 50 connections.
    let script = format!(
        "ulimit -n 228; exec {} proxy --port 0 2>\"$LOG\"",
        env!("CARGO_BIN_EXE_faultlane")
    );
    let folder = tempfile::tempdir().expect("a temporary folder");
    let log = folder.path().join("log");
    let mut command = std::process::Command::new("sh");
    command.arg("-c").arg(script).env("LOG", &log);
    let (_process, ready) = ready(command);
    let api = ready["control"].as_str().expect("its API");
    let body = json!({"name": "p", "upstream": echo().to_string()}).to_string();
    let (_, proxy) = call(api, "POST", "/proxies", &body);
    let listen = proxy["listen"].as_str().expect("where it listens");
    let mut clients: Vec<TcpStream> = (0..60)
        .map(|_| TcpStream::connect(listen).expect("queued"))
        .collect();
    for client in &mut clients[..50] {
        echoes(client);
    }
    let waiting = &mut clients[55];
    waiting
        .set_read_timeout(Some(Duration::from_millis(100)))
        .expect("a limit");
    waiting.write_all(b"hello").expect("written");
    assert_eq!(ending(waiting), None, "it waits to be accepted");
    assert_eq!(
        call(api, "GET", "/proxies", "").0,
        200,
        "the API has descriptors of its own"
    );
    let text = std::fs::read_to_string(&log).expect("a log");
    for word in [
        "connections near the limit",
        "connections wait to be accepted",
    ] {
        assert_eq!(text.matches(word).count(), 1, "{text}");
    }
    assert!(text.contains("--workers N"), "{text}");
    clients.drain(..20);
    let waiting = &mut clients[35];
    waiting.set_read_timeout(Some(SOON)).expect("a limit");
    waiting.read_exact(&mut [0; 5]).expect("it has a seat now");
}
