//! The toxics that Toxiproxy does not have.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Api, connect, took};
use crate::harness::{SOON, echo, ending, pattern, round_trip, upstream, within};

const SHORT: Duration = Duration::from_millis(60);

async fn is_silent(client: &mut TcpStream) -> bool {
    tokio::time::timeout(SHORT, client.read_u8()).await.is_err()
}

/// An echo that counts its connections.
fn counting() -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let addr = upstream(move |mut stream| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move {
            let (mut read, mut write) = stream.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        }
    });
    (addr, count)
}

#[tokio::test]
async fn down_holds_old_and_new_connections_and_loses_nothing() {
    let api = Api::start();
    let (to, count) = counting();
    let addr = api.proxy(to).await;
    let mut old = connect(addr).await;
    round_trip(&mut old, b"before").await;
    api.toxic("down", "downstream", json!({})).await;
    let mut new = connect(addr).await;
    for client in [&mut old, &mut new] {
        client.write_all(b"x").await.unwrap();
        assert!(is_silent(client).await);
    }
    assert_eq!(count.load(Ordering::Relaxed), 1);
    api.delete("/proxies/p/toxics/down_downstream").await;
    for client in [&mut old, &mut new] {
        assert_eq!(within(client.read_u8()).await.unwrap(), b'x');
    }
}

#[tokio::test]
async fn connect_latency_delays_the_first_byte_and_no_other() {
    let api = Api::start();
    let addr = api.proxy(echo()).await;
    api.toxic("connect_latency", "downstream", json!({"latency": 80}))
        .await;
    let begun = Instant::now();
    let mut client = connect(addr).await;
    assert!(
        begun.elapsed() < Duration::from_millis(80),
        "the proxy accepts at once"
    );
    round_trip(&mut client, b"first").await;
    took(begun, Duration::from_millis(80), Duration::from_millis(400));
    let begun = Instant::now();
    round_trip(&mut client, b"second").await;
    assert!(begun.elapsed() < Duration::from_millis(80));
    // One that waits goes on when the toxic is gone.
    api.patch(
        "/proxies/p/toxics/connect_latency_downstream",
        json!({"attributes": {"latency": 600_000}}),
    )
    .await;
    let mut client = connect(addr).await;
    client.write_all(b"x").await.unwrap();
    assert!(is_silent(&mut client).await);
    api.delete("/proxies/p/toxics/connect_latency_downstream")
        .await;
    assert_eq!(within(client.read_u8()).await.unwrap(), b'x');
}

#[tokio::test]
async fn refuse_resets_new_connections_and_spares_old_ones() {
    let api = Api::start();
    let (to, count) = counting();
    let addr = api.proxy(to).await;
    let mut old = connect(addr).await;
    round_trip(&mut old, b"before").await;
    api.toxic("refuse", "downstream", json!({})).await;
    assert_eq!(
        ending(&mut connect(addr).await).await,
        Err(ErrorKind::ConnectionReset)
    );
    round_trip(&mut old, b"during").await;
    assert_eq!(count.load(Ordering::Relaxed), 1);
    // A change of it leaves it what it is.
    api.patch(
        "/proxies/p/toxics/refuse_downstream",
        json!({"toxicity": 1.0}),
    )
    .await;
    round_trip(&mut old, b"still").await;
    api.delete("/proxies/p/toxics/refuse_downstream").await;
    round_trip(&mut connect(addr).await, b"after").await;
}

#[tokio::test]
async fn half_open_accepts_and_is_silent_and_its_end_is_a_reset() {
    let api = Api::start();
    let (to, count) = counting();
    let addr = api.proxy(to).await;
    let mut old = connect(addr).await;
    round_trip(&mut old, b"before").await;
    api.toxic("half_open", "downstream", json!({})).await;
    let (mut stays, mut leaves) = (connect(addr).await, connect(addr).await);
    // More than any kernel would take for a peer that does not read.
    within(stays.write_all(&vec![7; 16 << 20])).await.unwrap();
    assert!(is_silent(&mut stays).await && is_silent(&mut leaves).await);
    leaves.shutdown().await.unwrap();
    assert_eq!(ending(&mut leaves).await.unwrap(), b"");
    round_trip(&mut old, b"during").await;
    api.delete("/proxies/p/toxics/half_open_downstream").await;
    assert_eq!(ending(&mut stays).await, Err(ErrorKind::ConnectionReset));
    assert_eq!(count.load(Ordering::Relaxed), 1);
    round_trip(&mut old, b"after").await;
}

#[tokio::test]
async fn what_is_about_new_connections_spares_those_that_were_let_in_beside_it() {
    let api = Api::start();
    let addr = api.proxy(echo()).await;
    for (kind, attributes) in [
        ("refuse", json!({})),
        ("half_open", json!({})),
        ("connect_latency", json!({"latency": 600_000})),
        ("accept_limit", json!({"rate": 1})),
    ] {
        let body = json!({"type": kind, "toxicity": 0, "attributes": attributes});
        assert_eq!(api.post("/proxies/p/toxics", body).await.0, 200);
    }
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = connect(addr).await;
        round_trip(&mut client, b"let in").await;
        clients.push(client);
    }
    for kind in ["refuse", "half_open", "connect_latency", "accept_limit"] {
        let path = format!("/proxies/p/toxics/{kind}_downstream");
        assert_eq!(api.patch(&path, json!({"toxicity": 1})).await.0, 200);
        for client in &mut clients {
            round_trip(client, b"still").await;
        }
    }
}

