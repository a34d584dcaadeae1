//! What parent and worker say to each other: lines of JSON, over a socket that also carries descriptors.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use model::fault::Direction;
use model::instant::Mono;
use model::quantity::Share;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::faults::{Cause, Rule, Rules};
use crate::toxics::accept_limit::Slot;
use crate::toxics::{Settings, Slots, Toxic};

/// As much as one read takes.
const READ: usize = 16 << 10;

/// What a parent tells a worker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    /// The rules of a plane, all of them.
    Rules {
        plane: u64,
        generation: u64,
        /// Connections that were accepted before this generation end.
        ended: u64,
        rules: Vec<WireRule>,
    },
    /// There is no such plane any more.
    Forget { plane: u64 },
    /// A connection, whose descriptor comes with it.
    Serve {
        plane: u64,
        ordinal: u64,
        upstream: String,
        /// The turns that limits on connecting have given it: none is a refusal.
        slots: Vec<(u64, Option<Mono>)>,
    },
    /// To be answered with this number, and with counts.
    Answer { number: u64 },
}

/// A toxic in force.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct WireRule {
    id: String,
    seed: u64,
    generation: u64,
    name: String,
    kind: String,
    attributes: Value,
    stream: String,
    direction: Direction,
    toxicity: f64,
    uid: u64,
}

impl Order {
    pub(super) fn rules(plane: u64, rules: &Rules, ended: u64) -> Self {
        Self::Rules {
            plane,
            generation: rules.generation,
            ended,
            rules: rules
                .list
                .iter()
                .filter_map(|rule| WireRule::of(rule))
                .collect(),
        }
    }

    pub(super) fn serve(plane: u64, ordinal: u64, upstream: String, slots: &Slots) -> Self {
        let slot = |slot: &Slot| match slot {
            Slot::At(at) => Some(*at),
            Slot::None => None,
        };
        Self::Serve {
            plane,
            ordinal,
            upstream,
            slots: slots
                .turns()
                .iter()
                .map(|(uid, at)| (*uid, slot(at)))
                .collect(),
        }
    }
}

/// The turns that came with a connection.
pub(super) fn slots(slots: Vec<(u64, Option<Mono>)>) -> Slots {
    let slot = |at: Option<Mono>| at.map_or(Slot::None, Slot::At);
    Slots::with_turns(slots.into_iter().map(|(uid, at)| (uid, slot(at))).collect())
}

impl WireRule {
    fn of(rule: &Rule) -> Option<Self> {
        let Cause::Toxic(toxic) = &rule.cause else {
            return None;
        };
        Some(Self {
            id: rule.id.clone(),
            seed: rule.seed,
            generation: rule.generation,
            name: toxic.name.clone(),
            kind: toxic.settings.name().to_owned(),
            attributes: serde_json::to_value(&toxic.settings).ok()?,
            stream: toxic.stream.clone(),
            direction: toxic.direction,
            toxicity: toxic.toxicity.as_ratio(),
            uid: toxic.uid,
        })
    }

    /// The rule that it stands for; the one that the worker has already, if that is it.
    pub(super) fn into_rule(self, before: &Rules) -> io::Result<Arc<Rule>> {
        let known =
            |rule: &&Arc<Rule>| matches!(&rule.cause, Cause::Toxic(toxic) if toxic.uid == self.uid);
        let before = before.list.iter().find(known);
        if let Some(same) = before.filter(|rule| rule.generation == self.generation) {
            return Ok(Arc::clone(same));
        }
        let gate = match before.map(|rule| &rule.cause) {
            Some(Cause::Toxic(toxic)) => Arc::clone(&toxic.gate),
            _ => Arc::default(),
        };
        let Value::Object(attributes) = self.attributes else {
            return Err(garbled(format_args!("attributes of {}", self.id)));
        };
        let settings = Settings::parse(&self.kind, attributes)
            .ok_or_else(|| garbled(format_args!("no toxic type {}", self.kind)))?
            .map_err(garbled)?;
        let toxic = Toxic {
            name: self.name,
            settings,
            stream: self.stream,
            direction: self.direction,
            toxicity: Share::ratio(self.toxicity),
            // The parent ends it.
            lifetime: None,
            uid: self.uid,
            gate,
            expiry: None,
        };
        let (id, seed) = (self.id, self.seed);
        Ok(Arc::new(Rule::with(
            id,
            seed,
            Cause::Toxic(Box::new(toxic)),
            self.generation,
            None,
        )))
    }
}

/// What a worker tells its parent.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Report {
    /// Connections that have ended since the report before.
    pub(super) ended: u64,
    /// Everything before the order of this number is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) answers: Option<u64>,
    /// Of each plane, with an answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) counts: Vec<(u64, Counts)>,
}

