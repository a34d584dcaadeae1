use proptest::prelude::*;
use serde_json::{Value, json};

use super::rig::{Rig, busy, edit, edits, idle, pieces};
use super::*;
use crate::twists::Verdict;
use crate::websocket::opcode::{BINARY, CLOSE, CONTINUATION, PING, TEXT};

mod actions;
mod bounds;
mod properties;

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
