//! Toxics that act on the messages of a WebSocket, with a real client and server.

mod live;
mod selecting;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use host::http::Method;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_websockets::{ClientBuilder, CloseCode, Message, WebSocketStream};

use crate::harness::{SOON, websocket_echo, within};
use crate::toxiproxy::{Api, connect, took};

pub(super) type Socket = WebSocketStream<TcpStream>;

pub(super) async fn open(addr: SocketAddr) -> Socket {
    let uri = format!("ws://{addr}/");
    let builder = ClientBuilder::new().uri(&uri).unwrap();
    within(builder.connect_on(connect(addr).await))
        .await
        .unwrap()
        .0
}

pub(super) async fn say(socket: &mut Socket, texts: &[&str]) {
    for text in texts {
        within(socket.send(Message::text((*text).to_owned())))
            .await
            .unwrap();
    }
}

/// The next message, as text; how the connection ended where there is none.
pub(super) async fn hear(socket: &mut Socket) -> Result<String, String> {
    match within(socket.next()).await {
        Some(Ok(message)) if message.is_close() => {
            let (code, reason) = message.as_close().unwrap();
            Err(format!("{} {reason}", u16::from(code)))
        }
        Some(Ok(message)) => Ok(String::from_utf8_lossy(message.as_payload()).into_owned()),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("end".to_owned()),
    }
}

/// What an echo sends back for these through a toxic that came when the connection was there: as many messages as are
/// told, or what comes before the end.
async fn echoed(
    kind: &str,
    stream: &str,
    attributes: Value,
    texts: &[&str],
    count: usize,
) -> Vec<String> {
    let api = Api::start();
    let mut socket = open(api.proxy(websocket_echo()).await).await;
    say(&mut socket, &["before"]).await;
    assert_eq!(hear(&mut socket).await.unwrap(), "before");
    api.toxic(kind, stream, attributes).await;
    say(&mut socket, texts).await;
    let mut heard = Vec::new();
    for _ in 0..count {
        match hear(&mut socket).await {
            Ok(text) => heard.push(text),
            Err(end) => {
                heard.push(end);
                break;
            }
        }
    }
    heard
}

#[tokio::test]
async fn messages_are_dropped_doubled_moved_and_replayed_in_either_direction() {
    for stream in ["upstream", "downstream"] {
        let second = json!({"nth": 2});
        let of = async |kind: &str, attributes, count| {
            echoed(kind, stream, attributes, &["a", "b", "c", "d"], count).await
        };
        let heard = of("ws_drop", json!({"match": second}), 3).await;
        assert_eq!(heard, ["a", "c", "d"]);
        let heard = of("ws_duplicate", json!({"match": second}), 5).await;
        assert_eq!(heard, ["a", "b", "b", "c", "d"]);
        let heard = of("ws_reorder", json!({"match": second, "window": 2}), 4).await;
        assert_eq!(heard, ["a", "c", "d", "b"]);
        let heard = of("ws_replay", json!({"match": {"nth": 3}, "back": 2}), 5).await;
        assert_eq!(heard, ["a", "b", "c", "a", "d"]);
        let heard = of("ws_fragment", json!({"size": 1}), 4).await;
        assert_eq!(heard, ["a", "b", "c", "d"]);
    }
}

#[tokio::test]
async fn a_message_that_nothing_overtakes_goes_in_its_time() {
    let begun = Instant::now();
    let attributes = json!({"match": {"nth": 2}, "window": 9, "timeout": 60});
    let heard = echoed("ws_reorder", "upstream", attributes, &["a", "b"], 2).await;
    assert_eq!(heard, ["a", "b"]);
    took(begun, Duration::from_millis(60), SOON);
}

