//! Thousands of connections. A test binary of its own, for it counts the process's descriptors.

#[expect(dead_code, reason = "the other tests need more of it")]
#[path = "it/harness.rs"]
mod harness;

use std::io::ErrorKind;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Proxy, SOON, echo, ending, fault, within};

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_are_reset_at_once_and_no_descriptor_is_left() {
    // Four descriptors each in this one process.
    const MANY: usize = 3_000;
    let proxy = Proxy::before(echo());
    proxy.status().await;
    let baseline = descriptors();
    let mut streams = Vec::new();
    for _ in 0..MANY {
        streams.push(tokio::spawn(TcpStream::connect(proxy.addr)));
    }
    let mut clients = Vec::new();
    for stream in streams {
        clients.push(stream.await.unwrap().unwrap());
    }
    for client in &mut clients {
        client.write_all(b"x").await.unwrap();
    }
    for client in &mut clients {
        assert_eq!(within(client.read_u8()).await.unwrap(), b'x');
    }
    assert!(descriptors() >= baseline + 4 * MANY);
    let view = proxy.inject("f1", fault(json!({"reset": {}}))).await;
    assert_eq!(view.observation.bitten, MANY as u64);
    for client in &mut clients {
        assert_eq!(ending(client).await, Err(ErrorKind::ConnectionReset));
    }
    drop(clients);
    assert_eq!(proxy.status().await.open, 0);
    let settled = async {
        while descriptors() > baseline {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, settled)
        .await
        .expect("descriptors return to the baseline");
    proxy.end().await;
}
