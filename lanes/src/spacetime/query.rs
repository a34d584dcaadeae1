//! The subset of SQL that subscriptions use: `SELECT * FROM table [WHERE column op literal [AND …]]`.

use std::cmp::Ordering;
use std::fmt;

use model::ids::Seq;

use super::rows::{Row, Table};

/// A query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// From which table.
    pub table: Table,
    /// All of these must hold.
    pub conditions: Vec<Condition>,
}

/// `column op literal`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The column.
    pub column: &'static str,
    /// The comparison.
    pub op: Op,
    /// With what.
    pub literal: Literal,
}

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// `=`
    Equal,
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    Greater,
    /// `>=`
    AtLeast,
}

/// A constant in a query.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Literal {
    /// A number.
    Number(u64),
    /// Quoted by `'`, which is doubled inside.
    Text(String),
    /// `true` or `false`.
    Bool(bool),
}

/// Why a text is not a query of the subset. The texts are a real server's where it has one for the case.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// No `FROM`, as in `SELECT 1`.
    #[error("A FROM clause is required")]
    NoFrom,
    /// An unknown table.
    #[error("`{0}` is not a valid table")]
    NoTable(String),
    /// An unknown column.
    #[error("`{0}` is not in scope")]
    NoColumn(String),
    /// A literal that does not fit its column.
    #[error("The literal expression `{literal}` cannot be parsed as the type of `{column}`")]
    Mismatch {
        /// The column.
        column: &'static str,
        /// The literal.
        literal: String,
    },
    /// Anything else.
    #[error("Unsupported: {0}")]
    Unsupported(String),
}

impl Query {
    /// Reads a query.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        let tokens = tokens(text)?;
        let mut tokens = tokens.iter();
        let unsupported = || QueryError::Unsupported(text.to_owned());
        if !matches!(tokens.next(), Some(Token::Word(word)) if word.eq_ignore_ascii_case("select"))
        {
            return Err(unsupported());
        }
        let selected = tokens.next();
        match tokens.next() {
            Some(Token::Word(word)) if word.eq_ignore_ascii_case("from") => {}
            None => return Err(QueryError::NoFrom),
            Some(_) => return Err(unsupported()),
        }
        if !matches!(selected, Some(Token::Symbol("*"))) {
            return Err(unsupported());
        }
        let Some(Token::Word(name)) = tokens.next() else {
            return Err(unsupported());
        };
        let table = Table::named(name).ok_or_else(|| QueryError::NoTable(name.clone()))?;
        let mut query = Self {
            table,
            conditions: Vec::new(),
        };
        let mut keyword = "where";
        loop {
            match tokens.next() {
                None => return Ok(query),
                Some(Token::Word(word)) if word.eq_ignore_ascii_case(keyword) => keyword = "and",
                Some(_) => return Err(unsupported()),
            }
            let (Some(Token::Word(column)), Some(Token::Symbol(op)), Some(literal)) =
                (tokens.next(), tokens.next(), tokens.next())
            else {
                return Err(unsupported());
            };
            let op = Op::of(op).ok_or_else(unsupported)?;
            query
                .conditions
                .push(condition(table, column, op, literal)?);
        }
    }

    /// The stream to which `stream_id = '…'` confines it.
    #[must_use]
    pub fn stream(&self) -> Option<&str> {
        self.conditions
            .iter()
            .find_map(|condition| match (condition.column, &condition.literal) {
                ("stream_id", Literal::Text(stream)) if condition.op == Op::Equal => {
                    Some(stream.as_str())
                }
                _ => None,
            })
    }

    /// The cursor in `seq > N`; 0 where there is none.
    #[must_use]
    pub fn after(&self) -> Seq {
        self.conditions
            .iter()
            .filter_map(|condition| match (condition.column, &condition.literal) {
                ("seq", Literal::Number(number)) => match condition.op {
                    Op::Greater => Some(*number),
                    Op::AtLeast | Op::Equal => Some(number.saturating_sub(1)),
                    Op::Less | Op::AtMost => None,
                },
                _ => None,
            })
            .max()
            .unwrap_or(0)
    }

    /// Whether the conditions on `seq` alone let a seq through.
    #[must_use]
    pub fn bounds_seq(&self, seq: Seq) -> bool {
        self.conditions
            .iter()
            .filter(|condition| condition.column == "seq")
            .all(|condition| match condition.literal {
                Literal::Number(number) => condition.op.holds(seq.cmp(&number)),
                _ => false,
            })
    }

    /// Whether a row is among the query's.
    #[must_use]
    pub fn matches(&self, row: &Row) -> bool {
        row.table() == self.table
            && self.conditions.iter().all(|condition| {
                let order = match (value(row, condition.column), &condition.literal) {
                    (Some(Value::Number(left)), Literal::Number(right)) => left.cmp(right),
                    (Some(Value::Text(left)), Literal::Text(right)) => left.cmp(right.as_str()),
                    (Some(Value::Bool(left)), Literal::Bool(right)) => left.cmp(right),
                    _ => return false,
                };
                condition.op.holds(order)
            })
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SELECT * FROM {}", self.table)?;
        for (at, condition) in self.conditions.iter().enumerate() {
            let keyword = if at == 0 { "WHERE" } else { "AND" };
            let Condition {
                column,
                op,
                literal,
            } = condition;
            write!(f, " {keyword} {column} {} {literal}", op.symbol())?;
        }
        Ok(())
    }
}

