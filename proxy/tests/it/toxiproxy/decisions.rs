//! Who a connection is, and the log of what was decided about it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use futures_util::future::join_all;
use host::http::Client;
use proxy::toxiproxy::{Server, Settings};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Api, connect, refused};
use crate::harness::{echo, ending, loopback, pattern, round_trip, within};

/// A server that logs its decisions, with a proxy `p`.
struct Logged {
    api: Api,
    addr: SocketAddr,
    served: JoinHandle<()>,
    path: PathBuf,
    _folder: TempDir,
}

impl Logged {
    async fn start(identify_by: Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("decisions.jsonl");
        let server = Server::new(Settings {
            seed: 1,
            decision_log: Some(path.clone()),
            ..Settings::default()
        })
        .unwrap();
        let listener = loopback();
        let client = Client::new(listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(server.serve(listener, shutdown.clone()));
        let api = Api { client, shutdown };
        let body = json!({
            "name": "p", "listen": "127.0.0.1:0", "upstream": echo().to_string(), "identify_by": identify_by,
        });
        let (status, proxy) = api.post("/proxies", body).await;
        assert_eq!(status, 201, "{proxy}");
        Self {
            addr: proxy["listen"].as_str().unwrap().parse().unwrap(),
            api,
            served: serving,
            path,
            _folder: folder,
        }
    }

    async fn toxic(&self, name: &str, kind: &str, toxicity: f64, attributes: Value) {
        let body = json!({
            "name": name, "type": kind, "stream": "both", "toxicity": toxicity, "attributes": attributes,
        });
        let (status, toxic) = self.api.post("/proxies/p/toxics", body).await;
        assert_eq!(status, 200, "{toxic}");
    }

    /// Ends the server: the lines of its log.
    async fn end(self) -> Vec<Value> {
        self.api.shutdown.cancel();
        within(self.served).await.unwrap();
        let lines = host::jsonl::read::<Value>(&self.path).unwrap();
        assert!(!lines.torn);
        lines.values
    }
}

fn request(client: &str) -> String {
    format!("GET /?client={client} HTTP/1.1\r\nX-Client: {client}\r\n\r\n")
}

/// A connection of a client that says a few things and hears them again.
async fn talk(addr: SocketAddr, client: &str) {
    let mut stream = connect(addr).await;
    round_trip(&mut stream, request(client).as_bytes()).await;
    for message in 0..4_u32 {
        round_trip(&mut stream, format!("message {message}").as_bytes()).await;
    }
    // The ends are delayed like chunks.
    stream.shutdown().await.unwrap();
    assert_eq!(ending(&mut stream).await.unwrap(), b"");
}

/// What was decided with that order of arrival, at once or one after the other.
async fn decided(identify_by: Value, clients: &[String], at_once: bool) -> Vec<Value> {
    let run = Logged::start(identify_by).await;
    run.toxic("slow", "latency", 0.5, json!({"latency": 2, "jitter": 2}))
        .await;
    let losses = json!({"percent": 30, "rto": 1, "jitter": 3});
    run.toxic("loss", "loss_stall", 0.7, losses).await;
    // Not on the way to the echo, whose answers would come in pieces that depend on when it reads.
    let sizes = json!({"average_size": 9, "size_variation": 6});
    run.api.toxic("slicer", "downstream", sizes).await;
    if at_once {
        join_all(clients.iter().map(|client| talk(run.addr, client))).await;
    } else {
        for client in clients {
            talk(run.addr, client).await;
        }
    }
    run.end().await
}

fn set(lines: &[Value]) -> BTreeSet<String> {
    let set: BTreeSet<_> = lines.iter().map(Value::to_string).collect();
    assert_eq!(set.len(), lines.len(), "each decision is logged once");
    set
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_clients_meet_the_same_decisions_in_whatever_order_they_come() {
    let clients: Vec<_> = (0..12).map(|n| format!("device-{n}")).collect();
    let backwards: Vec<_> = clients.iter().rev().cloned().collect();
    let by = json!({"header": "x-client"});
    let first = decided(by.clone(), &clients, false).await;
    for toxic in ["slow", "loss", "slicer_downstream"] {
        assert!(first.iter().any(|line| line["toxic"] == toxic), "{toxic}");
    }
    for line in &first {
        assert_eq!(line.get("nondeterministic"), None, "{line}");
    }
    let first = set(&first);
    let query = json!({"query": "client"});
    for (by, clients, at_once) in [
        (&by, &backwards, false),
        (&by, &backwards, true),
        (&query, &clients, true),
    ] {
        let other = set(&decided(by.clone(), clients, at_once).await);
        let differ: Vec<_> = first.symmetric_difference(&other).collect();
        assert!(differ.is_empty(), "{differ:#?}");
    }
}

#[tokio::test]
async fn without_ids_the_log_says_that_it_depends_on_who_came_first() {
    let clients: Vec<_> = (0..6).map(|n| format!("device-{n}")).collect();
    for by in [Value::Null, json!({"header": "x-other"})] {
        let lines = decided(by, &clients, false).await;
        assert!(lines.len() > 12);
        for line in &lines {
            assert_eq!(line["nondeterministic"], true, "{line}");
            let connection = line["connection"].as_str().unwrap();
            assert!(connection.starts_with("connection-"), "{line}");
        }
    }
}

#[tokio::test]
async fn a_client_that_comes_again_is_decided_on_anew() {
    let run = Logged::start(json!({"header": "X-Client"})).await;
    run.toxic("half", "latency", 0.5, json!({"latency": 1}))
        .await;
    for _ in 0..20 {
        talk(run.addr, "device-1").await;
    }
    talk(run.addr, "device-2").await;
    let lines = run.end().await;
    let of = |client: &str| -> Vec<_> {
        let lines = lines.iter().filter(|line| line["connection"] == client);
        lines
            .map(|line| (line["attempt"].clone(), line["decided"].clone()))
            .collect()
    };
    let attempts = of("device-1");
    let numbers: Vec<_> = attempts
        .iter()
        .map(|(attempt, _)| attempt.clone())
        .collect();
    assert_eq!(Value::from(numbers), json!((0..20).collect::<Vec<_>>()));
    for decided in ["taken", "spared"] {
        assert!(
            attempts.iter().any(|(_, what)| what == decided),
            "{decided}"
        );
    }
    assert_eq!(of("device-2").len(), 1);
    assert_eq!(of("device-2")[0].0, 0);
}

#[tokio::test]
async fn what_waits_for_an_id_takes_the_request_too() {
    let run = Logged::start(json!({"header": "X-Client"})).await;
    run.toxic("noise", "corrupt", 1.0, json!({"rate": 1_000_000}))
        .await;
    let mut stream = connect(run.addr).await;
    let sent = request("device-1") + "and more";
    for byte in sent.as_bytes() {
        stream.write_all(&[*byte]).await.unwrap();
    }
    let mut back = vec![0; sent.len()];
    within(stream.read_exact(&mut back)).await.unwrap();
    let lines = run.end().await;
    // Each byte has lost a bit on its way there, and another one, or the same, on its way back.
    let bit = |line: &Value| -> u32 {
        let decided = line["decided"].as_str().unwrap();
        decided.split(' ').nth(1).unwrap().parse().unwrap()
    };
    let mut expected = sent.clone().into_bytes();
    assert_eq!(lines.len(), 2 * sent.len());
    for line in &lines {
        let index = usize::try_from(line["index"].as_u64().unwrap()).unwrap();
        expected[index] ^= 1 << bit(line);
    }
    assert_eq!(back, expected);
    assert_ne!(back, sent.as_bytes());
}

#[tokio::test]
async fn the_log_tells_the_place_of_each_change() {
    let run = Logged::start(Value::Null).await;
    let body = json!({"type": "corrupt", "name": "noise", "stream": "upstream", "attributes": {"rate": 5_000}});
    assert_eq!(run.api.post("/proxies/p/toxics", body).await.0, 200);
    let sent = pattern(20_000);
    let mut stream = connect(run.addr).await;
    let mut back = Vec::new();
    for piece in sent.chunks(77) {
        stream.write_all(piece).await.unwrap();
        let mut piece = vec![0; piece.len()];
        within(stream.read_exact(&mut piece)).await.unwrap();
        back.extend(piece);
    }
    let lines = run.end().await;
    assert!(lines.len() > 50, "{}", lines.len());
    for line in &lines {
        let decided: Vec<_> = line["decided"].as_str().unwrap().split(' ').collect();
        let ["bit", bit, "at", "byte", at] = decided[..] else {
            panic!("{line}");
        };
        back[at.parse::<usize>().unwrap()] ^= 1 << bit.parse::<u32>().unwrap();
    }
    assert!(back == sent);
}

#[tokio::test]
async fn a_client_that_says_nothing_is_not_waited_for_for_ever() {
    let run = Logged::start(json!({"header": "X-Client"})).await;
    run.toxic("slow", "latency", 1.0, json!({"latency": 1, "jitter": 1}))
        .await;
    let mut stream = connect(run.addr).await;
    round_trip(&mut stream, b"GET / HTT").await;
    round_trip(&mut stream, b"more").await;
    drop(stream);
    let lines = run.end().await;
    // The ends of both directions are late too, if they come before the log is closed.
    assert!((4..=6).contains(&lines.len()), "{lines:?}");
    for line in &lines {
        assert_eq!(line["connection"], "connection-0");
        assert_eq!(line["nondeterministic"], true);
    }
}

#[tokio::test]
async fn a_decision_that_was_made_is_not_made_again_by_another_change() {
    let run = Logged::start(json!({"header": "X-Client"})).await;
    run.toxic("half", "latency", 0.5, json!({})).await;
    let mut stream = connect(run.addr).await;
    round_trip(&mut stream, request("device-1").as_bytes()).await;
    for other in ["a", "b"] {
        run.toxic(other, "bandwidth", 1.0, json!({"rate": 10_000}))
            .await;
        round_trip(&mut stream, b"more").await;
    }
    let lines = run.end().await;
    assert_eq!(lines.len(), 1, "{lines:?}");
}

#[tokio::test]
async fn the_place_of_the_id_is_shown_where_it_was_set_and_may_be_changed() {
    let api = Api::start();
    let body = |more: Value| {
        let mut body = json!({"name": "p", "listen": "127.0.0.1:0", "upstream": "127.0.0.1:1"});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        body
    };
    let (_, plain) = api.post("/proxies", body(json!({}))).await;
    assert_eq!(plain.get("identify_by"), None);
    let header = json!({"header": "X-Client"});
    let (status, set) = api
        .patch("/proxies/p", json!({"identify_by": header}))
        .await;
    assert_eq!((status, &set["identify_by"]), (200, &header));
    assert_eq!(set["listen"], plain["listen"]);
    let query = json!({"query": "client"});
    let input = body(json!({"name": "q", "Identify_By": query}));
    for _ in 0..2 {
        let (_, populated) = api.post("/populate", json!([input])).await;
        assert_eq!(populated["proxies"][0]["identify_by"], query);
    }
    assert_eq!(api.get("/proxies/p").await.1["identify_by"], header);
    for (wrong, reason) in [
        (
            json!({"header": ""}),
            "header \"\" is not the name of a header; use one like X-Client",
        ),
        (
            json!({"query": ""}),
            "query \"\" is not the name of a parameter; use one like client",
        ),
    ] {
        let answer = api
            .post("/proxies", body(json!({"identify_by": wrong})))
            .await;
        let expected = format!("bad request body: identify_by: {reason}");
        assert_eq!(answer, refused(400, &expected));
    }
    let answer = api
        .post("/proxies", body(json!({"identify_by": "x"})))
        .await;
    assert_eq!(answer.0, 400);
}
