//! One client of the fleet, sans-IO: the machine says what to do next, the lane's codec what frames mean, and each
//! stream's state what a row does.
//!
//! ```text
//! machine  what to do next          policy  when to try again
//! apply    one stream's state       cursor  may this cursor be continued?
//! journey  the instants of outages, and the phases they come to
//! ring     its last moments, for whoever asks why
//! ```

pub mod apply;
pub mod cursor;
pub mod journey;
pub mod machine;
pub mod policy;
pub mod ring;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use model::anomaly::{Anomaly, Findings};
use model::defect::Defect;
use model::ids::{ClientId, Seq, StreamId};
use model::instant::Mono;
use model::moment::{ClientRecord, What};
use model::quantity::Span;
use model::shard::{Cursors, Regression};
use model::target::{Access, ExpiryEnforcement, Promise, World};

use self::apply::{FRAMINGS, Noter, Outcome, StreamApply};
use self::machine::{Action, Event, Machine, Settings, State};
use self::ring::{Ring, reason};
use crate::connection::Upgrade;
use crate::content::{Contents, Row, Verdict};
use crate::frame::Frame;
use crate::khala::error::StaleReason;
use crate::lane::{Kind, Session, Signal, Stale};

/// A lane may close an expired connection so late: its timers are no finer, and hundreds may expire in one second.
const EXPIRY_TOLERANCE: Span = Span::from_millis(250);
/// A lane that has the client's next connection live may look so late at the Close of the one before.
const CLOSE_TOLERANCE: Span = Span::from_millis(250);
/// Samples are folded into histograms once there are so many and no fault is known of.
const SAMPLES_KEPT: usize = 1_024;

/// What a client's driver is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Ask for a token of so many seconds.
    FetchToken(u64),
    /// Connect.
    Dial(Upgrade),
    /// Send these messages.
    Send(Vec<Frame<'static>>),
    /// Close with 1000.
    Close,
    /// Drop the connection or the attempt.
    Drop,
}

/// What the clients of a shard have in common.
#[derive(Debug)]
pub struct Common {
    /// Which lane.
    pub kind: Kind,
    /// How the lane is spoken to.
    pub access: Arc<Access>,
    /// What the lane promises.
    pub promise: Promise,
    /// The replay budget by stream, where it differs, and the usual one.
    pub budgets: (BTreeMap<StreamId, u64>, u64),
    /// Later than this is late.
    pub late_after: Span,
    /// A planted defect.
    pub defect: Option<Defect>,
    /// What was delivered.
    pub contents: Mutex<Contents>,
}

impl Common {
    /// The replay budget of a stream.
    #[must_use]
    pub fn budget(&self, stream: &str) -> u64 {
        self.budgets
            .0
            .get(stream)
            .copied()
            .unwrap_or(self.budgets.1)
    }
}

/// A delivery, to be put into the right histogram once it is known which that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// When the event was meant to be sent.
    pub intended: Mono,
    /// From then to the apply.
    pub latency: Span,
    /// It came live, not by a replay.
    pub live: bool,
}

