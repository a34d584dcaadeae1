use super::*;
use proptest::prelude::*;

/// Without a word about which edit did what.
fn rewrite<'e>(head: &[u8], edits: impl IntoIterator<Item = &'e HeadEdit>) -> Option<Vec<u8>> {
    super::rewrite(head, edits, |_| {})
}

const HEAD: &str = "GET /sync?token=old&x=%2f&TOKEN=2 HTTP/1.1\r\nHost:  lane \r\ncookie: a=1\r\nAuthorization: Bearer  old\r\n\
                    Sec-WebSocket-Protocol: v2.bsatn, v1.bsatn\r\nCookie:b=2\r\nX-Folded: one\r\n  two\r\n\
                    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x-own; a=\"1, \\\" permessage-deflate\"\r\n\r\n";

fn header(name: &str, value: Option<&str>) -> HeadEdit {
    HeadEdit::Header {
        name: name.to_owned(),
        value: value.map(str::to_owned),
    }
}

fn list(header: &'static str, name: &str, value: Option<&str>) -> HeadEdit {
    HeadEdit::Item {
        header,
        name: name.to_owned(),
        value: value.map(str::to_owned),
    }
}

fn query(name: &str, value: Option<&str>) -> HeadEdit {
    HeadEdit::Query {
        name: name.to_owned(),
        value: value.map(str::to_owned),
    }
}

fn credentials(value: Option<&str>) -> HeadEdit {
    HeadEdit::Credentials {
        value: value.map(str::to_owned),
    }
}

/// That an edit changes these places of [`HEAD`], and nothing else.
#[track_caller]
fn turns(edit: &HeadEdit, places: &[(&str, &str)]) {
    let mut expected = HEAD.to_owned();
    for (before, after) in places {
        assert!(expected.contains(before), "{before:?}");
        expected = expected.replacen(before, after, 1);
    }
    let got = rewrite(HEAD.as_bytes(), [edit]).expect("it changes something");
    assert_eq!(String::from_utf8(got).unwrap(), expected, "{edit:?}");
}

#[test]
fn a_header_is_replaced_or_goes_in_each_of_its_lines() {
    turns(&header("host", Some("x")), &[("Host:  lane ", "Host:  x ")]);
    turns(
        &header("COOKIE", None),
        &[("cookie: a=1\r\n", ""), ("Cookie:b=2\r\n", "")],
    );
    turns(
        &header("cookie", Some("c")),
        &[("cookie: a=1", "cookie: c"), ("Cookie:b=2", "Cookie:c")],
    );
    turns(
        &header("x-folded", Some("1")),
        &[("X-Folded: one\r\n  two", "X-Folded: 1")],
    );
    turns(
        &header("x-folded", None),
        &[("X-Folded: one\r\n  two\r\n", "")],
    );
}

#[test]
fn an_item_is_replaced_or_goes_and_the_header_with_its_last_one() {
    let protocol = "sec-websocket-protocol";
    turns(
        &list(protocol, "v2.bsatn", None),
        &[("v2.bsatn, v1.bsatn", "v1.bsatn")],
    );
    turns(
        &list(protocol, "v1.bsatn", None),
        &[("v2.bsatn, v1.bsatn", "v2.bsatn")],
    );
    turns(
        &list(protocol, "v1.bsatn", Some("v9")),
        &[("v1.bsatn", "v9")],
    );
    turns(
        &HeadEdit::no_compression(),
        &[("permessage-deflate; client_max_window_bits, ", "")],
    );
    let alone = b"GET / HTTP/1.1\r\nSec-WebSocket-Extensions: permessage-deflate\r\nA: b\r\n\r\n";
    let edit = list("sec-websocket-extensions", "permessage-deflate", None);
    assert_eq!(
        rewrite(alone, [&edit]).unwrap(),
        b"GET / HTTP/1.1\r\nA: b\r\n\r\n"
    );
}

#[test]
fn a_token_is_replaced_or_goes_where_it_is() {
    turns(
        &query("token", Some("a b")),
        &[("token=old", "token=a%20b")],
    );
    turns(&query("token", None), &[("token=old&", "")]);
    turns(&query("x", None), &[("&x=%2f", "")]);
    turns(&query("TOKEN", None), &[("&TOKEN=2", "")]);
    turns(&credentials(Some("new")), &[("Bearer  old", "Bearer  new")]);
    turns(
        &credentials(None),
        &[("Authorization: Bearer  old\r\n", "")],
    );
    let only = b"GET /sync?token=1#a HTTP/1.1\r\n\r\n";
    assert_eq!(
        rewrite(only, [&query("token", None)]).unwrap(),
        b"GET /sync#a HTTP/1.1\r\n\r\n"
    );
    // No scheme to keep.
    let bare = b"GET / HTTP/1.1\r\nAuthorization: old\r\n\r\n";
    assert_eq!(
        rewrite(bare, [&credentials(Some("new"))]).unwrap(),
        b"GET / HTTP/1.1\r\nAuthorization: new\r\n\r\n"
    );
}

