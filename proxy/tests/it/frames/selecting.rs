//! Which messages are taken, and what is refused.

use host::http::Method;
use serde_json::json;

use super::{hear, open, say};
use crate::harness::websocket_echo;
use crate::toxiproxy::Api;

#[tokio::test]
async fn each_selector_takes_what_it_says_and_changes_on_a_live_connection() {
    let api = Api::start();
    let mut socket = open(api.proxy(websocket_echo()).await).await;
    api.toxic("ws_drop", "upstream", json!({"match": {"nth": 1_000}}))
        .await;
    let given = [r#"{"t":"a"}"#, r#"{"t":"b"}"#, "text", "end"];
    for (selector, kept) in [
        (json!({"contains": "ex"}), vec![0, 1]),
        (json!({"regex": "^\\{.*\\}$"}), vec![2]),
        (json!({"pointer": "/t", "equals": "b"}), vec![0, 2]),
        (json!({"bytes": "7465", "offset": 0}), vec![0, 1]),
        (json!({"opcode": ["binary", "ping"]}), vec![0, 1, 2]),
    ] {
        let body = json!({"attributes": {"match": selector}});
        let (status, toxic) = api.patch("/proxies/p/toxics/ws_drop_upstream", body).await;
        assert_eq!((status, &toxic["attributes"]["match"]), (200, &selector));
        say(&mut socket, &given).await;
        for at in kept {
            assert_eq!(hear(&mut socket).await.unwrap(), given[at], "{selector}");
        }
        assert_eq!(hear(&mut socket).await.unwrap(), "end");
    }
}

#[tokio::test]
async fn what_was_done_and_what_could_not_be_is_counted() {
    let api = Api::start();
    let mut socket = open(api.proxy(websocket_echo()).await).await;
    api.toxic("ws_drop", "upstream", json!({"match": {"contains": "no"}}))
        .await;
    say(&mut socket, &["no", "yes", "no"]).await;
    // The last one is too long to be looked into.
    let long = "no".repeat(1 << 20);
    say(&mut socket, &[&long]).await;
    assert_eq!(hear(&mut socket).await.unwrap(), "yes");
    assert!(hear(&mut socket).await.unwrap() == long);
    let metrics = api.raw(Method::GET, "/metrics", "").await.body;
    let metrics = String::from_utf8(metrics.to_vec()).unwrap();
    for (outcome, count) in [("acted", 2), ("spared", 1)] {
        let line = format!(
            "faultlane_toxic_acts_total{{outcome=\"{outcome}\",proxy=\"p\",toxic=\"ws_drop_upstream\"}} {count}\n"
        );
        assert!(metrics.contains(&line), "{metrics}");
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_said() {
    let api = Api::start();
    api.proxy(websocket_echo()).await;
    for (kind, attributes, said) in [
        ("ws_drop", json!({"match": {"nth": 0}}), "nth 0"),
        ("ws_drop", json!({"match": {"every": 0}}), "every 0"),
        ("ws_drop", json!({"match": {"share": 1.5}}), "share 1.5"),
        ("ws_drop", json!({"match": {"regex": "("}}), "regex \"(\""),
        (
            "ws_drop",
            json!({"match": {"regex": "a{1000}{1000}"}}),
            "regex",
        ),
        (
            "ws_drop",
            json!({"match": {"opcode": ["txt"]}}),
            "opcode \"txt\"",
        ),
        ("ws_drop", json!({"match": {"opcode": [16]}}), "opcode 16"),
        ("ws_drop", json!({"match": {"bytes": "0"}}), "bytes \"0\""),
        (
            "ws_drop",
            json!({"match": {"offset": 4}}),
            "offset needs bytes",
        ),
        (
            "ws_drop",
            json!({"match": {"equals": 4}}),
            "equals needs a pointer",
        ),
        (
            "ws_drop",
            json!({"match": {"pointer": "a"}}),
            "pointer \"a\"",
        ),
        (
            "ws_drop",
            json!({"match": {"contain": "a"}}),
            "unknown field `contain`",
        ),
        ("ws_close", json!({"code": 999}), "code 999"),
        ("ws_close", json!({"code": 1_006, "reason": "x"}), "1006"),
        ("ws_close", json!({"reason": "x".repeat(124)}), "124 bytes"),
        ("ws_duplicate", json!({"copies": 0}), "copies 0"),
        ("ws_reorder", json!({"window": 0}), "window 0"),
        ("ws_corrupt", json!({"bits": 0}), "bits 0"),
        ("ws_fragment", json!({"size": 0}), "size 0"),
        ("ws_oversize", json!({"length": 0}), "length 0"),
        ("ws_swallow", json!({"kinds": []}), "kinds is empty"),
        ("ws_swallow", json!({"kinds": ["text"]}), "text"),
        ("ws_violate", json!({"kind": "rude"}), "rude"),
        ("ws_replay", json!({"back": 65}), "back 65"),
    ] {
        let body = json!({"type": kind, "attributes": attributes});
        let (status, answer) = api.post("/proxies/p/toxics", body).await;
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(
            status == 400 && error.contains(said),
            "{attributes}: {status} {answer}"
        );
    }
}
