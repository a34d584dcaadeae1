//! Link faults: each bites and heals live, on connections that were there and on new ones.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use model::quantity::Span;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{
    Proxy, echo, ending, fault, figure, order, pattern, round_trip, upstream, within,
};

#[tokio::test]
async fn latency_delays_each_way_and_heals_at_once() {
    let proxy = Proxy::before(echo());
    let mut old = proxy.tcp().await;
    round_trip(&mut old, b"before").await;
    let view = proxy
        .inject(
            "f1",
            fault(json!({"latency": {"delay": "40ms", "jitter": "5ms"}})),
        )
        .await;
    assert!(view.active && view.injected.observed >= view.injected.asked);
    let mut new = proxy.tcp().await;
    for stream in [&mut old, &mut new] {
        let begun = Instant::now();
        round_trip(stream, b"during").await;
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(70), "{took:?}");
        assert!(took < Duration::from_millis(400), "{took:?}");
    }
    let view = proxy.look("f1").await;
    assert_eq!(view.observation.bitten, 2);
    assert_eq!(figure(&view, "chunks_delayed"), 4);
    assert!(view.observation.observed.unwrap() >= view.injected.asked);

    // A delay that would outlast the test: what waits goes at the heal.
    proxy
        .inject("f2", fault(json!({"latency": {"delay": "10m"}})))
        .await;
    old.write_all(b"waits").await.unwrap();
    proxy
        .until_fault("f2", |view| figure(view, "chunks_delayed") == 1)
        .await;
    proxy.undo("f1").await;
    let view = proxy.undo("f2").await;
    assert!(!view.active && !view.lapsed && view.healed.is_some());
    let mut back = [0; 5];
    within(old.read_exact(&mut back)).await.unwrap();
    assert_eq!(&back, b"waits");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn latency_keeps_order_and_throughput() {
    let proxy = Proxy::before(echo());
    let latency =
        json!({"latency": {"delay": "10ms", "jitter": "10ms", "direction": "downstream"}});
    proxy.inject("f1", fault(latency)).await;
    let (mut read, mut write) = proxy.tcp().await.into_split();
    let sent = pattern(4 << 20);
    let expected = sent.clone();
    let begun = Instant::now();
    tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut got = Vec::new();
    within(read.read_to_end(&mut got)).await.unwrap();
    assert!(got == expected);
    // One chunk of 64 KiB at a time would take 64 × 10 ms.
    let took = begun.elapsed();
    assert!(took < Duration::from_millis(600), "{took:?}");
}

