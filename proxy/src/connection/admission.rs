//! What has to be known of a request before it goes on, and whether it may.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use host::clock;

use super::ending::{End, Entry, Parting};
use super::{Connection, HEAD, Step};
use crate::plane::Identity;
use crate::websocket::Head;

impl Connection {
    /// Goes on to the lane as soon as nothing speaks against it and, by TLS, the client has said whom it wants.
    pub(super) fn dial(&mut self) {
        let decided = self.admitted || !self.effects.undecided;
        let begun = self.upstream.is_some() || self.dial.is_some();
        self.dial_due = None;
        if begun || !decided || self.client.is_shaking_hands() || self.effects.silent.is_some() {
            return;
        }
        if self.effects.dial_at > clock::now() {
            self.dial_due = Some(self.effects.dial_at);
            for rule in &self.effects.late_for {
                self.entry.handle.bitten_by(rule);
            }
            return;
        }
        let route = Arc::clone(&self.route);
        let plane = Arc::clone(&self.entry.plane);
        let asked_for = self.client.asked_for().map(str::to_owned);
        let speaks = self.up.is_eager();
        self.dial = Some(Box::pin(async move {
            route.dial(asked_for, speaks, &plane.counters).await
        }));
    }

    /// What the client began with.
    pub(super) fn asked(&mut self, head: Head) {
        match head {
            Head::Request(request, end) => {
                self.request = request;
                if self.request.upgrade {
                    self.upgrade_asked(end);
                }
            }
            Head::Tls => {
                self.opaque = true;
                let opaque = &self.entry.plane.counters.opaque;
                opaque.fetch_add(1, Ordering::Relaxed);
            }
            Head::Response { .. } | Head::Unreadable => {}
        }
    }

    /// Lets the request go on, refuses it, or has it wait for more of itself.
    pub(super) fn admit(&mut self) -> Option<Step> {
        if self.admitted {
            return None;
        }
        if let Some(rule) = self.effects.refuse.take() {
            return Some(Step::End(End::Reset(Some(rule))));
        }
        if self.entry.handle.identity() == Identity::Unread {
            if self.client.is_shaking_hands() {
                self.head_due = clock::now() + HEAD;
            }
            if self.effects.undecided && clock::now() >= self.head_due {
                self.up.stop_sniffing();
                return Some(self.identified());
            }
            self.up.withheld = self.effects.undecided;
            return None;
        }
        if self.request.upgrade
            && let Some(refusal) = self.effects.refuse_upgrade.take()
        {
            return Some(Step::End(End::Parting(Parting::Refusal(refusal))));
        }
        if self.opaque
            && let Some(refusal) = self.effects.refuse_upgrade.take()
        {
            refusal.rule.bites.opaque.fetch_add(1, Ordering::Relaxed);
        }
        self.admitted = true;
        self.up.withheld = false;
        self.upgrade_admitted();
        None
    }

    /// The client is known, or known not to be: the rules are asked again.
    pub(super) fn identified(&mut self) -> Step {
        let Entry { plane, handle } = &self.entry;
        if let Some(id) = self.request.id.take() {
            handle.belongs_to(plane.identities.came(id));
        }
        handle.identify(self.request.client);
        let waited = handle.identify_by.is_some();
        let end = self.refresh();
        if waited {
            self.up.read_again();
        }
        end.map_or(Step::Decide, Step::End)
    }

    /// The lane's first answer.
    pub(super) fn answered(&mut self, head: &Head) {
        if self.request.upgrade {
            self.upgrade_answered(head);
        }
    }
}
