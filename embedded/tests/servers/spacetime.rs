//! The spacetime lane.

use futures_util::SinkExt;
use host::http::Method;
use lanes::spacetime::message::{
    ClientMessage, Encoded, Maybe, MessageId, QueryId, ServerMessage, TransactionUpdate,
    UpdateStatus,
};
use lanes::spacetime::rows::Row;
use lanes::token::{SCOPE_APPEND, SCOPE_CHECKPOINT, TokenRequest};
use model::ids::Lane;
use model::quantity::Rate;
use serde_json::{Value, json};
use tokio_websockets::{CloseCode, Message};

use crate::support::{
    OTHER, RIVAL, STREAM, Spacetime, Target, error_of, event, events_after, head_of, subscriber,
};

const SUBSCRIBE: &str = "/v1/database/sync/subscribe";
const PROTOCOL: (&str, &str) = ("sec-websocket-protocol", "v1.json.spacetimedb");

async fn rows(client: &mut Spacetime) -> Vec<Row> {
    match client.next().await {
        ServerMessage::SubscribeMultiApplied(applied) => applied.update.inserted().unwrap(),
        other => panic!("{other:?}"),
    }
}

fn seqs(rows: &[Row]) -> Vec<u64> {
    let mut seqs: Vec<u64> = rows
        .iter()
        .filter_map(|row| match row {
            Row::Event(event) => Some(event.seq),
            _ => None,
        })
        .collect();
    seqs.sort_unstable();
    seqs
}

async fn update(client: &mut Spacetime) -> TransactionUpdate {
    match client.next().await {
        ServerMessage::TransactionUpdate(update) => update,
        other => panic!("{other:?}"),
    }
}

fn call(args: &Value, request_id: u32) -> ClientMessage {
    ClientMessage::CallReducer {
        reducer: "append_sync_event".to_owned(),
        args: Encoded::Text(args.to_string()),
        request_id,
        flags: 0,
    }
}

fn args(n: u64) -> Value {
    serde_json::from_str(&event(STREAM, n).positional()).unwrap()
}

#[tokio::test]
async fn a_subscription_is_the_replay_and_then_what_matches_live() {
    let target = Target::start(Lane::Spacetime);
    target.publish(STREAM, 1, 5).await;
    let token = target.token().await;
    let mut client = target.spacetime(&token).await;
    client
        .subscribe(1, &[events_after(STREAM, 2), head_of(STREAM)])
        .await;
    let found = rows(&mut client).await;
    assert_eq!(seqs(&found), [3, 4, 5]);
    assert!(
        found
            .iter()
            .any(|row| matches!(row, Row::Head(head) if head.head_seq == 5))
    );

    let mut other = target.spacetime(&token).await;
    other.subscribe(1, &[events_after(OTHER, 0)]).await;
    assert!(rows(&mut other).await.is_empty());
    target.publish(STREAM, 6, 6).await;
    target.publish(OTHER, 1, 1).await;
    let UpdateStatus::Committed(changed) = update(&mut client).await.status else {
        panic!("not committed");
    };
    assert_eq!(seqs(&changed.inserted().unwrap()), [6]);
    let head = changed
        .tables
        .iter()
        .find(|table| table.table_name == "stream_head")
        .unwrap();
    assert_eq!((head.num_rows, head.updates[0].deletes.len()), (2, 1));
    assert!(
        matches!(&head.updates[0].inserts[0], Encoded::Text(row) if row.starts_with('[')),
        "columns in order"
    );
    let UpdateStatus::Committed(changed) = update(&mut other).await.status else {
        panic!("not committed");
    };
    assert_eq!(
        changed.tables.len(),
        1,
        "nothing of the other stream came before"
    );

    client
        .send(&ClientMessage::UnsubscribeMulti {
            request_id: 2,
            query_id: QueryId { id: 1 },
        })
        .await;
    let ServerMessage::UnsubscribeMultiApplied(ended) = client.next().await else {
        panic!("not unsubscribed");
    };
    assert_eq!(ended.update.tables[0].updates[0].deletes.len(), 4);
    client
        .send(&ClientMessage::UnsubscribeMulti {
            request_id: 3,
            query_id: QueryId { id: 1 },
        })
        .await;
    assert!(matches!(
        client.next().await,
        ServerMessage::SubscriptionError(_)
    ));
}

