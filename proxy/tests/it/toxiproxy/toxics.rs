//! Toxiproxy's seven toxics.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::{Api, connect, took};
use crate::harness::{SOON, echo, ending, pattern, round_trip, upstream, within};

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// An upstream that tells of the sizes that it reads.
fn reader() -> (std::net::SocketAddr, mpsc::UnboundedReceiver<Vec<u8>>) {
    let (tell, told) = mpsc::unbounded_channel();
    let addr = upstream(move |mut stream| {
        let tell = tell.clone();
        async move {
            let mut buffer = vec![0; 1 << 20];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                let _ = tell.send(buffer[..count].to_vec());
            }
            let _ = tell.send(Vec::new());
        }
    });
    (addr, told)
}

#[tokio::test]
async fn latency_is_added_to_each_direction_that_has_it_on_open_connections_too() {
    let api = Api::start();
    let addr = api.proxy(echo()).await;
    let mut client = connect(addr).await;
    round_trip(&mut client, b"before").await;
    for (stream, expected) in [("upstream", 40), ("downstream", 80), ("both", 160)] {
        api.toxic("latency", stream, json!({"latency": 40})).await;
        let begun = Instant::now();
        round_trip(&mut client, b"during").await;
        took(begun, millis(expected), millis(300));
    }
    for stream in ["upstream", "downstream", "both"] {
        assert_eq!(
            api.delete(&format!("/proxies/p/toxics/latency_{stream}"))
                .await,
            204
        );
    }
    let begun = Instant::now();
    round_trip(&mut client, b"after").await;
    assert!(begun.elapsed() < millis(40));
}

#[tokio::test]
async fn jitter_varies_latency_either_way() {
    let api = Api::start();
    let addr = api.proxy(echo()).await;
    api.toxic(
        "latency",
        "downstream",
        json!({"latency": 30, "jitter": 20}),
    )
    .await;
    let mut client = connect(addr).await;
    let mut all = Vec::new();
    for _ in 0..12 {
        let begun = Instant::now();
        round_trip(&mut client, b"x").await;
        took(begun, millis(10), millis(40 + 300));
        all.push(begun.elapsed());
    }
    let (least, most) = (all.iter().min().unwrap(), all.iter().max().unwrap());
    assert!(*most > *least + millis(8), "{all:?}");
}

#[tokio::test]
async fn bandwidth_takes_the_time_that_its_bytes_need_whichever_way() {
    let api = Api::start();
    let (to, mut told) = reader();
    let addr = api.proxy(to).await;
    api.toxic("bandwidth", "upstream", json!({"rate": 1_000}))
        .await;
    let mut client = connect(addr).await;
    let sent = pattern(480_000);
    // Never too fast; and of some attempts one that nothing else on the machine held up.
    let mut attempts = Vec::new();
    while attempts.len() < 8 {
        let begun = Instant::now();
        client.write_all(&sent).await.unwrap();
        let mut got = Vec::new();
        while got.len() < sent.len() {
            got.extend(within(told.recv()).await.unwrap());
        }
        let elapsed = begun.elapsed();
        assert!(got == sent);
        assert!(elapsed >= millis(475), "{elapsed:?}");
        if elapsed <= millis(490) {
            return;
        }
        attempts.push(elapsed);
    }
    panic!("480,000 bytes at 1 MB/s took {attempts:?}");
}

#[tokio::test]
async fn a_bandwidth_of_nothing_passes_nothing_until_it_is_changed() {
    let api = Api::start();
    let (to, mut told) = reader();
    let addr = api.proxy(to).await;
    api.toxic("bandwidth", "upstream", json!({})).await;
    let mut client = connect(addr).await;
    client.write_all(b"hello").await.unwrap();
    assert!(tokio::time::timeout(millis(60), told.recv()).await.is_err());
    api.patch(
        "/proxies/p/toxics/bandwidth_upstream",
        json!({"attributes": {"rate": 1_000}}),
    )
    .await;
    assert_eq!(within(told.recv()).await.unwrap(), b"hello");
}

#[tokio::test]
async fn slow_close_delays_the_end_and_nothing_else() {
    let api = Api::start();
    let (to, mut told) = reader();
    let addr = api.proxy(to).await;
    api.toxic("slow_close", "upstream", json!({"delay": 80}))
        .await;
    let mut client = connect(addr).await;
    let begun = Instant::now();
    client.write_all(b"hello").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(within(told.recv()).await.unwrap(), b"hello");
    assert!(begun.elapsed() < millis(80));
    assert_eq!(within(told.recv()).await.unwrap(), b"");
    took(begun, millis(80), millis(300));
    // One that is changed while the end waits.
    api.patch(
        "/proxies/p/toxics/slow_close_upstream",
        json!({"attributes": {"delay": 600_000}}),
    )
    .await;
    let mut client = connect(addr).await;
    client.write_all(b"hello").await.unwrap();
    client.shutdown().await.unwrap();
    within(told.recv()).await.unwrap();
    assert!(tokio::time::timeout(millis(50), told.recv()).await.is_err());
    assert_eq!(
        api.delete("/proxies/p/toxics/slow_close_upstream").await,
        204
    );
    assert_eq!(within(told.recv()).await.unwrap(), b"");
}

