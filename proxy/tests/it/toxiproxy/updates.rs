//! Changes of proxies and toxics.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Api, connect, refused, took};
use crate::harness::{SOON, echo, loopback, round_trip, upstream, within};

#[tokio::test]
async fn a_disabled_proxy_closes_its_listener_and_its_connections_and_comes_back() {
    let api = Api::start();
    let addr = api.proxy(echo()).await;
    let mut client = connect(addr).await;
    round_trip(&mut client, b"before").await;
    api.toxic("latency", "upstream", json!({"latency": 1}))
        .await;
    let (status, proxy) = api.post("/proxies/p", json!({"enabled": false})).await;
    assert_eq!(
        (status, &proxy["enabled"], &proxy["listen"]),
        (200, &json!(false), &json!(addr.to_string()))
    );
    let refused = TcpStream::connect(addr).await.map_err(|error| error.kind());
    assert_eq!(refused.unwrap_err(), ErrorKind::ConnectionRefused);
    assert!(matches!(
        within(client.read(&mut [0; 8])).await,
        Ok(0) | Err(_)
    ));
    // Twice is as once.
    assert_eq!(
        api.patch("/proxies/p", json!({"enabled": false})).await.0,
        200
    );
    let (status, proxy) = api.patch("/proxies/p", json!({"enabled": true})).await;
    assert_eq!(
        (status, &proxy["enabled"], &proxy["listen"]),
        (200, &json!(true), &json!(addr.to_string()))
    );
    assert_eq!(proxy["toxics"][0]["name"], "latency_upstream");
    round_trip(&mut connect(addr).await, b"after").await;
}

#[tokio::test]
async fn another_upstream_is_taken_at_the_same_address_and_toxics_survive() {
    let api = Api::start();
    let addr = api.proxy(echo()).await;
    api.toxic("latency", "downstream", json!({"latency": 1}))
        .await;
    let mut old = connect(addr).await;
    round_trip(&mut old, b"before").await;
    let other = upstream(|mut stream| async move {
        let _ = stream.write_all(b"other").await;
        let _ = stream.read_u8().await;
    });
    let body = json!({"upstream": other.to_string(), "name": "q", "toxics": []});
    let (status, proxy) = api.patch("/proxies/p", body).await;
    assert_eq!(
        (status, &proxy["name"], &proxy["upstream"]),
        (200, &json!("p"), &json!(other.to_string()))
    );
    assert_eq!(
        (&proxy["listen"], proxy["toxics"].as_array().unwrap().len()),
        (&json!(addr.to_string()), 1)
    );
    assert!(matches!(
        within(old.read(&mut [0; 8])).await,
        Ok(0) | Err(_)
    ));
    let mut said = [0; 5];
    within(connect(addr).await.read_exact(&mut said))
        .await
        .unwrap();
    assert_eq!(&said, b"other");
}

#[tokio::test]
async fn another_address_is_taken_or_everything_stays_as_it_was() {
    let api = Api::start();
    let upstream = echo();
    let addr = api.proxy(upstream).await;
    let mut client = connect(addr).await;
    round_trip(&mut client, b"before").await;
    let taken = loopback();
    let busy = taken.local_addr().unwrap();
    let message = format!("listen tcp {busy}: bind: address already in use");
    let body = json!({"listen": busy.to_string()});
    assert_eq!(
        api.patch("/proxies/p", body.clone()).await,
        refused(500, &message)
    );
    let (_, proxy) = api.get("/proxies/p").await;
    assert_eq!(
        (&proxy["listen"], &proxy["enabled"]),
        (&json!(addr.to_string()), &json!(true))
    );
    round_trip(&mut connect(addr).await, b"still").await;
    drop(taken);
    let (status, proxy) = api.post("/proxies/p", body).await;
    assert_eq!((status, &proxy["listen"]), (200, &json!(busy.to_string())));
    round_trip(&mut connect(busy).await, b"moved").await;
    assert!(TcpStream::connect(addr).await.is_err());
    // The same port of another loopback address is the proxy's own.
    let (status, proxy) = api
        .post(
            "/proxies/p",
            json!({"listen": format!("127.0.0.2:{}", busy.port())}),
        )
        .await;
    assert_eq!(status, 200, "{proxy}");
    round_trip(
        &mut connect(proxy["listen"].as_str().unwrap().parse().unwrap()).await,
        b"again",
    )
    .await;
    let missing = api.patch("/proxies/none", json!({"enabled": true})).await;
    assert_eq!(missing, refused(404, "proxy not found"));
    assert_eq!(
        api.patch("/proxies/p", json!({"enabled": "yes"})).await.0,
        400
    );
}

