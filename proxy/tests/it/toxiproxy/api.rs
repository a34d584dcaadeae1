//! Routes, statuses, bodies and texts.

use host::http::Method;
use proxy::toxiproxy::Settings;
use serde_json::json;

use super::{Api, refused};
use crate::harness::{SOON, echo, loopback, round_trip};

#[tokio::test]
async fn a_proxy_is_created_shown_and_deleted() {
    let (api, upstream) = (Api::start(), echo());
    assert_eq!(api.get("/proxies").await, (200, json!({})));
    let addr = api.proxy(upstream).await;
    let proxy = json!({
        "name": "p", "listen": addr.to_string(), "upstream": upstream.to_string(), "enabled": true, "toxics": [],
    });
    assert_eq!(api.get("/proxies").await, (200, json!({"p": proxy})));
    assert_eq!(api.get("/proxies/p").await, (200, proxy));
    round_trip(&mut super::connect(addr).await, b"hello").await;
    assert_eq!(api.delete("/proxies/p").await, 204);
    assert_eq!(api.get("/proxies/p").await, refused(404, "proxy not found"));
    assert_eq!(api.delete("/proxies/p").await, 404);
    // The port is free the moment that it is answered.
    std::net::TcpListener::bind(addr).unwrap();
}

#[tokio::test]
async fn bodies_have_the_keys_in_toxiproxys_order() {
    let api = Api::start();
    let upstream = echo();
    let body =
        format!(r#"{{"name":"p","listen":"127.0.0.1:0","upstream":"{upstream}","enabled":false}}"#);
    let made = api.raw(Method::POST, "/proxies", &body).await;
    let expected = format!(
        r#"{{"name":"p","listen":"127.0.0.1:0","upstream":"{upstream}","enabled":false,"toxics":[]}}"#
    );
    assert_eq!(made.body, expected);
    assert_eq!(made.headers["content-type"], "application/json");
    let toxic = r#"{"type":"latency","attributes":{"latency":7}}"#;
    let made = api.raw(Method::POST, "/proxies/p/toxics", toxic).await;
    let expected = concat!(
        r#"{"attributes":{"latency":7,"jitter":0},"name":"latency_downstream","#,
        r#""type":"latency","stream":"downstream","toxicity":1}"#
    );
    assert_eq!(made.body, expected);
}

#[tokio::test]
async fn what_is_wrong_with_a_proxy_is_said_in_toxiproxys_words() {
    let api = Api::start();
    let create = async |body: &str| {
        let answer = api.raw(Method::POST, "/proxies", body).await;
        (
            answer.status.as_u16(),
            serde_json::from_slice(&answer.body).unwrap(),
        )
    };
    assert_eq!(create("").await, refused(400, "bad request body: EOF"));
    for body in [
        "{",
        "[]",
        "5",
        r#"{"name":5}"#,
        r#"{"name":"p","upstream":"u","enabled":1}"#,
    ] {
        let (status, answer) = create(body).await;
        let error = answer["error"].as_str().unwrap().to_owned();
        assert!(
            status == 400 && error.starts_with("bad request body: "),
            "{body}: {error}"
        );
        assert_eq!(answer["status"], 400);
    }
    for body in [
        "{}",
        "null",
        r#"{"upstream":"u:1"}"#,
        r#"{"name":"","upstream":"u:1"}"#,
    ] {
        assert_eq!(
            create(body).await,
            refused(400, "missing required field: name"),
            "{body}"
        );
    }
    assert_eq!(
        create(r#"{"name":"p","listen":"127.0.0.1:0"}"#).await,
        refused(400, "missing required field: upstream")
    );
    let good = r#"{"name":"p","listen":"127.0.0.1:0","upstream":"127.0.0.1:9"}"#;
    assert_eq!(create(good).await.0, 201);
    assert_eq!(create(good).await, refused(409, "proxy already exists"));
    for listen in ["nowhere", "127.0.0.1:http:0", "127.0.0.1:x"] {
        let body = json!({"name": "q", "listen": listen, "upstream": "127.0.0.1:9"});
        let (status, answer) = create(&body.to_string()).await;
        let error = answer["error"].as_str().unwrap().to_owned();
        assert!(
            status == 500 && error.starts_with("listen tcp"),
            "{listen}: {error}"
        );
    }
    assert_eq!(api.get("/proxies/q").await.0, 404);
}

#[tokio::test]
async fn a_port_that_is_taken_is_said_in_gos_words() {
    let api = Api::start();
    let taken = loopback();
    let addr = taken.local_addr().unwrap();
    let body = json!({"name": "p", "listen": addr.to_string(), "upstream": "127.0.0.1:9"});
    let message = format!("listen tcp {addr}: bind: address already in use");
    assert_eq!(api.post("/proxies", body).await, refused(500, &message));
    assert_eq!(api.get("/proxies").await, (200, json!({})));
}

#[tokio::test]
async fn keys_match_in_any_case_and_unknown_ones_are_ignored() {
    let api = Api::start();
    let body = r#"{"NAME":"p","Listen":"127.0.0.1:0","uPstream":"127.0.0.1:9","Enabled":null,"extra":[1]} trailing"#;
    let answer = api.raw(Method::POST, "/proxies", body).await;
    assert_eq!(answer.status, 201);
    let body = r#"{"Type":"latency","STREAM":"UpStream","Attributes":{"Latency":3,"JITTER":1,"what":"ever"},"q":1}"#;
    let answer = api.raw(Method::POST, "/proxies/p/toxics", body).await;
    let toxic: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(toxic["attributes"], json!({"latency": 3, "jitter": 1}));
    assert_eq!(
        (&toxic["name"], &toxic["stream"]),
        (&json!("latency_UpStream"), &json!("UpStream"))
    );
    // As the Java client sends it.
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let body = r#"{"enabled":false}"#.into();
    let answer = api
        .client
        .send(Method::POST, "/proxies/p", &form, body, SOON)
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_toxic_is_checked_in_toxiproxys_order() {
    let api = Api::start();
    let add = async |body: &str| {
        let answer = api.raw(Method::POST, "/proxies/p/toxics", body).await;
        (
            answer.status.as_u16(),
            serde_json::from_slice::<serde_json::Value>(&answer.body).unwrap(),
        )
    };
    assert_eq!(add("{").await, refused(404, "proxy not found"));
    api.proxy(echo()).await;
    let (status, answer) = add(r#"{"stream":"nowhere","type":5}"#).await;
    assert!(
        status == 400
            && answer["error"]
                .as_str()
                .unwrap()
                .starts_with("bad request body: ")
    );
    assert_eq!(
        add(r#"{"stream":"nowhere","type":"nothing"}"#).await,
        refused(
            400,
            "stream was invalid, can be either upstream or downstream"
        )
    );
    assert_eq!(
        add(r#"{"name":"t","type":"nothing"}"#).await,
        refused(400, "invalid toxic type")
    );
    assert_eq!(add(r#"{"name":"t","type":"timeout"}"#).await.0, 200);
    let twice = r#"{"name":"t","type":"latency","stream":"upstream","attributes":{"latency":"x"}}"#;
    assert_eq!(add(twice).await, refused(409, "toxic already exists"));
    for attributes in [
        json!({"latency": "x"}),
        json!({"latency": 1000.5}),
        json!({"latency": -1}),
        json!([]),
    ] {
        let body = json!({"type": "latency", "attributes": attributes});
        let (status, answer) = add(&body.to_string()).await;
        let error = answer["error"].as_str().unwrap();
        assert!(
            status == 400 && error.starts_with("bad request body: "),
            "{attributes}: {error}"
        );
    }
}

#[tokio::test]
async fn settings_that_crash_toxiproxy_are_refused() {
    let api = Api::start();
    api.proxy(echo()).await;
    for (kind, attributes) in [
        ("bandwidth", json!({"rate": -1})),
        ("slicer", json!({"average_size": 0})),
        ("slicer", json!({"average_size": 10, "size_variation": 11})),
        ("latency", json!({"latency": 1, "jitter": -5})),
        ("limit_data", json!({"bytes": -1})),
    ] {
        let body = json!({"type": kind, "attributes": attributes});
        assert_eq!(
            api.post("/proxies/p/toxics", body.clone()).await.0,
            400,
            "{body}"
        );
    }
    for toxicity in [-0.1, 1.5] {
        let body = json!({"type": "timeout", "toxicity": toxicity});
        assert_eq!(
            api.post("/proxies/p/toxics", body).await.0,
            400,
            "{toxicity}"
        );
    }
    assert_eq!(api.get("/proxies/p/toxics").await, (200, json!([])));
}

#[tokio::test]
async fn toxics_are_listed_upstream_first_and_in_order_and_their_names_are_unique() {
    let api = Api::start();
    api.proxy(echo()).await;
    for (name, stream) in [
        ("d1", "downstream"),
        ("u1", "upstream"),
        ("d0", "downstream"),
        ("u0", "upstream"),
    ] {
        let body = json!({"name": name, "type": "latency", "stream": stream});
        assert_eq!(api.post("/proxies/p/toxics", body).await.0, 200);
    }
    let (_, toxics) = api.get("/proxies/p/toxics").await;
    let names: Vec<_> = toxics
        .as_array()
        .unwrap()
        .iter()
        .map(|toxic| toxic["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["u1", "u0", "d1", "d0"]);
    assert_eq!(api.get("/proxies/p").await.1["toxics"], toxics);
    let body = json!({"name": "u1", "type": "latency", "stream": "downstream"});
    assert_eq!(
        api.post("/proxies/p/toxics", body).await,
        refused(409, "toxic already exists")
    );
    assert_eq!(api.get("/proxies/p/toxics/d0").await.1["name"], "d0");
    assert_eq!(
        api.get("/proxies/p/toxics/none").await,
        refused(404, "toxic not found")
    );
    assert_eq!(
        api.patch("/proxies/p/toxics/none", json!({})).await,
        refused(404, "toxic not found")
    );
    assert_eq!(api.delete("/proxies/p/toxics/d0").await, 204);
    assert_eq!(api.delete("/proxies/p/toxics/d0").await, 404);
}

#[tokio::test]
async fn every_attribute_is_echoed_with_its_default() {
    let api = Api::start();
    api.proxy(echo()).await;
    for (kind, attributes) in [
        ("latency", json!({"latency": 0, "jitter": 0})),
        ("bandwidth", json!({"rate": 0})),
        ("slow_close", json!({"delay": 0})),
        ("timeout", json!({"timeout": 0})),
        ("reset_peer", json!({"timeout": 0})),
        ("limit_data", json!({"bytes": 0})),
    ] {
        let (status, toxic) = api.post("/proxies/p/toxics", json!({"type": kind})).await;
        let expected = json!({
            "attributes": attributes, "name": format!("{kind}_downstream"), "type": kind,
            "stream": "downstream", "toxicity": 1,
        });
        assert_eq!((status, toxic), (200, expected));
    }
    let sliced = json!({"average_size": 5, "size_variation": 0, "delay": 0});
    let toxic = api
        .toxic("slicer", "upstream", json!({"average_size": 5}))
        .await;
    assert_eq!(toxic["attributes"], sliced);
}

#[tokio::test]
async fn a_browser_is_turned_away_and_every_answer_has_an_id() {
    let api = Api::start();
    let agent = [("user-agent", "Mozilla/5.0 (X11) Firefox/130.0")];
    let get = async |api: &Api, headers: &[(&str, &str)]| {
        api.client
            .send(Method::GET, "/version", headers, "".into(), SOON)
            .await
            .unwrap()
    };
    let answer = get(&api, &agent).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.body[..]),
        (403, &b"User agent not allowed\n"[..])
    );
    let first = answer.headers["x-toxiproxy-request-id"].clone();
    let answer = get(&api, &[("user-agent", "curl/8.0 Mozilla/5.0")]).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.body[..]),
        (200, &br#"{"version": "2.12.0"}"#[..])
    );
    assert_ne!(answer.headers["x-toxiproxy-request-id"], first);
    assert_eq!(first.len(), 20);
    let open = Api::with(Settings {
        allow_browsers: true,
        ..Settings::default()
    });
    assert_eq!(get(&open, &agent).await.status, 200);
}

#[tokio::test]
async fn what_is_no_route_is_404_and_the_wrong_method_405() {
    let api = Api::start();
    assert_eq!(api.get("/nowhere").await.0, 404);
    assert_eq!(api.get("/populate").await.0, 405);
    assert_eq!(
        api.call(Method::PUT, "/proxies/p/toxics/t", json!({}))
            .await
            .0,
        405
    );
}

#[tokio::test]
async fn a_token_is_asked_for_where_there_is_one() {
    let api = Api::with(Settings {
        token: Some("s3cret".to_owned()),
        ..Settings::default()
    });
    assert_eq!(api.get("/proxies").await.0, 401);
    for (value, status) in [
        ("Bearer s3cret", 200),
        ("Bearer s3cre", 401),
        ("Bearer S3cret", 401),
        ("s3cret", 401),
    ] {
        let headers = [("authorization", value)];
        let answer = api
            .client
            .send(Method::GET, "/metrics", &headers, "".into(), SOON)
            .await
            .unwrap();
        assert_eq!(answer.status, status, "{value}");
    }
}

#[tokio::test]
async fn names_may_have_spaces_and_more() {
    let api = Api::start();
    let body = json!({"name": "my proxy/ä", "listen": "127.0.0.1:0", "upstream": "127.0.0.1:9"});
    assert_eq!(api.post("/proxies", body).await.0, 201);
    assert_eq!(
        api.get("/proxies/my%20proxy%2F%C3%A4").await.1["name"],
        "my proxy/ä"
    );
}

#[tokio::test]
async fn a_proxy_off_loopback_is_refused_unless_it_is_allowed() {
    let api = Api::start();
    let body = json!({"name": "p", "listen": "192.0.2.7:0", "upstream": "127.0.0.1:9"});
    let (status, answer) = api.post("/proxies", body.clone()).await;
    assert!(
        status == 500
            && answer["error"]
                .as_str()
                .unwrap()
                .contains("--upstream-authenticates"),
        "{answer}"
    );
    let open = Api::with(Settings {
        off_loopback: true,
        ..Settings::default()
    });
    // There it is only not this host's.
    let (status, answer) = open.post("/proxies", body).await;
    let error = "listen tcp 192.0.2.7:0: bind: cannot assign requested address";
    assert_eq!((status, answer), refused(500, error));
    // Every address, or none, is as much as is allowed.
    for (listen, least, most) in [
        ("0.0.0.0:0", "127.0.0.1:", "0.0.0.0:"),
        ("[::]:0", "[::1]:", "[::]:"),
        ("", "127.0.0.1:", "[::]:"),
    ] {
        for (api, expected) in [(&api, least), (&open, most)] {
            let name = format!("n{listen}");
            let body = json!({"name": name, "listen": listen, "upstream": "127.0.0.1:9"});
            let (_, proxy) = api.post("/proxies", body).await;
            let bound = proxy["listen"].as_str().unwrap();
            assert!(bound.starts_with(expected), "{proxy}");
        }
    }
}

#[tokio::test]
async fn bytes_are_counted_while_connections_are_open() {
    let (api, upstream) = (Api::start(), echo());
    let addr = api.proxy(upstream).await;
    let mut client = super::connect(addr).await;
    round_trip(&mut client, b"hello").await;
    api.toxic("timeout", "upstream", json!({})).await;
    tokio::io::AsyncWriteExt::write_all(&mut client, b"lost")
        .await
        .unwrap();
    let expected = [
        ("received", "upstream", 9),
        ("received", "downstream", 5),
        ("sent", "upstream", 5),
        ("sent", "downstream", 5),
    ];
    let look = async {
        loop {
            let metrics = api.raw(Method::GET, "/metrics", "").await;
            let text = String::from_utf8(metrics.body.to_vec()).unwrap();
            let has = |(what, direction, count): &(&str, &str, u64)| {
                text.lines().any(|line| {
                    line == format!(
                        "toxiproxy_proxy_{what}_bytes_total{{direction=\"{direction}\",listener=\"{addr}\",\
                         proxy=\"p\",upstream=\"{upstream}\"}} {count}"
                    )
                })
            };
            if expected.iter().all(has) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    crate::harness::within(look).await;
}
