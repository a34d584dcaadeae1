//! A peer that does not read delays nobody but itself.

use std::time::{Duration, Instant};

use host::http::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::{Api, connect};
use crate::harness::{upstream, within};

/// What the proxy has read of `p` upstream and not passed on.
async fn waiting(api: &Api) -> u64 {
    let metrics = api.raw(Method::GET, "/metrics", "").await;
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    let count = |what: &str| -> u64 {
        let name = format!("toxiproxy_proxy_{what}_bytes_total{{direction=\"upstream\"");
        let line = text.lines().find(|line| line.starts_with(&name)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    count("received") - count("sent")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_in_the_proxy_is_bounded_in_bytes() {
    const READ: u64 = 64 << 10;
    for (kind, attributes, bound) in [
        ("latency", json!({"latency": 600_000}), 1 << 20),
        (
            "loss_stall",
            json!({"percent": 90, "rto": 600_000}),
            1 << 20,
        ),
        ("bandwidth", json!({"rate": 1}), READ),
        ("bandwidth", json!({"rate": 0}), READ),
        (
            "slicer",
            json!({"average_size": 1, "delay": 1_000_000}),
            READ,
        ),
        ("reset_peer", json!({"timeout": 600_000}), READ),
        ("down", json!({}), READ),
        ("one_way", json!({}), READ),
        ("connect_latency", json!({"latency": 600_000}), READ),
    ] {
        let api = Api::start();
        let addr = api.proxy(crate::harness::echo()).await;
        api.toxic(kind, "upstream", attributes).await;
        let mut client = connect(addr).await;
        let chunk = vec![7; 256 << 10];
        let sender = tokio::spawn(async move { while client.write_all(&chunk).await.is_ok() {} });
        let fills = async {
            while bound > READ && waiting(&api).await < bound {
                tokio::task::yield_now().await;
            }
        };
        within(fills).await;
        let begun = Instant::now();
        while begun.elapsed() < STALLED {
            let waiting = waiting(&api).await;
            assert!(waiting < bound + READ, "{kind}: {waiting}");
        }
        sender.abort();
    }
}

/// A connection that takes nothing for so long takes nothing more.
const STALLED: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_answers_while_200_connections_are_stalled() {
    let api = Api::start();
    // It reads nothing, and keeps the connection for as long as the proxy does.
    let addr = api
        .proxy(upstream(|stream| async move {
            let _ = stream.ready(tokio::io::Interest::ERROR).await;
            std::future::pending::<()>().await;
        }))
        .await;
    let mut stalling = tokio::task::JoinSet::new();
    for _ in 0..200 {
        stalling.spawn(async move {
            let mut client = connect(addr).await;
            // Until neither the proxy nor the kernel takes any more.
            let chunk = vec![7; 256 << 10];
            while let Ok(written) = tokio::time::timeout(STALLED, client.write(&chunk)).await {
                written.unwrap();
            }
            client
        });
    }
    let clients = stalling.join_all().await;
    assert_eq!(clients.len(), 200);
    let toxic = |kind: &str| json!({"type": kind, "stream": "both", "attributes": {"rate": 5, "average_size": 9}});
    let mut calls: Vec<(Method, String, Value)> = Vec::new();
    for kind in [
        "latency",
        "bandwidth",
        "slicer",
        "limit_data",
        "slow_close",
        "reset_peer",
        "down",
        "one_way",
    ] {
        calls.push((Method::POST, "/proxies/p/toxics".to_owned(), toxic(kind)));
        let path = format!("/proxies/p/toxics/{kind}_both");
        calls.push((Method::PATCH, path.clone(), json!({"toxicity": 0.5})));
        calls.push((Method::GET, "/proxies".to_owned(), Value::Null));
        calls.push((Method::DELETE, path, Value::Null));
    }
    calls.push((Method::GET, "/metrics".to_owned(), Value::Null));
    calls.push((
        Method::POST,
        "/proxies/p".to_owned(),
        json!({"enabled": false}),
    ));
    calls.push((Method::POST, "/reset".to_owned(), Value::Null));
    calls.push((Method::DELETE, "/proxies/p".to_owned(), Value::Null));
    for (method, path, body) in calls {
        let (status, answer) = within(api.call(method.clone(), &path, body)).await;
        assert!((200..300).contains(&status), "{method} {path}: {answer}");
    }
}
