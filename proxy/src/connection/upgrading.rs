//! What toxics do to an upgrade on its way through the proxy.

use std::ops::Range;

use host::clock;
use model::instant::Mono;

use super::Connection;
use crate::link::Link;
use crate::upgrade;
use crate::websocket::{Edit, Head};

/// How far an upgrade is.
#[derive(Debug, Default)]
pub(super) struct Upgrading {
    /// Its request's head, and that of its answer.
    request: Option<Complete>,
    answer: Option<Complete>,
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
        let compression = self.effects.reads_payload.then(Edit::no_compression);
        let toxics = self.effects.upgrade.as_deref();
        let edits = toxics.into_iter().flat_map(|toxics| &toxics.request.edits);
        if let Some(end) = self.up.rewrite(&request.at, edits.chain(&compression)) {
            request.at.end = end;
        }
        if let Some(toxics) = toxics.filter(|_| !request.has_begun(&self.up)) {
            toxics.request.fired();
        }
        self.obey_upgrade_toxics();
    }

    /// The lane's answer to an upgrade is there.
    pub(super) fn upgrade_answered(&mut self, head: Head) {
        let Head::Response {
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
            if let Some(end) = self.down.rewrite(&answer.at, &toxics.answer.edits) {
                answer.at.end = end;
            }
            if !answer.has_begun(&self.down) {
                toxics.answer.fired();
            }
            if self.upgraded {
                self.upgrading.stalled.clone_from(&toxics.stalls);
            }
        }
        self.upgrading.answer = Some(answer);
        self.obey_upgrade_toxics();
    }

    /// Holds the heads back as long as the toxics that are in force now want it, and what follows them.
    pub(super) fn obey_upgrade_toxics(&mut self) {
        let Upgrading {
            request,
            answer,
            stalled,
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
        stalled.retain(|uid| toxics.stalls.contains(uid));
        let answer = answer.as_ref().filter(|_| !stalled.is_empty());
        self.down.stops_at = answer.map(|answer| answer.at.end);
        let passed = self.up.meter.passed();
        self.up.stops_at = answer.map(|_| self.up.stops_at.unwrap_or(passed));
    }
}
