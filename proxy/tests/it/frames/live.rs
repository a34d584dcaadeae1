//! Toxics that come and go on a busy connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};
use tokio_websockets::{Message, ServerBuilder, WebSocketStream};

use super::{hear, open, say};
use crate::harness::{ending, pattern, read_head, upgrade_head, upstream, websocket_echo, within};
use crate::toxiproxy::{Api, connect};

const MESSAGES: usize = 5_000;
const PATIENCE: Duration = Duration::from_mins(1);

/// A message that tells its number.
fn numbered(number: usize) -> Message {
    let length = number * 7_919 % 1_500;
    Message::binary([&number.to_be_bytes()[..], &pattern(length)].concat())
}

/// Sends all messages and takes what comes until the last one has: the numbers, each of a message that is what it was.
async fn talk<S>(socket: WebSocketStream<S>) -> Vec<usize>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut to, mut from) = socket.split();
    let sending = async {
        for number in 0..MESSAGES {
            to.send(numbered(number)).await.unwrap();
        }
    };
    let hearing = async {
        let mut heard = Vec::new();
        while heard.last() != Some(&(MESSAGES - 1)) {
            let message = from.next().await.unwrap().unwrap();
            let number = message.as_payload()[..8].try_into().unwrap();
            let number = usize::from_be_bytes(number);
            assert!(message.as_payload()[..] == numbered(number).as_payload()[..]);
            heard.push(number);
        }
        heard
    };
    tokio::join!(sending, hearing).1
}

/// What client and server hear of each other while these come and go.
async fn toggled(toxics: &[(&str, Value)]) -> (Vec<usize>, Vec<usize>) {
    let (heard, at_server) = oneshot::channel();
    let heard = std::sync::Mutex::new(Some(heard));
    let server = upstream(move |stream| {
        let heard = heard.lock().unwrap().take();
        async move {
            let socket = ServerBuilder::new().accept(stream).await.unwrap().1;
            let numbers = talk(socket).await;
            heard.unwrap().send(numbers).unwrap();
        }
    });
    let api = Api::start();
    let socket = open(api.proxy(server).await).await;
    let (stop, mut stopped) = oneshot::channel::<()>();
    let toggling = async {
        let mut toggles = 0;
        for ((kind, attributes), stream) in toxics.iter().cycle().zip(
            ["both", "upstream", "both", "downstream"]
                .into_iter()
                .cycle(),
        ) {
            let toxic = api.toxic(kind, stream, attributes.clone()).await;
            let over = tokio::time::timeout(Duration::from_millis(4), &mut stopped).await;
            let name = toxic["name"].as_str().unwrap();
            api.delete(&format!("/proxies/p/toxics/{name}")).await;
            toggles += 1;
            if over.is_ok() {
                return toggles;
            }
        }
        toggles
    };
    let talking = async {
        let both = async { tokio::join!(talk(socket), at_server) };
        let both = tokio::time::timeout(PATIENCE, both).await.unwrap();
        drop(stop);
        (both.0, both.1.unwrap())
    };
    let (toggles, heard) = within_patience(async { tokio::join!(toggling, talking) }).await;
    assert!(toggles > toxics.len(), "{toggles}");
    heard
}

