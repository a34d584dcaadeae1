//! How long the API takes while peers do not read.

use std::time::{Duration, Instant};

use host::http::Method;
use serde_json::{Value, json};

use crate::peers::Peers;
use crate::proxy::Proxy;
use crate::{Outcome, ProxyArgs};

/// 99 of 100 calls take no longer.
const P99: Duration = Duration::from_millis(20);

pub(crate) async fn run(args: &ProxyArgs, connections: usize, rounds: usize) -> Outcome {
    let (mut upstream, addr) = Peers::upstream("ignore").await?;
    let proxy = Proxy::standalone(args).await?;
    let listen = proxy.api.create(addr).await?;
    let clients = Peers::clients("flood", listen, connections).await?;
    let seen = upstream.seen().await?;
    let waiting = proxy
        .api
        .metric("toxiproxy_proxy_received_bytes_total{direction=\"upstream\"")
        .await?
        - proxy
            .api
            .metric("toxiproxy_proxy_sent_bytes_total{direction=\"upstream\"")
            .await?;
    println!(
        "{} connections are stalled, with {waiting} bytes in the proxy",
        seen.begun
    );
    let toxic =
        json!({"type": "latency", "stream": "both", "attributes": {"latency": 100, "jitter": 10}});
    let calls = [
        (Method::GET, "/proxies", Value::Null),
        (Method::POST, "/proxies/p/toxics", toxic),
        (
            Method::POST,
            "/proxies/p/toxics/latency_both",
            json!({"toxicity": 0.5}),
        ),
        (
            Method::DELETE,
            "/proxies/p/toxics/latency_both",
            Value::Null,
        ),
        (Method::GET, "/metrics", Value::Null),
    ];
    let mut times = vec![Vec::new(); calls.len()];
    for _ in 0..rounds {
        for ((method, path, body), times) in calls.iter().zip(&mut times) {
            let begun = Instant::now();
            proxy.api.call(method.clone(), path, body).await?;
            times.push(begun.elapsed());
        }
    }
    let mut holds = seen.begun == connections as u64;
    for ((method, path, _), times) in calls.iter().zip(&mut times) {
        times.sort_unstable();
        let at = |share: usize| times[(times.len() - 1) * share / 100];
        println!(
            "{method} {path}: p50 {:?}, p99 {:?}, max {:?} of {rounds}",
            at(50),
            at(99),
            at(100)
        );
        holds &= at(99) <= P99;
    }
    clients.end().await?;
    upstream.end().await?;
    Ok(holds)
}
