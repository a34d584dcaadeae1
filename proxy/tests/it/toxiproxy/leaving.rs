//! Peers that leave while a toxic stops their connection.

use std::io::ErrorKind;
use std::sync::Arc;

use host::http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::Api;
use super::upgrades::{ANSWER, ask, is_silent, lane};
use crate::harness::{ending, read_head, round_trip, upstream, within};

const GREETING: &[u8] = b"hello";

/// The toxics that stop a connection of which both peers leave, or the one that is not heard.
const STOPS: [(&str, &str); 3] = [
    ("ws_stall_upgrade", "downstream"),
    ("one_way", "both"),
    ("one_way", "upstream"),
];

/// A lane that greets each client, and leaves with FIN or RST when it is told to.
fn leaving_lane(resets: bool) -> (std::net::SocketAddr, Arc<Semaphore>) {
    let go = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&go);
    let addr = upstream(move |mut stream| {
        let gate = Arc::clone(&gate);
        async move {
            read_head(&mut stream).await;
            stream.write_all(ANSWER.as_bytes()).await.unwrap();
            let _go = gate.acquire().await.unwrap();
            if resets {
                stream.set_zero_linger().unwrap();
            }
        }
    });
    (addr, go)
}

async fn until_open(api: &Api, count: usize) {
    let look = async {
        while open(api).await != count {
            tokio::task::yield_now().await;
        }
    };
    within(look).await;
}

async fn open(api: &Api) -> usize {
    let metrics = api.raw(Method::GET, "/metrics", "").await;
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    let name = "faultlane_proxy_connections{";
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

fn reset(stream: TcpStream) {
    stream.set_zero_linger().unwrap();
    drop(stream);
}

/// So many connections that are stopped after their answer.
async fn stopped<const N: usize>(
    api: &Api,
    addr: std::net::SocketAddr,
    (kind, stream): (&str, &str),
    greeting: &[u8],
) -> [TcpStream; N] {
    let stalls = kind == "ws_stall_upgrade";
    if stalls {
        api.toxic(kind, stream, json!({})).await;
    }
    let mut clients = Vec::new();
    for _ in 0..N {
        let mut client = ask(addr).await;
        assert_eq!(read_head(&mut client).await, ANSWER);
        if !stalls {
            let mut got = vec![0; greeting.len()];
            within(client.read_exact(&mut got)).await.unwrap();
        }
        clients.push(client);
    }
    if !stalls {
        api.toxic(kind, stream, json!({})).await;
    }
    until_open(api, N).await;
    clients.try_into().unwrap()
}

#[tokio::test]
async fn who_resets_is_gone_and_who_is_silent_or_has_ended_is_not() {
    for stop in STOPS {
        let api = Api::start();
        let (to, _heads) = lane(GREETING);
        let addr = api.proxy(to).await;
        let [mut silent, mut ends, resets, mut talks_and_resets] =
            stopped(&api, addr, stop, GREETING).await;
        ends.write_all(b"late").await.unwrap();
        ends.shutdown().await.unwrap();
        talks_and_resets.write_all(b"lost").await.unwrap();
        reset(resets);
        reset(talks_and_resets);
        until_open(&api, 2).await;
        assert!(is_silent(&mut silent).await && is_silent(&mut ends).await);
        assert_eq!(open(&api).await, 2, "{stop:?}");
        let (kind, stream) = stop;
        api.delete(&format!("/proxies/p/toxics/{kind}_{stream}"))
            .await;
        let waited: &[u8] = if kind == "ws_stall_upgrade" {
            let mut got = [0; GREETING.len()];
            within(silent.read_exact(&mut got)).await.unwrap();
            assert_eq!(got, GREETING);
            b"hellolate"
        } else {
            b"late"
        };
        round_trip(&mut silent, b"goes on").await;
        assert_eq!(ending(&mut ends).await.unwrap(), waited, "{stop:?}");
    }
}

#[tokio::test]
async fn a_lane_that_resets_is_gone_for_its_client_too() {
    for stop in [STOPS[0], STOPS[1], ("one_way", "downstream")] {
        let api = Api::start();
        let (to, go) = leaving_lane(true);
        let addr = api.proxy(to).await;
        let [mut client] = stopped(&api, addr, stop, b"").await;
        go.add_permits(1);
        let error = within(client.read_u8()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{stop:?}");
        until_open(&api, 0).await;
    }
}

#[tokio::test]
async fn two_peers_that_have_ended_are_gone_if_nothing_waits() {
    for stop in STOPS {
        let api = Api::start();
        let (to, go) = leaving_lane(false);
        let addr = api.proxy(to).await;
        let [client, mut talks] = stopped(&api, addr, stop, b"").await;
        talks.write_all(b"waits").await.unwrap();
        talks.shutdown().await.unwrap();
        drop(client);
        assert!(is_silent(&mut talks).await);
        assert_eq!(open(&api).await, 2, "{stop:?}: the lane still speaks");
        go.add_permits(2);
        until_open(&api, 1).await;
    }
}