#[test]
fn edits_add_up() {
    let edits = [
        header("cookie", None),
        query("token", Some("n")),
        header("x-none", Some("n")),
    ];
    let got = String::from_utf8(rewrite(HEAD.as_bytes(), &edits).unwrap()).unwrap();
    assert!(got.starts_with("GET /sync?token=n&") && !got.to_lowercase().contains("cookie"));
    assert!(
        !got.contains("x-none"),
        "a header that is not there is not put in"
    );
}

#[test]
fn an_empty_value_is_filled_and_a_value_may_become_empty() {
    let head = b"GET / HTTP/1.1\r\nA:\r\nB: \n\r\n";
    assert_eq!(
        rewrite(head, [&header("a", Some("1"))]).unwrap(),
        b"GET / HTTP/1.1\r\nA:1\r\nB: \n\r\n"
    );
    assert_eq!(
        rewrite(head, [&header("b", Some("1"))]).unwrap(),
        b"GET / HTTP/1.1\r\nA:\r\nB:1 \n\r\n"
    );
    turns(&header("host", Some("")), &[("Host:  lane ", "Host:   ")]);
}

/// Edits that have something to do in [`HEAD`], and others.
fn any_edit() -> impl Strategy<Value = HeadEdit> {
    let name = prop::sample::select(&["a", "token", "cookie", "authorization", "v1", "x y"][..]);
    let value = prop::option::of(prop::sample::select(
        &["", "new", "a,b", "\"", "%2", "é"][..],
    ));
    (0..4, name, value).prop_map(|(kind, name, value)| match kind {
        0 => header(name, value),
        1 => list("a", name, value),
        2 => query(name, value),
        _ => credentials(value),
    })
}

/// A header's line: its name, a blank, its value in one or two lines.
fn any_line() -> impl Strategy<Value = (String, String)> {
    let name = prop::sample::select(&["A", "b", "Cookie", "COOKIE", "X-Y"][..]);
    let value = prop::sample::select(&["", "1", "a, b;c=\"d,\" , e", "x\r\n y", "é: : ?"][..]);
    let blank = prop::sample::select(&["", " ", "\t "][..]);
    (name, blank, value)
        .prop_map(|(name, blank, value)| (name.to_owned(), format!("{name}:{blank}{value}\r\n")))
}

proptest! {
    #[test]
    fn every_other_line_stays_byte_for_byte(lines in prop::collection::vec(any_line(), 0..8), value in prop::option::of("[a-z]{0,5}")) {
        let head: String = lines.iter().map(|(_, line)| line.as_str()).collect();
        let head = format!("GET /?a=b HTTP/1.1\r\n{head}\r\n");
        let after = rewrite(head.as_bytes(), [&header("cookie", value.as_deref())]);
        let after = String::from_utf8(after.unwrap_or_else(|| head.clone().into_bytes())).unwrap();
        let mut rest = after.strip_prefix("GET /?a=b HTTP/1.1\r\n").unwrap();
        for (name, line) in &lines {
            if !name.eq_ignore_ascii_case("cookie") {
                rest = rest.strip_prefix(line.as_str()).unwrap();
            } else if let Some(value) = &value {
                let (said, after) = rest.split_once("\r\n").unwrap();
                let kept = said.starts_with(&format!("{name}:"));
                prop_assert!(kept && said.trim_end().ends_with(value.as_str()));
                rest = after;
            }
        }
        prop_assert_eq!(rest, "\r\n");
    }

    #[test]
    fn without_anything_to_edit_a_head_is_what_it_was(head in prop::collection::vec(any::<u8>(), 0..200), lines in prop::collection::vec(any_line(), 0..8)) {
        let lines: String = lines.iter().map(|(_, line)| line.as_str()).collect();
        for head in [head.as_slice(), format!("GET /?a=b HTTP/1.1\r\n{lines}\r\n").as_bytes()] {
            prop_assert_eq!(rewrite(head, &[]), None);
            let edits = [header("not-there", None), query("not-there", Some("x")), list("not-there", "a", None)];
            prop_assert_eq!(rewrite(head, &edits), None);
        }
    }

    #[test]
    fn hostile_heads_do_no_harm(
        head in prop::collection::vec(prop::sample::select(b"GaA: ?&=#%,;\"\\\t\r\n\xffb1".to_vec()), 0..80),
        edits in prop::collection::vec(any_edit(), 0..4),
    ) {
        let _ = rewrite(&head, &edits);
    }

    #[test]
    fn what_is_taken_out_is_not_found_again(
        head in prop::collection::vec(prop::sample::select(b"aA: ,\r\n".to_vec()), 0..60),
    ) {
        let edit = header("a", None);
        if let Some(after) = rewrite(&head, [&edit]) {
            prop_assert_eq!(rewrite(&after, [&edit]), None);
        }
    }
}
