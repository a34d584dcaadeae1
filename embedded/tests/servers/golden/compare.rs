//! Frames made comparable, and what is different between two.

use std::collections::BTreeSet;

use host::http::Response;
use lanes::frame::Frame;
use lanes::spacetime::message::{Encoded, QueryUpdate, ServerMessage, UpdateStatus};
use lanes::spacetime::rows::{Row, Table};
use model::target::Wire;
use serde_json::{Value, json};

/// How a frame of this lane differs from the captured one: place, there, here.
pub(super) fn compare(
    place: &str,
    there: &Value,
    here: &Value,
    found: &mut Vec<(String, Value, Value)>,
) {
    match (there, here) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let of = |object: &serde_json::Map<String, Value>| {
                    object.get(key).cloned().unwrap_or(Value::Null)
                };
                compare(&format!("{place}.{key}"), &of(a), &of(b), found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (at, (a, b)) in a.iter().zip(b).enumerate() {
                compare(&format!("{place}[{at}]"), a, b, found);
            }
        }
        _ if there == here => {}
        _ => found.push((place.to_owned(), there.clone(), here.clone())),
    }
}

/// A message to compare: rows are taken apart, and tables, which come in any order, are in that of their names.
pub(super) fn comparable(frame: &Frame<'_>) -> Value {
    let mut message = ServerMessage::of(frame).unwrap();
    let tables = match &mut message {
        ServerMessage::InitialSubscription(first) => &mut first.database_update.tables,
        ServerMessage::SubscribeMultiApplied(applied)
        | ServerMessage::UnsubscribeMultiApplied(applied) => &mut applied.update.tables,
        ServerMessage::TransactionUpdateLight(update) => &mut update.update.tables,
        ServerMessage::TransactionUpdate(update) => {
            open(Table::SyncEvent, &mut update.reducer_call.args);
            match &mut update.status {
                UpdateStatus::Committed(update) => &mut update.tables,
                _ => &mut Vec::new(),
            }
        }
        _ => &mut Vec::new(),
    };
    tables.sort_by_key(|table| table.table_name.clone());
    for update in tables {
        let table = Table::named(&update.table_name).unwrap();
        for QueryUpdate { deletes, inserts } in &mut update.updates {
            for row in deletes.iter_mut().chain(inserts) {
                open(table, row);
            }
        }
    }
    if let ServerMessage::OneOffQueryResponse(answer) = &mut message {
        for found in &mut answer.tables {
            let table = Table::named(&found.table_name).unwrap();
            found.rows.iter_mut().for_each(|row| open(table, row));
        }
    }
    let mut value = serde_json::from_str(&message.encode()).unwrap();
    take_apart(&mut value);
    value
}

/// A binary row as text; a text stays as it came.
fn open(table: Table, row: &mut Encoded) {
    if matches!(row, Encoded::Binary(_))
        && let Ok(read) = Row::decode(table, row)
    {
        *row = read.in_snapshot(Wire::Json);
    }
}

/// Puts the JSON within texts in their place. Columns in order stay so, but the last of a head is given its name, by
/// which its difference is known.
pub(super) fn take_apart(value: &mut Value) {
    match value {
        Value::String(text) if text.starts_with(['[', '{']) => {
            if let Ok(within) = serde_json::from_str::<Value>(text) {
                *value = match within.as_array().map(Vec::as_slice) {
                    Some([stream, head, at]) => json!([stream, head, {"updated_at_unix_ms": at}]),
                    _ => within,
                };
            }
        }
        Value::Array(items) => items.iter_mut().for_each(take_apart),
        Value::Object(fields) => fields.values_mut().for_each(take_apart),
        _ => {}
    }
}

/// An answer over HTTP to compare.
pub(super) fn plain(answer: &Response) -> Value {
    let kind = answer.headers.get("content-type");
    let mut value = json!({
        "status": answer.status.as_u16(),
        "content_type": kind.map(|kind| kind.to_str().unwrap()),
        "body": String::from_utf8(answer.body.to_vec()).unwrap(),
    });
    take_apart(&mut value);
    value
}
