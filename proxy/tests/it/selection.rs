//! Which connections a fault takes that takes a share of the clients.

use std::io::ErrorKind;

use model::decide::selected;
use model::fault::FaultOrder;
use model::ids::ClientId;
use model::quantity::Share;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::harness::{Proxy, SEED, ending, fault, figure, order, read_head, scripted, within};

const CLIENTS: u32 = 24;

fn half(id: &str, what: Value) -> FaultOrder {
    FaultOrder {
        share: Share::ratio(0.5),
        ..order(id, fault(what))
    }
}

fn taken(id: &str, client: u32) -> bool {
    selected(SEED, id, ClientId(client), Share::ratio(0.5))
}

fn count_taken(id: &str) -> u64 {
    let count = (0..CLIENTS).filter(|client| taken(id, *client)).count() as u64;
    assert!(count > 4 && count < 20, "the seed is a poor one");
    count
}

#[tokio::test]
async fn a_reset_takes_the_clients_that_the_seed_says() {
    let (addr, _go) = scripted(&[]);
    let proxy = Proxy::before(addr);
    let mut streams = Vec::new();
    for client in (0..CLIENTS).rev() {
        let mut stream = proxy.ask_upgrade(Some(client)).await;
        read_head(&mut stream).await;
        streams.push((client, stream));
    }
    let view = proxy
        .try_inject(&half("cut", json!({"reset": {}})))
        .await
        .unwrap();
    assert_eq!(view.observation.bitten, count_taken("cut"));
    assert_eq!(
        proxy.status().await.open,
        u64::from(CLIENTS) - count_taken("cut")
    );
    for (client, stream) in &mut streams {
        if taken("cut", *client) {
            assert_eq!(ending(stream).await, Err(ErrorKind::ConnectionReset));
        }
    }
}

#[tokio::test]
async fn new_connections_are_decided_on_by_their_heads() {
    let (addr, _go) = scripted(&[]);
    let proxy = Proxy::before(addr);
    for (id, what) in [
        ("r", json!({"refuse": {}})),
        ("h", json!({"hold": {}})),
        ("u", json!({"refuse_upgrade": {"status": 429}})),
    ] {
        proxy.try_inject(&half(id, what)).await.unwrap();
        let mut held = Vec::new();
        for client in 0..CLIENTS {
            let mut stream = proxy.ask_upgrade(Some(client)).await;
            match (taken(id, client), id) {
                (true, "r") => {
                    assert_eq!(ending(&mut stream).await, Err(ErrorKind::ConnectionReset));
                }
                (true, "u") => assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 429")),
                (true, _) => held.push(stream),
                (false, _) => assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 101")),
            }
        }
        let view = proxy
            .until_fault(id, |view| view.observation.bitten >= count_taken(id))
            .await;
        assert_eq!(view.observation.bitten, count_taken(id));
        if id == "h" {
            assert_eq!(figure(&view, "connects_held"), count_taken(id));
            assert_eq!(figure(&view, "bytes_forwarded_while_held"), 0);
        }
        proxy.undo(id).await;
        for mut stream in held {
            assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 101"));
        }
    }
}

#[tokio::test]
async fn a_connection_that_names_nobody_stands_for_itself() {
    let (addr, _go) = scripted(&[]);
    let proxy = Proxy::before(addr);
    let mut streams = Vec::new();
    for _ in 0..CLIENTS {
        let mut stream = proxy.ask_upgrade(None).await;
        read_head(&mut stream).await;
        streams.push(stream);
    }
    let view = proxy
        .try_inject(&half("cut", json!({"reset": {}})))
        .await
        .unwrap();
    let expected: Vec<bool> = (0..CLIENTS)
        .map(|ordinal| model::decide::unit(SEED, "cut", &format!("connection-{ordinal}"), 0) < 0.5)
        .collect();
    let count = expected.iter().filter(|taken| **taken).count() as u64;
    assert_eq!(view.observation.bitten, count);
    for (stream, taken) in streams.iter_mut().zip(expected) {
        if taken {
            assert_eq!(
                within(stream.read_u8()).await.unwrap_err().kind(),
                ErrorKind::ConnectionReset
            );
        }
    }
}

#[tokio::test]
async fn a_head_that_does_not_come_is_not_waited_for_for_ever() {
    let proxy = Proxy::before(crate::harness::echo());
    let mut none = half("h", json!({"latency": {"delay": "1us"}}));
    none.share = Share::ratio(0.5);
    proxy.try_inject(&none).await.unwrap();
    crate::harness::round_trip(&mut proxy.tcp().await, b"GET / HTT").await;
}
