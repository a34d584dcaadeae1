//! The conversation of `lanes/tests/golden/capture.py`, held with the embedded lane.

use futures_util::{SinkExt, StreamExt};
use host::http::Method;
use lanes::frame::Frame;
use lanes::spacetime::message::{ClientMessage, Encoded, MessageId, QueryId};
use lanes::spacetime::rows::{Row, SyncEvent};
use lanes::spacetime::{subprotocol, subscribe_path};
use model::target::Wire;
use serde_json::{Value, json};

use super::compare::{comparable, plain};
use crate::support::{PATIENCE, STREAM, Socket, Target, events_after, head_of};

fn row(seq: u64) -> SyncEvent {
    SyncEvent {
        stream_id: STREAM.to_owned(),
        seq,
        idempotency_key: format!("key-{seq}"),
        payload_hash: format!("sha256:{seq:064x}"),
        payload_json: format!("{{\"n\": {seq}}}"),
        committed_at_unix_ms: 1_700_000_000_000 + seq,
        durable_offset: seq,
        confirmed_read: false,
    }
}

/// The arguments as the other side's client wrote them, with spaces.
fn arguments(wire: Wire, seq: u64) -> Encoded {
    match Row::Event(row(seq)).in_update(wire) {
        Encoded::Text(_) => {
            let row = row(seq);
            Encoded::Text(format!(
                "[\"{STREAM}\", {seq}, \"{}\", \"{}\", {}, {}, {seq}, false]",
                row.idempotency_key,
                row.payload_hash,
                json!(row.payload_json),
                row.committed_at_unix_ms
            ))
        }
        binary @ Encoded::Binary(_) => binary,
    }
}

/// One connection of the conversation.
struct Talk {
    wire: Wire,
    socket: Socket,
}

impl Talk {
    async fn open(target: &Target, wire: Wire, token: &str, light: bool) -> Self {
        let path = subscribe_path("golden", wire);
        let sign = if path.contains('?') { '&' } else { '?' };
        let bearer = format!("Bearer {token}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("sec-websocket-protocol", subprotocol(wire)),
        ];
        let path = format!("{path}{sign}light={light}");
        let socket = target.socket(&path, &headers).await.unwrap();
        Self { wire, socket }
    }

    async fn next(&mut self) -> Value {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.socket.next()).await;
            let message = next.expect("a message in time").unwrap().unwrap();
            if let Some(frame) = Frame::of(&message) {
                return comparable(&frame);
            }
        }
    }

    async fn ask(&mut self, message: ClientMessage) -> Value {
        let frame = message.frame(self.wire);
        self.socket.send(frame.into_message()).await.unwrap();
        self.next().await
    }

    async fn call(&mut self, reducer: &str, args: Encoded, request_id: u32) -> Value {
        self.ask(ClientMessage::CallReducer {
            reducer: reducer.to_owned(),
            args,
            request_id,
            flags: 0,
        })
        .await
    }

    async fn subscribe(&mut self, queries: &[String], request_id: u32, id: u32) -> Value {
        self.ask(ClientMessage::SubscribeMulti {
            query_strings: queries.to_vec(),
            request_id,
            query_id: QueryId { id },
        })
        .await
    }

    async fn legacy(&mut self, query: &[String], request_id: u32) -> Value {
        self.ask(ClientMessage::Subscribe {
            query_strings: query.to_vec(),
            request_id,
        })
        .await
    }

    async fn one_off(&mut self, id: &[u8], query: &str) -> Value {
        self.ask(ClientMessage::OneOffQuery {
            message_id: MessageId::Bytes(id.to_vec()),
            query_string: query.to_owned(),
        })
        .await
    }

    async fn unsubscribe(&mut self, request_id: u32, id: u32) -> Value {
        self.ask(ClientMessage::UnsubscribeMulti {
            request_id,
            query_id: QueryId { id },
        })
        .await
    }
}