#[tokio::test]
async fn bandwidth_paces_a_direction_and_heals() {
    let proxy = Proxy::before(echo());
    let bandwidth = json!({"bandwidth": {"per_second": "200KB", "direction": "upstream"}});
    proxy.inject("f1", fault(bandwidth)).await;
    let mut stream = proxy.tcp().await;
    let begun = Instant::now();
    round_trip(&mut stream, &pattern(50_000)).await;
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(225), "{took:?}");
    let view = proxy.undo("f1").await;
    assert_eq!(view.observation.bitten, 1);
    assert!(figure(&view, "waits") >= 10);
    let begun = Instant::now();
    round_trip(&mut stream, &pattern(50_000)).await;
    assert!(begun.elapsed() < took / 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_stops_every_byte_and_loses_none() {
    let proxy = Proxy::before(echo());
    let (mut read, mut write) = proxy.tcp().await.into_split();
    let sent = pattern(6 << 20);
    let expected = sent.clone();
    let writing = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut got = vec![0; 1 << 20];
    within(read.read_exact(&mut got)).await.unwrap();

    let view = proxy.inject("f1", fault(json!({"hold": {}}))).await;
    assert_eq!(
        (view.observation.bitten, figure(&view, "connections_held")),
        (1, 1)
    );
    assert!(view.injected.width() < Span::from_millis(100));
    let frozen = proxy.status().await;
    assert_eq!(
        (frozen.open, frozen.faults.as_slice()),
        (1, &["f1".to_owned()][..])
    );

    // What the kernel already had for the client may come; then nothing does, although the writer never rests.
    let drained = async {
        let mut buffer = vec![0; 1 << 20];
        while let Ok(Ok(count)) =
            tokio::time::timeout(Duration::from_millis(150), read.read(&mut buffer)).await
        {
            assert_ne!(count, 0, "no end comes through");
            got.extend_from_slice(&buffer[..count]);
        }
    };
    within(drained).await;
    assert!(got.len() < expected.len());

    let mut new = proxy.tcp().await;
    new.write_all(b"hello").await.unwrap();
    let view = proxy
        .until_fault("f1", |view| figure(view, "connects_held") == 1)
        .await;
    assert_eq!(figure(&view, "bytes_forwarded_while_held"), 0);
    assert_eq!(figure(&view, "held_now"), 2);
    let still = proxy.status().await;
    assert_eq!(
        (still.upstream_bytes, still.downstream_bytes),
        (frozen.upstream_bytes, frozen.downstream_bytes)
    );

    let view = proxy.undo("f1").await;
    assert_eq!(figure(&view, "bytes_forwarded_while_held"), 0);
    within(read.read_to_end(&mut got)).await.unwrap();
    writing.await.unwrap();
    assert!(got == expected, "every byte came, in order");
    let mut hello = [0; 5];
    within(new.read_exact(&mut hello)).await.unwrap();
    assert_eq!(&hello, b"hello");
}

#[tokio::test]
async fn a_hold_wins_over_every_other_fault_and_hides_who_left() {
    let proxy = Proxy::before(echo());
    let mut left = proxy.tcp().await;
    round_trip(&mut left, b"here").await;
    proxy.inject("f1", fault(json!({"hold": {}}))).await;
    proxy.inject("f2", fault(json!({"refuse": {}}))).await;
    proxy
        .inject("f3", fault(json!({"latency": {"delay": "1ms"}})))
        .await;
    drop(left);
    let mut new = proxy.tcp().await;
    new.write_all(b"hangs").await.unwrap();
    proxy
        .until_fault("f1", |view| view.observation.bitten == 2)
        .await;
    assert_eq!(proxy.look("f2").await.observation.bitten, 0);
    assert_eq!(proxy.status().await.open, 2);
    proxy.undo("f1").await;
    assert_eq!(ending(&mut new).await, Err(ErrorKind::ConnectionReset));
    proxy.until(|status| status.open == 0).await;
    assert_eq!(proxy.look("f2").await.observation.bitten, 1);
}

#[tokio::test]
async fn a_reset_is_felt_as_one_and_new_connections_pass() {
    let proxy = Proxy::before(echo());
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = proxy.tcp().await;
        round_trip(&mut stream, b"x").await;
        streams.push(stream);
    }
    let view = proxy.inject("f1", fault(json!({"reset": {}}))).await;
    assert!(!view.active);
    assert_eq!(view.healed, Some(view.injected));
    assert_eq!(
        (view.observation.bitten, figure(&view, "connections_reset")),
        (20, 20)
    );
    for mut stream in streams {
        assert_eq!(ending(&mut stream).await, Err(ErrorKind::ConnectionReset));
    }
    round_trip(&mut proxy.tcp().await, b"after").await;
    assert!(proxy.status().await.faults.is_empty());
    assert_eq!(proxy.undo("f1").await.observation.bitten, 20);
}

#[tokio::test]
async fn refuse_resets_new_connections_only() {
    let proxy = Proxy::before(echo());
    let mut old = proxy.tcp().await;
    round_trip(&mut old, b"before").await;
    let view = proxy.inject("f1", fault(json!({"refuse": {}}))).await;
    assert_eq!(view.observation.bitten, 0);
    for _ in 0..3 {
        assert_eq!(
            ending(&mut proxy.tcp().await).await,
            Err(ErrorKind::ConnectionReset)
        );
    }
    round_trip(&mut old, b"during").await;
    assert_eq!(figure(&proxy.undo("f1").await, "refused"), 3);
    round_trip(&mut proxy.tcp().await, b"after").await;
}

