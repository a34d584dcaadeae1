//! What toxics do to an upgrade on its way through the proxy.

use std::ops::Range;

use host::clock;
use model::instant::Mono;

use super::{Connection, HEAD};
use crate::link::Link;
use crate::toxics::Acts;
use crate::upgrade;
use crate::websocket::{Head, HeadEdit};

/// How far an upgrade is.
#[derive(Debug, Default)]
pub(super) struct Upgrading {
    /// Its request's head, and that of its answer.
    request: Option<Complete>,
    answer: Option<Complete>,
    /// When the answer's head, some of which is there and withheld, has to be complete.
    answer_due: Option<Mono>,
    /// The toxics, by their numbers, that let nothing follow the answer.
    stalled: Vec<u64>,
}

/// A head that is there.
#[derive(Debug)]
struct Complete {
    /// Where in its stream.
    at: Range<u64>,
    /// Since when.
    came: Mono,
}

impl Complete {
    fn new(at: Range<u64>) -> Self {
        Self {
            at,
            came: clock::now(),
        }
    }

    /// Some of it has passed.
    const fn has_begun(&self, link: &Link) -> bool {
        link.meter.passed() > self.at.start
    }

    /// When it may pass, which is at once when it has begun to.
    fn due(&self, link: &Link, toxics: &upgrade::Head) -> Mono {
        if self.has_begun(link) || toxics.delays.is_empty() {
            Mono(0)
        } else {
            toxics.due(self.came)
        }
    }
}

impl Connection {
    /// The head of an upgrade's request is there.
    pub(super) fn upgrade_asked(&mut self, end: u64) {
        self.up.meter.frames_from = Some(end);
        self.upgrading.request = Some(Complete::new(0..end));
    }

    /// The request may go on: as the toxics want it.
    pub(super) fn upgrade_admitted(&mut self) {
        let Some(request) = &mut self.upgrading.request else {
            return;
        };
        let compression = self.effects.reads_payload.then(HeadEdit::no_compression);
        let toxics = self.effects.upgrade.as_deref();
        let edits = toxics.map_or(&[][..], |toxics| &toxics.request.edits);
        let all = edits.iter().map(|(edit, _)| edit).chain(&compression);
        if let Some(end) = self.up.rewrite(&request.at, all, |place| act(edits, place)) {
            request.at.end = end;
        }
        if let Some(toxics) = toxics.filter(|_| !request.has_begun(&self.up)) {
            toxics.request.fired(&self.entry.handle);
        }
        self.obey_upgrade_toxics();
    }

    /// The lane's answer to an upgrade is there.
    pub(super) fn upgrade_answered(&mut self, head: &Head) {
        let &Head::Response {
            status,
            retry_after,
            start,
            end,
        } = head
        else {
            self.obey_upgrade_toxics();
            return;
        };
        self.entry.plane.counters.answered(status, retry_after);
        if status == 101 {
            self.upgraded = true;
            self.down.meter.frames_from = Some(end);
        } else {
            self.up.meter.frames_from = None;
        }
        let mut answer = Complete::new(start..end);
        if let Some(toxics) = &self.effects.upgrade {
            let edits = &toxics.answer.edits;
            let all = edits.iter().map(|(edit, _)| edit);
            if let Some(end) = self
                .down
                .rewrite(&answer.at, all, |place| act(edits, place))
            {
                answer.at.end = end;
            }
            if !answer.has_begun(&self.down) {
                toxics.answer.fired(&self.entry.handle);
            }
            if self.upgraded {
                self.upgrading.stalled = toxics.stalls.iter().map(|(uid, _)| *uid).collect();
                toxics.stalls.iter().for_each(|(_, acts)| acts.act(1));
            }
        }
        self.upgrading.answer = Some(answer);
        if self.upgraded {
            self.up.begin_frames();
            self.down.begin_frames();
        }
        self.obey_upgrade_toxics();
    }

    /// When a head that is withheld has to be complete.
    pub(super) fn answer_head_due(&self) -> Option<Mono> {
        self.upgrading.answer_due.filter(|_| self.down.withheld)
    }

