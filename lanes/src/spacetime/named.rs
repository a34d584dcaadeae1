//! What a drill asks of a database and reads in its rows, by the names that the target gives to tables, columns and
//! arguments.

use std::fmt;

use model::event::Event;
use model::ids::{Seq, StreamId};
use model::target::{Argument, Column, ColumnKind, EventColumn, HeadColumn, Names, Table};
use serde::Deserialize;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::{Value as Json, json};

use super::bsatn::{Bsatn, Reader};
use super::message::Encoded;
use super::query::Literal;
use super::rows::RowError;
use crate::content;

#[cfg(test)]
mod tests;

/// The subscription by which a client resumes a stream: its events above `after`.
#[must_use]
pub fn events_after(names: &Names, stream: &str, after: Seq) -> String {
    let events = &names.events;
    format!(
        "SELECT * FROM {} WHERE {} = {} AND {} > {after}",
        events.name,
        name_of(events, EventColumn::StreamId, "stream_id"),
        Literal::Text(stream.to_owned()),
        name_of(events, EventColumn::Seq, "seq"),
    )
}

/// The statement that removes a stream's events with these keys.
#[must_use]
pub fn removal_of(events: &Table<EventColumn>, stream: &str, keys: &[String]) -> String {
    let column = name_of(events, EventColumn::IdempotencyKey, "idempotency_key");
    let keys: Vec<String> = keys
        .iter()
        .map(|key| format!("{column} = {}", Literal::Text(key.clone())))
        .collect();
    format!(
        "DELETE FROM {} WHERE {} = {} AND ({})",
        events.name,
        name_of(events, EventColumn::StreamId, "stream_id"),
        Literal::Text(stream.to_owned()),
        keys.join(" OR "),
    )
}

/// The subscription to a stream's head.
#[must_use]
pub fn head_of(names: &Names, stream: &str) -> String {
    let heads = &names.heads;
    format!(
        "SELECT * FROM {} WHERE {} = {}",
        heads.name,
        name_of(heads, HeadColumn::StreamId, "stream_id"),
        Literal::Text(stream.to_owned())
    )
}

/// The name of the column that holds this. Without one the usual name stands in: the server then says what it lacks.
fn name_of<'a, C: Copy + PartialEq>(table: &'a Table<C>, holds: C, usual: &'a str) -> &'a str {
    let found = table
        .columns
        .iter()
        .find(|column| column.holds == Some(holds));
    found.map_or(usual, |column| &column.name)
}

/// The arguments of the publish reducer as a JSON array, for an event that is to become `seq`.
#[must_use]
pub fn arguments(names: &Names, event: &Event, seq: Seq, now_unix_ms: u64) -> String {
    let value = |argument: &Argument| match argument {
        Argument::StreamId => json!(event.stream),
        Argument::Seq | Argument::DurableOffset | Argument::ExpectedNextSeq => json!(seq),
        Argument::IdempotencyKey => json!(event.key),
        Argument::PayloadHash => json!(event.payload_hash),
        Argument::PayloadJson => json!(event.payload_json),
        Argument::CommittedAtUnixMs => json!(now_unix_ms),
        Argument::ConfirmedRead => json!(true),
    };
    Json::Array(names.arguments.iter().map(value).collect()).to_string()
}

/// A row of the events' table.
///
/// # Errors
/// It is not as the target describes it.
pub fn event(names: &Names, row: &Encoded) -> Result<content::Row, RowError> {
    let mut found = EventRow::default();
    read(&names.events, row, |column, cell| found.take(column, cell))?;
    found.finish(names)
}

/// A row of the events' table as a query over HTTP finds it.
///
/// # Errors
/// It is not as the target describes it.
pub fn event_in(names: &Names, row: &Json) -> Result<content::Row, RowError> {
    let mut found = EventRow::default();
    read_json(&names.events, row, |column, cell| found.take(column, cell))?;
    found.finish(names)
}

/// A row of the heads' table: a stream and its newest seq.
///
/// # Errors
/// It is not as the target describes it.
pub fn head(names: &Names, row: &Encoded) -> Result<(StreamId, Seq), RowError> {
    let mut found = HeadRow::default();
    read(&names.heads, row, |column, cell| found.take(column, cell))?;
    found.finish(names)
}

/// A row of the heads' table as a query over HTTP finds it.
///
/// # Errors
/// It is not as the target describes it.
pub fn head_in(names: &Names, row: &Json) -> Result<(StreamId, Seq), RowError> {
    let mut found = HeadRow::default();
    read_json(&names.heads, row, |column, cell| found.take(column, cell))?;
    found.finish(names)
}

/// What a column of a row holds.
enum Cell {
    Text(String),
    Number(u64),
    Bool,
}

impl Cell {
    fn text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            Self::Number(_) | Self::Bool => None,
        }
    }

    const fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(_) | Self::Bool => None,
        }
    }
}

#[derive(Default)]
struct EventRow {
    stream: Option<StreamId>,
    seq: Option<Seq>,
    key: Option<String>,
    hash: Option<String>,
    payload: Option<String>,
}