#[tokio::test]
async fn queries_that_are_not_granted_or_not_understood_are_refused() {
    let target = Target::start(Lane::Spacetime);
    let mut client = target.spacetime(&target.token().await).await;
    for (query, error) in [
        (events_after(RIVAL, 0), format!("forbidden_stream {RIVAL}")),
        (
            "SELECT * FROM sync_event".to_owned(),
            "forbidden_stream *".to_owned(),
        ),
        (
            "SELECT * FROM nowhere".to_owned(),
            "`nowhere` is not a valid table, executing: `SELECT * FROM nowhere`".to_owned(),
        ),
    ] {
        client.subscribe(7, &[head_of(STREAM), query]).await;
        let ServerMessage::SubscriptionError(refused) = client.next().await else {
            panic!("not refused");
        };
        assert_eq!((refused.error, refused.query_id), (error, Maybe::Some(7)));
    }
    client
        .send(&ClientMessage::Subscribe {
            query_strings: vec!["SELECT 1".to_owned()],
            request_id: 4,
        })
        .await;
    let failed = update(&mut client).await;
    assert_eq!(
        (
            failed.reducer_call.reducer_name.as_str(),
            failed.reducer_call.request_id
        ),
        ("<none>", 0)
    );
    client
        .send(&ClientMessage::OneOffQuery {
            message_id: MessageId::Bytes(vec![255, 1]),
            query_string: "SELECT 1".to_owned(),
        })
        .await;
    let ServerMessage::OneOffQueryResponse(answer) = client.next().await else {
        panic!("no answer");
    };
    assert_eq!(answer.message_id, MessageId::Hex("ff01".to_owned()));
    assert_eq!(
        answer.error,
        Maybe::Some("A FROM clause is required".to_owned())
    );

    let narrow = TokenRequest {
        scopes: vec![SCOPE_CHECKPOINT.to_owned()],
        ..subscriber()
    };
    let mut narrow = target.spacetime(&target.grant(&narrow).await.token).await;
    narrow.subscribe(1, &[events_after(STREAM, 0)]).await;
    assert!(
        matches!(narrow.next().await, ServerMessage::SubscriptionError(refused) if refused.error == "missing_scope")
    );
    let status = target.status().await;
    assert_eq!(
        (
            status.refused["forbidden_stream"],
            status.refused["missing_scope"]
        ),
        (2, 1)
    );
}