#[tokio::test]
async fn a_lapsed_lease_undoes_the_fault_alone() {
    let proxy = Proxy::before(echo());
    let mut stream = proxy.tcp().await;
    round_trip(&mut stream, b"before").await;
    let mut hold = order("f1", fault(json!({"hold": {}})));
    hold.lease = Span::from_millis(150);
    let view = proxy.try_inject(&hold).await.unwrap();
    round_trip(&mut stream, b"passed on at the lapse").await;
    let view = (view, proxy.until_fault("f1", |view| !view.active).await);
    assert!(view.1.lapsed);
    let lasted = view.1.healed.unwrap().asked.since(view.0.injected.asked);
    assert!(
        lasted >= Span::from_millis(150) && lasted < Span::from_millis(900),
        "{lasted}"
    );
    let again = proxy.try_inject(&hold).await.unwrap_err();
    assert!(again.contains("409"), "{again}");
}

#[tokio::test]
async fn faults_that_are_not_the_proxys_or_make_no_sense_are_refused_by_name() {
    let proxy = Proxy::before(echo());
    for (wrong, expected) in [
        (json!({"kill": {}}), "`kill`"),
        (json!({"bandwidth": {"per_second": "0B"}}), "hold"),
        (json!({"ws_close": {"code": 999}}), "1000 to 4999"),
        (
            json!({"ws_close": {"code": 1000, "reason": "x".repeat(124)}}),
            "123",
        ),
        (json!({"refuse_upgrade": {"status": 200}}), "503"),
    ] {
        let error = proxy
            .try_inject(&order("f1", fault(wrong)))
            .await
            .unwrap_err();
        assert!(error.contains("400") && error.contains(expected), "{error}");
    }
    assert!(proxy.status().await.faults.is_empty());
}

#[tokio::test]
async fn a_stalled_peer_does_not_delay_a_change() {
    // The upstream never reads: the link backs up to the client.
    let proxy = Proxy::before(upstream(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    }));
    let (_read, mut write) = proxy.tcp().await.into_split();
    let writing = tokio::spawn(async move {
        let chunk = vec![7; 1 << 16];
        while write.write_all(&chunk).await.is_ok() {}
    });
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(30)).await;
        let now = proxy.status().await.upstream_bytes;
        if now == before && now > 0 {
            break;
        }
        before = now;
    }
    for (id, what) in [
        ("f1", json!({"latency": {"delay": "1s"}})),
        ("f2", json!({"bandwidth": {"per_second": "1KB"}})),
        ("f3", json!({"hold": {}})),
    ] {
        let begun = Instant::now();
        proxy.inject(id, fault(what)).await;
        assert!(begun.elapsed() < Duration::from_millis(100));
    }
    for id in ["f3", "f2", "f1"] {
        let view = proxy.undo(id).await;
        assert!(view.healed.unwrap().width() < Span::from_millis(100));
    }
    proxy.inject("f4", fault(json!({"reset": {}}))).await;
    within(writing).await.unwrap();
}

#[tokio::test]
async fn the_end_of_the_proxy_ends_every_connection_held_ones_too() {
    let proxy = Proxy::before(echo());
    let mut stream = proxy.tcp().await;
    round_trip(&mut stream, b"here").await;
    proxy.inject("f1", fault(json!({"hold": {}}))).await;
    let mut new = proxy.tcp().await;
    proxy
        .until_fault("f1", |view| view.observation.bitten == 2)
        .await;
    proxy.end().await;
    for stream in [&mut stream, &mut new] {
        assert_eq!(ending(stream).await.unwrap_or_default(), b"");
    }
}
