//! How much the editor keeps, whatever comes.

use super::*;
use crate::websocket::message::{OVERHEAD, size};

const DOWN: Way = Way::Downstream;

/// Fragments of a message that does not end.
fn fragment(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Frame::new(opcode, payload, None);
    frame.header_mut().fin = false;
    frame.bytes()
}

fn editor(toxics: &[(&str, Value)]) -> Editor {
    let mut editor = Editor::new(DOWN, Tracker::default());
    editor.set(edits(DOWN, toxics));
    editor
}

/// What is ready to go out takes.
fn ready(editor: &Editor) -> usize {
    editor.out.iter().map(|out| out.size() + OVERHEAD).sum()
}

#[test]
fn control_frames_that_were_overtaken_go_between_the_fragments_of_a_message_that_never_ends() {
    let pings = json!({"match": {"opcode": ["ping"]}, "window": 2});
    let mut rig = Rig::new(DOWN);
    rig.set(&[("ws_reorder", pings)]);
    rig.push(&fragment(TEXT, b"never"));
    let ping = message(DOWN, PING, &[b'x'; 125]);
    let burst = [ping.repeat(512), fragment(CONTINUATION, b"ending")].concat();
    for _ in 0..40 {
        rig.push(&burst);
        let waiting = rig.editor.held.iter().map(|held| &held.waiting);
        let kept: usize = waiting
            .chain(&rig.editor.deferred)
            .map(|waiting| size(&waiting.outs))
            .sum();
        assert!(kept < 2 * LIMIT, "{kept}");
    }
    let frames = read(&rig.out);
    let pings = frames.iter().filter(|frame| frame.header.opcode == PING);
    assert!(pings.count() > 30 * 512);
    assert!(rig.editor.deferred.is_empty());
}

#[test]
fn an_overtaken_data_message_still_waits_for_the_end_of_the_one_that_passes() {
    let mut rig = Rig::new(DOWN);
    rig.set(&[("ws_reorder", json!({"match": {"nth": 1}, "window": 1}))]);
    rig.push(&texts(DOWN, &["late"]));
    rig.push(&fragment(TEXT, b"a"));
    rig.push(&message(DOWN, PING, b"p"));
    assert_eq!(payloads(&rig.out), ["a", "p"]);
    rig.push(&message(DOWN, CONTINUATION, b"b"));
    assert_eq!(payloads(&rig.out), ["a", "p", "b", "late"]);
}

#[test]
fn one_read_of_tiny_messages_does_not_become_all_of_its_copies_at_once() {
    let toxic = ("ws_duplicate", json!({"copies": 10}));
    let mut editor = editor(&[toxic]);
    let came = message(DOWN, BINARY, b"").repeat(20_000);
    let mut out = 0;
    editor.push(Mono(1), &came);
    let first = ready(&editor);
    assert!(first > LIMIT && first < LIMIT + 1_000, "{first}");
    assert!(!editor.rest.is_empty() && editor.owes());
    while editor.owes() {
        let before = editor.rest.len();
        editor.hand_over(Mono(1), 1 << 20, |bytes, _| out += bytes.len());
        if editor.rest.len() < before {
            assert!(ready(&editor) < LIMIT + 1_000);
        }
        assert!(editor.rest.is_empty() || editor.owes());
    }
    assert_eq!(out, came.len() * 11);
}

#[test]
fn what_is_forgotten_includes_what_was_not_looked_at_yet() {
    let mut editor = editor(&[("ws_duplicate", json!({"copies": 1_000}))]);
    let came = message(DOWN, BINARY, b"").repeat(20_000);
    editor.push(Mono(1), &[&came[..], &[0x82]].concat());
    editor.discard(Mono(1));
    assert!(!editor.owes() && editor.rest.is_empty());
    assert_eq!(editor.tracker.begun(), [0x82]);
}

#[test]
fn fragments_are_not_countless() {
    let long = vec![b'x'; 1_000_000];
    let mut editor = editor(&[
        ("ws_fragment", json!({"size": 1})),
        ("ws_duplicate", json!({"copies": 1_000})),
    ]);
    editor.push(Mono(1), &message(DOWN, BINARY, &long));
    assert!(ready(&editor) < 2 * LIMIT);
    let mut copy = Vec::new();
    editor.hand_over(Mono(1), 2 << 20, |bytes, _| copy.extend(bytes));
    let frames = read(&copy);
    assert_eq!(frames.len(), 1 << 14);
    assert!(
        frames[..frames.len() - 1]
            .iter()
            .all(|frame| frame.payload.len() == 1)
    );
    assert!(frames.last().unwrap().header.fin);
    assert_eq!(payloads(&copy).concat().into_bytes(), long);
}

#[test]
fn a_close_at_once_does_not_wait_for_a_message_that_never_ends() {
    let mut rig = Rig::new(DOWN);
    rig.push(&fragment(TEXT, b"a"));
    let more = fragment(CONTINUATION, b"b");
    rig.push(&more[..2]);
    rig.set(&[("ws_close", json!({"code": 1_012}))]);
    assert_eq!(rig.end, None, "it is in the middle of a frame");
    rig.push(&more[2..]);
    assert_eq!(rig.end, Some(Verdict::HangUp));
    assert_eq!(read(&rig.out).last().unwrap().header.opcode, CLOSE);
}