/// A client.
pub struct Client {
    /// Who.
    pub id: ClientId,
    /// What it does next.
    pub machine: Machine,
    /// Its streams.
    pub streams: Vec<StreamApply>,
    /// What was found about it.
    pub findings: Findings,
    /// Rows delivered by framing.
    pub deliveries: [u64; FRAMINGS],
    /// First deliveries of the run's own events, and those of them that were late.
    pub delivered: (u64, u64),
    /// Rows received that this run did not publish.
    pub foreign: u64,
    /// Resets after a stale cursor.
    pub rebootstraps: u64,
    /// Heads that had gone back, and of which the lane said nothing.
    pub regressions: Vec<Regression>,
    /// Deliveries not yet in a histogram.
    pub samples: Vec<Sample>,
    ring: Ring,
    session: Box<dyn Session>,
    /// Which connection is the current one.
    epoch: u64,
    /// The cursors of the last subscribe.
    resumed_from: Vec<Seq>,
    /// The stale answer being acted on: it may come in up to three forms.
    stale: Vec<Stale>,
    /// The client has been live before, so that the planted double apply is due when it subscribes.
    resuming: bool,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("id", &self.id)
            .field("state", &self.machine.state())
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client of these streams that has nothing yet.
    #[must_use]
    pub fn new(settings: Settings, streams: Vec<StreamId>, common: &Common, now: Mono) -> Self {
        let livelock = common.defect == Some(Defect::GapLivelock);
        let tells_floor = common.kind.answers_stale;
        Self {
            id: settings.client,
            machine: Machine::new(settings, streams.len(), now),
            resumed_from: vec![0; streams.len()],
            streams: streams
                .into_iter()
                .map(|stream| StreamApply::new(stream, 0, tells_floor, livelock))
                .collect(),
            findings: Findings::default(),
            deliveries: [0; FRAMINGS],
            delivered: (0, 0),
            foreign: 0,
            rebootstraps: 0,
            regressions: Vec::new(),
            samples: Vec::new(),
            ring: Ring::default(),
            session: common.kind.session(&common.access),
            epoch: 0,
            stale: Vec::new(),
            resuming: false,
        }
    }

    /// Has every stream begin after what `heads` says of it, or from nothing.
    pub fn begin_after(&mut self, heads: &Cursors) {
        for stream in &mut self.streams {
            let head = heads.get(stream.stream()).copied().unwrap_or(0);
            stream.begin_after(head);
        }
    }

    /// The number of the current connection.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Takes an event; what is to be done is added to `out`.
    pub fn handle(&mut self, now: Mono, event: Event, common: &Common, out: &mut Vec<Command>) {
        let mut actions = Vec::new();
        let before = Before::of(&self.machine, &event);
        self.remember(now, &event);
        self.machine.handle(now, event, &mut actions);
        self.remember_what_came_of_it(now, &before, &actions);
        for action in actions {
            let command = match action {
                Action::FetchToken(ttl) => Command::FetchToken(ttl),
                Action::Dial => {
                    self.epoch += 1;
                    let jwt = self.machine.token().map_or("", |token| &token.jwt);
                    Command::Dial(common.kind.upgrade(&common.access, jwt))
                }
                Action::Open => {
                    // What the last connection was told may be told again on this one.
                    self.stale.clear();
                    self.session = common.kind.session(&common.access);
                    Command::Send(self.session.open())
                }
                Action::Subscribe => Command::Send(self.subscribe(now, common)),
                Action::Heartbeat => Command::Send(self.session.heartbeat()),
                Action::Close => Command::Close,
                Action::Drop => Command::Drop,
            };
            out.push(command);
        }
        for (at, floor) in std::mem::take(&mut self.machine.disobeyed) {
            let early = floor.since(at);
            self.note(
                now,
                Anomaly::RetryAfterIgnored,
                "",
                None,
                format!("tried again {early} too early"),
            );
        }
    }

    /// A message arrived on the connection `epoch`, be it one that the client has closed.
    pub fn receive(
        &mut self,
        now: Mono,
        epoch: u64,
        frame: &Frame<'_>,
        common: &Common,
        out: &mut Vec<Command>,
    ) {
        if epoch != self.epoch {
            return self.receive_late(now, epoch, frame, common);
        }
        let signals = match self.session.receive(frame) {
            Ok(signals) => signals,
            Err(why) => {
                return self.handle(
                    now,
                    Event::Lost(format!("garbled frame: {why}")),
                    common,
                    out,
                );
            }
        };
        self.handle(now, Event::Received, common, out);
        for signal in signals {
            if epoch != self.epoch {
                // A signal before this one had the client replace the connection; the rest comes anew on the next.
                return;
            }
            match signal {
                Signal::Joined => self.handle(now, Event::Joined, common, out),
                Signal::Rows { framing, rows } => self.rows(now, framing, &rows, common, out),
                Signal::Subscribed { rows, heads } => {
                    self.subscribed(now, &rows, &heads, common, out);
                }
                Signal::Stale(stale) => self.stale(now, stale, common, out),
                Signal::Denied(refusal) => self.handle(now, Event::Denied(refusal), common, out),
                Signal::Throttled(why) => tracing::debug!(client = %self.id, why, "throttled"),
            }
        }
    }