async fn within_patience<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE * 2, future).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_loses_nothing_comes_and_goes_and_nothing_is_lost() {
    let (client, server) = toggled(&[
        ("ws_fragment", json!({"size": 700})),
        ("ws_drop", json!({"match": {"contains": "never said"}})),
        (
            "ws_delay",
            json!({"match": {"every": 7}, "delay": 3, "jitter": 2}),
        ),
        ("ws_replay", json!({"match": {"nth": 1_000_000}})),
        ("ws_fragment", json!({"match": {"share": 0.5}, "size": 1})),
        ("latency", json!({"latency": 2})),
    ])
    .await;
    let all: Vec<_> = (0..MESSAGES).collect();
    assert!(client == all && server == all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_dropped_is_dropped_whole_and_the_rest_is_in_order() {
    // One in 256: those whose lowest byte is 7, of which the last message is none.
    let (client, server) = toggled(&[
        ("ws_drop", json!({"match": {"bytes": "07", "offset": 7}})),
        ("ws_fragment", json!({"size": 900})),
    ])
    .await;
    for heard in [client, server] {
        assert!(heard.is_sorted_by(|one, next| one < next));
        let others = (0..MESSAGES).filter(|number| number % 256 != 7);
        assert!(
            heard.len() < MESSAGES
                && others.eq(heard.into_iter().filter(|number| number % 256 != 7))
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_moved_arrives_once() {
    let all: Vec<_> = (0..MESSAGES).collect();
    let (mut client, mut server) = toggled(&[
        (
            "ws_reorder",
            json!({"match": {"bytes": "07", "offset": 7}, "window": 2}),
        ),
        ("ws_swallow", json!({})),
    ])
    .await;
    assert!(client != all && server != all, "something was moved");
    for heard in [&mut client, &mut server] {
        heard.sort_unstable();
        assert!(*heard == all);
    }
}

/// A server that answers the upgrade with these pieces, the first of which comes with the head; each further one when
/// it is let go on.
fn pieces(pieces: &'static [&'static [u8]]) -> (SocketAddr, Arc<Semaphore>) {
    let go = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&go);
    let addr = upstream(move |mut stream| {
        let gate = Arc::clone(&gate);
        async move {
            let mut head = [0; 4_096];
            let _ = stream.read(&mut head).await;
            let mut answer =
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n".to_vec();
            for piece in pieces {
                answer.extend_from_slice(piece);
                stream.write_all(&answer).await.unwrap();
                answer.clear();
                gate.acquire().await.unwrap().forget();
            }
        }
    });
    (addr, go)
}

async fn upgraded(api: &Api, addr: SocketAddr) -> TcpStream {
    let mut client = connect(api.proxy(addr).await).await;
    let head = upgrade_head(None);
    client.write_all(head.as_bytes()).await.unwrap();
    client
}

#[tokio::test]
async fn frames_that_come_with_the_answer_to_the_upgrade_are_frames() {
    let api = Api::start();
    let (addr, go) = pieces(&[b"\x81\x01a\x81\x01b\x81"]);
    let listen = api.proxy(addr).await;
    api.toxic("ws_drop", "downstream", json!({"match": {"nth": 1}}))
        .await;
    let mut client = connect(listen).await;
    let head = upgrade_head(None);
    client.write_all(head.as_bytes()).await.unwrap();
    read_head(&mut client).await;
    go.add_permits(1);
    assert_eq!(ending(&mut client).await.unwrap(), b"\x81\x01b\x81");
}

#[tokio::test]
async fn a_frame_that_began_before_the_toxic_passes_as_it_is() {
    let api = Api::start();
    let (addr, go) = pieces(&[b"\x01\x04ab", b"cd\x80\x01e\x81\x01x", b"\x81\x01y"]);
    let mut client = upgraded(&api, addr).await;
    read_head(&mut client).await;
    let mut half = [0; 4];
    within(client.read_exact(&mut half)).await.unwrap();
    api.toxic("ws_drop", "downstream", json!({})).await;
    go.add_permits(1);
    let mut rest = [0; 5];
    within(client.read_exact(&mut rest)).await.unwrap();
    assert_eq!(
        (&half, &rest),
        (b"\x01\x04ab", b"cd\x80\x01e"),
        "the message is finished"
    );
    api.delete("/proxies/p/toxics/ws_drop_downstream").await;
    go.add_permits(2);
    assert_eq!(ending(&mut client).await.unwrap(), b"\x81\x01y");
}

#[tokio::test]
async fn what_is_kept_goes_when_the_stream_ends() {
    let api = Api::start();
    let (addr, go) = pieces(&[b"", b"\x81\x01a\x81\x01b\x81\x09not "]);
    let mut client = upgraded(&api, addr).await;
    read_head(&mut client).await;
    let held = json!({"match": {"nth": 1}, "window": 9, "timeout": 0});
    api.toxic("ws_reorder", "downstream", held).await;
    api.toxic("ws_fragment", "downstream", json!({"size": 99}))
        .await;
    go.add_permits(2);
    assert_eq!(
        ending(&mut client).await.unwrap(),
        b"\x81\x01b\x81\x01a\x81\x09not "
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn padding_without_end_is_swallowed_with_the_rest() {
    let api = Api::start();
    let mut socket = open(api.proxy(websocket_echo()).await).await;
    let endless = json!({"length": 1_u64 << 62});
    api.toxic("ws_oversize", "upstream", endless).await;
    api.toxic("timeout", "upstream", json!({})).await;
    say(&mut socket, &["a"]).await;
    // Whoever is busy with it would not notice that the connection is to end.
    api.delete("/proxies/p/toxics/timeout_upstream").await;
    assert!(hear(&mut socket).await.is_err());
}
