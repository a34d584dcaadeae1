//! WebSocket faults, with a real client and server.

use std::sync::{Arc, Mutex};

use futures_util::{SinkExt, StreamExt};
use model::quantity::Span;
use proxy::tap::{FrameTap, Way};
use proxy::websocket::Header;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;
use tokio_websockets::Message;

use crate::harness::{
    Proxy, ending, fault, figure, loopback, read_head, round_trip, scripted, websocket_echo, within,
};

#[tokio::test]
async fn messages_pass_and_frames_are_counted() {
    let proxy = Proxy::before(websocket_echo());
    let mut socket = proxy.websocket(1).await;
    for n in 0..5 {
        socket.send(Message::text(format!("m{n}"))).await.unwrap();
        let back = within(socket.next()).await.unwrap().unwrap();
        assert_eq!(back.as_text(), Some(format!("m{n}").as_str()));
    }
    let status = proxy.until(|status| status.frames == (5, 5)).await;
    assert_eq!((status.upgraded, status.open), (1, 1));
}

#[tokio::test]
async fn a_close_frame_reaches_the_client_and_both_sides_end() {
    let proxy = Proxy::before(websocket_echo());
    let mut sockets = Vec::new();
    for client in 0..10 {
        let mut socket = proxy.websocket(client).await;
        socket.send(Message::text("before")).await.unwrap();
        within(socket.next()).await.unwrap().unwrap();
        sockets.push(socket);
    }
    let view = proxy
        .inject(
            "f1",
            fault(json!({"ws_close": {"code": 4001, "reason": "drill"}})),
        )
        .await;
    assert_eq!(view.observation.bitten, 10);
    assert_eq!(figure(&view, "close_frames_sent"), 10);
    assert!(!view.active && view.injected.width() < Span::from_millis(1_500));
    for mut socket in sockets {
        let close = within(socket.next()).await.unwrap().unwrap();
        let (code, reason) = close.as_close().expect("a Close frame");
        assert_eq!((u16::from(code), reason), (4001, "drill"));
        assert!(within(socket.next()).await.is_none());
    }
    assert_eq!(proxy.status().await.open, 0);
    let mut socket = proxy.websocket(99).await;
    socket.send(Message::text("after")).await.unwrap();
    within(socket.next()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_close_frame_waits_for_the_end_of_the_frame_under_way() {
    // A frame of 6 bytes in two pieces; the second brings the beginning of the next frame, which must not be seen.
    let (addr, go) = scripted(&[&[0x82, 6, 1, 2, 3], &[4, 5, 6, 0x82, 3, 9]]);
    let proxy = Proxy::before(addr);
    let mut client = proxy.ask_upgrade(Some(1)).await;
    read_head(&mut client).await;
    go.add_permits(1);
    let mut half = [0; 5];
    within(client.read_exact(&mut half)).await.unwrap();

    let ordered = tokio::join!(
        proxy.inject("f1", fault(json!({"ws_close": {"code": 1001}}))),
        async {
            proxy.until(|status| !status.faults.is_empty()).await;
            go.add_permits(1);
        }
    );
    assert_eq!(figure(&ordered.0, "close_frames_sent"), 1);
    assert_eq!(
        ending(&mut client).await.unwrap(),
        [4, 5, 6, 0x88, 2, 0x03, 0xe9]
    );
}

#[tokio::test]
async fn a_frame_that_never_ends_does_not_keep_the_connection() {
    let (addr, go) = scripted(&[&[0x82, 6, 1, 2, 3]]);
    let proxy = Proxy::before(addr);
    let mut client = proxy.ask_upgrade(Some(1)).await;
    read_head(&mut client).await;
    go.add_permits(1);
    let mut half = [0; 5];
    within(client.read_exact(&mut half)).await.unwrap();
    let view = proxy
        .inject("f1", fault(json!({"ws_close": {"code": 1001}})))
        .await;
    assert_eq!(
        (view.observation.bitten, figure(&view, "close_frames_sent")),
        (1, 0)
    );
    assert_eq!(ending(&mut client).await.unwrap(), b"");
}

#[tokio::test]
async fn what_is_no_websocket_is_not_closed_as_one() {
    let proxy = Proxy::before(crate::harness::echo());
    let mut stream = proxy.tcp().await;
    round_trip(&mut stream, b"raw").await;
    let view = proxy
        .inject("f1", fault(json!({"ws_close": {"code": 1001}})))
        .await;
    assert_eq!(view.observation.bitten, 0);
    round_trip(&mut stream, b"still").await;
}

#[tokio::test]
async fn a_refused_upgrade_is_answered_with_retry_after_rounded_up() {
    let proxy = Proxy::before(websocket_echo());
    let mut old = proxy.websocket(1).await;
    let refuse = json!({"refuse_upgrade": {"status": 503, "retry_after": "1200ms"}});
    proxy.inject("f1", fault(refuse)).await;
    for client in [Some(2), None] {
        let mut stream = proxy.ask_upgrade(client).await;
        let answer = String::from_utf8(ending(&mut stream).await.unwrap()).unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"),
            "{answer}"
        );
        assert!(answer.contains("\r\nRetry-After: 2\r\n"), "{answer}");
    }
    old.send(Message::text("still")).await.unwrap();
    within(old.next()).await.unwrap().unwrap();
    let status = proxy.status().await;
    assert_eq!(status.refused.get(&503), Some(&2));
    assert_eq!((status.refused_with_retry_after, status.upgraded), (2, 1));
    let view = proxy.undo("f1").await;
    assert_eq!(
        (figure(&view, "refused"), figure(&view, "retry_after_sent")),
        (2, 2)
    );
    proxy.websocket(2).await;
}

#[tokio::test]
async fn the_lanes_own_refusals_are_counted_by_status() {
    let proxy = Proxy::before(crate::harness::upstream(|mut stream| async move {
        use tokio::io::AsyncWriteExt;
        let mut head = [0; 2_048];
        let _ = stream.read(&mut head).await;
        let answer =
            b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n";
        let _ = stream.write_all(answer).await;
    }));
    ending(&mut proxy.ask_upgrade(Some(1)).await).await.unwrap();
    let status = proxy.status().await;
    assert_eq!(status.refused.get(&429), Some(&1));
    assert_eq!((status.refused_with_retry_after, status.upgraded), (1, 0));
}

#[derive(Debug, Default)]
pub(crate) struct Recorder(pub(crate) Mutex<Vec<(Way, u64, Vec<u8>)>>);

impl FrameTap for Recorder {
    fn header(&self, _: u64, way: Way, header: &Header) {
        self.0
            .lock()
            .unwrap()
            .push((way, header.length, Vec::new()));
    }

    fn payload(&self, _: u64, way: Way, piece: &[u8]) {
        let mut frames = self.0.lock().unwrap();
        let frame = frames.iter_mut().rfind(|frame| frame.0 == way).unwrap();
        frame.2.extend_from_slice(piece);
    }
}

#[tokio::test]
async fn a_tap_hears_the_frames() {
    let (addr, go) = scripted(&[&[0x82, 3, 1], &[2, 3, 0x8a, 0]]);
    let (data, control) = (loopback(), loopback());
    let at = data.local_addr().unwrap();
    let (tap, shutdown) = (Arc::new(Recorder::default()), CancellationToken::new());
    let listening: Arc<dyn FrameTap> = tap.clone();
    let served = tokio::spawn(proxy::serve_tapped(
        data,
        control,
        addr,
        listening,
        shutdown.clone(),
    ));
    let mut client = tokio::net::TcpStream::connect(at).await.unwrap();
    let head = crate::harness::upgrade_head(None);
    tokio::io::AsyncWriteExt::write_all(&mut client, head.as_bytes())
        .await
        .unwrap();
    read_head(&mut client).await;
    go.add_permits(2);
    let mut frames = [0; 7];
    within(client.read_exact(&mut frames)).await.unwrap();
    let both = async {
        while tap.0.lock().unwrap().len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    within(both).await;
    assert_eq!(
        *tap.0.lock().unwrap(),
        [
            (Way::Downstream, 3, vec![1, 2, 3]),
            (Way::Downstream, 0, vec![])
        ]
    );
    shutdown.cancel();
    within(served).await.unwrap().unwrap();
}