    /// A frame on a connection that the client has closed. What was on its way then is no fault of the lane's, and
    /// neither is what was published before the lane can have seen the Close; what was meant to be published a good
    /// while after the next connection was live, and still comes on this one, shows that the lane serves both.
    fn receive_late(&mut self, now: Mono, epoch: u64, frame: &Frame<'_>, common: &Common) {
        let Some(live) = self.machine.live_since() else {
            return;
        };
        let mut session = common.kind.session(&common.access);
        for signal in session.receive(frame).unwrap_or_default() {
            let (Signal::Rows { rows, .. } | Signal::Subscribed { rows, .. }) = signal else {
                continue;
            };
            for row in rows {
                let judged = common
                    .contents
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .judge(&row);
                if let Verdict::Ours { intended, .. } = judged.verdict
                    && intended > live + CLOSE_TOLERANCE
                {
                    let detail = format!(
                        "connection {epoch} was served with what was published {} after {} was live",
                        intended.since(live),
                        self.epoch
                    );
                    self.note(now, Anomaly::Zombie, &row.stream, Some(row.seq), detail);
                }
            }
        }
    }

    /// Whether every stream has reached what `target` says of it.
    pub fn has_reached(&self, target: impl Fn(&str) -> Seq) -> bool {
        self.streams
            .iter()
            .all(|stream| stream.cursor() >= target(stream.stream()))
    }

