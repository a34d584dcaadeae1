//! Rewrites the head of a request or of a response: what an edit is about changes, and every other byte stays as it was,
//! in its order, its case and its folding.

use std::ops::Range;

use super::query;

/// One change of a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HeadEdit {
    /// Every line of this header gets the value; without one, the lines go.
    Header {
        /// In any case of letters.
        name: String,
        /// What stands behind the colon.
        value: Option<String>,
    },
    /// This item of a header that is a list becomes another one; without that, it goes, and the header with its last
    /// item.
    Item {
        /// The header.
        header: &'static str,
        /// The item, without its parameters.
        name: String,
        /// The item with its parameters.
        value: Option<String>,
    },
    /// This parameter of the request's query gets the value; without one, it goes.
    Query {
        /// Decoded.
        name: String,
        /// It is encoded where it has to be.
        value: Option<String>,
    },
    /// The credentials behind the scheme of `Authorization`; without any, the header goes.
    Credentials {
        /// Such as a token.
        value: Option<String>,
    },
}

/// What becomes of a header's line.
enum Line {
    Stays,
    Goes,
    Has(Vec<u8>),
}

/// The head after these edits, one after the other; `None` where they change nothing. `head` is complete, with the blank
/// line at its end. Of each edit that finds what it is about, `did` is told the place among the edits.
pub(crate) fn rewrite<'e>(
    head: &[u8],
    edits: impl IntoIterator<Item = &'e HeadEdit>,
    mut did: impl FnMut(usize),
) -> Option<Vec<u8>> {
    let mut now: Option<Vec<u8>> = None;
    for (place, edit) in edits.into_iter().enumerate() {
        let before = now.as_deref().unwrap_or(head);
        if let Some(after) = edit.apply(before).filter(|after| after != before) {
            did(place);
            now = Some(after);
        }
    }
    now.filter(|now| now != head)
}

impl HeadEdit {
    /// Takes compression (RFC 7692) out of what a client offers.
    pub(crate) fn no_compression() -> Self {
        Self::Item {
            header: "sec-websocket-extensions",
            name: "permessage-deflate".to_owned(),
            value: None,
        }
    }

    fn apply(&self, head: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Header { name, value } => on_lines(head, name, |_| match value {
                Some(value) => Line::Has(value.as_bytes().to_vec()),
                None => Line::Goes,
            }),
            Self::Item {
                header,
                name,
                value,
            } => on_lines(head, header, |list| {
                item(list, name, value.as_deref()).unwrap_or(Line::Stays)
            }),
            Self::Credentials { value } => on_lines(head, "authorization", |line| {
                let Some(value) = value else {
                    return Line::Goes;
                };
                let scheme = line.iter().position(|byte| is_blank(*byte));
                let scheme = scheme.map_or(0, |at| at + blanks(&line[at..]));
                Line::Has([&line[..scheme], value.as_bytes()].concat())
            }),
            Self::Query { name, value } => on_query(head, name, value.as_deref()),
        }
    }
}

const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// Blank bytes at the beginning.
fn blanks(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| is_blank(**byte)).count()
}

fn trimmed(bytes: &[u8]) -> &[u8] {
    let bytes = &bytes[blanks(bytes)..];
    let end = bytes.iter().rposition(|byte| !is_blank(*byte));
    &bytes[..end.map_or(0, |at| at + 1)]
}

/// Where a head's first line is that is not empty, with its end.
fn start_line(head: &[u8]) -> Range<usize> {
    let from = head
        .iter()
        .take_while(|byte| matches!(byte, b'\r' | b'\n'))
        .count();
    from..line_end(head, from)
}

/// Behind the line that begins there.
fn line_end(head: &[u8], from: usize) -> usize {
    let end = head[from..].iter().position(|byte| *byte == b'\n');
    end.map_or(head.len(), |at| from + at + 1)
}

/// Edits the value of each line of a header, with the lines that continue it.
fn on_lines(head: &[u8], name: &str, mut edit: impl FnMut(&[u8]) -> Line) -> Option<Vec<u8>> {
    let mut at = start_line(head).end;
    let mut after = None;
    // Up to where `after` has what `head` had.
    let mut kept = 0;
    while at < head.len() {
        let mut end = line_end(head, at);
        while matches!(head.get(end), Some(b' ' | b'\t')) {
            end = line_end(head, end);
        }
        let line = &head[at..end];
        if let Some(colon) = line.iter().position(|byte| *byte == b':')
            && trimmed(&line[..colon]).eq_ignore_ascii_case(name.as_bytes())
        {
            let from = at + colon + 1;
            let value = from + blanks(&head[from..end]);
            let old = trimmed(&head[value..end]);
            let changed = match edit(old) {
                Line::Stays => None,
                Line::Goes => Some((at, Vec::new(), end)),
                // An empty value: what is blank is the end of the line too, which has to stay.
                Line::Has(new) if old.is_empty() => Some((from, new, from)),
                Line::Has(new) => Some((value, new, value + old.len())),
            };
            if let Some((until, new, from)) = changed {
                let after = after.get_or_insert_with(Vec::new);
                after.extend_from_slice(&head[kept..until]);
                after.extend(new);
                kept = from;
            }
        }
        at = end;
    }
    let mut after = after?;
    after.extend_from_slice(&head[kept..]);
    Some(after)
}

/// A list with one of its items replaced or taken out; `None` where it has no such item.
fn item(list: &[u8], name: &str, value: Option<&str>) -> Option<Line> {
    let is_it = |item: &[u8]| {
        let end = item.iter().position(|byte| *byte == b';');
        let item = trimmed(&item[..end.unwrap_or(item.len())]);
        item.eq_ignore_ascii_case(name.as_bytes())
    };
    let items = items(list);
    if !items.iter().any(|item| is_it(item)) {
        return None;
    }
    let mut after: Option<Vec<u8>> = None;
    for item in items {
        let blank = &item[..blanks(item)];
        let item = match (is_it(item), value) {
            (false, _) => item.to_vec(),
            (true, Some(value)) => [blank, value.as_bytes()].concat(),
            (true, None) => continue,
        };
        after = Some(match after {
            Some(after) => [&after[..], b",", &item].concat(),
            None => trimmed(&item).to_vec(),
        });
    }
    Some(after.map_or(Line::Goes, Line::Has))
}

/// What is between commas, which do not count in a quoted string.
fn items(list: &[u8]) -> Vec<&[u8]> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    list.split(|byte| {
        if is_escaped {
            is_escaped = false;
            return false;
        }
        match byte {
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            _ => {}
        }
        *byte == b',' && !is_quoted
    })
    .collect()
}

/// Edits every parameter of that name.
fn on_query(head: &[u8], name: &str, value: Option<&str>) -> Option<Vec<u8>> {
    let line = start_line(head);
    let at = query::in_line(&head[line.clone()])?;
    let (from, to) = (line.start + at.start, line.start + at.end);
    let mut is_there = false;
    let mut parameters: Vec<Vec<u8>> = Vec::new();
    for parameter in head[from..to].split(|byte| *byte == b'&') {
        let (of, _) = query::split(parameter);
        if query::decoded(of) != name.as_bytes() {
            parameters.push(parameter.to_vec());
            continue;
        }
        is_there = true;
        if let Some(value) = value {
            parameters.push([of, b"=", query::encoded(value).as_bytes()].concat());
        }
    }
    if !is_there {
        return None;
    }
    // Without a parameter, the question mark goes too.
    let until = from - usize::from(parameters.is_empty());
    Some([&head[..until], &parameters.join(&b'&'), &head[to..]].concat())
}

#[cfg(test)]
mod tests;
