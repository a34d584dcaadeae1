//! What each toxic makes of messages.

use super::*;

const UP: Way = Way::Upstream;
const DOWN: Way = Way::Downstream;

fn one(kind: &'static str, attributes: Value) -> [(&'static str, Value); 1] {
    [(kind, attributes)]
}

/// The payloads that come out for texts.
fn of(kind: &'static str, attributes: Value, given: &[&str]) -> Vec<String> {
    let bytes = texts(UP, given);
    payloads(&edit(UP, &one(kind, attributes), &bytes, &[3]).0)
}

#[test]
fn selectors_take_what_they_say() {
    let given = [
        r#"{"type":"a","n":1}"#,
        r#"{"type":"b","n":[0,2]}"#,
        "no json",
        r#"{"type":"a","n":3}"#,
    ];
    for (selector, dropped) in [
        (json!({}), vec![0, 1, 2, 3]),
        (json!({"nth": 2}), vec![1]),
        (json!({"every": 2}), vec![1, 3]),
        (json!({"contains": "\"a\""}), vec![0, 3]),
        (json!({"contains": "\"a\"", "nth": 2}), vec![3]),
        (json!({"regex": "^no|n\":3"}), vec![2, 3]),
        (json!({"pointer": "/type"}), vec![0, 1, 3]),
        (json!({"pointer": "/type", "equals": "a"}), vec![0, 3]),
        (json!({"pointer": "/n/1", "equals": 2}), vec![1]),
        (
            json!({"pointer": "", "equals": {"n": 3, "type": "a"}}),
            vec![3],
        ),
        (json!({"bytes": "7b22"}), vec![0, 1, 3]),
        (json!({"bytes": "6a736F6e", "offset": 3}), vec![2]),
        (json!({"bytes": "00", "offset": 99}), vec![]),
        (json!({"opcode": ["text"]}), vec![0, 1, 2, 3]),
        (json!({"opcode": [2, "ping"]}), vec![]),
        (json!({"share": 0}), vec![]),
        (json!({"share": 1}), vec![0, 1, 2, 3]),
    ] {
        let kept: Vec<_> = (0..4)
            .filter(|at| !dropped.contains(at))
            .map(|at| given[at])
            .collect();
        assert_eq!(
            of("ws_drop", json!({"match": selector}), &given),
            kept,
            "{selector}"
        );
    }
}

#[test]
fn a_share_is_seeded_and_about_as_large() {
    let given: Vec<String> = (0..1_000).map(|number| number.to_string()).collect();
    let given: Vec<&str> = given.iter().map(String::as_str).collect();
    let kept = of("ws_drop", json!({"match": {"share": 0.25}}), &given);
    assert!((700..800).contains(&kept.len()), "{}", kept.len());
    // The message's number decides, not what was selected of those before it.
    let mut rig = Rig::new(UP);
    rig.push(&texts(UP, &given[..500]));
    rig.set(&one("ws_drop", json!({"match": {"share": 0.25}})));
    rig.push(&texts(UP, &given[500..]));
    let later: Vec<_> = payloads(&rig.out).split_off(500);
    assert!(kept.ends_with(&later) && !later.is_empty());
}

#[test]
fn counts_outlive_changes_of_other_toxics() {
    let third = ("ws_drop", json!({"match": {"nth": 3}}));
    let mut rig = Rig::new(UP);
    for text in ["a", "b", "c", "d"] {
        rig.set(std::slice::from_ref(&third));
        rig.push(&texts(UP, &[text]));
        rig.set(&[third.clone(), ("ws_swallow", json!({}))]);
    }
    assert_eq!(payloads(&rig.out), ["a", "b", "d"]);
}

#[test]
fn control_frames_are_spared_unless_they_are_named() {
    let bytes = [
        message(UP, PING, b"p"),
        texts(UP, &["t"]),
        message(UP, CLOSE, &[3, 232]),
    ]
    .concat();
    let kept = |selector| {
        let out = edit(
            UP,
            &one("ws_drop", json!({"match": selector})),
            &bytes,
            &[1],
        )
        .0;
        read(&out)
            .iter()
            .map(|frame| frame.header.opcode)
            .collect::<Vec<_>>()
    };
    assert_eq!(kept(json!({})), [PING, CLOSE]);
    assert_eq!(kept(json!({"opcode": ["ping"]})), [TEXT, CLOSE]);
    assert_eq!(kept(json!({"opcode": ["close", "text"]})), [PING]);
    let out = edit(
        UP,
        &one("ws_swallow", json!({"kinds": ["pong"]})),
        &bytes,
        &[1],
    )
    .0;
    assert_eq!(out, bytes);
    let out = edit(UP, &one("ws_swallow", json!({})), &bytes, &[1]).0;
    assert_eq!(read(&out).len(), 2);
}

