//! Upgrades that are rewritten on their way, byte for byte.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

use super::upgrades::{ANSWER, ask, is_silent, lane, say, websocket};
use super::{Api, connect};
use crate::harness::{
    ending, read_head, round_trip, upgrade_head, upstream, websocket_echo, within,
};

#[tokio::test]
async fn a_request_is_rewritten_in_one_place_however_it_is_cut() {
    let head = "GET /sync?a=1&token=old HTTP/1.1\r\nhOST: lane\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Authorization: Bearer old\r\nCookie: a\r\ncookie: b\r\nSec-WebSocket-Protocol: v2, v1\r\n\r\n";
    let api = Api::start();
    let (to, mut heads) = lane(b"");
    let addr = api.proxy(to).await;
    for (attributes, before, after) in [
        (json!({"name": "cookie"}), "Cookie: a\r\ncookie: b\r\n", ""),
        (
            json!({"name": "Host", "value": "other"}),
            "hOST: lane",
            "hOST: other",
        ),
        (json!({"part": "subprotocol", "name": "v2"}), "v2, v1", "v1"),
        (
            json!({"part": "subprotocol"}),
            "Sec-WebSocket-Protocol: v2, v1\r\n",
            "",
        ),
        (json!({"part": "query", "name": "token"}), "&token=old", ""),
        (
            json!({"part": "query", "name": "token", "value": "much longer than it was"}),
            "=old",
            "=much%20longer%20than%20it%20was",
        ),
        (
            json!({"part": "authorization", "value": "new"}),
            "Bearer old",
            "Bearer new",
        ),
        (
            json!({"part": "authorization"}),
            "Authorization: Bearer old\r\n",
            "",
        ),
    ] {
        let body = json!({"name": "t", "type": "ws_rewrite_upgrade", "stream": "upstream", "attributes": attributes});
        assert_eq!(api.post("/proxies/p/toxics", body).await.0, 200);
        for chunk in [1, 40, 10_000] {
            let mut client = connect(addr).await;
            // Frames may come behind the request at once.
            for piece in format!("{head}frames").as_bytes().chunks(chunk) {
                client.write_all(piece).await.unwrap();
            }
            let got = within(heads.recv()).await.unwrap();
            assert_eq!(got, head.replace(before, after), "{attributes}");
            assert_eq!(read_head(&mut client).await, ANSWER);
            let mut frames = [0; 6];
            within(client.read_exact(&mut frames)).await.unwrap();
            assert_eq!(&frames, b"frames");
        }
        api.delete("/proxies/p/toxics/t").await;
    }
}

#[tokio::test]
async fn an_answer_is_rewritten_in_one_place_and_only_that_of_an_upgrade() {
    let api = Api::start();
    let (to, mut heads) = lane(b"hello");
    let addr = api.proxy(to).await;
    for (attributes, before, after) in [
        (
            json!({"name": "set-cookie"}),
            "Set-Cookie: a=1\r\nset-cookie: b=2\r\n",
            "",
        ),
        (
            json!({"part": "subprotocol", "value": "v9"}),
            "Protocol: v1",
            "Protocol: v9",
        ),
        (json!({"name": "x-none", "value": "v9"}), "", ""),
    ] {
        let body = json!({"name": "t", "type": "ws_rewrite_upgrade", "attributes": attributes});
        assert_eq!(api.post("/proxies/p/toxics", body).await.0, 200);
        let mut client = ask(addr).await;
        assert_eq!(within(heads.recv()).await.unwrap(), upgrade_head(None));
        assert_eq!(
            read_head(&mut client).await,
            ANSWER.replacen(before, after, 2)
        );
        let mut greeting = [0; 5];
        within(client.read_exact(&mut greeting)).await.unwrap();
        round_trip(&mut client, b"goes on").await;
        let mut other = connect(addr).await;
        other.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert_eq!(read_head(&mut other).await, ANSWER);
        within(heads.recv()).await.unwrap();
        api.delete("/proxies/p/toxics/t").await;
    }
}

