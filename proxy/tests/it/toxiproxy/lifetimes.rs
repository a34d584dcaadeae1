//! Toxics that remove themselves.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Api, connect, took};
use crate::harness::{echo, within};

#[tokio::test]
async fn a_toxic_with_a_lifetime_removes_itself() {
    let api = Api::start();
    let addr = api.proxy(echo()).await;
    let begun = Instant::now();
    let body = json!({"type": "latency", "attributes": {"latency": 600_000}, "for": 80});
    let (status, toxic) = api.post("/proxies/p/toxics", body).await;
    assert_eq!((status, &toxic["for"]), (200, &json!(80)));
    assert_eq!(
        api.get("/proxies/p/toxics/latency_downstream").await.1["for"],
        80
    );
    let mut client = connect(addr).await;
    client.write_all(b"waits").await.unwrap();
    let mut back = [0; 5];
    within(client.read_exact(&mut back)).await.unwrap();
    took(begun, Duration::from_millis(80), Duration::from_millis(500));
    assert_eq!(api.get("/proxies/p/toxics").await.1, json!([]));
}

#[tokio::test]
async fn a_lifetime_can_be_set_anew_and_outlives_other_changes() {
    let api = Api::start();
    api.proxy(echo()).await;
    let begun = Instant::now();
    api.post(
        "/proxies/p/toxics",
        json!({"type": "latency", "name": "t", "for": 60}),
    )
    .await;
    api.post(
        "/proxies/p/toxics",
        json!({"type": "latency", "name": "u", "for": 60}),
    )
    .await;
    let (_, toxic) = api.patch("/proxies/p/toxics/t", json!({"for": 200})).await;
    assert_eq!(toxic["for"], 200);
    let (_, toxic) = api
        .patch("/proxies/p/toxics/u", json!({"attributes": {"latency": 1}}))
        .await;
    assert_eq!(
        (&toxic["for"], &toxic["attributes"]["latency"]),
        (&json!(60), &json!(1))
    );
    let gone = async |name: &str| {
        while api.get(&format!("/proxies/p/toxics/{name}")).await.0 == 200 {
            tokio::task::yield_now().await;
        }
    };
    within(gone("u")).await;
    took(begun, Duration::from_millis(60), Duration::from_millis(500));
    within(gone("t")).await;
    took(
        begun,
        Duration::from_millis(200),
        Duration::from_millis(500),
    );
}