#[tokio::test]
async fn timeout_drops_what_comes_and_closes_after_so_long_without() {
    let api = Api::start();
    let (to, mut told) = reader();
    let addr = api.proxy(to).await;
    let mut client = connect(addr).await;
    client.write_all(b"before").await.unwrap();
    assert_eq!(within(told.recv()).await.unwrap(), b"before");
    api.toxic("timeout", "upstream", json!({"timeout": 100}))
        .await;
    let begun = Instant::now();
    // Data put it off.
    for _ in 0..4 {
        client.write_all(b"lost").await.unwrap();
        tokio::time::sleep(millis(40)).await;
    }
    assert_eq!(ending(&mut client).await.unwrap(), b"");
    took(begun, millis(100 + 120), millis(500));
    assert_eq!(within(told.recv()).await.unwrap(), b"");
}

#[tokio::test]
async fn a_timeout_of_nothing_never_closes_and_its_removal_does() {
    let api = Api::start();
    let addr = api.proxy(echo()).await;
    api.toxic("timeout", "downstream", json!({"timeout": 0}))
        .await;
    let mut client = connect(addr).await;
    client.write_all(b"hello").await.unwrap();
    let hears = tokio::time::timeout(millis(60), client.read_u8()).await;
    assert!(hears.is_err(), "{hears:?}");
    assert_eq!(
        api.delete("/proxies/p/toxics/timeout_downstream").await,
        204
    );
    assert_eq!(ending(&mut client).await.unwrap(), b"");
    round_trip(&mut connect(addr).await, b"new").await;
}

#[tokio::test]
async fn a_connection_under_a_timeout_of_nothing_is_gone_when_its_peers_are() {
    let api = Api::start();
    let (to, mut told) = reader();
    let addr = api.proxy(to).await;
    api.toxic("timeout", "downstream", json!({})).await;
    let mut client = connect(addr).await;
    client.shutdown().await.unwrap();
    // The upstream hears the end, answers with its own, and both sockets are closed.
    assert_eq!(within(told.recv()).await.unwrap(), b"");
    assert_eq!(ending(&mut client).await.unwrap(), b"");
}

#[tokio::test]
async fn reset_peer_resets_at_the_first_data_and_after_its_time() {
    for timeout in [0, 80] {
        let api = Api::start();
        let (tell, mut told) = mpsc::unbounded_channel();
        let to = upstream(move |mut stream| {
            let tell = tell.clone();
            async move {
                let _ = tell.send(stream.read_u8().await.map_err(|error| error.kind()));
            }
        });
        let addr = api.proxy(to).await;
        api.toxic("reset_peer", "upstream", json!({"timeout": timeout}))
            .await;
        let mut client = connect(addr).await;
        let idle = tokio::time::timeout(millis(30), client.read_u8()).await;
        assert!(idle.is_err(), "nothing has come yet: {idle:?}");
        let begun = Instant::now();
        client.write_all(b"hello").await.unwrap();
        assert_eq!(ending(&mut client).await, Err(ErrorKind::ConnectionReset));
        took(begun, millis(timeout), millis(300));
        assert_eq!(
            within(told.recv()).await.unwrap(),
            Err(ErrorKind::ConnectionReset)
        );
    }
}

#[tokio::test]
async fn reset_peer_resets_at_the_end_too_and_loses_nothing_when_it_is_removed() {
    let api = Api::start();
    let addr = api.proxy(upstream(|_| async {})).await;
    api.toxic("reset_peer", "downstream", json!({})).await;
    assert_eq!(
        ending(&mut connect(addr).await).await,
        Err(ErrorKind::ConnectionReset)
    );
    assert_eq!(api.delete("/proxies/p").await, 204);

    let addr = api.proxy(echo()).await;
    api.toxic("reset_peer", "downstream", json!({"timeout": 600_000}))
        .await;
    let mut client = connect(addr).await;
    client.write_all(b"waits").await.unwrap();
    assert!(
        tokio::time::timeout(millis(40), client.read_u8())
            .await
            .is_err()
    );
    assert_eq!(
        api.delete("/proxies/p/toxics/reset_peer_downstream").await,
        204
    );
    let mut back = [0; 5];
    within(client.read_exact(&mut back)).await.unwrap();
    assert_eq!(&back, b"waits");
}

