//! Toxics of the upgrade, with raw sockets that see every byte, and with a real client and server.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::oneshot;
use tokio_websockets::{ClientBuilder, Message, WebSocketStream};

use super::{Api, connect};
use crate::harness::{
    SOON, ending, pattern, read_head, round_trip, upgrade_head, upstream, websocket_echo, within,
};

const LATER: u64 = 600_000;
const SHORT: Duration = Duration::from_millis(60);
pub(super) const ANSWER: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nConnection: Upgrade\r\n\
                      Sec-WebSocket-Protocol: v1\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\n\r\n";

/// A lane that tells what heads it got, answers each with [`ANSWER`] and `greeting` in one piece, and then sends back what
/// it gets, the end too.
pub(super) fn lane(greeting: &'static [u8]) -> (SocketAddr, UnboundedReceiver<String>) {
    let (heads, got) = unbounded_channel();
    let addr = upstream(move |mut stream| {
        let heads = heads.clone();
        async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => return,
                }
            }
            let _ = heads.send(String::from_utf8_lossy(&head).into_owned());
            let answer = [ANSWER.as_bytes(), greeting].concat();
            let (mut read, mut write) = stream.split();
            if write.write_all(&answer).await.is_ok()
                && tokio::io::copy(&mut read, &mut write).await.is_ok()
            {
                let _ = write.shutdown().await;
            }
        }
    });
    (addr, got)
}

pub(super) async fn ask(addr: SocketAddr) -> TcpStream {
    let mut client = connect(addr).await;
    let head = upgrade_head(None);
    client.write_all(head.as_bytes()).await.unwrap();
    client
}

pub(super) async fn websocket(
    addr: SocketAddr,
) -> Result<WebSocketStream<TcpStream>, tokio_websockets::Error> {
    let uri = format!("ws://{addr}/sync");
    let builder = ClientBuilder::new().uri(&uri).unwrap();
    let connected = within(builder.connect_on(connect(addr).await)).await;
    connected.map(|(socket, _)| socket)
}

pub(super) async fn say(socket: &mut WebSocketStream<TcpStream>, text: &'static str) {
    socket.send(Message::text(text)).await.unwrap();
    let back = within(socket.next()).await.unwrap().unwrap();
    assert_eq!(back.as_text(), Some(text));
}

pub(super) async fn is_silent(client: &mut TcpStream) -> bool {
    tokio::time::timeout(SHORT, client.read_u8()).await.is_err()
}

