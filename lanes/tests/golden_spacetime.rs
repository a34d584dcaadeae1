//! The spacetime codecs against frames of a real server (`golden/capture.py`): each is understood, and encoding it
//! again gives the same text, or the same bytes.

use lanes::spacetime::bsatn::BsatnError;
use lanes::spacetime::message::{
    ClientMessage, DatabaseUpdate, Encoded, Maybe, MessageId, QueryId, ServerMessage, UpdateStatus,
};
use lanes::spacetime::named;
use lanes::spacetime::rows::{Row, Table};
use lanes::token::{DenyReason, deny_reason};
use model::target::{Names, Wire};

/// Every answer of the conversation, which was held once by each wire.
const MESSAGES: [&str; 16] = [
    "identity_token",
    "initial_subscription",
    "one_off_query_error",
    "one_off_query_rows",
    "subscribe_applied",
    "subscribe_multi_applied",
    "subscription_error",
    "transaction_update_committed",
    "transaction_update_failed",
    "transaction_update_failed_subscribe",
    "transaction_update_light",
    "transaction_update_no_reducer",
    "transaction_update_repeated_key",
    "unsubscribe_applied",
    "unsubscribe_multi_applied",
    "unsubscribe_unknown",
];

fn file(name: &str) -> Vec<u8> {
    let path = format!(
        "{}/tests/golden/spacetime/{name}",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn golden(name: &str) -> String {
    let text = String::from_utf8(file(&format!("{name}.json"))).unwrap();
    text.trim_end().to_owned()
}

fn binary(name: &str) -> ServerMessage {
    let bytes = file(&format!("{name}.bsatn"));
    let message =
        ServerMessage::from_bsatn(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(message.to_bsatn(), bytes, "{name}: encoding it again");
    message
}

/// The changes that a message tells of.
fn changes(message: &ServerMessage) -> DatabaseUpdate {
    match message {
        ServerMessage::InitialSubscription(first) => first.database_update.clone(),
        ServerMessage::SubscribeMultiApplied(applied)
        | ServerMessage::UnsubscribeMultiApplied(applied) => applied.update.clone(),
        ServerMessage::SubscribeApplied(applied) | ServerMessage::UnsubscribeApplied(applied) => {
            DatabaseUpdate {
                tables: vec![applied.rows.table_rows.clone()],
            }
        }
        ServerMessage::TransactionUpdateLight(update) => update.update.clone(),
        ServerMessage::TransactionUpdate(update) => match &update.status {
            UpdateStatus::Committed(update) => update.clone(),
            _ => DatabaseUpdate::default(),
        },
        _ => DatabaseUpdate::default(),
    }
}

/// Table, and whether it came, and the row; sorted, and without the times that the server itself wrote.
fn rows(message: &ServerMessage) -> Vec<(Table, bool, String)> {
    let mut rows = Vec::new();
    for update in changes(message).tables {
        let table = Table::named(&update.table_name).unwrap();
        for query in &update.updates {
            let gone = query.deletes.iter().map(|row| (false, row));
            for (came, row) in gone.chain(query.inserts.iter().map(|row| (true, row))) {
                let mut row = Row::decode(table, row).unwrap();
                if let Row::Head(head) = &mut row {
                    head.updated_at_unix_ms = 0;
                }
                rows.push((table, came, row.named()));
            }
        }
    }
    rows.sort();
    rows
}

fn message(name: &str) -> ServerMessage {
    let text = golden(name);
    let message =
        ServerMessage::decode(&text).unwrap_or_else(|error| panic!("{name}: {error}: {text}"));
    assert_eq!(message.encode(), text, "{name}: encoding it again");
    message
}

fn http(name: &str) -> (u64, String) {
    let answer: serde_json::Value = serde_json::from_str(&golden(name)).unwrap();
    (
        answer["status"].as_u64().unwrap(),
        answer["body"].as_str().unwrap().to_owned(),
    )
}

#[test]
fn every_message_is_understood_and_encodes_to_the_same_text() {
    for name in MESSAGES {
        message(name);
    }
}

#[test]
fn every_binary_message_is_understood_and_encodes_to_the_same_bytes() {
    for name in MESSAGES {
        let (json, binary) = (message(name), binary(name));
        assert_eq!(
            std::mem::discriminant(&json),
            std::mem::discriminant(&binary),
            "{name}"
        );
        assert_eq!(rows(&json), rows(&binary), "{name}");
    }
}

#[test]
fn binary_answers_say_what_the_textual_ones_say() {
    let ServerMessage::IdentityToken(greeting) = binary("identity_token") else {
        panic!("not an IdentityToken");
    };
    let ServerMessage::IdentityToken(textual) = message("identity_token") else {
        panic!("not an IdentityToken");
    };
    assert_eq!(
        greeting.identity, textual.identity,
        "one token, one identity"
    );

    let ServerMessage::TransactionUpdate(update) = binary("transaction_update_failed") else {
        panic!("not a TransactionUpdate");
    };
    assert_eq!(
        (update.reducer_call.request_id, update.status),
        (
            0,
            UpdateStatus::Failed(
                "sequence_conflict expected_next_seq=9 actual_next_seq=5".to_owned()
            )
        )
    );
    let arguments = Row::decode(Table::SyncEvent, &update.reducer_call.args).unwrap();
    assert!(matches!(arguments, Row::Event(event) if event.seq == 9));

    let ServerMessage::OneOffQueryResponse(answer) = binary("one_off_query_error") else {
        panic!("not a OneOffQueryResponse");
    };
    assert_eq!(answer.message_id, MessageId::Bytes(vec![1, 2, 3]));
    assert_eq!(
        answer.error,
        Maybe::Some("A FROM clause is required".to_owned())
    );
    let ServerMessage::OneOffQueryResponse(answer) = binary("one_off_query_rows") else {
        panic!("not a OneOffQueryResponse");
    };
    let names = Names::default();
    let (stream, head) = named::head(&names, &answer.tables[0].rows[0]).unwrap();
    assert_eq!((stream.as_str(), head), ("runtime.run.1.events", 4));
}

#[test]
fn compressed_messages_are_refused_by_name() {
    for (tag, error) in [
        (1, BsatnError::Compressed("brotli")),
        (2, BsatnError::Compressed("gzip")),
    ] {
        let mut bytes = file("initial_subscription.bsatn");
        bytes[0] = tag;
        assert_eq!(ServerMessage::from_bsatn(&bytes), Err(error));
    }
}

#[test]
fn rows_of_snapshots_are_named_and_those_of_updates_in_order() {
    let ServerMessage::SubscribeMultiApplied(applied) = message("subscribe_multi_applied") else {
        panic!("not a SubscribeMultiApplied");
    };
    let mut seqs = Vec::new();
    for table in &applied.update.tables {
        let kind = Table::named(&table.table_name).unwrap();
        assert_eq!(table.table_id, kind.id());
        for text in &table.updates[0].inserts {
            let row = Row::decode(kind, text).unwrap();
            assert_eq!(row.in_snapshot(Wire::Json), *text);
            if let Row::Event(event) = row {
                seqs.push(event.seq);
            }
        }
    }
    seqs.sort_unstable();
    assert_eq!(seqs, [2, 3]);

    let ServerMessage::TransactionUpdate(update) = message("transaction_update_committed") else {
        panic!("not a TransactionUpdate");
    };
    let UpdateStatus::Committed(changes) = update.status else {
        panic!("not committed");
    };
    for table in &changes.tables {
        let kind = Table::named(&table.table_name).unwrap();
        for text in table
            .updates
            .iter()
            .flat_map(|query| query.deletes.iter().chain(&query.inserts))
        {
            assert_eq!(
                Row::decode(kind, text).unwrap().in_update(Wire::Json),
                *text
            );
        }
    }
    assert_eq!(
        changes.inserted().unwrap().len(),
        3,
        "the event once for each of its two queries, and the head"
    );
}

#[test]
fn a_failed_call_answers_request_id_0() {
    let ServerMessage::TransactionUpdate(update) = message("transaction_update_failed") else {
        panic!("not a TransactionUpdate");
    };
    assert_eq!(update.reducer_call.request_id, 0);
    assert_eq!(
        update.status,
        UpdateStatus::Failed("sequence_conflict expected_next_seq=9 actual_next_seq=5".to_owned())
    );
}

#[test]
fn refusals_over_http_are_the_real_ones() {
    assert_eq!(
        http("http_call_conflict"),
        (
            530,
            "sequence_conflict expected_next_seq=9 actual_next_seq=4".to_owned()
        )
    );
    let (status, body) = http("http_bad_token");
    assert_eq!(
        (status, deny_reason(body.as_bytes())),
        (401, Some(DenyReason::InvalidSignature))
    );
}

#[test]
fn requests_are_what_the_real_server_took() {
    let id = QueryId { id: 1 };
    for (message, text) in [
        (
            ClientMessage::SubscribeMulti {
                query_strings: vec!["SELECT * FROM t".to_owned()],
                request_id: 7,
                query_id: id,
            },
            r#"{"SubscribeMulti":{"query_strings":["SELECT * FROM t"],"request_id":7,"query_id":{"id":1}}}"#,
        ),
        (
            ClientMessage::CallReducer {
                reducer: "r".to_owned(),
                args: Encoded::Text("[1]".to_owned()),
                request_id: 2,
                flags: 0,
            },
            r#"{"CallReducer":{"reducer":"r","args":"[1]","request_id":2,"flags":0}}"#,
        ),
        (
            ClientMessage::OneOffQuery {
                message_id: MessageId::Bytes(vec![1, 255]),
                query_string: "SELECT 1".to_owned(),
            },
            r#"{"OneOffQuery":{"message_id":[1,255],"query_string":"SELECT 1"}}"#,
        ),
        (
            ClientMessage::UnsubscribeMulti {
                request_id: 3,
                query_id: id,
            },
            r#"{"UnsubscribeMulti":{"request_id":3,"query_id":{"id":1}}}"#,
        ),
    ] {
        assert_eq!(message.encode(), text);
        assert_eq!(ClientMessage::decode(text).unwrap(), message);
    }
}
