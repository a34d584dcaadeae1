//! The query of a request's target, in the bytes of its start line.

use std::ops::Range;

/// Where the target lies in a request's start line; `None` where there is none.
fn target(line: &[u8]) -> Option<Range<usize>> {
    let blank = |byte: &u8| *byte == b' ';
    let from = line.iter().position(blank)? + 1;
    let to = line.iter().rposition(blank)?;
    (from < to).then_some(from..to)
}

/// Where the query lies in a request's start line, behind its question mark.
pub(super) fn in_line(line: &[u8]) -> Option<Range<usize>> {
    let target = target(line)?;
    let query = in_target(&line[target.clone()])?;
    Some(target.start + query.start..target.start + query.end)
}

/// Where the query lies in a target.
fn in_target(target: &[u8]) -> Option<Range<usize>> {
    let fragment = target.iter().position(|byte| *byte == b'#');
    let end = fragment.unwrap_or(target.len());
    let mark = target[..end].iter().position(|byte| *byte == b'?')?;
    Some(mark + 1..end)
}

/// A parameter as it stands in a query: its name, and its value where it has one.
pub(super) fn split(parameter: &[u8]) -> (&[u8], Option<&[u8]>) {
    match parameter.iter().position(|byte| *byte == b'=') {
        Some(at) => (&parameter[..at], Some(&parameter[at + 1..])),
        None => (parameter, None),
    }
}

/// What percent signs and pluses stand for.
pub(super) fn decoded(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let escaped = (*first == b'%').then(|| tail.get(..2)).flatten();
        let escaped = escaped
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let plain = if *first == b'+' { b' ' } else { *first };
        bytes.push(escaped.unwrap_or(plain));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    bytes
}

/// A value as it may stand in a query.
pub(super) fn encoded(value: &str) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push('%');
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
    text
}

/// The value of the first parameter of that name in a target.
pub(super) fn value(target: &[u8], name: &str) -> Option<String> {
    let query = &target[in_target(target)?];
    let mut parameters = query.split(|byte| *byte == b'&').map(split);
    let found = parameters.find(|(of, _)| decoded(of) == name.as_bytes())?;
    String::from_utf8(decoded(found.1?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_parameter_is_found_by_its_decoded_name() {
        let target = b"/sync?a=1&client%5fid=de+vice%2F7&client_id=8#client_id=9";
        assert_eq!(value(target, "client_id").as_deref(), Some("de vice/7"));
        assert_eq!(value(target, "a").as_deref(), Some("1"));
        for none in [&target[..], b"/sync", b"/#?b=1", b"", b"b=1"] {
            assert_eq!(value(none, "b"), None);
        }
    }

    #[test]
    fn a_query_is_found_in_a_start_line() {
        let line = b"GET /sync?a=1#b HTTP/1.1\r\n";
        assert_eq!(&line[in_line(line).unwrap()], b"a=1");
        for none in [
            &b"GET /sync HTTP/1.1"[..],
            b"GET ?a=1",
            b"GET /#?a HTTP/1.1",
            b"",
            b"?a=1",
        ] {
            assert_eq!(in_line(none), None);
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_again(text in ".{0,20}") {
            prop_assert_eq!(decoded(encoded(&text).as_bytes()), text.as_bytes());
        }

        #[test]
        fn no_line_panics(line in prop::collection::vec(prop::sample::select(b" ?&=#%+aG\r\n\xff".to_vec()), 0..40)) {
            let _ = (value(&line, "a"), in_line(&line));
        }
    }
}