#[tokio::test]
async fn a_refused_upgrade_is_answered_and_nothing_else_is() {
    let api = Api::start();
    let (to, mut heads) = lane(b"");
    let addr = api.proxy(to).await;
    let mut old = ask(addr).await;
    read_head(&mut old).await;
    within(heads.recv()).await.unwrap();
    let attributes = json!({"status": 429, "body": "later, please", "retry_after": 7});
    api.toxic("ws_refuse_upgrade", "downstream", attributes)
        .await;
    let answer = ending(&mut ask(addr).await).await.unwrap();
    assert_eq!(
        String::from_utf8(answer).unwrap(),
        "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: 13\r\nConnection: close\r\n\r\nlater, please"
    );
    round_trip(&mut old, b"still").await;
    let mut other = connect(addr).await;
    let request = "GET /health HTTP/1.1\r\nHost: lane\r\n\r\n";
    other.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(read_head(&mut other).await, ANSWER);
    assert_eq!(within(heads.recv()).await.unwrap(), request);
    assert!(
        heads.is_empty(),
        "the lane hears nothing of what is refused"
    );
    api.patch(
        "/proxies/p/toxics/ws_refuse_upgrade_downstream",
        json!({"attributes": {"body": ""}}),
    )
    .await;
    let answer = ending(&mut ask(addr).await).await.unwrap();
    assert!(answer.ends_with(b"Retry-After: 7\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
}

#[tokio::test]
async fn a_real_client_is_refused_and_let_in_when_the_toxic_is_gone() {
    let api = Api::start();
    let addr = api.proxy(websocket_echo()).await;
    let mut old = websocket(addr).await.unwrap();
    api.toxic("ws_refuse_upgrade", "downstream", json!({}))
        .await;
    assert!(websocket(addr).await.is_err());
    say(&mut old, "still").await;
    api.delete("/proxies/p/toxics/ws_refuse_upgrade_downstream")
        .await;
    say(&mut websocket(addr).await.unwrap(), "after").await;
}

#[tokio::test]
async fn an_answer_is_slow_and_what_follows_it_is_not() {
    let api = Api::start();
    let addr = api.proxy(websocket_echo()).await;
    let mut old = websocket(addr).await.unwrap();
    let slow = json!({"delay": 120, "jitter": 20});
    api.toxic("ws_slow_upgrade", "downstream", slow).await;
    let begun = Instant::now();
    let mut new = websocket(addr).await.unwrap();
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(99) && took < SOON, "{took:?}");
    let path = "/proxies/p/toxics/ws_slow_upgrade_downstream";
    let slower = json!({"attributes": {"delay": LATER}});
    assert_eq!(api.patch(path, slower).await.0, 200);
    for socket in [&mut old, &mut new] {
        say(socket, "at once").await;
    }
}

#[tokio::test]
async fn a_slow_head_goes_at_once_when_the_toxic_is_gone() {
    let api = Api::start();
    let (to, mut heads) = lane(b"hello");
    let addr = api.proxy(to).await;
    for stream in ["downstream", "upstream"] {
        let slow = json!({"delay": LATER});
        api.toxic("ws_slow_upgrade", stream, slow).await;
        let mut client = ask(addr).await;
        if stream == "downstream" {
            assert_eq!(within(heads.recv()).await.unwrap(), upgrade_head(None));
        }
        assert!(is_silent(&mut client).await && heads.is_empty());
        let path = format!("/proxies/p/toxics/ws_slow_upgrade_{stream}");
        let shorter = json!({"attributes": {"delay": LATER / 2}});
        assert_eq!(api.patch(&path, shorter).await.0, 200);
        assert!(is_silent(&mut client).await);
        api.delete(&path).await;
        assert_eq!(read_head(&mut client).await, ANSWER);
        let mut greeting = [0; 5];
        within(client.read_exact(&mut greeting)).await.unwrap();
        assert_eq!(&greeting, b"hello");
        api.toxic("ws_slow_upgrade", stream, json!({"delay": LATER}))
            .await;
        round_trip(&mut client, b"an open one is not caught").await;
        api.delete(&path).await;
        while heads.try_recv().is_ok() {}
    }
}

#[tokio::test]
async fn an_answer_whose_head_does_not_end_is_not_withheld_for_ever() {
    const BEGINNING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: web";
    let api = Api::start();
    let addr = api
        .proxy(upstream(|mut stream| async move {
            read_head(&mut stream).await;
            stream.write_all(BEGINNING).await.unwrap();
            std::future::pending::<()>().await;
        }))
        .await;
    api.toxic("ws_slow_upgrade", "downstream", json!({"delay": LATER}))
        .await;
    let mut client = ask(addr).await;
    assert!(is_silent(&mut client).await);
    let mut got = [0; BEGINNING.len()];
    within(client.read_exact(&mut got)).await.unwrap();
    assert_eq!(got, BEGINNING);
}

#[tokio::test]
async fn after_a_stalled_upgrade_nothing_passes_until_the_toxic_is_gone() {
    let api = Api::start();
    let (to, _heads) = lane(b"hello");
    let addr = api.proxy(to).await;
    let mut old = ask(addr).await;
    assert_eq!(read_head(&mut old).await, ANSWER);
    let mut greeting = [0; 5];
    within(old.read_exact(&mut greeting)).await.unwrap();
    api.toxic("ws_stall_upgrade", "downstream", json!({})).await;
    let mut new = ask(addr).await;
    assert_eq!(read_head(&mut new).await, ANSWER);
    new.write_all(b", world").await.unwrap();
    new.shutdown().await.unwrap();
    assert!(is_silent(&mut new).await);
    round_trip(&mut old, b"goes on").await;
    // Another change is no way out.
    api.toxic("latency", "downstream", json!({})).await;
    assert!(is_silent(&mut new).await);
    api.delete("/proxies/p/toxics/ws_stall_upgrade_downstream")
        .await;
    assert_eq!(ending(&mut new).await.unwrap(), b"hello, world");
}

#[tokio::test]
async fn the_lane_hears_nothing_after_a_stalled_upgrade_either() {
    let (tell, mut heard) = unbounded_channel();
    let api = Api::start();
    let addr = api
        .proxy(upstream(move |mut stream| {
            let tell = tell.clone();
            async move {
                let mut bytes = vec![0; 4_096];
                while let Ok(count) = stream.read(&mut bytes).await {
                    let _ = tell.send(bytes[..count].to_vec());
                    if count == 0 {
                        return;
                    }
                    let _ = stream.write_all(ANSWER.as_bytes()).await;
                }
            }
        }))
        .await;
    api.toxic("ws_stall_upgrade", "downstream", json!({})).await;
    // An end that was read before the stall began.
    api.toxic("slow_close", "upstream", json!({"delay": LATER}))
        .await;
    let (mut talks, mut ends) = (ask(addr).await, ask(addr).await);
    ends.shutdown().await.unwrap();
    for client in [&mut talks, &mut ends] {
        assert_eq!(read_head(client).await, ANSWER);
        within(heard.recv()).await.unwrap();
    }
    talks.write_all(b"frames").await.unwrap();
    api.delete("/proxies/p/toxics/slow_close_upstream").await;
    assert!(is_silent(&mut talks).await && heard.is_empty());
    api.delete("/proxies/p/toxics/ws_stall_upgrade_downstream")
        .await;
    let mut both = [
        within(heard.recv()).await.unwrap(),
        within(heard.recv()).await.unwrap(),
    ];
    both.sort_unstable();
    assert_eq!(both, [b"".to_vec(), b"frames".to_vec()]);
}

#[tokio::test]
async fn a_stalled_websocket_opens_and_is_silent_for_a_real_client() {
    let api = Api::start();
    let addr = api.proxy(websocket_echo()).await;
    api.toxic("ws_stall_upgrade", "downstream", json!({})).await;
    let mut socket = websocket(addr).await.unwrap();
    socket.send(Message::text("waits")).await.unwrap();
    assert!(
        tokio::time::timeout(SHORT, socket.next()).await.is_err(),
        "it is silent"
    );
    api.delete("/proxies/p/toxics/ws_stall_upgrade_downstream")
        .await;
    let back = within(socket.next()).await.unwrap().unwrap();
    assert_eq!(back.as_text(), Some("waits"));
    say(&mut socket, "goes on").await;
}

#[tokio::test]
async fn several_toxics_of_the_upgrade_add_up() {
    let api = Api::start();
    let (to, mut heads) = lane(b"hello");
    let addr = api.proxy(to).await;
    for (name, kind, stream, attributes) in [
        (
            "a",
            "ws_rewrite_upgrade",
            "both",
            json!({"name": "connection", "value": "x"}),
        ),
        (
            "b",
            "ws_rewrite_upgrade",
            "upstream",
            json!({"name": "host"}),
        ),
        ("c", "ws_slow_upgrade", "both", json!({"delay": 30})),
        ("d", "ws_stall_upgrade", "both", json!({})),
    ] {
        let body = json!({"name": name, "type": kind, "stream": stream, "attributes": attributes});
        assert_eq!(api.post("/proxies/p/toxics", body).await.0, 200);
    }
    let begun = Instant::now();
    let mut client = ask(addr).await;
    let head = upgrade_head(None);
    let head = head.replace("Connection: Upgrade", "Connection: x");
    let head = head.replace("Host: lane\r\n", "");
    assert_eq!(within(heads.recv()).await.unwrap(), head);
    let answer = ANSWER.replace("Connection: Upgrade", "Connection: x");
    assert_eq!(read_head(&mut client).await, answer);
    assert!(begun.elapsed() >= Duration::from_millis(59));
    assert!(is_silent(&mut client).await);
    api.delete("/proxies/p/toxics/d").await;
    assert_eq!(within(client.read_u8()).await.unwrap(), b'h');
}

/// One of each, none of which would go unnoticed.
async fn all_toxics(api: &Api) {
    for (kind, stream, attributes) in [
        ("ws_refuse_upgrade", "both", json!({})),
        ("ws_slow_upgrade", "both", json!({"delay": LATER})),
        ("ws_stall_upgrade", "both", json!({})),
        ("ws_rewrite_upgrade", "both", json!({"name": "host"})),
    ] {
        api.toxic(kind, stream, attributes).await;
    }
}

#[tokio::test]
async fn what_asks_for_no_upgrade_passes_as_it_is() {
    let api = Api::start();
    let addr = api.proxy(crate::harness::echo()).await;
    all_toxics(&api).await;
    let long = format!("GET / HTTP/1.1\r\nhost: {}\r\n\r\n", "x".repeat(20_000));
    for first in [
        // The echo makes it its own answer.
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody",
        "HTTP/1.1 200 OK\r\nHost: x\r\nUpgrade: websocket\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01 a greeting of TLS",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &long,
        "\r\n\r\n\r\n\0",
    ] {
        let mut client = connect(addr).await;
        round_trip(&mut client, first.as_bytes()).await;
        round_trip(&mut client, upgrade_head(None).as_bytes()).await;
        client.shutdown().await.unwrap();
        assert_eq!(ending(&mut client).await.unwrap(), b"", "{first:.40}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_whatever_comes_and_goes_during_an_upgrade() {
    const BYTES: usize = 50_000;
    let api = Api::start();
    let (to, _heads) = lane(b"hello");
    let addr = api.proxy(to).await;
    let (stop, mut over) = oneshot::channel::<()>();
    let toggling = async {
        let toxics = [
            ("ws_stall_upgrade", json!({})),
            ("ws_slow_upgrade", json!({"delay": 3, "jitter": 3})),
            ("ws_rewrite_upgrade", json!({"name": "x-not-there"})),
            ("slicer", json!({"average_size": 20, "size_variation": 9})),
        ];
        for (kind, attributes) in toxics.into_iter().cycle() {
            let toxic = api.toxic(kind, "both", attributes).await;
            let ended = tokio::time::timeout(Duration::from_millis(5), &mut over).await;
            let path = format!("/proxies/p/toxics/{}", toxic["name"].as_str().unwrap());
            api.delete(&path).await;
            if ended.is_ok() {
                return;
            }
        }
    };
    let traffic = async {
        let expected = [ANSWER.as_bytes(), b"hello", &pattern(BYTES)].concat();
        for chunk in (1..60).map(|n| n * 37) {
            let (mut read, mut write) = connect(addr).await.into_split();
            let sent = [upgrade_head(None).as_bytes(), &pattern(BYTES)].concat();
            let writing = tokio::spawn(async move {
                for piece in sent.chunks(chunk) {
                    write.write_all(piece).await.unwrap();
                }
                write.shutdown().await.unwrap();
            });
            let mut got = Vec::new();
            within(read.read_to_end(&mut got)).await.unwrap();
            assert!(got == expected, "in pieces of {chunk}");
            writing.await.unwrap();
        }
        drop(stop);
    };
    tokio::join!(toggling, traffic);
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard_after_a_while() {
    let api = Api::start();
    let addr = api
        .proxy(upstream(|mut stream| async move {
            let _ = stream.write_all(b"220 welcome").await;
            let _ = stream.read_u8().await;
        }))
        .await;
    all_toxics(&api).await;
    let mut client = connect(addr).await;
    let mut welcome = [0; 11];
    within(client.read_exact(&mut welcome)).await.unwrap();
    assert_eq!(&welcome, b"220 welcome");
}