impl Op {
    const ALL: [Self; 5] = [
        Self::Equal,
        Self::Less,
        Self::AtMost,
        Self::Greater,
        Self::AtLeast,
    ];

    const fn symbol(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::Greater => ">",
            Self::AtLeast => ">=",
        }
    }

    const fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::Less => order.is_lt(),
            Self::AtMost => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::AtLeast => order.is_ge(),
        }
    }

    fn of(symbol: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|op| op.symbol() == symbol)
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "'{}'", text.replace('\'', "''")),
            Self::Bool(value) => write!(f, "{value}"),
        }
    }
}

enum Value<'a> {
    Number(u64),
    Text(&'a str),
    Bool(bool),
}

fn value<'a>(row: &'a Row, column: &str) -> Option<Value<'a>> {
    Some(match (row, column) {
        (Row::Event(row), "stream_id") => Value::Text(&row.stream_id),
        (Row::Event(row), "seq") => Value::Number(row.seq),
        (Row::Event(row), "idempotency_key") => Value::Text(&row.idempotency_key),
        (Row::Event(row), "payload_hash") => Value::Text(&row.payload_hash),
        (Row::Event(row), "payload_json") => Value::Text(&row.payload_json),
        (Row::Event(row), "committed_at_unix_ms") => Value::Number(row.committed_at_unix_ms),
        (Row::Event(row), "durable_offset") => Value::Number(row.durable_offset),
        (Row::Event(row), "confirmed_read") => Value::Bool(row.confirmed_read),
        (Row::Head(row), "stream_id") => Value::Text(&row.stream_id),
        (Row::Head(row), "head_seq") => Value::Number(row.head_seq),
        (Row::Head(row), "updated_at_unix_ms") => Value::Number(row.updated_at_unix_ms),
        (Row::Checkpoint(row), "checkpoint_key") => Value::Text(&row.checkpoint_key),
        (Row::Checkpoint(row), "client_id") => Value::Text(&row.client_id),
        (Row::Checkpoint(row), "stream_id") => Value::Text(&row.stream_id),
        (Row::Checkpoint(row), "last_applied_seq") => Value::Number(row.last_applied_seq),
        (Row::Checkpoint(row), "durable_offset") => Value::Number(row.durable_offset),
        (Row::Checkpoint(row), "updated_at_unix_ms") => Value::Number(row.updated_at_unix_ms),
        _ => return None,
    })
}

