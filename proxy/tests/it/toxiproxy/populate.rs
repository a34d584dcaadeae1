//! Populate: many proxies at once.

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use super::{Api, connect, refused};
use crate::harness::{echo, loopback, round_trip, within};

fn names(answer: &Value) -> Vec<&str> {
    let proxies = answer["proxies"].as_array().unwrap();
    proxies
        .iter()
        .map(|proxy| proxy["name"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn proxies_are_made_and_others_stay() {
    let (api, upstream) = (Api::start(), echo());
    api.proxy(upstream).await;
    let upstream = upstream.to_string();
    let (status, answer) = api
        .post(
            "/populate",
            json!([
                {"name": "one", "listen": "localhost:0", "upstream": upstream},
                {"Name": "two", "Listen": "localhost:0", "Upstream": upstream, "enabled": false},
            ]),
        )
        .await;
    assert_eq!((status, names(&answer)), (201, vec!["one", "two"]));
    assert_eq!(answer.as_object().unwrap().len(), 1, "{answer}");
    assert_eq!(
        (
            &answer["proxies"][0]["enabled"],
            &answer["proxies"][1]["enabled"]
        ),
        (&json!(true), &json!(false))
    );
    let (_, all) = api.get("/proxies").await;
    assert_eq!(
        all.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["one", "p", "two"]
    );
    let addr = answer["proxies"][0]["listen"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    round_trip(&mut connect(addr).await, b"hello").await;
}

#[tokio::test]
async fn nothing_is_made_when_one_lacks_something() {
    let api = Api::start();
    let one = json!({"name": "one", "listen": "127.0.0.1:0", "upstream": "127.0.0.1:9"});
    for (broken, error) in [
        (
            json!({"name": "", "upstream": "u:1"}),
            "missing required field: name at proxy 2",
        ),
        (
            json!({"name": "two"}),
            "missing required field: upstream at proxy 2",
        ),
    ] {
        let answer = api.post("/populate", json!([one, broken])).await;
        assert_eq!(
            answer,
            (400, json!({"error": error, "status": 400, "proxies": null}))
        );
    }
    let (status, answer) = api.post("/populate", json!({"proxies": []})).await;
    assert!(
        status == 400
            && answer["error"]
                .as_str()
                .unwrap()
                .starts_with("bad request body: "),
        "{answer}"
    );
    assert_eq!(answer["proxies"], Value::Null);
    assert_eq!(api.get("/proxies").await, (200, json!({})));
    assert_eq!(
        api.post("/populate", json!([])).await,
        (201, json!({"proxies": null}))
    );
}

#[tokio::test]
async fn a_port_that_is_taken_ends_it_with_those_that_were_made() {
    let api = Api::start();
    let taken = loopback().local_addr().unwrap();
    let _taken = std::net::TcpListener::bind(taken).unwrap();
    let proxy = |name: &str, listen: &str| json!({"name": name, "listen": listen, "upstream": "127.0.0.1:9"});
    let (status, answer) = api
        .post(
            "/populate",
            json!([
                proxy("one", "127.0.0.1:0"),
                proxy("two", &taken.to_string()),
                proxy("three", "127.0.0.1:0"),
            ]),
        )
        .await;
    assert_eq!(status, 500);
    assert_eq!(
        answer["error"],
        format!("listen tcp {taken}: bind: address already in use")
    );
    assert_eq!(
        (names(&answer), &answer["status"]),
        (vec!["one"], &json!(500))
    );
    assert_eq!(
        api.get("/proxies/two").await,
        refused(404, "proxy not found")
    );
    assert_eq!(api.get("/proxies/three").await.0, 404);
}

#[tokio::test]
async fn a_proxy_that_cannot_be_replaced_stays() {
    let (api, upstream) = (Api::start(), echo());
    let addr = api.proxy(upstream).await;
    api.toxic("latency", "upstream", json!({"latency": 1}))
        .await;
    let taken = loopback();
    let busy = taken.local_addr().unwrap().to_string();
    for listen in [busy.as_str(), "nowhere"] {
        let other = json!([{"name": "p", "listen": listen, "upstream": "127.0.0.1:9"}]);
        let (status, answer) = api.post("/populate", other).await;
        assert_eq!(
            (status, &answer["proxies"]),
            (500, &Value::Null),
            "{answer}"
        );
        let (_, proxy) = api.get("/proxies/p").await;
        let kept = (
            &proxy["listen"],
            &proxy["enabled"],
            &proxy["toxics"][0]["type"],
        );
        assert_eq!(
            kept,
            (&json!(addr.to_string()), &json!(true), &json!("latency"))
        );
        round_trip(&mut connect(addr).await, b"still").await;
    }
}

#[tokio::test]
async fn the_same_proxy_is_left_alone_and_another_one_replaced() {
    let (api, upstream) = (Api::start(), echo());
    let addr = api.proxy(upstream).await;
    api.toxic("latency", "upstream", json!({"latency": 1}))
        .await;
    let mut client = connect(addr).await;
    round_trip(&mut client, b"before").await;
    let same = json!([{"name": "p", "listen": addr.to_string(), "upstream": upstream.to_string(), "enabled": false}]);
    let (status, answer) = api.post("/populate", same).await;
    assert_eq!(status, 201);
    assert_eq!(answer["proxies"][0]["enabled"], true);
    assert_eq!(
        answer["proxies"][0]["toxics"][0]["name"],
        "latency_upstream"
    );
    // By another name for the same address too.
    let named = json!([{"name": "p", "listen": format!("localhost:{}", addr.port()), "upstream": upstream.to_string()}]);
    assert_eq!(
        api.post("/populate", named).await.1["proxies"][0]["toxics"][0]["type"],
        "latency"
    );
    round_trip(&mut client, b"after").await;

    let other = echo().to_string();
    let changed = json!([{"name": "p", "listen": addr.to_string(), "upstream": other}]);
    let (status, answer) = api.post("/populate", changed).await;
    assert_eq!(
        (status, &answer["proxies"][0]["upstream"]),
        (201, &json!(other))
    );
    assert_eq!(answer["proxies"][0]["toxics"], json!([]));
    assert_eq!(answer["proxies"][0]["listen"], addr.to_string());
    let ended = within(client.read(&mut [0; 8])).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    round_trip(&mut connect(addr).await, b"hello").await;
}