#[test]
fn close_comes_behind_the_selected_message_and_ends_the_connection() {
    let bytes = texts(UP, &["a", "b", "c"]);
    let toxic = one(
        "ws_close",
        json!({"match": {"nth": 2}, "code": 4_001, "reason": "go"}),
    );
    let (out, end) = edit(UP, &toxic, &bytes, &[5]);
    let frames = read(&out);
    assert_eq!(end, Some(Verdict::HangUp));
    assert_eq!(payloads(&out)[..2], ["a", "b"]);
    assert_eq!(
        (frames[2].header.opcode, &frames[2].payload[..]),
        (CLOSE, &b"\x0f\xa1go"[..])
    );
    assert!(frames.len() == 3 && frames[2].header.mask.is_some());
    let (out, end) = edit(
        DOWN,
        &one("ws_close", json!({"match": {"nth": 2}, "code": 1_006})),
        &bytes,
        &[5],
    );
    assert_eq!((payloads(&out).len(), end), (2, Some(Verdict::Reset)));
}

#[test]
fn a_close_that_waits_for_nothing_comes_at_the_next_boundary() {
    let bytes = texts(DOWN, &["first", "second"]);
    for at in 0..bytes.len() {
        let mut rig = Rig::new(DOWN);
        rig.push(&bytes[..at]);
        rig.set(&one("ws_close", json!({"code": 1_012})));
        rig.push(&bytes[at..]);
        let whole = at.div_ceil(7);
        let whole = if at > 14 { 2 } else { whole };
        let frames = read(&rig.out);
        assert_eq!(frames.len(), whole + 1, "{at}");
        assert_eq!(frames[whole].payload, 1_012_u16.to_be_bytes());
        assert_eq!(rig.end, Some(Verdict::HangUp));
    }
}

#[test]
fn delays_are_within_their_bounds_and_of_the_selected_only() {
    let mut rig = Rig::new(DOWN);
    rig.set(&one(
        "ws_delay",
        json!({"match": {"every": 2}, "delay": 10, "jitter": 4}),
    ));
    for number in 0..200 {
        rig.push(&texts(DOWN, &[&number.to_string()]));
    }
    let holds: Vec<u64> = rig.holds.iter().map(|(_, hold)| hold.as_micros()).collect();
    assert_eq!(holds.len(), 100);
    assert!(holds.iter().all(|hold| (6_000..=14_000).contains(hold)));
    assert!(holds.iter().any(|hold| *hold < 7_000) && holds.iter().any(|hold| *hold > 13_000));
}

#[test]
fn duplicates_and_replays_come_behind() {
    let given = ["a", "b", "c", "d"];
    let attributes = json!({"match": {"nth": 2}, "copies": 2});
    assert_eq!(
        of("ws_duplicate", attributes, &given),
        ["a", "b", "b", "b", "c", "d"]
    );
    let attributes = json!({"match": {"every": 3}, "back": 2});
    assert_eq!(
        of("ws_replay", attributes, &given),
        ["a", "b", "c", "a", "d"]
    );
    let attributes = json!({"match": {"nth": 1}});
    assert_eq!(
        of("ws_replay", attributes, &given),
        given,
        "nothing is before the first"
    );
}

#[test]
fn a_held_message_goes_after_others_or_in_time_or_at_the_end_or_when_it_is_let_go() {
    let toxic = |window: u64| {
        one(
            "ws_reorder",
            json!({"match": {"nth": 1}, "window": window, "timeout": 50}),
        )
    };
    let begun = |window| {
        let mut rig = Rig::new(UP);
        rig.set(&toxic(window));
        rig.push(&texts(UP, &["a", "b", "c"]));
        rig
    };
    assert_eq!(payloads(&begun(2).out), ["b", "c", "a"]);
    let mut rig = begun(3);
    assert_eq!(payloads(&rig.out), ["b", "c"]);
    assert_eq!(rig.editor.next_tick(), Some(Mono(50_001)));
    rig.tick(Mono(50_000));
    assert_eq!(payloads(&rig.out), ["b", "c"]);
    rig.tick(Mono(50_001));
    assert_eq!(payloads(&rig.out), ["b", "c", "a"]);
    let mut rig = begun(3);
    rig.finish();
    assert_eq!(payloads(&rig.out), ["b", "c", "a"]);
    // Between two messages only.
    let mut rig = begun(3);
    let last = texts(UP, &["delta"]);
    rig.push(&last[..8]);
    rig.set(&[]);
    assert_eq!(read(&rig.out).len(), 3);
    rig.push(&last[8..]);
    assert_eq!(payloads(&rig.out), ["b", "c", "delta", "a"]);
}