#[tokio::test]
async fn one_way_stops_one_direction_and_not_the_other() {
    let api = Api::start();
    let addr = api
        .proxy(upstream(|mut stream| async move {
            let (mut read, mut write) = stream.split();
            let talk = async {
                while write.write_all(b"tick").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let listen = async {
                let mut asked = [0; 4];
                read.read_exact(&mut asked).await
            };
            tokio::select! {
                () = talk => {}
                _ = listen => {}
            }
        }))
        .await;
    let mut client = connect(addr).await;
    api.toxic("one_way", "upstream", json!({})).await;
    client.write_all(b"stop").await.unwrap();
    let begun = Instant::now();
    while begun.elapsed() < SHORT {
        let mut tick = [0; 4];
        within(client.read_exact(&mut tick)).await.unwrap();
    }
    api.delete("/proxies/p/toxics/one_way_upstream").await;
    let rest = ending(&mut client).await.unwrap();
    assert_eq!(rest.len() % 4, 0);
}

#[tokio::test]
async fn corrupt_turns_over_bits_at_its_rate_and_always_the_same() {
    let sent = pattern(400_000);
    let corrupted = async |pieces: usize| {
        let api = Api::start();
        let addr = api.proxy(echo()).await;
        api.toxic("corrupt", "upstream", json!({"rate": 1_000}))
            .await;
        let (mut read, mut write) = connect(addr).await.into_split();
        let bytes = sent.clone();
        tokio::spawn(async move {
            for piece in bytes.chunks(pieces) {
                write.write_all(piece).await.unwrap();
            }
            write.shutdown().await.unwrap();
        });
        let mut got = Vec::new();
        within(read.read_to_end(&mut got)).await.unwrap();
        got
    };
    let got = corrupted(70_000).await;
    let bits: Vec<u32> = got
        .iter()
        .zip(&sent)
        .map(|(got, sent)| (got ^ sent).count_ones())
        .collect();
    let flipped = bits.iter().filter(|bits| **bits > 0).count();
    assert!(
        (320..480).contains(&flipped) && bits.iter().all(|bits| *bits <= 1),
        "{flipped}"
    );
    assert!(corrupted(999).await == got, "however it is cut");
}

#[tokio::test]
async fn loss_stalls_some_messages_by_a_retransmission_and_those_behind_them() {
    let api = Api::start();
    let addr = api.proxy(echo()).await;
    api.toxic("loss_stall", "upstream", json!({"percent": 20, "rto": 40}))
        .await;
    let mut client = connect(addr).await;
    let mut stalled = 0;
    for _ in 0..60 {
        let begun = Instant::now();
        round_trip(&mut client, b"message").await;
        stalled += usize::from(begun.elapsed() >= Duration::from_millis(40));
    }
    assert!((4..=24).contains(&stalled), "{stalled}");
    // Head of line: what comes behind a stall overtakes nothing.
    let (mut read, mut write) = client.into_split();
    let sent = pattern(60_000);
    let bytes = sent.clone();
    tokio::spawn(async move {
        for piece in bytes.chunks(5_000) {
            write.write_all(piece).await.unwrap();
        }
        write.shutdown().await.unwrap();
    });
    let mut got = Vec::new();
    within(read.read_to_end(&mut got)).await.unwrap();
    assert!(got == sent);
}

#[tokio::test]
async fn accept_limit_refuses_or_queues_those_beyond_its_rate() {
    let api = Api::start();
    let addr = api.proxy(echo()).await;
    api.toxic("accept_limit", "downstream", json!({"rate": 5}))
        .await;
    let mut passed = 0;
    for _ in 0..12 {
        let mut client = connect(addr).await;
        let _ = client.write_all(b"x").await;
        passed += usize::from(within(client.read_u8()).await.is_ok());
    }
    assert!((5..=7).contains(&passed), "{passed}");
    api.delete("/proxies/p/toxics/accept_limit_downstream")
        .await;
    api.toxic(
        "accept_limit",
        "downstream",
        json!({"rate": 20, "overflow": "queue"}),
    )
    .await;
    let begun = Instant::now();
    let mut clients = Vec::new();
    for _ in 0..24 {
        let mut client = connect(addr).await;
        client.write_all(b"x").await.unwrap();
        clients.push(client);
    }
    for client in &mut clients {
        assert_eq!(within(client.read_u8()).await.unwrap(), b'x');
    }
    took(begun, Duration::from_millis(150), SOON);
    let body = json!({"type": "accept_limit", "name": "t", "attributes": {"rate": 1, "overflow": "explode"}});
    assert_eq!(api.post("/proxies/p/toxics", body).await.0, 400);
}