#[tokio::test]
async fn calls_on_the_socket_are_answered_in_order_and_failures_with_request_id_0() {
    let target = Target::start(Lane::Spacetime);
    let writer = TokenRequest {
        scopes: vec![SCOPE_APPEND.to_owned()],
        ..subscriber()
    };
    let mut writer = target.spacetime(&target.grant(&writer).await.token).await;
    for (n, request_id) in [(1, 1), (9, 2), (1, 3), (2, 4)] {
        writer.send(&call(&args(n), request_id)).await;
    }
    let mut answers = Vec::new();
    for _ in 0..4 {
        let answer = update(&mut writer).await;
        let failed = match answer.status {
            UpdateStatus::Failed(reason) => Some(reason),
            UpdateStatus::Committed(changed) => {
                assert!(
                    changed.tables.is_empty(),
                    "the caller subscribes to nothing"
                );
                None
            }
            UpdateStatus::OutOfEnergy(_) => panic!("no energy"),
        };
        answers.push((answer.reducer_call.request_id, failed));
    }
    let conflict = "sequence_conflict expected_next_seq=9 actual_next_seq=2".to_owned();
    assert_eq!(
        answers,
        [(1, None), (0, Some(conflict)), (3, None), (4, None)]
    );

    let mut reader = target.spacetime(&target.token().await).await;
    reader.send(&call(&args(3), 1)).await;
    assert_eq!(
        update(&mut reader).await.status,
        UpdateStatus::Failed("missing_scope".to_owned())
    );
    reader.socket.send(Message::text("{")).await.unwrap();
    let close = reader.next_or_close().await.unwrap_err().unwrap();
    assert_eq!(close.0, CloseCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test]
async fn an_upgrade_is_refused_with_its_reason() {
    let target = Target::start(Lane::Spacetime);
    let token = target.token().await;
    let with = |query: &str| format!("{SUBSCRIBE}?token={token}{query}");
    let refused = |answer: Result<_, _>| match answer {
        Ok(_) => panic!("accepted"),
        Err(refused) => refused,
    };
    for (path, headers, status) in [
        (with(""), vec![], 400),
        (
            with(""),
            vec![("sec-websocket-protocol", "v9.bsatn.spacetimedb")],
            400,
        ),
        (with("&compression=Zip"), vec![PROTOCOL], 400),
        (
            with("&connection_id=00000000000000000000000000000000"),
            vec![PROTOCOL],
            400,
        ),
        (
            format!("/v1/database/other/subscribe?token={token}"),
            vec![PROTOCOL],
            404,
        ),
    ] {
        let answer = refused(target.socket(&path, &headers).await);
        assert_eq!(answer.status.as_u16(), status, "{path}");
    }
    for (token, reason) in [("", "missing_token"), ("a.b.c", "invalid_signature")] {
        let answer = refused(
            target
                .socket(&format!("{SUBSCRIBE}?token={token}"), &[PROTOCOL])
                .await,
        );
        assert_eq!(
            (answer.status.as_u16(), error_of(&answer).as_str()),
            (401, reason)
        );
    }
    let plain = target.send(Method::GET, &with(""), &[], "").await;
    assert_eq!(plain.status, 426);
}

#[tokio::test]
async fn upgrades_beyond_the_rate_are_told_to_come_back() {
    let target = Target::with(Lane::Spacetime, None, |lane, _| {
        lane.accept_rate = Some(Rate::per_second(1.0));
    });
    let path = format!("{SUBSCRIBE}?token={}", target.token().await);
    target.socket(&path, &[PROTOCOL]).await.unwrap();
    let Err(refused) = target.socket(&path, &[PROTOCOL]).await else {
        panic!("accepted");
    };
    assert_eq!(
        (refused.status.as_u16(), &refused.headers["retry-after"]),
        (503, &"1".parse().unwrap())
    );
}

#[tokio::test]
async fn a_live_connection_ends_with_its_token() {
    let target = Target::start(Lane::Spacetime);
    let mut client = target.spacetime(&target.token_for(1).await.token).await;
    let close = client.next_or_close().await.unwrap_err();
    assert_eq!(
        close,
        Some((CloseCode::POLICY_VIOLATION, "token_expired".to_owned()))
    );
    assert_eq!(target.status().await.expired_live, 1);
}

#[tokio::test]
async fn calls_over_http_answer_as_a_real_server() {
    let target = Target::start(Lane::Spacetime);
    let path = "/v1/database/sync/call/append_sync_event";
    assert_eq!(target.append(&event(STREAM, 1)).await.status, 200);
    let conflict = target.append(&event(STREAM, 5)).await;
    assert_eq!(
        (conflict.status.as_u16(), conflict.body.as_ref()),
        (
            530,
            b"sequence_conflict expected_next_seq=5 actual_next_seq=2".as_slice()
        )
    );
    assert_eq!(target.post(path, &json!([1]), "publish").await.status, 400);
    assert_eq!(
        target
            .post("/v1/database/sync/call/nothing", &json!([]), "publish")
            .await
            .status,
        404
    );
    let token = target.token().await;
    let refused = target.post(path, &args(2), &token).await;
    assert_eq!(
        (refused.status.as_u16(), error_of(&refused).as_str()),
        (403, "missing_scope")
    );
    let bearer = [("authorization", "Bearer publish")];
    let untyped = target.send(Method::POST, path, &bearer, "[]").await;
    assert_eq!(untyped.status, 415);

    let sql = async |query: &str| {
        let path = "/v1/database/sync/sql";
        target.send(Method::POST, path, &bearer, query).await
    };
    let head: Value = serde_json::from_slice(&sql(&head_of(STREAM)).await.body).unwrap();
    assert_eq!(
        (&head[0]["rows"][0][0], &head[0]["rows"][0][1]),
        (&json!(STREAM), &json!(1))
    );
    assert_eq!(
        head[0]["schema"]["elements"][1]["algebraic_type"],
        json!({"U64": []})
    );
    assert_eq!(sql("SELECT * FROM nowhere").await.status, 400);
    assert_eq!(
        target.send(Method::GET, "/v1/ping", &[], "").await.status,
        200
    );
}

#[tokio::test]
async fn checkpoints_are_replaced_and_survive() {
    let mut target = Target::start(Lane::Spacetime);
    let row = |seq: u64| json!(["c:s", "c", STREAM, seq, seq, 1]);
    let path = "/v1/database/sync/call/ack_stream_checkpoint";
    for seq in [4, 9] {
        assert_eq!(target.post(path, &row(seq), "publish").await.status, 200);
    }
    // A grant for one stream does not reach the rows of another by their key.
    let asked = TokenRequest {
        scopes: vec!["sync.checkpoint".to_owned()],
        streams: vec![STREAM.to_owned()],
        ..TokenRequest::default()
    };
    let token = target.grant(&asked).await.token;
    let keyed = |key: &str| json!([key, "c", STREAM, 1, 1, 1]);
    let refused = target.post(path, &keyed("c:s"), &token).await;
    assert_eq!(
        (refused.status.as_u16(), error_of(&refused).as_str()),
        (403, "foreign_checkpoint c:s")
    );
    let own = keyed(&format!("c:{STREAM}"));
    assert_eq!(target.post(path, &own, &token).await.status, 200);
    target.stop_lane().await;
    target.start_lane();
    let mut client = target.spacetime("publish").await;
    client
        .subscribe(1, &["SELECT * FROM stream_checkpoint".to_owned()])
        .await;
    let found = rows(&mut client).await;
    assert!(
        matches!(found.as_slice(), [Row::Checkpoint(_), Row::Checkpoint(row)] if row.last_applied_seq == 9),
        "{found:?}"
    );
}

#[tokio::test]
async fn the_real_profile_asks_for_nothing_and_keeps_everything() {
    let target = Target::with(Lane::Spacetime, None, |lane, _| {
        lane.strict = false;
        lane.profile.retention = 2;
    });
    let identity = target.send(Method::POST, "/v1/identity", &[], "").await;
    let identity: Value = serde_json::from_slice(&identity.body).unwrap();
    let token = identity["token"].as_str().unwrap();
    let short = target
        .post("/v1/identity/websocket-token", &json!(null), token)
        .await;
    assert_eq!(short.status, 200);
    target.publish(RIVAL, 1, 5).await;
    let mut client = target.spacetime(token).await;
    client.subscribe(1, &[events_after(RIVAL, 0)]).await;
    assert_eq!(seqs(&rows(&mut client).await), [1, 2, 3, 4, 5]);
    client.send(&call(&args(1), 3)).await;
    assert!(matches!(
        update(&mut client).await.status,
        UpdateStatus::Committed(_)
    ));
    assert!(
        target.socket(SUBSCRIBE, &[PROTOCOL]).await.is_ok(),
        "anonymous"
    );
    assert!(
        target
            .socket(&format!("{SUBSCRIBE}?token=nonsense"), &[PROTOCOL])
            .await
            .is_err()
    );
}
