//! Toxics as leased faults: each is seen to bite when something comes by, and not before; and each is over when it is undone.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::{SinkExt, StreamExt};
use model::fault::Fault;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_websockets::Message;

use crate::harness::{
    Proxy, echo, ending, fault, figure, loopback, order, read_head, round_trip, websocket_echo,
    within,
};

/// What brings a toxic out.
#[derive(Clone, Copy, PartialEq)]
enum Stir {
    /// It has bitten as soon as it takes a connection.
    Nothing,
    Data,
    End,
    Connect,
}

fn toxic(kind: &str, attributes: &Value) -> Fault {
    fault(json!({"toxic": {"type": kind, "attributes": attributes}}))
}

#[tokio::test]
async fn each_is_seen_to_bite_when_something_comes_by_and_is_over_when_it_is_undone() {
    let second_at_a_time = json!({"rate": 1, "overflow": "queue"});
    for (kind, attributes, stir) in [
        ("latency", json!({"latency": 1}), Stir::Data),
        ("bandwidth", json!({"rate": 1}), Stir::Data),
        ("slow_close", json!({"delay": 1}), Stir::End),
        ("timeout", json!({"timeout": 0}), Stir::Data),
        ("reset_peer", json!({"timeout": 1}), Stir::Data),
        ("slicer", json!({"average_size": 4}), Stir::Data),
        ("limit_data", json!({"bytes": 6}), Stir::Data),
        ("down", json!({}), Stir::Nothing),
        ("connect_latency", json!({"latency": 1}), Stir::Connect),
        ("refuse", json!({}), Stir::Connect),
        ("half_open", json!({}), Stir::Connect),
        ("one_way", json!({}), Stir::Nothing),
        ("corrupt", json!({"rate": 1_000_000}), Stir::Data),
        ("loss_stall", json!({"percent": 99, "rto": 1}), Stir::Data),
        ("accept_limit", second_at_a_time, Stir::Connect),
    ] {
        let proxy = Proxy::before(echo());
        let mut stream = proxy.tcp().await;
        round_trip(&mut stream, b"before").await;
        let view = proxy.inject("t", toxic(kind, &attributes)).await;
        let at_once = u64::from(stir == Stir::Nothing);
        assert_eq!(view.observation.bitten, at_once, "{kind} at first");
        let mut others = Vec::new();
        match stir {
            Stir::Nothing => {}
            Stir::Data => stream.write_all(b"twelve bytes").await.unwrap(),
            Stir::End => stream.shutdown().await.unwrap(),
            Stir::Connect => {
                for _ in 0..2 {
                    // Refused meanwhile, perhaps.
                    let Ok(mut other) = TcpStream::connect(proxy.addr).await else {
                        continue;
                    };
                    let _ = other.write_all(b"hello").await;
                    others.push(other);
                }
            }
        }
        let view = proxy
            .until_fault("t", |view| view.observation.bitten > 0)
            .await;
        assert!(view.observation.observed.is_some(), "{kind}");
        let view = proxy.undo("t").await;
        assert!(!view.active && view.healed.is_some(), "{kind}");
        round_trip(&mut proxy.tcp().await, b"after").await;
    }
}

#[tokio::test]
async fn those_of_an_upgrade_bite_upgrades() {
    for (kind, attributes) in [
        ("ws_refuse_upgrade", json!({"status": 503})),
        ("ws_slow_upgrade", json!({"delay": 1})),
        ("ws_stall_upgrade", json!({})),
        (
            "ws_rewrite_upgrade",
            json!({"name": "Sec-WebSocket-Accept", "value": "other"}),
        ),
    ] {
        let proxy = Proxy::before(websocket_echo());
        let mut old = proxy.websocket(1).await;
        proxy.inject("t", toxic(kind, &attributes)).await;
        old.send(Message::text("open already")).await.unwrap();
        within(old.next()).await.unwrap().unwrap();
        assert_eq!(proxy.look("t").await.observation.bitten, 0, "{kind}");
        let mut stream = proxy.ask_upgrade(Some(2)).await;
        read_head(&mut stream).await;
        let view = proxy
            .until_fault("t", |view| view.observation.bitten == 1)
            .await;
        assert!(view.observation.observed.is_some(), "{kind}");
        proxy.undo("t").await;
        proxy.websocket(3).await;
    }
}

#[tokio::test]
async fn what_it_did_is_counted_and_a_connection_once() {
    let proxy = Proxy::before(echo());
    let mut stream = proxy.tcp().await;
    let corrupt = toxic("corrupt", &json!({"rate": 1_000_000}));
    proxy.inject("t", corrupt).await;
    stream.write_all(b"twelve bytes").await.unwrap();
    let view = proxy
        .until_fault("t", |view| figure(view, "acts") == 24)
        .await;
    assert_eq!(view.observation.bitten, 1, "both ways are one connection");
    let undone = proxy.undo("t").await;
    assert_eq!(figure(&undone, "connections_bitten"), 1);
}