#[tokio::test]
async fn a_toxic_is_changed_in_part_and_at_once() {
    let api = Api::start();
    let addr = api.proxy(echo()).await;
    api.toxic(
        "latency",
        "upstream",
        json!({"latency": 600_000, "jitter": 1}),
    )
    .await;
    let mut client = connect(addr).await;
    client.write_all(b"waits").await.unwrap();
    let body = json!({
        "name": "other", "type": "timeout", "stream": "downstream", "attributes": {"latency": 60},
    });
    let begun = Instant::now();
    let (status, toxic) = api.patch("/proxies/p/toxics/latency_upstream", body).await;
    let expected = json!({
        "attributes": {"latency": 60, "jitter": 1}, "name": "latency_upstream", "type": "latency",
        "stream": "upstream", "toxicity": 1,
    });
    assert_eq!((status, toxic), (200, expected));
    // What waits already does not wait for ten minutes.
    let mut back = [0; 5];
    within(client.read_exact(&mut back)).await.unwrap();
    took(begun, Duration::ZERO, SOON);
    let begun = Instant::now();
    round_trip(&mut client, b"again").await;
    took(begun, Duration::from_millis(59), SOON);
    let (_, toxic) = api
        .post(
            "/proxies/p/toxics/latency_upstream",
            json!({"toxicity": 0.0}),
        )
        .await;
    assert_eq!(
        (&toxic["toxicity"], &toxic["attributes"]["latency"]),
        (&json!(0), &json!(60))
    );
    let begun = Instant::now();
    for _ in 0..5 {
        round_trip(&mut client, b"quick").await;
    }
    assert!(begun.elapsed() < Duration::from_millis(5 * 60));
}

#[tokio::test]
async fn a_change_that_fails_changes_nothing() {
    let api = Api::start();
    api.proxy(echo()).await;
    api.toxic("latency", "upstream", json!({"latency": 5}))
        .await;
    let (_, before) = api.get("/proxies/p/toxics").await;
    for body in [
        json!({"attributes": {"latency": 9, "jitter": "x"}, "toxicity": 0.5}),
        json!({"attributes": {"latency": 9}, "toxicity": "x"}),
        json!({"attributes": {"latency": 9}, "toxicity": 7}),
        json!({"attributes": {"latency": 9, "jitter": -1}}),
    ] {
        let (status, answer) = api
            .patch("/proxies/p/toxics/latency_upstream", body.clone())
            .await;
        assert_eq!(status, 400, "{body}: {answer}");
        assert_eq!(api.get("/proxies/p/toxics").await.1, before, "{body}");
    }
}

#[tokio::test]
async fn a_reset_enables_every_proxy_and_drops_every_toxic() {
    let api = Api::start();
    let addr = api.proxy(echo()).await;
    let body = json!({"name": "off", "listen": "127.0.0.1:0", "upstream": echo().to_string(), "enabled": false});
    api.post("/proxies", body).await;
    api.toxic("latency", "both", json!({"latency": 600_000}))
        .await;
    let mut client = connect(addr).await;
    client.write_all(b"waits").await.unwrap();
    assert_eq!(api.post("/reset", json!(null)).await.0, 204);
    let mut back = [0; 5];
    within(client.read_exact(&mut back)).await.unwrap();
    let (_, proxies) = api.get("/proxies").await;
    for proxy in ["p", "off"] {
        assert_eq!(
            (&proxies[proxy]["enabled"], &proxies[proxy]["toxics"]),
            (&json!(true), &json!([]))
        );
    }
    let off = proxies["off"]["listen"].as_str().unwrap().parse().unwrap();
    round_trip(&mut connect(off).await, b"hello").await;
}