/// The answers, by the name of the file that has the real server's.
pub(super) async fn conversation(
    target: &Target,
    wire: Wire,
    token: &str,
) -> Vec<(&'static str, Value)> {
    let mut one = Talk::open(target, wire, token, false).await;
    let mut light = Talk::open(target, wire, token, true).await;
    let (events, head) = (events_after(STREAM, 1), head_of(STREAM));
    let both = [events.clone(), head.clone()];
    let mut said = vec![("identity_token", one.next().await)];
    light.next().await;
    said.push(("initial_subscription", one.legacy(&both, 1).await));
    let failed = one.legacy(&["SELECT 1".to_owned()], 2).await;
    said.push(("transaction_update_failed_subscribe", failed));
    one.legacy(&[events], 3).await;
    said.push(("subscribe_multi_applied", one.subscribe(&both, 4, 1).await));
    light.subscribe(&both, 4, 1).await;
    let nowhere = ["SELECT * FROM nowhere".to_owned()];
    said.push(("subscription_error", one.subscribe(&nowhere, 5, 2).await));
    let query_id = QueryId { id: 3 };
    let single = ClientMessage::SubscribeSingle {
        query: "SELECT * FROM stream_checkpoint".to_owned(),
        request_id: 6,
        query_id,
    };
    said.push(("subscribe_applied", one.ask(single).await));
    let end = ClientMessage::Unsubscribe {
        request_id: 7,
        query_id,
    };
    said.push(("unsubscribe_applied", one.ask(end).await));
    let append = "append_sync_event";
    let committed = one.call(append, arguments(wire, 4), 8).await;
    said.push(("transaction_update_committed", committed));
    said.push(("transaction_update_light", light.next().await));
    let conflict = one.call(append, arguments(wire, 9), 9).await;
    said.push(("transaction_update_failed", conflict));
    let repeated = one.call(append, arguments(wire, 4), 10).await;
    said.push(("transaction_update_repeated_key", repeated));
    let nothing = match wire {
        Wire::Json => Encoded::Text("[]".to_owned()),
        Wire::Bsatn => Encoded::Binary(Vec::new()),
    };
    let unknown = one.call("no_such_reducer", nothing, 11).await;
    said.push(("transaction_update_no_reducer", unknown));
    said.push((
        "one_off_query_error",
        one.one_off(&[1, 2, 3], "SELECT 1").await,
    ));
    said.push(("one_off_query_rows", one.one_off(&[4], &head).await));
    said.push(("unsubscribe_multi_applied", one.unsubscribe(12, 1).await));
    said.push(("unsubscribe_unknown", one.unsubscribe(13, 77).await));
    said
}

/// The answers over HTTP.
pub(super) async fn calls(target: &Target, token: &str) -> Vec<(&'static str, Value)> {
    let bearer = format!("Bearer {token}");
    let typed = |kind: &'static str| [("authorization", bearer.as_str()), ("content-type", kind)];
    let json_typed = typed("application/json");
    let ask = async |method, path: &str, headers: &[(&str, &str)], body: &str| {
        plain(&target.send(method, path, headers, body).await)
    };
    let append = "/v1/database/golden/call/append_sync_event";
    let sql = "/v1/database/golden/sql";
    let mut said = Vec::new();
    for seq in 1..=3 {
        let body = row(seq).positional();
        said = vec![(
            "http_call",
            ask(Method::POST, append, &json_typed, &body).await,
        )];
    }
    let (conflict, head) = (row(9).positional(), head_of(STREAM));
    for (name, path, headers, body) in [
        ("http_call_conflict", append, &json_typed[..], &*conflict),
        (
            "http_call_media_type",
            append,
            &typed("text/plain"),
            &conflict,
        ),
        ("http_call_arguments", append, &json_typed, "[1]"),
        (
            "http_call_no_reducer",
            "/v1/database/golden/call/nothing",
            &json_typed,
            "[]",
        ),
        (
            "http_call_no_database",
            "/v1/database/no/call/x",
            &json_typed,
            "[]",
        ),
        ("http_sql", sql, &json_typed[..1], &head),
        (
            "http_sql_error",
            sql,
            &json_typed[..1],
            "SELECT * FROM nowhere",
        ),
        (
            "http_bad_token",
            sql,
            &[("authorization", "Bearer nonsense")],
            "SELECT 1",
        ),
    ] {
        said.push((name, ask(Method::POST, path, headers, body).await));
    }
    let subscribe = "/v1/database/golden/subscribe";
    let answer = ask(Method::GET, subscribe, &json_typed[..1], "").await;
    said.push(("http_subscribe_plain", answer));
    said
}
