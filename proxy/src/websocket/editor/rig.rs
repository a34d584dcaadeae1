//! An editor between two ends, as a link has it, and toxics for it: what tests and fuzzing have in common.

use std::sync::Arc;

use model::fault::Direction;
use model::instant::Mono;
use model::quantity::{Share, Span};
use serde_json::{Value, json};

use super::super::tracker::Tracker;
use super::Editor;
use crate::faults::{Effects, Rule, Rules, Stage};
use crate::plane::Handle;
use crate::tap::Way;
use crate::toxics::edit::Edit;
use crate::toxics::{Settings, Slots, Toxic};
use crate::twists::Verdict;

/// What these toxics do to one direction of the first connection.
pub(crate) fn edits(way: Way, toxics: &[(&str, Value)]) -> Vec<Edit> {
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
pub(crate) struct Rig {
    way: Way,
    pub(super) editor: Editor,
    pub(crate) out: Vec<u8>,
    /// The bytes that wait, and how long.
    pub(crate) holds: Vec<(usize, Span)>,
    pub(crate) end: Option<Verdict>,
}

impl Rig {
    pub(crate) fn new(way: Way) -> Self {
        Self {
            way,
            editor: Editor::new(way, Tracker::default()),
            out: Vec::new(),
            holds: Vec::new(),
            end: None,
        }
    }

    pub(crate) fn set(&mut self, toxics: &[(&str, Value)]) {
        self.editor.set(edits(self.way, toxics));
        self.take();
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.editor.is_idle() {
            self.out.extend(bytes);
            self.editor.watch(bytes);
        } else {
            self.editor.push(Mono(1), bytes);
        }
        self.take();
    }

    pub(crate) fn tick(&mut self, now: Mono) {
        self.editor.tick(now);
        self.take();
    }

    pub(crate) fn finish(&mut self) {
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
pub(crate) fn edit(
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
pub(crate) fn pieces<'b>(mut rest: &'b [u8], sizes: &[usize]) -> Vec<&'b [u8]> {
    let (mut pieces, mut sizes) = (Vec::new(), sizes.iter().cycle());
    while !rest.is_empty() {
        let (piece, after) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

/// Toxics that look into messages, gather and remember them, and take none.
pub(crate) fn idle() -> Vec<(&'static str, Value)> {
    let rare = json!({"every": 1_000_000});
    vec![
        ("ws_drop", json!({"match": {"contains": "never said"}})),
        ("ws_corrupt", json!({"match": rare})),
        (
            "ws_fragment",
            json!({"match": {"regex": "^never$"}, "size": 1}),
        ),
        ("ws_delay", json!({"match": {"share": 0}, "delay": 9})),
        ("ws_replay", json!({"match": {"pointer": "/never"}})),
        ("ws_swallow", json!({"match": {"nth": 1_000_000}})),
        (
            "ws_close",
            json!({"match": {"bytes": "00", "offset": 70_000, "nth": 99}}),
        ),
        (
            "ws_violate",
            json!({"match": {"opcode": ["ping", 3, "close"], "nth": 1_000_000}}),
        ),
    ]
}

/// Toxics that take messages.
pub(crate) fn busy() -> Vec<(&'static str, Value)> {
    vec![
        ("ws_drop", json!({"match": {"every": 2}})),
        ("ws_drop", json!({"match": {"opcode": ["continuation"]}})),
        ("ws_drop", json!({"match": {"bytes": "0101"}})),
        ("ws_delay", json!({"delay": 5, "jitter": 3})),
        (
            "ws_duplicate",
            json!({"match": {"share": 0.5}, "copies": 2}),
        ),
        ("ws_reorder", json!({"match": {"every": 3}, "window": 2})),
        ("ws_corrupt", json!({"bits": 3})),
        ("ws_fragment", json!({"size": 50})),
        (
            "ws_oversize",
            json!({"match": {"nth": 2}, "length": 100_000}),
        ),
        ("ws_swallow", json!({})),
        ("ws_replay", json!({"match": {"every": 2}, "back": 2})),
        ("ws_truncate", json!({"match": {"nth": 4}, "keep": 5})),
        ("ws_close", json!({"match": {"nth": 5}, "code": 4_000})),
        (
            "ws_violate",
            json!({"match": {"share": 0.5}, "kind": "bad_mask"}),
        ),
        (
            "ws_violate",
            json!({"match": {"opcode": ["ping"]}, "kind": "unfinished_message"}),
        ),
    ]
}