#[tokio::test]
async fn a_close_comes_at_once_or_behind_a_message_and_both_sides_end() {
    let attributes = json!({"code": 4_001, "reason": "drill"});
    assert_eq!(
        echoed("ws_close", "downstream", attributes, &[], 1).await,
        ["4001 drill"]
    );
    for code in [1_001, 1_008, 1_011, 1_012, 1_013] {
        let attributes = json!({"match": {"nth": 2}, "code": code});
        let heard = echoed("ws_close", "downstream", attributes, &["a", "b", "c"], 4).await;
        assert_eq!(heard, ["a".to_owned(), "b".to_owned(), format!("{code} ")]);
    }
    let attributes = json!({"match": {"nth": 1}, "code": 1_006});
    let heard = echoed("ws_close", "downstream", attributes, &["a"], 2).await;
    assert!(heard.last().unwrap().contains("reset"), "{heard:?}");
    // Of a connection that comes while it is there, too.
    let api = Api::start();
    let addr = api.proxy(websocket_echo()).await;
    api.toxic("ws_close", "downstream", json!({"code": 1_013}))
        .await;
    assert_eq!(hear(&mut open(addr).await).await, Err("1013 ".to_owned()));
}

#[tokio::test]
async fn a_server_hears_a_close_that_is_masked() {
    let (heard, mut at_server) = tokio::sync::mpsc::unbounded_channel();
    let server = crate::harness::upstream(move |stream| {
        let heard = heard.clone();
        async move {
            let accepted = tokio_websockets::ServerBuilder::new().accept(stream).await;
            let mut socket = accepted.unwrap().1;
            while let Some(message) = socket.next().await {
                let close = message.unwrap();
                let close = close
                    .as_close()
                    .map(|(code, reason)| (code, reason.to_owned()));
                heard.send(close).unwrap();
            }
        }
    });
    let api = Api::start();
    let mut socket = open(api.proxy(server).await).await;
    let attributes = json!({"match": {"contains": "go"}, "code": 1_008, "reason": "policy"});
    api.toxic("ws_close", "upstream", attributes).await;
    say(&mut socket, &["stay", "go"]).await;
    assert_eq!(within(at_server.recv()).await, Some(None));
    assert_eq!(within(at_server.recv()).await, Some(None));
    let close = (CloseCode::POLICY_VIOLATION, "policy".to_owned());
    assert_eq!(within(at_server.recv()).await, Some(Some(close)));
    assert!(hear(&mut socket).await.is_err());
}

#[tokio::test]
async fn a_delayed_message_is_late_and_so_is_what_follows() {
    let api = Api::start();
    let mut socket = open(api.proxy(websocket_echo()).await).await;
    let attributes = json!({"match": {"contains": "late"}, "delay": 80});
    api.toxic("ws_delay", "downstream", attributes).await;
    let begun = Instant::now();
    say(&mut socket, &["early"]).await;
    assert_eq!(hear(&mut socket).await.unwrap(), "early");
    assert!(begun.elapsed() < Duration::from_millis(80));
    let begun = Instant::now();
    say(&mut socket, &["late", "behind"]).await;
    assert_eq!(hear(&mut socket).await.unwrap(), "late");
    took(begun, Duration::from_millis(80), SOON);
    assert_eq!(hear(&mut socket).await.unwrap(), "behind");
    // Without it what waits goes at once; a change of another leaves it waiting.
    let path = "/proxies/p/toxics/ws_delay_downstream";
    api.patch(path, json!({"attributes": {"delay": 600_000}}))
        .await;
    say(&mut socket, &["late"]).await;
    let is_late = "outcome=\"acted\",proxy=\"p\",toxic=\"ws_delay_downstream\"} 1\n";
    let waiting = async {
        loop {
            let metrics = api.raw(Method::GET, "/metrics", "").await.body;
            if String::from_utf8_lossy(&metrics).contains(is_late) {
                return;
            }
        }
    };
    within(waiting).await;
    api.toxic("ws_swallow", "downstream", json!({})).await;
    let waits = tokio::time::timeout(Duration::from_millis(60), socket.next()).await;
    assert!(waits.is_err());
    api.delete(path).await;
    assert_eq!(hear(&mut socket).await.unwrap(), "late");
}

