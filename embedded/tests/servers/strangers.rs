//! What somebody who is not known can hold: little, and not for long.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use model::ids::Lane;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{SECRET, Target};

/// Sends a head that announces `length` bytes and `sent` bytes of the body; everything that is answered until the
/// other side closes.
async fn half(addr: SocketAddr, bearer: &str, length: usize, sent: usize) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let head = format!(
        "POST /api/sync/token HTTP/1.1\r\nHost: lane\r\nAuthorization: Bearer {bearer}\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // Cut off, where the answer does not wait for the whole of it.
    let _ = stream.write_all(&vec![b' '; sent]).await;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(Duration::from_secs(15), read)
        .await
        .expect("the connection is closed");
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn half_a_body_is_not_waited_for() {
    let targets = Lane::ALL.map(Target::start);
    let addrs = targets
        .iter()
        .flat_map(|target| [target.http().addr(), target.tokens.addr()]);
    let began = Instant::now();
    let asked: Vec<_> = addrs
        .map(|addr| tokio::spawn(half(addr, "nobody", 100, 50)))
        .collect();
    for answer in asked {
        let answer = answer.await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
    assert!(began.elapsed() < Duration::from_secs(12));
}

#[tokio::test]
async fn only_who_is_known_may_send_much() {
    const MUCH: usize = 1 << 20;
    for lane in Lane::ALL {
        let target = Target::start(lane);
        for addr in [target.http().addr(), target.tokens.addr()] {
            // What hyper refuses by the announced length alone is refused before any of it is there.
            let answer = half(addr, "nobody", MUCH, 80 << 10).await;
            assert!(
                answer.is_empty() || answer.starts_with("HTTP/1.1 413"),
                "{answer}"
            );
        }
        let answer = target
            .post("/no/such/route", &" ".repeat(MUCH), SECRET)
            .await;
        assert_eq!(answer.status, 404, "{lane}: the publishers' is read");
    }
}