impl EventRow {
    fn take(&mut self, column: EventColumn, cell: Cell) {
        match column {
            EventColumn::StreamId => self.stream = cell.text(),
            EventColumn::Seq => self.seq = cell.number(),
            EventColumn::IdempotencyKey => self.key = cell.text(),
            EventColumn::PayloadHash => self.hash = cell.text(),
            EventColumn::PayloadJson => self.payload = cell.text(),
        }
    }

    fn finish(self, names: &Names) -> Result<content::Row, RowError> {
        let lacks = |what| RowError::lacks(&names.events.name, what);
        let payload = self.payload.ok_or_else(|| lacks("payload_json"))?;
        Ok(content::Row {
            stream: self.stream.ok_or_else(|| lacks("stream_id"))?,
            seq: self.seq.ok_or_else(|| lacks("seq"))?,
            key: self.key,
            // A table without hashes has nothing that could differ from its payloads.
            hash: self
                .hash
                .unwrap_or_else(|| model::event::payload_hash(&payload)),
            payload,
        })
    }
}

#[derive(Default)]
struct HeadRow {
    stream: Option<StreamId>,
    seq: Option<Seq>,
}

impl HeadRow {
    fn take(&mut self, column: HeadColumn, cell: Cell) {
        match column {
            HeadColumn::StreamId => self.stream = cell.text(),
            HeadColumn::HeadSeq => self.seq = cell.number(),
        }
    }

    fn finish(self, names: &Names) -> Result<(StreamId, Seq), RowError> {
        let lacks = |what| RowError::lacks(&names.heads.name, what);
        Ok((
            self.stream.ok_or_else(|| lacks("stream_id"))?,
            self.seq.ok_or_else(|| lacks("head_seq"))?,
        ))
    }
}

/// Gives each cell of a row that holds something to `take`.
fn read<C: Copy>(
    table: &Table<C>,
    row: &Encoded,
    take: impl FnMut(C, Cell),
) -> Result<(), RowError> {
    match row {
        Encoded::Text(text) => {
            let mut row = serde_json::Deserializer::from_str(text);
            read_json(table, &mut row, take)?;
            row.end().map_err(|error| RowError::new(&table.name, error))
        }
        Encoded::Binary(bytes) => read_bsatn(table, Reader::new(bytes), take)
            .map_err(|error| RowError::new(&table.name, error)),
    }
}

fn read_bsatn<C: Copy>(
    table: &Table<C>,
    mut row: Reader<'_>,
    mut take: impl FnMut(C, Cell),
) -> Result<(), super::bsatn::BsatnError> {
    for Column { holds, kind, .. } in &table.columns {
        match (kind, holds) {
            (ColumnKind::String, Some(holds)) => take(*holds, Cell::Text(row.text()?.to_owned())),
            (ColumnKind::String, None) => drop(row.text()?),
            (kind, holds) => {
                let cell = match kind {
                    ColumnKind::U64 => Cell::Number(u64::read(&mut row)?),
                    _ => bool::read(&mut row).map(|_| Cell::Bool)?,
                };
                if let Some(holds) = holds {
                    take(*holds, cell);
                }
            }
        }
    }
    row.end()
}

fn read_json<'de, C: Copy, D: Deserializer<'de>>(
    table: &Table<C>,
    row: D,
    take: impl FnMut(C, Cell),
) -> Result<(), RowError>
where
    D::Error: fmt::Display,
{
    row.deserialize_any(JsonRow { table, take })
        .map_err(|error| RowError::new(&table.name, error))
}

/// A row in JSON: its columns in order, or by name.
struct JsonRow<'t, C, F> {
    table: &'t Table<C>,
    take: F,
}

impl<'de, C: Copy, F: FnMut(C, Cell)> Visitor<'de> for JsonRow<'_, C, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row's columns, in order or by name")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut row: A) -> Result<(), A::Error> {
        for column in &self.table.columns {
            let name = &column.name;
            let cell = row.next_element_seed(JsonCell(column.kind))?;
            let cell = cell.ok_or_else(|| A::Error::custom(format!("no column `{name}`")))?;
            if let Some(holds) = column.holds {
                (self.take)(holds, cell);
            }
        }
        match row.next_element::<IgnoredAny>()? {
            None => Ok(()),
            Some(_) => Err(A::Error::custom(format!(
                "more columns than the {} that the target describes",
                self.table.columns.len()
            ))),
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut row: A) -> Result<(), A::Error> {
        while let Some(name) = row.next_key::<String>()? {
            let column = self.table.columns.iter().find(|each| each.name == name);
            let column = column.ok_or_else(|| {
                A::Error::custom(format!(
                    "a column `{name}` that the target does not describe"
                ))
            })?;
            let cell = row.next_value_seed(JsonCell(column.kind))?;
            if let Some(holds) = column.holds {
                (self.take)(holds, cell);
            }
        }
        Ok(())
    }
}

struct JsonCell(ColumnKind);

impl<'de> DeserializeSeed<'de> for JsonCell {
    type Value = Cell;

    fn deserialize<D: Deserializer<'de>>(self, cell: D) -> Result<Cell, D::Error> {
        Ok(match self.0 {
            ColumnKind::String => Cell::Text(String::deserialize(cell)?),
            ColumnKind::U64 => Cell::Number(u64::deserialize(cell)?),
            ColumnKind::Bool => bool::deserialize(cell).map(|_| Cell::Bool)?,
        })
    }
}