#[tokio::test]
async fn corruption_reaches_the_application_in_a_whole_frame() {
    let attributes = json!({"match": {"nth": 2}, "bits": 1});
    let api = Api::start();
    let mut socket = open(api.proxy(websocket_echo()).await).await;
    api.toxic("ws_corrupt", "upstream", attributes).await;
    let sent = vec![0_u8; 40];
    for _ in 0..3 {
        within(socket.send(Message::binary(sent.clone())))
            .await
            .unwrap();
    }
    let mut bits = Vec::new();
    for _ in 0..3 {
        let message = within(socket.next()).await.unwrap().unwrap();
        assert_eq!(message.as_payload().len(), 40);
        bits.push(
            message
                .as_payload()
                .iter()
                .map(|byte| byte.count_ones())
                .sum::<u32>(),
        );
    }
    assert_eq!(bits, [0, 1, 0]);
}

#[tokio::test]
async fn broken_frames_are_noticed_by_the_peer() {
    let attributes = json!({"match": {"nth": 2}, "keep": 3});
    let heard = echoed(
        "ws_truncate",
        "downstream",
        attributes,
        &["whole", "broken"],
        9,
    )
    .await;
    assert_eq!(heard[0], "whole");
    assert_eq!(heard.len(), 2, "{heard:?}");
    for kind in [
        "reserved_opcode",
        "reserved_bits",
        "bad_mask",
        "invalid_utf8",
        "oversized_control",
        "fragmented_control",
        "stray_continuation",
        "unfinished_message",
        "bad_close",
    ] {
        let attributes = json!({"match": {"nth": 2}, "kind": kind});
        let heard = echoed(
            "ws_violate",
            "downstream",
            attributes,
            &["legal", "forbidden"],
            9,
        )
        .await;
        assert_eq!(heard[0], "legal");
        assert!(
            heard.len() == 2 && heard[1] != "forbidden",
            "{kind}: {heard:?}"
        );
    }
}

#[tokio::test]
async fn an_oversized_message_is_refused_by_its_header_or_is_as_long_as_it_says() {
    // The library takes 64 MiB.
    let heard = echoed("ws_oversize", "downstream", json!({}), &["a"], 1).await;
    assert!(
        heard[0].contains("large") || heard[0].contains("exceed"),
        "{heard:?}"
    );
    let attributes = json!({"match": {"nth": 1}, "length": 3_000_000});
    let heard = echoed("ws_oversize", "upstream", attributes, &["[1]", "next"], 2).await;
    assert_eq!(
        (heard[0].len(), heard[0].trim_end(), &heard[1][..]),
        (3_000_000, "[1]", "next")
    );
}

#[tokio::test]
async fn swallowed_pings_are_not_answered_and_data_are() {
    let api = Api::start();
    // The answer to a ping goes before that to the text behind it.
    let server = crate::harness::upstream(|stream| async move {
        let accepted = tokio_websockets::ServerBuilder::new().accept(stream).await;
        let mut socket = accepted.unwrap().1;
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() && socket.send(message).await.is_err() {
                return;
            }
        }
    });
    let mut socket = open(api.proxy(server).await).await;
    let asks = async |socket: &mut Socket| {
        within(socket.send(Message::ping("?"))).await.unwrap();
        say(socket, &["data"]).await;
        let mut is_answered = false;
        loop {
            let message = within(socket.next()).await.unwrap().unwrap();
            is_answered |= message.is_pong();
            if message.is_text() {
                break is_answered;
            }
        }
    };
    assert!(asks(&mut socket).await);
    for (stream, kind, is_answered) in [
        ("upstream", "ping", false),
        ("downstream", "pong", false),
        ("upstream", "pong", true),
        ("downstream", "ping", true),
    ] {
        api.toxic("ws_swallow", stream, json!({"kinds": [kind]}))
            .await;
        assert_eq!(asks(&mut socket).await, is_answered, "{stream} {kind}");
        api.delete(&format!("/proxies/p/toxics/ws_swallow_{stream}"))
            .await;
    }
    assert!(asks(&mut socket).await);
}

#[tokio::test]
async fn what_is_no_websocket_is_left_alone() {
    let api = Api::start();
    let addr = api.proxy(crate::harness::echo()).await;
    for (kind, attributes) in [
        ("ws_drop", json!({})),
        ("ws_close", json!({})),
        ("ws_violate", json!({})),
    ] {
        api.toxic(kind, "both", attributes).await;
    }
    crate::harness::round_trip(&mut connect(addr).await, b"\x81\x03raw").await;
}
