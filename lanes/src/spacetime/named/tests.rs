//! Rows, queries and arguments of the sync module and of a service that calls and orders things otherwise.

use model::instant::Mono;
use proptest::prelude::*;

use super::*;
use crate::spacetime::rows::{Row, SyncEvent};

fn column<C>(name: &str, holds: Option<C>, kind: ColumnKind) -> Column<C> {
    Column {
        name: name.to_owned(),
        holds,
        kind,
    }
}

/// The production signature: the seq is expected, not given.
fn production() -> Names {
    Names {
        database: "prod".to_owned(),
        events: Table {
            name: "log".to_owned(),
            columns: vec![
                column("final", None, ColumnKind::Bool),
                column("n", Some(EventColumn::Seq), ColumnKind::U64),
                column("body", Some(EventColumn::PayloadJson), ColumnKind::String),
                column("tenant", None, ColumnKind::String),
                column("topic", Some(EventColumn::StreamId), ColumnKind::String),
            ],
        },
        heads: Table {
            name: "tips".to_owned(),
            columns: vec![
                column("n", Some(HeadColumn::HeadSeq), ColumnKind::U64),
                column("topic", Some(HeadColumn::StreamId), ColumnKind::String),
            ],
        },
        publish: "append_sync_event".to_owned(),
        arguments: vec![
            Argument::StreamId,
            Argument::IdempotencyKey,
            Argument::PayloadHash,
            Argument::PayloadJson,
            Argument::CommittedAtUnixMs,
            Argument::DurableOffset,
            Argument::ConfirmedRead,
            Argument::ExpectedNextSeq,
        ],
    }
}

fn sync_event(stream: &str, seq: Seq, payload: &str) -> Row {
    Row::Event(SyncEvent {
        stream_id: stream.to_owned(),
        seq,
        idempotency_key: "k".to_owned(),
        payload_hash: "h".to_owned(),
        payload_json: payload.to_owned(),
        committed_at_unix_ms: 5,
        durable_offset: 6,
        confirmed_read: true,
    })
}

fn text(row: &str) -> Encoded {
    Encoded::Text(row.to_owned())
}

fn published() -> Event {
    let origin = model::event::Origin {
        run: "r".to_owned(),
        seed: 7,
        padding: 0,
    };
    origin.event("s", 3, Mono(1))
}

#[test]
fn arguments_are_the_whole_row_or_the_production_signature() {
    let event = published();
    let read = |names: &Names| -> Json {
        serde_json::from_str(&arguments(names, &event, 4, 1_700)).unwrap()
    };
    let (key, hash, payload) = (&event.key, &event.payload_hash, &event.payload_json);
    assert_eq!(
        read(&Names::default()),
        json!(["s", 4, key, hash, payload, 1_700, 4, true])
    );
    assert_eq!(
        read(&production()),
        json!(["s", key, hash, payload, 1_700, 4, true, 4])
    );
}

#[test]
fn queries_use_the_targets_names() {
    let names = production();
    assert_eq!(
        events_after(&names, "it's", 7),
        "SELECT * FROM log WHERE topic = 'it''s' AND n > 7"
    );
    assert_eq!(head_of(&names, "s"), "SELECT * FROM tips WHERE topic = 's'");
    assert_eq!(
        events_after(&Names::default(), "s", 7),
        "SELECT * FROM sync_event WHERE stream_id = 's' AND seq > 7"
    );
}

#[test]
fn a_row_of_other_names_and_order_is_read_in_every_form() {
    let names = production();
    let expected = content::Row {
        stream: "s".to_owned(),
        seq: 4,
        key: None,
        payload: "{}".to_owned(),
        hash: model::event::payload_hash("{}"),
    };
    let mut binary = Vec::new();
    false.write(&mut binary);
    4_u64.write(&mut binary);
    for cell in ["{}", "acme", "s"] {
        cell.to_owned().write(&mut binary);
    }
    for row in [
        text(r#"[false,4,"{}","acme","s"]"#),
        text(r#"{"topic":"s","tenant":"acme","n":4,"final":false,"body":"{}"}"#),
        Encoded::Binary(binary),
    ] {
        assert_eq!(event(&names, &row).unwrap(), expected, "{row:?}");
    }
    assert_eq!(
        event_in(&names, &json!([false, 4, "{}", "acme", "s"])).unwrap(),
        expected
    );
    assert_eq!(
        head_in(&names, &json!([9, "s"])).unwrap(),
        ("s".to_owned(), 9)
    );
}

#[test]
fn a_row_that_is_not_as_described_says_which_table_and_what() {
    let names = production();
    for (row, why) in [
        (text("[false,4]"), "a row of `log`: no column `body`"),
        (
            text(r#"[false,4,"{}","acme","s",1]"#),
            "a row of `log`: more columns than the 5 that the target describes",
        ),
        (
            text(r#"{"colour":1}"#),
            "a row of `log`: a column `colour` that the target does not describe",
        ),
        (
            text(r#"{"topic":"s","n":4}"#),
            "a row of `log`: nothing in it holds `payload_json`",
        ),
        (
            text(r#"[false,-4,"{}","acme","s"]"#),
            "a row of `log`: invalid value: integer `-4`, expected u64",
        ),
        (text("7"), "a row of `log`: invalid type: integer `7`"),
        (
            Encoded::Binary(vec![2]),
            "a row of `log`: bool has no variant 2",
        ),
        (
            Encoded::Binary(vec![0, 1]),
            "a row of `log`: 8 bytes are wanted where 1 are left",
        ),
    ] {
        let error = event(&names, &row).unwrap_err().to_string();
        assert!(error.starts_with(why), "{error}");
    }
}

proptest! {
    #[test]
    fn a_row_of_the_module_is_read_alike_from_both_wires(stream in ".{0,20}", seq: u64, payload in ".{0,40}") {
        let names = Names::default();
        let row = sync_event(&stream, seq, &payload);
        let expected = event(&names, &row.in_snapshot(model::target::Wire::Json)).unwrap();
        prop_assert_eq!((&expected.stream, expected.seq, &expected.payload), (&stream, seq, &payload));
        for row in [row.in_update(model::target::Wire::Json), row.in_update(model::target::Wire::Bsatn)] {
            prop_assert_eq!(&event(&names, &row).unwrap(), &expected);
        }
    }

    #[test]
    fn no_row_makes_the_decoders_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80), row in ".{0,60}") {
        for names in [Names::default(), production()] {
            let _ = event(&names, &Encoded::Binary(bytes.clone()));
            let _ = event(&names, &Encoded::Text(row.clone()));
            let _ = head(&names, &Encoded::Binary(bytes.clone()));
        }
    }
}