    fn subscribe(&mut self, now: Mono, common: &Common) -> Vec<Frame<'static>> {
        if self.resuming
            && common.defect == Some(Defect::ApplyTwice)
            && let Some(first) = self.streams.first_mut()
        {
            first.forget_last();
        }
        for stream in &mut self.streams {
            stream.subscribe();
        }
        self.resumed_from = self.streams.iter().map(StreamApply::cursor).collect();
        self.machine
            .journey
            .subscribed(now, self.resumed_from.iter().copied());
        let after = self.resumed_from.as_slice().into();
        self.ring.note(now, What::Subscribed { after });
        let cursors: Vec<_> = self
            .streams
            .iter()
            .map(|stream| (stream.stream(), stream.cursor()))
            .collect();
        self.session.subscribe(&cursors)
    }

    fn rows(
        &mut self,
        now: Mono,
        framing: usize,
        rows: &[Row],
        common: &Common,
        out: &mut Vec<Command>,
    ) {
        let replay = self.machine.state() == State::Replaying;
        if replay && !rows.is_empty() {
            self.machine.journey.resumed(now);
        }
        self.deliveries[framing] += rows.len() as u64;
        let mut mine: Vec<Vec<(Seq, Verdict)>> = vec![Vec::new(); self.streams.len()];
        for row in rows {
            if let Some((stream, judged)) = self.judge(now, row, common) {
                mine[stream].push((row.seq, judged));
            }
        }
        let mut missed = 0;
        let mut gap = false;
        for (stream, mut rows) in mine.into_iter().enumerate() {
            if rows.is_empty() {
                continue;
            }
            rows.sort_by_key(|(seq, _)| *seq);
            let seqs = rows.iter().map(|(seq, _)| *seq);
            self.ring
                .rows(now, place(stream), u8::from(framing > 0), replay, seqs);
            let mut noter = Noter {
                client: self.id,
                at: now,
                place: Some(place(stream)),
                findings: &mut self.findings,
                ring: &mut self.ring,
            };
            let outcome = self.streams[stream].deliver(framing, &mut rows, replay, &mut noter);
            missed += outcome.applied.len() as u64;
            if let Some((awaited, came)) = outcome.gap {
                gap = true;
                let gap = What::Gap {
                    stream: place(stream),
                    awaited,
                    beyond: u32::try_from(came - awaited).unwrap_or(u32::MAX),
                };
                self.ring.note(now, gap);
            }
            self.applied(now, stream, &outcome, !replay, common);
        }
        if replay {
            let replayed = if framing == 0 { rows.len() as u64 } else { 0 };
            self.machine.journey.replayed(replayed, missed);
        }
        if gap {
            self.handle(now, Event::Gap, common, out);
        }
    }

    /// Which of the client's streams a row belongs to, and what it is; findings about it are noted.
    fn judge(&mut self, now: Mono, row: &Row, common: &Common) -> Option<(usize, Verdict)> {
        let own = self
            .streams
            .iter()
            .position(|stream| stream.stream() == row.stream);
        let Some(own) = own else {
            let detail = "a row of a stream that was not subscribed to".to_owned();
            self.note(now, Anomaly::Leak, &row.stream, Some(row.seq), detail);
            return None;
        };
        let judged = common
            .contents
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .judge(row);
        if let Some(why) = judged.divergence {
            self.note(now, Anomaly::Divergence, &row.stream, Some(row.seq), why);
        }
        match judged.verdict {
            Verdict::Foreign => {
                self.foreign += 1;
                if common.promise.world == World::Closed {
                    let detail = "not published by this run".to_owned();
                    self.note(now, Anomaly::Phantom, &row.stream, Some(row.seq), detail);
                }
            }
            Verdict::Ours { intended, .. } => {
                if let Some(exp) = self.machine.expires()
                    && common.promise.expiry_enforcement == ExpiryEnforcement::Live
                    && intended > exp + common.promise.token_skew + EXPIRY_TOLERANCE
                {
                    let after = intended.since(exp);
                    let detail =
                        format!("published {after} after the receiver's token had expired");
                    self.note(now, Anomaly::Leak, &row.stream, Some(row.seq), detail);
                }
            }
            Verdict::Altered => {}
        }
        Some((own, judged.verdict))
    }

    fn applied(
        &mut self,
        now: Mono,
        stream: usize,
        outcome: &Outcome,
        live: bool,
        common: &Common,
    ) {
        if outcome.applied.is_empty() {
            return;
        }
        for (seq, verdict) in &outcome.applied {
            // What others publish is on nobody's schedule: among it, late deliveries of the run's would not show.
            self.delivered.0 += u64::from(*verdict != Verdict::Foreign);
            if let Verdict::Ours { index, intended } = verdict
                && self.machine.journey.was_due(*intended)
                && !self.streams[stream].had(*seq, *index)
            {
                let latency = now.since(*intended);
                self.delivered.1 += u64::from(latency > common.late_after);
                self.samples.push(Sample {
                    intended: *intended,
                    latency,
                    live,
                });
            }
        }
        let cursor = self.streams[stream].cursor();
        self.machine.journey.progressed(now, stream, cursor);
    }

    fn subscribed(
        &mut self,
        now: Mono,
        rows: &[Row],
        heads: &[(StreamId, Seq)],
        common: &Common,
        out: &mut Vec<Command>,
    ) {
        if self.machine.state() != State::Replaying {
            return;
        }
        self.machine.journey.resumed(now);
        if self.reset_what_is_stale(now, rows, heads, common) {
            return self.handle(now, Event::Rebootstrap, common, out);
        }
        self.rows(now, 0, rows, common, out);
        for stream in 0..self.streams.len() {
            let mut noter = Noter {
                client: self.id,
                at: now,
                place: Some(place(stream)),
                findings: &mut self.findings,
                ring: &mut self.ring,
            };
            let outcome = self.streams[stream].replay_complete(&mut noter);
            self.applied(now, stream, &outcome, false, common);
        }
        self.stale.clear();
        self.resuming = true;
        self.handle(now, Event::Subscribed, common, out);
    }

    /// Compares the cursors with what the lane holds, before anything is applied. `true` when the client has to begin
    /// a stream anew.
    fn reset_what_is_stale(
        &mut self,
        now: Mono,
        rows: &[Row],
        heads: &[(StreamId, Seq)],
        common: &Common,
    ) -> bool {
        let mut reset = false;
        for at in 0..self.streams.len() {
            let name = self.streams[at].stream().to_owned();
            let head = heads
                .iter()
                .find(|(stream, _)| *stream == name)
                .map(|(_, head)| *head);
            let asked = self.resumed_from[at];
            if common.kind.answers_stale {
                // The lane should have answered with stale_cursor instead of this.
                if let Some(head) = head.filter(|head| *head < asked) {
                    let detail = format!(
                        "resumed after {asked}, the lane's head is {head}, and it said nothing"
                    );
                    self.note(now, Anomaly::StaleCursor, &name, Some(asked), detail);
                }
                continue;
            }
            let first = rows
                .iter()
                .filter(|row| row.stream == name)
                .map(|row| row.seq)
                .min();
            // A stream without a head has never had an event, or has forgotten that it had.
            let head = head.unwrap_or(0);
            let reason = if self.streams[at].is_anchorless() {
                // A beginning continues anything, but there must be something to begin after.
                (head < asked).then_some(StaleReason::CursorAheadOfHead)
            } else {
                cursor::continuity(asked, head, first, common.budget(&name))
            };
            let Some(reason) = reason else {
                continue;
            };
            if cursor::overlooked(common.defect, asked, first) {
                let detail = format!(
                    "applied after {asked} in spite of {}; the head is {head}",
                    reason.name()
                );
                self.note(now, Anomaly::StaleCursor, &name, Some(asked), detail);
                continue;
            }
            tracing::info!(client = %self.id, stream = name, asked, head, reason = reason.name(), "stale cursor: beginning anew");
            if head < asked {
                self.regressions.push(Regression {
                    client: self.id,
                    stream: name,
                    cursor: asked,
                    head,
                    at: now,
                });
            }
            self.streams[at].reset(false, Some(head));
            self.rebootstraps += 1;
            self.remember_reset(now, at, reason.name(), 0);
            reset = true;
        }
        reset
    }

    /// The lane answered that cursors are stale: take the snapshots and subscribe from there.
    fn stale(&mut self, now: Mono, stale: Vec<Stale>, common: &Common, out: &mut Vec<Command>) {
        if self.machine.state() != State::Replaying || self.stale == stale {
            return;
        }
        for answer in &stale {
            let Some(at) = self
                .streams
                .iter()
                .position(|stream| stream.stream() == answer.stream)
            else {
                continue;
            };
            self.rebootstraps += 1;
            tracing::info!(
                client = %self.id, stream = answer.stream,
                resume_after = answer.resume_after, "stale cursor: beginning anew"
            );
            match &answer.snapshot {
                Some(cover) => self.streams[at].snapshot(cover.clone()),
                None => self.streams[at].reset(true, None),
            }
            let to = answer.snapshot.as_ref().map_or(0, |held| held.watermark);
            self.remember_reset(now, at, &answer.reason, to);
        }
        self.stale = stale;
        self.handle(now, Event::Rebootstrap, common, out);
    }

    /// Takes the samples that are surely from before any fault, when there are many and no fault is known of.
    pub fn early_samples(&mut self, now: Mono) -> Vec<Sample> {
        if self.samples.len() < SAMPLES_KEPT {
            return Vec::new();
        }
        let long_ago = now - journey::REMEMBERED;
        let (early, late) = std::mem::take(&mut self.samples)
            .into_iter()
            .partition(|sample| sample.intended < long_ago);
        self.samples = late;
        early
    }

    fn note(&mut self, at: Mono, anomaly: Anomaly, stream: &str, seq: Option<Seq>, detail: String) {
        let own = self
            .streams
            .iter()
            .position(|own| own.stream() == stream)
            .map(place);
        let mut noter = Noter {
            client: self.id,
            at,
            place: own,
            findings: &mut self.findings,
            ring: &mut self.ring,
        };
        noter.note(anomaly, stream, seq, detail);
    }

    fn remember(&mut self, at: Mono, event: &Event) {
        let what = match event {
            Event::Token(token) => What::TokenFetched { exp: token.exp },
            Event::NoToken(refusal) => What::TokenRefused {
                status: refusal.status,
                reason: reason(&refusal.reason),
            },
            Event::Upgraded => What::Upgraded,
            Event::Joined => What::Joined,
            _ => return,
        };
        self.ring.note(at, what);
    }

    fn remember_what_came_of_it(&mut self, at: Mono, before: &Before, actions: &[Action]) {
        let state = self.machine.state();
        if self.machine.expired_live() && !before.expired {
            self.ring.note(at, What::TokenExpired);
        }
        for action in actions {
            let what = match action {
                Action::FetchToken(ttl) => What::TokenAsked {
                    ttl_s: u32::try_from(*ttl).unwrap_or(u32::MAX),
                },
                Action::Dial => What::Dialled {
                    connection: u32::try_from(self.epoch + 1).unwrap_or(u32::MAX),
                },
                Action::Drop => {
                    let reason = reason(self.machine.journey.last_reason());
                    match before.state {
                        State::Connecting => What::Refused {
                            status: before.status,
                            reason,
                        },
                        _ => What::Lost { reason },
                    }
                }
                Action::Close if state != State::Stopped => What::Replaced,
                Action::Open | Action::Subscribe | Action::Heartbeat | Action::Close => continue,
            };
            self.ring.note(at, what);
        }
        let what = match state {
            _ if state == before.state => return,
            State::Live => What::Live,
            State::Backoff => What::Waits {
                until: self.machine.next_attempt(),
            },
            State::Stopped => What::Stopped,
            _ => return,
        };
        self.ring.note(at, what);
    }

    fn remember_reset(&mut self, at: Mono, stream: usize, why: &str, to: Seq) {
        let stream = place(stream);
        let reason = reason(why);
        self.ring.note(at, What::Stale { stream, reason });
        self.ring.note(at, What::Reset { stream, to });
    }

    /// What is kept of this client where it is to be explained. `unfinished` says what it lacked in the end.
    #[must_use]
    pub fn record(&self, unfinished: Option<String>) -> ClientRecord {
        let (moments, forgotten) = self.ring.read();
        ClientRecord {
            client: self.id,
            unfinished,
            findings: self.findings.clone(),
            streams: self
                .streams
                .iter()
                .map(|stream| stream.stream().to_owned())
                .collect(),
            forgotten,
            moments,
        }
    }

    /// A refusal in words, for a client that is not whole at the end.
    #[must_use]
    pub fn describe(&self, target: impl Fn(&str) -> Seq) -> String {
        let behind: Vec<String> = self
            .streams
            .iter()
            .map(|stream| (stream.stream(), stream.cursor(), target(stream.stream())))
            .filter(|(_, cursor, mark)| cursor < mark)
            .map(|(stream, cursor, mark)| format!("{stream} at {cursor} of {mark}"))
            .collect();
        let behind = if behind.is_empty() {
            "not behind".to_owned()
        } else {
            behind.join(", ")
        };
        let state = self.machine.state();
        format!(
            "{state:?}; {behind}; last without a connection: {}",
            self.machine.journey.last_reason()
        )
    }
}

/// How a client stood before an event.
struct Before {
    state: State,
    expired: bool,
    /// The status that the event brings, if it is a refusal.
    status: Option<u16>,
}

impl Before {
    fn of(machine: &Machine, event: &Event) -> Self {
        let status = match event {
            Event::Refused(refusal) => refusal.status,
            _ => None,
        };
        Self {
            state: machine.state(),
            expired: machine.expired_live(),
            status,
        }
    }
}

/// A stream's place in a record.
fn place(stream: usize) -> u16 {
    u16::try_from(stream).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests;