enum Token {
    Word(String),
    Symbol(&'static str),
    Number(u64),
    Text(String),
}

fn condition(table: Table, column: &str, op: Op, literal: &Token) -> Result<Condition, QueryError> {
    let bare = column
        .strip_prefix(table.name())
        .and_then(|rest| rest.strip_prefix('.'))
        .unwrap_or(column);
    let column = *table
        .columns()
        .iter()
        .find(|name| **name == bare)
        .ok_or_else(|| QueryError::NoColumn(bare.to_owned()))?;
    let literal = match literal {
        Token::Number(number) => Literal::Number(*number),
        Token::Text(text) => Literal::Text(text.clone()),
        Token::Word(word) if word.eq_ignore_ascii_case("true") => Literal::Bool(true),
        Token::Word(word) if word.eq_ignore_ascii_case("false") => Literal::Bool(false),
        Token::Word(word) => return Err(QueryError::NoColumn(word.clone())),
        Token::Symbol(symbol) => return Err(QueryError::Unsupported((*symbol).to_owned())),
    };
    let fits = match &literal {
        Literal::Number(_) => {
            column.ends_with("seq") || column.ends_with("_ms") || column == "durable_offset"
        }
        Literal::Bool(_) => column == "confirmed_read",
        Literal::Text(_) => {
            column.ends_with("_id") || column.ends_with("_key") || column.starts_with("payload_")
        }
    };
    if !fits {
        let literal = literal.to_string();
        return Err(QueryError::Mismatch { column, literal });
    }
    Ok(Condition {
        column,
        op,
        literal,
    })
}

fn tokens(text: &str) -> Result<Vec<Token>, QueryError> {
    let unsupported = || QueryError::Unsupported(text.to_owned());
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let taken = if first == '\'' {
            let (value, taken) = quoted(rest).ok_or_else(unsupported)?;
            found.push(Token::Text(value));
            taken
        } else if first.is_ascii_digit() {
            let taken = rest
                .find(|letter: char| !letter.is_ascii_digit())
                .unwrap_or(rest.len());
            let number = rest[..taken].parse().map_err(|_| unsupported())?;
            found.push(Token::Number(number));
            taken
        } else if first.is_ascii_alphabetic() || first == '_' {
            let taken = rest
                .find(|letter: char| !(letter.is_ascii_alphanumeric() || "_.".contains(letter)))
                .unwrap_or(rest.len());
            found.push(Token::Word(rest[..taken].to_owned()));
            taken
        } else {
            let symbol = ["<=", ">=", "*", "=", "<", ">"]
                .into_iter()
                .find(|symbol| rest.starts_with(symbol))
                .ok_or_else(unsupported)?;
            found.push(Token::Symbol(symbol));
            symbol.len()
        };
        rest = rest[taken..].trim_start();
    }
    Ok(found)
}

/// The value of a quoted text at the start of `rest`, and how many bytes it takes.
fn quoted(rest: &str) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut letters = rest.char_indices().skip(1).peekable();
    while let Some((at, letter)) = letters.next() {
        if letter != '\'' {
            value.push(letter);
        } else if letters.next_if(|(_, next)| *next == '\'').is_some() {
            value.push('\'');
        } else {
            return Some((value, at + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use model::target::Names;

    use super::super::named::events_after;
    use super::super::rows::SyncEvent;
    use super::*;

    fn event(stream: &str, seq: Seq) -> Row {
        Row::Event(SyncEvent {
            stream_id: stream.to_owned(),
            seq,
            idempotency_key: format!("{stream}-{seq}"),
            payload_hash: String::new(),
            payload_json: "{}".to_owned(),
            committed_at_unix_ms: 0,
            durable_offset: 0,
            confirmed_read: false,
        })
    }

    #[test]
    fn what_is_not_in_the_subset_is_refused_with_its_reason() {
        let error = |text: &str| Query::parse(text).unwrap_err().to_string();
        assert_eq!(error("SELECT 1"), "A FROM clause is required");
        assert_eq!(
            error("SELECT * FROM nowhere"),
            "`nowhere` is not a valid table"
        );
        assert_eq!(
            error("SELECT * FROM sync_event WHERE sequ > 1"),
            "`sequ` is not in scope"
        );
        assert!(error("SELECT * FROM sync_event WHERE seq > 'x'").contains("`'x'`"));
        for text in [
            "",
            "SELECT seq FROM sync_event",
            "SELECT * FROM sync_event LIMIT 1",
            "SELECT * FROM sync_event WHERE",
            "SELECT * FROM sync_event WHERE seq > 1 OR seq < 3",
            "SELECT * FROM sync_event WHERE stream_id = 'open",
            "DELETE FROM sync_event",
        ] {
            assert!(error(text).starts_with("Unsupported"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_resume_query_selects_what_is_above_the_cursor(stream in ".{0,20}", after in 0_u64..100, seq in 1_u64..100) {
            let query = Query::parse(&events_after(&Names::default(), &stream, after)).unwrap();
            prop_assert_eq!(query.stream(), Some(stream.as_str()));
            prop_assert_eq!(query.after(), after);
            prop_assert_eq!(query.matches(&event(&stream, seq)), seq > after);
            prop_assert_eq!(query.bounds_seq(seq), seq > after);
            prop_assert!(!query.matches(&event("another stream altogether", seq)));
            prop_assert_eq!(Query::parse(&query.to_string()).unwrap(), query);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,60}") {
            let _ = Query::parse(&text);
            let _ = Query::parse(&format!("SELECT * FROM sync_event WHERE {text}"));
        }
    }
}
