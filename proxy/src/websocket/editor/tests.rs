use std::sync::Arc;

use model::fault::Direction;
use model::quantity::Share;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::faults::{Effects, Rule, Rules, Stage};
use crate::plane::Handle;
use crate::toxics::{Settings, Slots, Toxic};
use crate::twists::Verdict;
use crate::websocket::opcode::{BINARY, CLOSE, CONTINUATION, PING, TEXT};

mod actions;
mod bounds;
mod properties;

/// What these toxics do to one direction of the first connection.
pub(super) fn edits(way: Way, toxics: &[(&str, Value)]) -> Vec<Edit> {
    let list = toxics.iter().map(|(kind, attributes)| {
        // The same number for the same toxic, wherever it stands.
        let uid = format!("{kind}{attributes}")
            .bytes()
            .fold(0, |uid: u64, byte| {
                uid.wrapping_mul(31).wrapping_add(byte.into()) % 1_000_003
            });
        let Value::Object(attributes) = attributes.clone() else {
            panic!("{attributes} is no object");
        };
        let toxic = Toxic {
            name: format!("{kind}-{uid}"),
            settings: Settings::parse(kind, attributes).unwrap().unwrap(),
            stream: "both".to_owned(),
            direction: Direction::Both,
            toxicity: Share::ALL,
            lifetime: None,
            uid,
            gate: Arc::default(),
            expiry: None,
        };
        Arc::new(Rule::toxic("p", 1, toxic, uid, None))
    });
    let rules = Rules {
        generation: 2_000_000,
        list: list.collect(),
    };
    let stage = Stage {
        born: 2_000_000,
        seen: 2_000_000,
        accepted: Mono(0),
        is_dialled: true,
    };
    let mut effects = Effects::of(
        &rules,
        &Arc::new(Handle::new(0)),
        stage,
        &mut Slots::default(),
    );
    std::mem::take(&mut effects.shape(way).edits)
}

/// An editor between two ends, as a link has it.
pub(super) struct Rig {
    way: Way,
    editor: Editor,
    pub(super) out: Vec<u8>,
    /// The bytes that wait, and how long.
    pub(super) holds: Vec<(usize, Span)>,
    pub(super) end: Option<Verdict>,
}

impl Rig {
    pub(super) fn new(way: Way) -> Self {
        Self {
            way,
            editor: Editor::new(way, Tracker::default()),
            out: Vec::new(),
            holds: Vec::new(),
            end: None,
        }
    }

    pub(super) fn set(&mut self, toxics: &[(&str, Value)]) {
        self.editor.set(edits(self.way, toxics));
        self.take();
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.editor.is_idle() {
            self.out.extend(bytes);
            self.editor.watch(bytes);
        } else {
            self.editor.push(Mono(1), bytes);
        }
        self.take();
    }

    pub(super) fn tick(&mut self, now: Mono) {
        self.editor.tick(now);
        self.take();
    }

    pub(super) fn finish(&mut self) {
        if !self.editor.is_idle() {
            self.editor.finish();
        }
        self.take();
    }

    fn take(&mut self) {
        while self.editor.owes() && self.end.is_none() {
            let (out, holds) = (&mut self.out, &mut self.holds);
            self.end = self.editor.hand_over(Mono(1), 777, |bytes, hold| {
                out.extend(bytes);
                if hold > Span::ZERO {
                    holds.push((bytes.len(), hold));
                }
            });
        }
    }
}

/// What comes out for all of `bytes` in pieces of these sizes, and how it ends.
pub(super) fn edit(
    way: Way,
    toxics: &[(&str, Value)],
    bytes: &[u8],
    sizes: &[usize],
) -> (Vec<u8>, Option<Verdict>) {
    let mut rig = Rig::new(way);
    rig.set(toxics);
    for piece in pieces(bytes, sizes) {
        rig.push(piece);
    }
    rig.finish();
    (rig.out, rig.end)
}

/// Cuts bytes into pieces of these sizes, over and over.
pub(super) fn pieces<'b>(mut rest: &'b [u8], sizes: &[usize]) -> Vec<&'b [u8]> {
    let (mut pieces, mut sizes) = (Vec::new(), sizes.iter().cycle());
    while !rest.is_empty() {
        let (piece, after) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

/// The frames in bytes, read by what RFC 6455 says and nothing else: payloads plain. The last may be short.
pub(super) fn read(mut bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while bytes.len() >= 2 {
        let (first, second) = (bytes[0], bytes[1]);
        let extended = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mut length = u64::from(second & 0x7f);
        if extended > 0 {
            length = 0;
            for byte in &bytes[2..2 + extended] {
                length = length << 8 | u64::from(*byte);
            }
        }
        bytes = &bytes[2 + extended..];
        let mask = (second & 0x80 != 0).then(|| [bytes[0], bytes[1], bytes[2], bytes[3]]);
        bytes = &bytes[if mask.is_some() { 4 } else { 0 }..];
        let there = usize::try_from(length).unwrap().min(bytes.len());
        let (payload, rest) = bytes.split_at(there);
        let plain: Vec<u8> = payload
            .iter()
            .enumerate()
            .map(|(at, byte)| byte ^ mask.map_or(0, |mask| mask[at % 4]))
            .collect();
        let mut frame = Frame::new(first & 0x0f, &plain, None);
        frame.header = Header {
            fin: first & 0x80 != 0,
            rsv: first >> 4 & 7,
            opcode: first & 0x0f,
            mask,
            length,
        };
        frames.push(frame);
        bytes = rest;
    }
    frames
}

/// A message of one frame.
pub(super) fn message(way: Way, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mask = (way == Way::Upstream).then_some([7, 99, 200, 31]);
    Frame::new(opcode, payload, mask).bytes()
}

pub(super) fn texts(way: Way, texts: &[&str]) -> Vec<u8> {
    let texts = texts.iter();
    texts
        .flat_map(|text| message(way, TEXT, text.as_bytes()))
        .collect()
}

/// The payloads of the frames in bytes, as texts.
pub(super) fn payloads(bytes: &[u8]) -> Vec<String> {
    let frames = read(bytes).into_iter();
    frames
        .map(|frame| String::from_utf8_lossy(&frame.payload).into_owned())
        .collect()
}
