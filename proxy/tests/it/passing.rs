//! Without a fault: every byte, every end.

use std::io::ErrorKind;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

use crate::harness::{
    Proxy, echo, ending, fault, pattern, read_head, round_trip, scripted, upgrade_head, upstream,
    within,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_stream_passes_whole_both_ways_and_is_counted() {
    let proxy = Proxy::before(echo());
    let (mut read, mut write) = proxy.tcp().await.into_split();
    let sent = pattern(8 << 20);
    let expected = sent.clone();
    let writing = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut got = Vec::new();
    within(read.read_to_end(&mut got)).await.unwrap();
    writing.await.unwrap();
    assert!(got == expected);
    let status = proxy.until(|status| status.open == 0).await;
    assert_eq!(
        (status.upstream_bytes, status.downstream_bytes),
        (8 << 20, 8 << 20)
    );
    assert_eq!(
        (status.accepted, status.arrivals.len(), status.arrivals[0].1),
        (1, 1, 1)
    );
}

#[tokio::test]
async fn a_half_closed_connection_still_answers() {
    let proxy = Proxy::before(upstream(|mut stream| async move {
        let mut asked = Vec::new();
        stream.read_to_end(&mut asked).await.unwrap();
        stream
            .write_all(format!("{} bytes", asked.len()).as_bytes())
            .await
            .unwrap();
    }));
    let mut client = proxy.tcp().await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(ending(&mut client).await.unwrap(), b"8 bytes");
}

#[tokio::test]
async fn an_upstream_that_speaks_first_is_heard() {
    let proxy = Proxy::before(upstream(|mut stream| async move {
        let _ = stream.write_all(b"220 ready\r\n").await;
    }));
    assert_eq!(
        ending(&mut proxy.tcp().await).await.unwrap(),
        b"220 ready\r\n"
    );
}

#[tokio::test]
async fn a_reset_of_one_side_is_a_reset_of_the_other() {
    let (sender, told) = oneshot::channel();
    let sender = std::sync::Mutex::new(Some(sender));
    let proxy = Proxy::before(upstream(move |mut stream| {
        let sender = sender.lock().unwrap().take();
        async move {
            let ended = stream.read_u8().await.map_err(|error| error.kind());
            let _ = sender.unwrap().send(ended);
        }
    }));
    let client = proxy.tcp().await;
    proxy.until(|status| status.open == 1).await;
    client.set_zero_linger().unwrap();
    drop(client);
    assert_eq!(within(told).await.unwrap(), Err(ErrorKind::ConnectionReset));

    let proxy = Proxy::before(upstream(|stream| async move {
        stream.set_zero_linger().unwrap();
    }));
    assert_eq!(
        ending(&mut proxy.tcp().await).await,
        Err(ErrorKind::ConnectionReset)
    );
}

#[tokio::test]
async fn a_lane_that_is_away_is_a_reset() {
    let away = crate::harness::loopback().local_addr().unwrap();
    let proxy = Proxy::before(away);
    assert_eq!(
        ending(&mut proxy.tcp().await).await,
        Err(ErrorKind::ConnectionReset)
    );
    proxy.until(|status| status.open == 0).await;
}

#[tokio::test]
async fn illegal_frames_pass_byte_for_byte_and_are_counted() {
    // RSV bits, an unknown opcode, a masked server frame, a fragment, and a length in more bytes than it needs.
    const ODD: &[&[u8]] = &[
        &[0xf3, 0x03, 1, 2, 3],
        &[0x82, 0x81, 9, 9, 9, 9, 7],
        &[0x01, 0x7e, 0x00, 0x02, 5],
        &[6, 0x8b, 0x00],
    ];
    let (addr, go) = scripted(ODD);
    let proxy = Proxy::before(addr);
    let mut client = proxy.ask_upgrade(Some(1)).await;
    assert!(read_head(&mut client).await.starts_with("HTTP/1.1 101"));
    let frames = [&[0x70, 0x80, 1, 2, 3, 4][..], &[0xff, 0x01, 0x2a]].concat();
    client.write_all(&frames).await.unwrap();
    go.add_permits(ODD.len());
    let expected = ODD.concat();
    let mut got = vec![0; expected.len()];
    within(client.read_exact(&mut got)).await.unwrap();
    assert_eq!(got, expected);
    let status = proxy.until(|status| status.frames == (2, 4)).await;
    assert_eq!(status.upgraded, 1);
    let head = upgrade_head(Some(1)).len();
    assert_eq!(status.upstream_bytes, (head + frames.len()) as u64);
}

#[tokio::test]
async fn what_is_not_http_passes_whether_or_not_a_fault_asks_for_heads() {
    let proxy = Proxy::before(echo());
    let hostile = [
        vec![0; 40_000],
        [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'a'; 40_000]].concat(),
        b"\r\n\r\n\n\n\n".to_vec(),
        b"GET / HTTP/9.9\r\nUpgrade: websocket\r\n\r\n".to_vec(),
        b"partial".to_vec(),
    ];
    for bytes in &hostile {
        round_trip(&mut proxy.tcp().await, bytes).await;
    }
    let refuse = fault(serde_json::json!({"refuse_upgrade": {"status": 503}}));
    proxy.inject("f1", refuse).await;
    for bytes in &hostile {
        round_trip(&mut proxy.tcp().await, bytes).await;
    }
    assert_eq!(proxy.look("f1").await.observation.bitten, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn any_bytes_in_any_pieces_pass_unchanged(
        bytes in prop::collection::vec(any::<u8>(), 1..3_000),
        piece in 1..900_usize,
        upgraded in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let proxy = Proxy::before(echo());
            let (mut read, mut write) = proxy.tcp().await.into_split();
            let head = if upgraded { upgrade_head(None) } else { String::new() };
            let sent = [head.as_bytes(), &bytes].concat();
            for piece in sent.chunks(piece) {
                write.write_all(piece).await.unwrap();
            }
            write.shutdown().await.unwrap();
            let mut got = Vec::new();
            within(read.read_to_end(&mut got)).await.unwrap();
            assert_eq!(got, sent);
        });
    }
}
