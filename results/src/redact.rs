//! Secrets never enter evidence: whatever looks like a credential is masked in every text before a row is judged, and
//! again in whatever is written.
//!
//! Masked are JSON web tokens (`eyJ….…`), what follows `Bearer` or `Basic`, values of keys that name a credential
//! (`token=…`, `"secret": "…"`), and passwords in URLs. What a target file is known to hold is masked before that, by
//! [`Masker`].

mod masker;

use serde_json::Value;

pub use masker::Masker;

/// What stands in the place of a secret.
pub const MASK: &str = "[redacted]";

const KEYS: [&str; 9] = [
    "token",
    "access_token",
    "secret",
    "session_secret",
    "publish_secret",
    "password",
    "passwd",
    "api_key",
    "credential",
];

/// The text with everything masked that looks like a credential. What is masked stays as it is when masked again.
#[must_use]
pub fn mask(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let boundary = !out.chars().next_back().is_some_and(is_word);
        let rest = &text[at..];
        let hit = secret(rest, boundary);
        if let Some((kept, hidden)) = hit {
            out.push_str(&rest[..kept]);
            out.push_str(MASK);
            at += kept + hidden;
        } else {
            out.push(first);
            at += first.len_utf8();
        }
    }
    out
}

/// Masks every text in a JSON value, names of fields included.
#[must_use]
pub fn mask_json(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(mask(&text)),
        Value::Array(values) => values.into_iter().map(mask_json).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| match value {
                Value::String(text) if is_key(&name) && !text.is_empty() => {
                    (name, Value::String(MASK.to_owned()))
                }
                value => (mask(&name), mask_json(value)),
            })
            .collect(),
        other => other,
    }
}

/// A secret at the beginning of the text: how many bytes lead up to it, and how many it has.
fn secret(text: &str, boundary: bool) -> Option<(usize, usize)> {
    let at_a_word = || {
        web_token(text)
            .or_else(|| after_scheme(text))
            .or_else(|| value_of_key(text))
    };
    boundary
        .then(at_a_word)
        .flatten()
        .or_else(|| url_password(text))
        .filter(|(kept, hidden)| *hidden > 0 && !text[*kept..].starts_with(MASK))
}

fn web_token(text: &str) -> Option<(usize, usize)> {
    let length = run(text, |c| is_word(c) || matches!(c, '-' | '.' | '='));
    (text.starts_with("eyJ") && text[..length].contains('.')).then_some((0, length))
}

fn after_scheme(text: &str) -> Option<(usize, usize)> {
    ["bearer ", "basic "].into_iter().find_map(|scheme| {
        let head = text.get(..scheme.len())?;
        if !head.eq_ignore_ascii_case(scheme) {
            return None;
        }
        let spaces = run(&text[scheme.len()..], |c| c == ' ');
        let kept = scheme.len() + spaces;
        let hidden = run(&text[kept..], |c| {
            is_word(c) || matches!(c, '-' | '.' | '=' | '~' | '+' | '/')
        });
        // A word of prose has no digits and is short: "bearer of news".
        let credential = &text[kept..kept + hidden];
        let looks_it = credential.len() >= 16 || credential.chars().any(|c| !c.is_alphabetic());
        looks_it.then_some((kept, hidden))
    })
}

fn value_of_key(text: &str) -> Option<(usize, usize)> {
    let name = run(text, is_word);
    if !is_key(&text[..name]) {
        return None;
    }
    let rest = &text[name..];
    let (lead, quote) = if let Some(value) = rest.strip_prefix('=') {
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
        (1 + usize::from(quote.is_some()), quote)
    } else {
        // `"token": "…"`, also inside a JSON string, where the quotes are escaped.
        let lead = run(rest, |c| matches!(c, '"' | '\\' | ':' | ' '));
        let head = &rest[..lead];
        if !(head.contains(':') && head.ends_with('"') && head.starts_with(['"', '\\', ':'])) {
            return None;
        }
        (lead, Some('"'))
    };
    let value = &rest[lead..];
    let hidden = match quote {
        Some(quote) => run(value, |c| c != quote && c != '\\'),
        None => run(value, |c| {
            !c.is_whitespace() && !matches!(c, '&' | '"' | '\'' | ',' | ';' | ')' | ']' | '}')
        }),
    };
    Some((name + lead, hidden))
}

fn url_password(text: &str) -> Option<(usize, usize)> {
    let authority = text.strip_prefix("://")?;
    let end = run(authority, |c| {
        !c.is_whitespace() && !matches!(c, '/' | '?' | '#' | '"')
    });
    let at = authority[..end].rfind('@')?;
    let colon = authority[..at].find(':')?;
    Some((3 + colon + 1, at - colon - 1))
}

fn is_key(name: &str) -> bool {
    KEYS.iter().any(|key| name.eq_ignore_ascii_case(key))
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn run(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const JWT: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1MSJ9.c2lnbmF0dXJl-_x";

    #[test]
    fn credentials_are_masked_wherever_they_stand() {
        for (text, expected) in [
            (
                format!("refused {JWT}: expired"),
                "refused [redacted]: expired",
            ),
            (
                format!("Authorization: Bearer {JWT}"),
                "Authorization: Bearer [redacted]",
            ),
            (
                "authorization: bearer abc123".to_owned(),
                "authorization: bearer [redacted]",
            ),
            (
                "GET /socket?token=abc&vsn=2".to_owned(),
                "GET /socket?token=[redacted]&vsn=2",
            ),
            (
                "{\"token\":\"abc\",\"n\":1}".to_owned(),
                "{\"token\":\"[redacted]\",\"n\":1}",
            ),
            (
                "{\\\"secret\\\": \\\"abc\\\"}".to_owned(),
                "{\\\"secret\\\": \\\"[redacted]\\\"}",
            ),
            (
                "http://u:pw@host/x".to_owned(),
                "http://u:[redacted]@host/x",
            ),
            (
                "password='two words' x".to_owned(),
                "password='[redacted]' x",
            ),
        ] {
            assert_eq!(mask(&text), expected);
            assert_eq!(mask(expected), expected, "masked once and for all");
        }
    }

    #[test]
    fn prose_stays_as_it_is() {
        for text in [
            "token expired: token_expired after 5 s",
            "the bearer of news, basic things",
            "index 40 was acknowledged as seq 41, seen by c0007",
            "HISTFAAAAHh42pNpmSzMwMDAxQABzFCaEUoz2X+AsIjBwcAAAD//w==",
            "cursor 12 at ws://127.0.0.1:4000/sync?vsn=2.0.0",
        ] {
            assert_eq!(mask(text), text);
        }
    }

    #[test]
    fn json_is_masked_by_text_and_by_field() {
        let value = serde_json::json!({"session_secret": "abc", "answers": {JWT: 1}, "list": ["Bearer a1"]});
        let expected = serde_json::json!({"session_secret": MASK, "answers": {MASK: 1}, "list": ["Bearer [redacted]"]});
        assert_eq!(mask_json(value), expected);
    }

    proptest! {
        #[test]
        fn no_text_breaks_it_and_twice_is_once(text in ".{0,60}") {
            let once = mask(&text);
            prop_assert_eq!(mask(&once), once);
        }

        #[test]
        fn no_token_survives_any_surroundings(before in "[ a-z:\"'=/]{0,12}", after in "[ :,;\"'&]{0,6}") {
            let text = format!("{before} {JWT}{after}");
            prop_assert!(!mask(&text).contains("c2lnbmF0dXJl"), "{}", text);
        }
    }
}