    /// Lets an answer whose head does not end go on as it is. `true` when it does so now.
    pub(super) fn gives_up_on_answer(&mut self) -> bool {
        if !self.down.withheld || self.down.is_idle() {
            return false;
        }
        let now = clock::now();
        if now < *self.upgrading.answer_due.get_or_insert(now + HEAD) {
            return false;
        }
        self.down.stop_sniffing();
        self.obey_upgrade_toxics();
        true
    }

    /// Holds the heads back as long as the toxics that are in force now want it, and what follows them.
    pub(super) fn obey_upgrade_toxics(&mut self) {
        let Upgrading {
            request,
            answer,
            stalled,
            ..
        } = &mut self.upgrading;
        let nothing = upgrade::Upgrade::default();
        let toxics = self.effects.upgrade.as_deref().unwrap_or(&nothing);
        let request_due = request
            .as_ref()
            .map(|head| head.due(&self.up, &toxics.request));
        self.up.not_before = request_due.unwrap_or(Mono(0));
        let answer_due = answer
            .as_ref()
            .map(|head| head.due(&self.down, &toxics.answer));
        self.down.not_before = answer_due.unwrap_or(Mono(0));
        self.down.withheld = request.is_some() && self.down.is_sniffing() && toxics.answer.waits();
        stalled.retain(|uid| toxics.stalls.iter().any(|(other, _)| other == uid));
        let answer = answer.as_ref().filter(|_| !stalled.is_empty());
        self.down.stops_at = answer.map(|answer| answer.at.end);
        let passed = self.up.meter.passed();
        self.up.stops_at = answer.map(|_| self.up.stops_at.unwrap_or(passed));
    }
}

/// The edit at that place found what it is about; behind those of toxics there may be one of the proxy's own.
fn act(edits: &[(HeadEdit, Acts)], place: usize) {
    if let Some((_, acts)) = edits.get(place) {
        acts.act(1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use host::timer::Timer;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::super::Step;
    use super::*;
    use crate::plane::Plane;
    use crate::side::Side;
    use crate::upstream::Upstream;

    const HEAD: &str = "GET / HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Extensions: permessage-deflate, x-own\r\n\r\n";
    const FRAMES: &[u8] = b"\x81\x83\0\0\0\0one\x81\x83\0\0\0\0two";

    /// A connection that some rule wants uncompressed or not: what its lane gets, and the whole frames that were seen
    /// in it.
    async fn passed_on(reads_payload: bool) -> (String, u64) {
        let listen = || host::net::listen(([127, 0, 0, 1], 0).into()).unwrap();
        let (front, lane) = (listen(), listen());
        let mut client = TcpStream::connect(front.local_addr().unwrap())
            .await
            .unwrap();
        let side = Side::Plain(front.accept().await.unwrap().0);
        let plane = Plane::new(Timer::start().unwrap(), None);
        let route = Arc::new(Upstream::from(lane.local_addr().unwrap()));
        let mut connection = Connection::new(side, Arc::clone(&plane), route, 0);
        client
            .write_all(&[HEAD.as_bytes(), FRAMES].concat())
            .await
            .unwrap();
        connection.client.tcp().readable().await.unwrap();
        assert!(
            matches!(connection.turn().unwrap(), Step::Decide),
            "the head is there"
        );
        connection.effects.reads_payload = reads_payload;
        connection.turn().unwrap();
        tokio::spawn(connection.run());
        let mut lane = lane.accept().await.unwrap().0;
        let mut got = Vec::new();
        while !got.ends_with(FRAMES) {
            lane.read_buf(&mut got).await.unwrap();
        }
        lane.write_all(b"HTTP/1.1 101 \r\n\r\n").await.unwrap();
        client.read_u8().await.unwrap();
        got.truncate(got.len() - FRAMES.len());
        drop(client);
        while !plane.handles().is_empty() {
            tokio::task::yield_now().await;
        }
        let frames = plane.counters.frames(crate::tap::Way::Upstream);
        (
            String::from_utf8(got).unwrap(),
            frames.load(Ordering::Relaxed),
        )
    }

    #[tokio::test]
    async fn compression_is_not_offered_where_payload_is_to_be_read() {
        assert_eq!(passed_on(false).await, (HEAD.to_owned(), 2));
        let without = HEAD.replace("permessage-deflate, ", "");
        assert_eq!(
            passed_on(true).await,
            (without, 2),
            "frames begin behind the shorter head"
        );
    }
}