#[tokio::test]
async fn an_answer_that_comes_in_pieces_is_rewritten_as_a_whole() {
    let go = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&go);
    let api = Api::start();
    let addr = api
        .proxy(upstream(move |mut stream| {
            let gate = Arc::clone(&gate);
            async move {
                let mut head = [0; 4_096];
                let _ = stream.read(&mut head).await;
                // An informational answer may come first, and is none of it.
                let early = "HTTP/1.1 103 Early Hints\r\nSet-Cookie: early\r\n\r\n";
                let all = format!("{early}{ANSWER}hello");
                for piece in all.as_bytes().chunks(70) {
                    let _ = stream.write_all(piece).await;
                    gate.acquire().await.unwrap().forget();
                }
            }
        }))
        .await;
    let cookies = json!({"name": "set-cookie"});
    api.toxic("ws_rewrite_upgrade", "downstream", cookies).await;
    let mut client = ask(addr).await;
    assert!(is_silent(&mut client).await, "a piece alone does not pass");
    go.add_permits(10);
    let early = read_head(&mut client).await;
    assert!(early.contains("Set-Cookie: early"), "{early}");
    let answer = ANSWER.replace("Set-Cookie: a=1\r\nset-cookie: b=2\r\n", "");
    assert_eq!(read_head(&mut client).await, answer);
    assert_eq!(ending(&mut client).await.unwrap(), b"hello");
}

#[tokio::test]
async fn a_real_client_notices_an_answer_that_does_not_fit() {
    let api = Api::start();
    let addr = api.proxy(websocket_echo()).await;
    let forged = json!({"name": "Sec-WebSocket-Accept", "value": "forged"});
    api.toxic("ws_rewrite_upgrade", "downstream", forged).await;
    assert!(websocket(addr).await.is_err());
    api.delete("/proxies/p/toxics/ws_rewrite_upgrade_downstream")
        .await;
    say(&mut websocket(addr).await.unwrap(), "after").await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let api = Api::start();
    api.proxy(crate::harness::echo()).await;
    let rewrite = "ws_rewrite_upgrade";
    for (kind, stream, attributes, reason) in [
        (
            "ws_refuse_upgrade",
            "both",
            json!({"status": 101}),
            "status 101 does not refuse",
        ),
        (
            "ws_refuse_upgrade",
            "both",
            json!({"retry_after": -1}),
            "invalid value",
        ),
        (
            "ws_slow_upgrade",
            "both",
            json!({"delay": "1s"}),
            "invalid type",
        ),
        (
            rewrite,
            "both",
            json!({}),
            "name \"\" is not the name of a header",
        ),
        (
            rewrite,
            "both",
            json!({"name": "a b"}),
            "name \"a b\" is not the name of a header",
        ),
        (
            rewrite,
            "both",
            json!({"name": "a", "value": "b\r\nc: d"}),
            "control characters",
        ),
        (
            rewrite,
            "both",
            json!({"part": "cookie"}),
            "unknown variant",
        ),
        (
            rewrite,
            "upstream",
            json!({"part": "query"}),
            "not the name of a parameter",
        ),
        (
            rewrite,
            "upstream",
            json!({"part": "authorization", "name": "a"}),
            "superfluous",
        ),
        (
            rewrite,
            "downstream",
            json!({"part": "query", "name": "a"}),
            "use stream upstream",
        ),
        (
            rewrite,
            "downstream",
            json!({"part": "authorization"}),
            "use stream upstream",
        ),
    ] {
        let body = json!({"type": kind, "stream": stream, "attributes": attributes});
        let (status, answer) = api.post("/proxies/p/toxics", body).await;
        let error = answer["error"].as_str().unwrap();
        assert!(status == 400 && error.contains(reason), "{status} {error}");
    }
    api.toxic(rewrite, "downstream", json!({"name": "a"})).await;
    let path = "/proxies/p/toxics/ws_rewrite_upgrade_downstream";
    let change = json!({"attributes": {"part": "query"}});
    assert_eq!(api.patch(path, change).await.0, 400);
    let (_, kept): (u16, Value) = api.get(path).await;
    assert_eq!(kept["attributes"], json!({"part": "header", "name": "a"}));
}
