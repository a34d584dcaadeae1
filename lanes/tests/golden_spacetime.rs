//! The spacetime codecs against frames of a real server (`golden/capture.py`): each is understood, and encoding it
//! again gives the same text.

use lanes::spacetime::message::{ClientMessage, MessageId, QueryId, ServerMessage, UpdateStatus};
use lanes::spacetime::rows::{Row, Table};
use lanes::token::{DenyReason, deny_reason};

fn golden(name: &str) -> String {
    let path = format!(
        "{}/tests/golden/spacetime/{name}.json",
        env!("CARGO_MANIFEST_DIR")
    );
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    text.trim_end().to_owned()
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
    for name in [
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
    ] {
        message(name);
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
            assert_eq!(row.named(), *text);
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
            assert_eq!(Row::decode(kind, text).unwrap().positional(), *text);
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
                args: "[1]".to_owned(),
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
