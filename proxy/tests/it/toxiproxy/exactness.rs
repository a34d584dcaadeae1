//! Every byte, in order, both ways, and both ends, whatever comes and goes meanwhile.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::{Api, connect};
use crate::harness::{loopback, pattern, within};

/// Toxics that lose nothing, in numbers that take effect within milli-seconds.
fn lossless() -> [(&'static str, Value); 8] {
    [
        ("latency", json!({"latency": 3, "jitter": 2})),
        ("bandwidth", json!({"rate": 40_000})),
        (
            "slicer",
            json!({"average_size": 900, "size_variation": 300, "delay": 20}),
        ),
        ("one_way", json!({})),
        ("down", json!({})),
        ("loss_stall", json!({"percent": 2.0, "rto": 2})),
        ("ws_slow_upgrade", json!({"delay": 3, "jitter": 2})),
        ("ws_stall_upgrade", json!({})),
    ]
}

/// Toxics that would be noticed.
fn lossy() -> [(&'static str, Value); 7] {
    [
        ("timeout", json!({"timeout": 1})),
        ("reset_peer", json!({})),
        ("limit_data", json!({"bytes": 10})),
        ("corrupt", json!({"rate": 500_000})),
        ("refuse", json!({})),
        ("half_open", json!({})),
        ("down", json!({})),
    ]
}

async fn write(mut to: impl AsyncWrite + Unpin, bytes: Vec<u8>, pieces: Vec<usize>) {
    let (mut rest, mut pieces) = (bytes.as_slice(), pieces.into_iter().cycle());
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(pieces.next().unwrap().min(rest.len()));
        to.write_all(piece).await.unwrap();
        rest = after;
    }
    to.shutdown().await.unwrap();
}

async fn read(mut from: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut got = Vec::new();
    from.read_to_end(&mut got).await.unwrap();
    got
}

/// Sends both ways at once, each end of which closes when it has sent, and compares.
async fn both_ways(client: TcpStream, lane: TcpStream, up: usize, down: usize, pieces: &[usize]) {
    let (from_client, to_client) = client.into_split();
    let (from_lane, to_lane) = lane.into_split();
    let upward = tokio::spawn(write(to_client, pattern(up), pieces.to_vec()));
    let downward = tokio::spawn(write(to_lane, pattern(down), pieces.to_vec()));
    let (at_lane, at_client) = tokio::join!(read(from_lane), read(from_client));
    assert!(at_lane == pattern(up) && at_client == pattern(down));
    upward.await.unwrap();
    downward.await.unwrap();
}

async fn pair(api: &Api) -> (TcpStream, TcpStream) {
    let lane = loopback();
    let addr = api.proxy(lane.local_addr().unwrap()).await;
    let client = connect(addr).await;
    (client, within(lane.accept()).await.unwrap().0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]

    #[test]
    fn lossless_toxics_come_and_go_on_live_traffic(
        up in 0..3_000_000_usize,
        down in 0..3_000_000_usize,
        pieces in prop::collection::vec(1..100_000_usize, 1..12),
        toggles in prop::collection::vec((0..6_usize, 0..3_usize), 4..12),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let api = Api::start();
            let (client, lane) = pair(&api).await;
            let (stop, mut stopped) = oneshot::channel::<()>();
            let toggling = async {
                for (which, stream) in toggles.iter().cycle() {
                    let (kind, attributes) = &lossless()[*which];
                    let stream = ["upstream", "downstream", "both"][*stream];
                    let toxic = api.toxic(kind, stream, attributes.clone()).await;
                    let over = tokio::time::timeout(Duration::from_millis(10), &mut stopped).await;
                    api.delete(&format!("/proxies/p/toxics/{}", toxic["name"].as_str().unwrap())).await;
                    if over.is_ok() {
                        return;
                    }
                }
            };
            let traffic = async {
                let traffic = both_ways(client, lane, up, down, &pieces);
                tokio::time::timeout(Duration::from_mins(1), traffic).await.unwrap();
                drop(stop);
            };
            tokio::join!(toggling, traffic);
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_toxic_that_takes_nobody_changes_nothing() {
    let api = Api::start();
    let (client, lane) = pair(&api).await;
    for (kind, attributes) in lossless().into_iter().chain(lossy()) {
        let body = json!({
            "type": kind, "name": format!("{kind}{attributes}"), "stream": "both", "attributes": attributes,
            "toxicity": 0,
        });
        let (status, answer) = api.post("/proxies/p/toxics", body).await;
        assert!(matches!(status, 200 | 409), "{answer}");
    }
    within(both_ways(client, lane, 4 << 20, 4 << 20, &[100_000])).await;
}

#[tokio::test]
#[should_panic(expected = "at_lane == pattern(up)")]
async fn the_comparison_notices_one_bit() {
    let api = Api::start();
    let (client, lane) = pair(&api).await;
    api.toxic("corrupt", "upstream", json!({"rate": 20})).await;
    within(both_ways(client, lane, 1 << 20, 0, &[100_000])).await;
}