#[tokio::test]
async fn slicer_cuts_pieces_of_about_its_size_with_pauses() {
    let api = Api::start();
    let (to, mut told) = reader();
    let addr = api.proxy(to).await;
    let attributes = json!({"average_size": 1_024, "size_variation": 512, "delay": 25_000});
    api.toxic("slicer", "upstream", attributes).await;
    let mut client = connect(addr).await;
    let sent = pattern(20 << 10);
    let begun = Instant::now();
    client.write_all(&sent).await.unwrap();
    let (mut got, mut sizes) = (Vec::new(), Vec::new());
    while got.len() < sent.len() {
        let piece = within(told.recv()).await.unwrap();
        sizes.push(piece.len());
        got.extend(piece);
    }
    assert!(got == sent);
    // A reader that is late sees two pieces as one.
    assert!((10..=40).contains(&sizes.len()), "{sizes:?}");
    let regular = sizes
        .iter()
        .filter(|size| (512..=1_536).contains(*size))
        .count();
    assert!(regular * 10 >= sizes.len() * 7, "{sizes:?}");
    assert!(sizes.iter().any(|size| *size != sizes[0]), "{sizes:?}");
    let pieces = u64::try_from(sizes.len()).unwrap();
    took(begun, millis(25 * (pieces - 1)), SOON);
}

#[tokio::test]
async fn limit_data_passes_exactly_so_many_bytes_and_then_closes() {
    let api = Api::start();
    let (to, mut told) = reader();
    let addr = api.proxy(to).await;
    api.toxic("limit_data", "upstream", json!({"bytes": 100}))
        .await;
    let mut client = connect(addr).await;
    let sent = pattern(100_000);
    client.write_all(&sent).await.unwrap();
    let mut got = Vec::new();
    loop {
        let piece = within(told.recv()).await.unwrap();
        if piece.is_empty() {
            break;
        }
        got.extend(piece);
    }
    assert_eq!(got, sent[..100]);
    assert_eq!(ending(&mut client).await.unwrap(), b"");
}

#[tokio::test]
async fn the_count_of_limit_data_survives_changes_of_it_and_of_its_neighbours() {
    let api = Api::start();
    let addr = api.proxy(echo()).await;
    api.toxic("limit_data", "downstream", json!({"bytes": 100}))
        .await;
    let mut client = connect(addr).await;
    round_trip(&mut client, &pattern(60)).await;
    api.toxic("latency", "downstream", json!({"latency": 1}))
        .await;
    api.patch(
        "/proxies/p/toxics/limit_data_downstream",
        json!({"attributes": {"bytes": 90}}),
    )
    .await;
    client.write_all(&pattern(60)).await.unwrap();
    assert_eq!(ending(&mut client).await.unwrap(), pattern(60)[..30]);
}

#[tokio::test]
async fn toxicity_takes_a_share_and_the_same_connections_whatever_changes_beside_it() {
    let api = Api::start();
    let addr = api
        .proxy(upstream(|mut stream| async move {
            let _ = stream.write_all(b"hello").await;
            let _ = stream.read_u8().await;
        }))
        .await;
    let body = json!({"type": "timeout", "name": "t", "toxicity": 0.5});
    api.post("/proxies/p/toxics", body.clone()).await;
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(connect(addr).await);
    }
    let mut heard = Vec::new();
    for client in &mut clients {
        let mut said = [0; 5];
        let said = tokio::time::timeout(millis(100), client.read_exact(&mut said)).await;
        heard.push(said.is_ok());
    }
    let share = heard.iter().filter(|heard| **heard).count();
    assert!((8..=32).contains(&share), "{heard:?}");
    for _ in 0..3 {
        api.toxic("latency", "downstream", json!({"latency": 1}))
            .await;
        api.delete("/proxies/p/toxics/latency_downstream").await;
    }
    // Those that it took, and they alone, are closed with it.
    api.delete("/proxies/p/toxics/t").await;
    for (client, heard) in clients.iter_mut().zip(&heard) {
        let ended =
            tokio::time::timeout(millis(if *heard { 20 } else { 5_000 }), client.read_u8()).await;
        assert_eq!(ended.is_err(), *heard);
    }
    // Another server with the same seed takes the same ones.
    let other = Api::start();
    let addr = other
        .proxy(upstream(|mut stream| async move {
            let _ = stream.write_all(b"hello").await;
            let _ = stream.read_u8().await;
        }))
        .await;
    other.post("/proxies/p/toxics", body).await;
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(connect(addr).await);
    }
    let mut again = Vec::new();
    for client in &mut clients {
        again.push(
            tokio::time::timeout(millis(100), client.read_u8())
                .await
                .is_ok(),
        );
    }
    assert_eq!(again, heard);
}