/// The counters of one plane in one worker.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Counts {
    /// Upstream, downstream.
    pub(super) received: (u64, u64),
    pub(super) sent: (u64, u64),
    /// Open connections.
    pub(super) open: u64,
}

fn garbled(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

/// A message as a line.
pub(super) fn line(message: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).expect("it has a JSON form");
    line.push(b'\n');
    line
}

/// Writes a message, and a descriptor with its first byte.
pub(super) async fn send(
    link: &UnixStream,
    message: &[u8],
    carried: Option<&OwnedFd>,
) -> io::Result<()> {
    let mut carried = carried.map(AsFd::as_fd);
    let mut rest = message;
    while !rest.is_empty() {
        let sent = link
            .async_io(Interest::WRITABLE, || send_some(link, rest, carried))
            .await?;
        rest = &rest[sent..];
        carried = None;
    }
    Ok(())
}

fn send_some(
    link: &UnixStream,
    bytes: &[u8],
    carried: Option<BorrowedFd<'_>>,
) -> io::Result<usize> {
    let carried = carried.as_slice();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !carried.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(carried));
    }
    Ok(sendmsg(
        link,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?)
}

/// What comes over the socket.
#[derive(Debug)]
pub(super) struct Inbox {
    link: Arc<UnixStream>,
    buffer: Box<[u8]>,
    bytes: Vec<u8>,
    /// So many bytes of them hold no end of a line.
    looked_at: usize,
    /// In their order. One for which this process had no room is missing, and its place is kept.
    carried: VecDeque<Option<OwnedFd>>,
}

impl Inbox {
    pub(super) fn new(link: Arc<UnixStream>) -> Self {
        Self {
            link,
            buffer: vec![0; READ].into_boxed_slice(),
            bytes: Vec::new(),
            looked_at: 0,
            carried: VecDeque::new(),
        }
    }

    /// The next message; `None` when the other side has ended. What is not waited for to its end is not lost.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        loop {
            let end = self.bytes[self.looked_at..]
                .iter()
                .position(|byte| *byte == b'\n');
            if let Some(end) = end {
                let end = self.looked_at + end;
                let message = serde_json::from_slice(&self.bytes[..end]).map_err(garbled);
                self.bytes.drain(..=end);
                self.looked_at = 0;
                return message.map(Some);
            }
            self.looked_at = self.bytes.len();
            let (link, buffer) = (&*self.link, &mut *self.buffer);
            let (count, carried) = link
                .async_io(Interest::READABLE, || receive(link, buffer))
                .await?;
            if count == 0 {
                return Ok(None);
            }
            self.bytes.extend_from_slice(&self.buffer[..count]);
            match carried {
                Carried::Nothing => {}
                Carried::Lost => self.carried.push_back(None),
                Carried::Descriptor(descriptor) => self.carried.push_back(Some(descriptor)),
            }
        }
    }

    /// The descriptor that came with the message. `None` when this process had no room for it.
    pub(super) fn take_carried(&mut self) -> Option<OwnedFd> {
        self.carried.pop_front().flatten()
    }
}

/// What came with some bytes.
enum Carried {
    Nothing,
    /// A descriptor for which this process had no room.
    Lost,
    Descriptor(OwnedFd),
}

/// Reads once. The kernel ends a read with the bytes that a descriptor came with, so there is at most one.
fn receive(link: &UnixStream, buffer: &mut [u8]) -> io::Result<(usize, Carried)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(buffer)];
    let received = recvmsg(link, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let descriptor = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    let carried = match descriptor {
        Some(descriptor) => Carried::Descriptor(descriptor),
        None if received.flags.contains(ReturnFlags::CTRUNC) => Carried::Lost,
        None => Carried::Nothing,
    };
    Ok((received.bytes, carried))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[tokio::test]
    async fn descriptors_arrive_with_their_messages_and_in_order() {
        let (near, far) = UnixStream::pair().unwrap();
        let mut inbox = Inbox::new(Arc::new(far));
        let mut readers = Vec::new();
        for number in 0..40_u64 {
            let (reader, writer) = std::io::pipe().unwrap();
            let carried: Option<OwnedFd> = (number % 3 == 0).then(|| writer.into());
            readers.push(reader);
            send(&near, &line(&Order::Answer { number }), carried.as_ref())
                .await
                .unwrap();
        }
        for (number, mut reader) in (0..40).zip(readers) {
            let Some(Order::Answer { number: got }) = inbox.next().await.unwrap() else {
                panic!("another order");
            };
            assert_eq!(got, number);
            if number % 3 == 0 {
                let carried = inbox.take_carried().expect("it came with the message");
                std::io::Write::write_all(&mut std::fs::File::from(carried), b"here").unwrap();
                let mut text = String::new();
                reader.read_to_string(&mut text).unwrap();
                assert_eq!(text, "here");
            }
        }
        drop(near);
        assert!(inbox.next::<Order>().await.unwrap().is_none());
    }
}