#[test]
fn corruption_keeps_frames_and_turns_over_bits_of_the_payload() {
    let bytes = texts(UP, &["aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb"]);
    let (out, _) = edit(
        UP,
        &one("ws_corrupt", json!({"match": {"nth": 2}})),
        &bytes,
        &[5],
    );
    let bits: u32 = out
        .iter()
        .zip(&bytes)
        .map(|(a, b)| (a ^ b).count_ones())
        .sum();
    assert_eq!((out.len(), bits), (bytes.len(), 1));
    assert_eq!(read(&out)[0], read(&bytes)[0]);
    assert_eq!(read(&out)[1].header, read(&bytes)[1].header);
}

#[test]
fn a_truncated_message_announces_what_does_not_come() {
    let bytes = texts(DOWN, &["whole", "broken", "never"]);
    for (keep, left) in [(2, "br"), (0, ""), (99, "broke")] {
        let toxic = one("ws_truncate", json!({"match": {"nth": 2}, "keep": keep}));
        let (out, end) = edit(DOWN, &toxic, &bytes, &[4]);
        let frames = read(&out);
        assert_eq!(
            (frames.len(), frames[1].header.length, end),
            (2, 6, Some(Verdict::HangUp))
        );
        assert_eq!(payloads(&out)[1], left);
    }
}

#[test]
fn fragments_are_masked_anew_and_together_what_they_were() {
    let mut bytes = texts(UP, &["0123456789"]);
    bytes[0] |= 0x40;
    let (out, _) = edit(UP, &one("ws_fragment", json!({"size": 4})), &bytes, &[1]);
    let frames = read(&out);
    let heads: Vec<_> = frames
        .iter()
        .map(|frame| (frame.header.opcode, frame.header.fin, frame.header.rsv))
        .collect();
    assert_eq!(
        heads,
        [
            (TEXT, false, 4),
            (CONTINUATION, false, 0),
            (CONTINUATION, true, 0)
        ]
    );
    assert_eq!(payloads(&out), ["0123", "4567", "89"]);
    let masks: Vec<_> = frames
        .iter()
        .map(|frame| frame.header.mask.unwrap())
        .collect();
    assert!(masks[0] != masks[1] && masks[1] != masks[2]);
    // Of the seed alone.
    assert_eq!(
        edit(UP, &one("ws_fragment", json!({"size": 4})), &bytes, &[99]).0,
        out
    );
}

#[test]
fn an_oversized_message_is_as_long_as_it_says() {
    let bytes = texts(UP, &["{}", "after"]);
    let toxic = one(
        "ws_oversize",
        json!({"match": {"nth": 1}, "length": 300_000}),
    );
    let (out, _) = edit(UP, &toxic, &bytes, &[4]);
    let frames = read(&out);
    assert_eq!(
        (frames[0].header.length, frames[0].payload.len()),
        (300_000, 300_000)
    );
    assert!(
        frames[0].payload.starts_with(b"{}  ")
            && frames[0].payload[2..].iter().all(|byte| *byte == b' ')
    );
    assert_eq!(payloads(&out)[1], "after");
}

