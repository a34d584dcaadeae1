//! Memory and throughput under a delay.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::proxy::Proxy;
use crate::{Outcome, ProxyArgs};

/// What may wait in one direction.
const WINDOW: u64 = 1 << 20;
const DELAY_MS: u64 = 100;
const MEASURED: Duration = Duration::from_secs(4);

pub(crate) async fn run(args: &ProxyArgs) -> Outcome {
    let mut holds = true;
    for connections in [1, 10, 100] {
        let proxy = Proxy::standalone(args).await?;
        let sink = host::net::listen(([127, 0, 0, 1], 0).into())?;
        let listen = proxy.api.create(sink.local_addr()?).await?;
        let (mut senders, mut readers) = (Vec::new(), Vec::new());
        for _ in 0..connections {
            let mut client = TcpStream::connect(listen).await?;
            let (mut upstream, _) = sink.accept().await?;
            senders.push(tokio::spawn(async move {
                let chunk = vec![7; 256 << 10];
                while client.write_all(&chunk).await.is_ok() {}
            }));
            readers.push(tokio::spawn(async move {
                let mut buffer = vec![0; 256 << 10];
                while let Ok(1..) = upstream.read(&mut buffer).await {}
            }));
        }
        let sent = "toxiproxy_proxy_sent_bytes_total{direction=\"upstream\"";
        let rate = async || -> Result<u64, std::io::Error> {
            let (from, begun) = (proxy.api.metric(sent).await?, Instant::now());
            tokio::time::sleep(MEASURED).await;
            let bytes = proxy.api.metric(sent).await? - from;
            Ok(bytes * 1_000 / u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX))
        };
        let plain = (rate().await?, proxy.memory("VmRSS"));
        proxy.api.toxic(&json!({"type": "latency", "stream": "upstream", "attributes": {"latency": DELAY_MS}})).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let late = rate().await?;
        let (rss, most) = (proxy.memory("VmRSS"), proxy.memory("VmHWM"));
        let expected = WINDOW * 1_000 / DELAY_MS * connections;
        println!(
            "{connections} connections: {} MB/s and {} KiB without a toxic; under {DELAY_MS} ms {} MB/s (window ÷ delay: {}), {rss} KiB, {most} KiB at most",
            plain.0 / 1_000_000,
            plain.1,
            late / 1_000_000,
            expected / 1_000_000,
        );
        // The queue's memory is a power of two, and is copied when it grows.
        let bound = plain.1 + connections * 3 * (WINDOW >> 10);
        holds &= most <= bound && late <= expected * 11 / 10;
        // Of a hundred, the machine may not carry as much as they are allowed.
        holds &= connections > 10 || late >= expected * 9 / 10;
        println!("  bound: {bound} KiB");
        for task in senders.into_iter().chain(readers) {
            task.abort();
        }
    }
    Ok(holds)
}