#[tokio::test]
async fn a_share_takes_clients_and_takes_them_again() {
    let proxy = Proxy::before(echo());
    let reset = order("t", toxic("reset_peer", &json!({"timeout": 0})));
    let some = serde_json::from_value(json!("50%")).unwrap();
    proxy
        .try_inject(&model::fault::FaultOrder {
            share: some,
            ..reset
        })
        .await
        .unwrap();
    let mut taken = Vec::new();
    for attempt in 0..2 {
        let mut now = Vec::new();
        for client in 0..12 {
            let mut stream = proxy.ask_upgrade(Some(client)).await;
            stream.shutdown().await.unwrap();
            now.push(ending(&mut stream).await.is_err());
        }
        if attempt == 0 {
            taken = now;
        } else {
            assert_eq!(taken, now, "the same clients each time");
        }
    }
    assert!(taken.contains(&true) && taken.contains(&false), "{taken:?}");
}

#[tokio::test]
async fn a_toxic_with_wrong_settings_is_refused_and_nothing_is_in_force() {
    let proxy = Proxy::before(echo());
    for (kind, attributes, words) in [
        (
            "slicerr",
            json!({}),
            "there is no toxic `slicerr`; it is one of latency",
        ),
        (
            "slicer",
            json!({}),
            "toxic `slicer`: average_size 0 cuts nothing",
        ),
        (
            "latency",
            json!({"latency": "50ms"}),
            "toxic `latency`: invalid type",
        ),
    ] {
        let refused = proxy
            .try_inject(&order("t", toxic(kind, &attributes)))
            .await;
        let said = refused.unwrap_err();
        assert!(said.contains(words), "{said}");
    }
    assert_eq!(proxy.status().await.faults, Vec::<String>::new());
}

#[tokio::test]
async fn what_waits_for_a_delay_goes_when_it_is_undone_whatever_else_stalls() {
    for (delaying, attributes) in [
        ("latency", json!({"latency": 600_000})),
        ("ws_delay", json!({"delay": 600_000})),
    ] {
        let proxy = Proxy::before(websocket_echo());
        let stalls = json!({"percent": 0});
        proxy.inject("other", toxic("loss_stall", &stalls)).await;
        let mut socket = proxy.websocket(1).await;
        proxy.inject("t", toxic(delaying, &attributes)).await;
        socket.send(Message::text("waits")).await.unwrap();
        proxy
            .until_fault("t", |view| view.observation.bitten == 1)
            .await;
        proxy.undo("t").await;
        let back = within(socket.next()).await.unwrap().unwrap();
        assert_eq!(back.as_text(), Some("waits"), "{delaying}");
    }
}

#[tokio::test]
async fn what_changes_nothing_does_not_bite() {
    let proxy = Proxy::before(websocket_echo());
    for (id, kind, attributes) in [
        ("a", "latency", json!({"latency": 0})),
        ("b", "ws_delay", json!({"delay": 0})),
        ("c", "ws_slow_upgrade", json!({"delay": 0})),
        (
            "d",
            "ws_rewrite_upgrade",
            json!({"name": "Host", "value": "lane"}),
        ),
    ] {
        proxy.inject(id, toxic(kind, &attributes)).await;
    }
    let mut stream = proxy.ask_upgrade(Some(1)).await;
    read_head(&mut stream).await;
    let mut socket = proxy.websocket(2).await;
    socket.send(Message::text("hello")).await.unwrap();
    within(socket.next()).await.unwrap().unwrap();
    for id in ["a", "b", "c"] {
        assert_eq!(proxy.look(id).await.observation.bitten, 0, "{id}");
    }
    // The other client names the proxy as its host.
    assert_eq!(proxy.look("d").await.observation.bitten, 1);
}

#[tokio::test]
async fn an_upstream_that_is_not_there_resets_its_clients_and_breaks_no_task() {
    static BROKEN: AtomicBool = AtomicBool::new(false);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let said = panic.to_string();
        BROKEN.fetch_or(said.contains("resumed after completion"), Ordering::Relaxed);
        before(panic);
    }));
    let gone = loopback().local_addr().unwrap();
    let proxy = Proxy::before(gone);
    for _ in 0..8 {
        if let Ok(mut stream) = TcpStream::connect(proxy.addr).await {
            assert!(ending(&mut stream).await.is_err());
        }
    }
    proxy.until(|status| status.open == 0).await;
    proxy.end().await;
    assert!(!BROKEN.load(Ordering::Relaxed));
}

#[tokio::test]
async fn certificates_are_refused_where_tls_does_not_end() {
    let proxy = Proxy::before(echo());
    let expired = order("t", toxic("tls_expired", &json!({})));
    let said = proxy.try_inject(&expired).await.unwrap_err();
    assert!(said.contains("TLS"), "{said}");
}