#[test]
fn violations_are_what_they_say() {
    let made = |way, kind: &str| {
        let toxic = one("ws_violate", json!({"kind": kind}));
        edit(way, &toxic, &texts(way, &["text"]), &[2]).0
    };
    let first = |way, kind| read(&made(way, kind)).remove(0);
    assert_eq!(first(UP, "reserved_opcode").header.opcode, 3);
    assert_eq!(first(UP, "reserved_bits").header.rsv, 3);
    assert_eq!(first(UP, "bad_mask").header.mask, None);
    assert!(first(DOWN, "bad_mask").header.mask.is_some());
    assert_eq!(payloads(&made(DOWN, "bad_mask")), ["text"]);
    assert_eq!(first(UP, "invalid_utf8").payload, b"\xffext");
    assert_eq!(
        made(DOWN, "long_length"),
        [&[0x81, 127, 0, 0, 0, 0, 0, 0, 0, 4], &b"text"[..]].concat()
    );
    for (kind, expected) in [
        ("oversized_control", (PING, true, 126)),
        ("fragmented_control", (PING, false, 1)),
        ("stray_continuation", (CONTINUATION, true, 1)),
        ("unfinished_message", (TEXT, false, 1)),
        ("bad_close", (CLOSE, true, 1)),
    ] {
        let frames = read(&made(UP, kind));
        let header = frames[0].header;
        assert_eq!((header.opcode, header.fin, header.length), expected);
        assert!(header.mask.is_some() && frames[1].payload == b"text");
    }
}

#[test]
fn toxics_compose_in_their_order_and_each_counts_what_came() {
    let bytes = texts(UP, &["a", "b", "c", "d"]);
    let drop_first = ("ws_drop", json!({"match": {"nth": 1}}));
    let toxics = [
        drop_first,
        ("ws_duplicate", json!({"match": {"nth": 2}})),
        ("ws_fragment", json!({"size": 1})),
    ];
    assert_eq!(
        payloads(&edit(UP, &toxics, &bytes, &[3]).0),
        ["b", "b", "c", "d"]
    );
}

#[test]
fn compressed_messages_are_left_alone_by_those_that_would_have_to_read_them() {
    let mut bytes = texts(UP, &["a", "a"]);
    bytes[0] |= 0x40;
    let toxic = one("ws_drop", json!({"match": {"contains": "a"}}));
    let (out, _) = edit(UP, &toxic, &bytes, &[3]);
    assert_eq!(
        out,
        bytes[..7],
        "the first is compressed, the second is not"
    );
    let dropped = edit(UP, &one("ws_drop", json!({})), &bytes, &[3]).0;
    assert!(dropped.is_empty(), "its header can be read");
}

#[test]
fn what_is_too_long_to_gather_passes_and_is_still_dropped_by_its_header() {
    let long = message(UP, BINARY, &vec![b'a'; LIMIT + 1]);
    let bytes = [long, texts(UP, &["a"])].concat();
    let toxic = one("ws_drop", json!({"match": {"contains": "a"}}));
    let (out, _) = edit(UP, &toxic, &bytes, &[9_000]);
    assert!(out == bytes[..bytes.len() - 7]);
    assert!(
        edit(UP, &one("ws_drop", json!({})), &bytes, &[9_000])
            .0
            .is_empty()
    );
    // In fragments, of which none says how long the message will be.
    let mut frames = vec![Frame::new(BINARY, &vec![b'a'; LIMIT - 5], None)];
    frames.push(Frame::new(CONTINUATION, b"0123456789", None));
    frames[0].header_mut().fin = false;
    let bytes: Vec<u8> = frames.iter().flat_map(Frame::bytes).collect();
    assert!(edit(DOWN, &toxic, &bytes, &[9_000]).0 == bytes);
}

#[test]
fn a_message_of_countless_frames_is_not_gathered_for_ever() {
    let toxic = one("ws_drop", json!({"match": {"contains": "a"}}));
    let mut first = Frame::new(TEXT, b"a", None);
    first.header_mut().fin = false;
    let mut empty = Frame::new(CONTINUATION, b"", None);
    empty.header_mut().fin = false;
    for more in [empty, Frame::new(PING, b"", None)] {
        let mut rig = Rig::new(DOWN);
        rig.set(&toxic);
        rig.push(&first.bytes());
        for _ in 0..LIMIT / 100 {
            rig.push(&more.bytes());
        }
        assert!(!rig.out.is_empty());
        rig.push(&Frame::new(CONTINUATION, b"z", None).bytes());
        assert!(rig.out.starts_with(&first.bytes()) && rig.out.ends_with(b"z"));
    }
}

#[test]
fn countless_messages_are_not_held_back_for_ever() {
    let mut rig = Rig::new(DOWN);
    rig.set(&one(
        "ws_reorder",
        json!({"window": 1_000_000_000, "timeout": 0}),
    ));
    for _ in 0..LIMIT / 100 {
        rig.push(&texts(DOWN, &[""]));
    }
    assert!(!rig.out.is_empty());
}
