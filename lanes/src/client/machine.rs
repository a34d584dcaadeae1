//! What a client does next. Sans-IO: it takes events with their instant and returns actions; sockets, timers and
//! tokens' transport are the driver's.

use model::decide;
use model::ids::ClientId;
use model::instant::Mono;
use model::profile::Profile;
use model::quantity::Span;
use model::shard::Policy;

use super::journey::Journey;
use super::policy::Pacing;
use crate::token::deny_reason;

/// A deadline may be noticed on the other side of the host so much earlier than here.
const SLACK: Span = Span::from_millis(20);
/// After a token with the wrong second, the next is asked for so much later.
const ALIGN_AGAIN: Span = Span::from_millis(250);
/// An attempt so little before its time is on time: timers are no finer.
const PUNCTUAL: Span = Span::from_millis(1);

/// Where a client stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not started, or its first attempt is not due.
    Idle,
    /// Waiting for a token without which it cannot connect.
    FetchingToken,
    /// TCP and upgrade.
    Connecting,
    /// Upgraded; the lane has not yet let it in.
    Joining,
    /// Subscribed; the replay is not complete.
    Replaying,
    /// Gets what is published as it is published.
    Live,
    /// Waiting to try again.
    Backoff,
    /// Will not try again.
    Stopped,
}

/// A token as a client holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The token itself. Never logged.
    pub jwt: String,
    /// Unix seconds.
    pub exp_unix: u64,
    /// The same instant on the monotonic clock.
    pub exp: Mono,
    /// When the service advises to renew it.
    pub refresh_after: Mono,
}

/// Why there is no token, or no connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Refusal {
    /// The HTTP status; `None` when there was no answer.
    pub status: Option<u16>,
    /// The reason given, or what broke.
    pub reason: String,
    /// How long to wait at least.
    pub retry_after: Option<Span>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The fleet starts; the client's first attempt is due at that instant.
    Start(Mono),
    /// A token came.
    Token(Held),
    /// None came.
    NoToken(Refusal),
    /// The upgrade was accepted.
    Upgraded,
    /// The attempt failed.
    Refused(Refusal),
    /// Something arrived.
    Received,
    /// The lane let the client in.
    Joined,
    /// The replay is complete.
    Subscribed,
    /// The lane ends the connection, and says why.
    Denied(Refusal),
    /// The connection is gone.
    Lost(String),
    /// A live delivery left a hole: resume from the cursor.
    Gap,
    /// A stale cursor was reset: subscribe anew on this connection.
    Rebootstrap,
    /// Take on a token that expires at that Unix second, at that instant.
    Align {
        /// The common expiry.
        expires_unix: u64,
        /// When to ask for it.
        at: Mono,
    },
    /// Do not align any more.
    Unalign,
    /// A timer may be due.
    Tick,
    /// Close for good.
    Stop,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask the token service, for a token of so many seconds.
    FetchToken(u64),
    /// Connect with the token held.
    Dial,
    /// Send what the lane wants first.
    Open,
    /// Subscribe from the cursors.
    Subscribe,
    /// Send a heartbeat.
    Heartbeat,
    /// Close the connection with 1000, if it still listens.
    Close,
    /// Drop the connection, and any attempt under way.
    Drop,
}

/// Counters of what a client was told about waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Obedience {
    /// Refusals that named a time to wait, after which it tried again.
    pub given: u64,
    /// Of those, obeyed.
    pub obeyed: u64,
}

/// Settings of one client.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Who.
    pub client: ClientId,
    /// When it tries again.
    pub pacing: Pacing,
    /// Clocks.
    pub profile: Profile,
    /// Unix time less monotonic time, in micro-seconds.
    pub unix_offset_us: u64,
    /// The planted deafness to Retry-After.
    pub ignores_retry_after: bool,
    /// The planted inability to come back.
    pub stays_down: bool,
}

/// The state machine of one client.
#[derive(Debug)]
pub struct Machine {
    settings: Settings,
    /// Where it stands.
    state: State,
    /// The instants.
    pub journey: Journey,
    /// Retry-After.
    pub obedience: Obedience,
    /// Attempts made before the time that had been named: when, and when it would have been time.
    pub disobeyed: Vec<(Mono, Mono)>,
    token: Option<Held>,
    /// The token of the attempt under way: a newer one may come before it is answered.
    dialled: Option<Held>,
    /// The token of the open connection.
    using: Option<Held>,
    /// When that token is to be renewed.
    renewal: Mono,
    fetching: bool,
    token_attempt: u32,
    token_floor: Option<Mono>,
    token_due: Mono,
    connect_floor: Option<Mono>,
    wake: Mono,
    outage: u64,
    attempt: u32,
    live_since: Mono,
    ever_live: bool,
    give_up: Mono,
    heard: Mono,
    heartbeat: Mono,
    align: Option<(u64, Mono)>,
    aligned: Option<u64>,
    /// When it took that on.
    aligned_at: Option<Mono>,
    expired_live: bool,
}

impl Machine {
    /// A client that has not been started.
    #[must_use]
    pub fn new(settings: Settings, streams: usize, now: Mono) -> Self {
        Self {
            settings,
            state: State::Idle,
            journey: Journey::begin(streams, now),
            obedience: Obedience::default(),
            disobeyed: Vec::new(),
            token: None,
            dialled: None,
            using: None,
            renewal: Mono(u64::MAX),
            fetching: false,
            token_attempt: 0,
            token_floor: None,
            token_due: Mono(0),
            connect_floor: None,
            wake: Mono(u64::MAX),
            outage: 0,
            attempt: 0,
            live_since: now,
            ever_live: false,
            give_up: now,
            heard: now,
            heartbeat: now,
            align: None,
            aligned: None,
            aligned_at: None,
            expired_live: false,
        }
    }

    /// Where it stands.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// The token to connect with.
    #[must_use]
    pub const fn token(&self) -> Option<&Held> {
        self.token.as_ref()
    }

    /// When the open connection's token expires.
    #[must_use]
    pub fn expires(&self) -> Option<Mono> {
        self.using.as_ref().map(|token| token.exp)
    }

    /// Since when it is live.
    #[must_use]
    pub fn live_since(&self) -> Option<Mono> {
        (self.state == State::Live).then_some(self.live_since)
    }

    /// The common expiry that it took on, and whether that passed while it was connected.
    #[must_use]
    pub const fn aligned(&self) -> Option<(u64, bool)> {
        match self.aligned {
            Some(expires) => Some((expires, self.expired_live)),
            None => None,
        }
    }

    /// Whether that common expiry has passed under an open connection.
    #[must_use]
    pub const fn expired_live(&self) -> bool {
        self.expired_live
    }

    /// When a client in [`State::Backoff`] tries again.
    #[must_use]
    pub const fn next_attempt(&self) -> Mono {
        self.wake
    }

    /// When it took the common expiry on.
    #[must_use]
    pub const fn aligned_at(&self) -> Option<Mono> {
        self.aligned_at
    }

    /// When the next [`Event::Tick`] is due.
    #[must_use]
    pub fn deadline(&self) -> Mono {
        let mut next = match self.state {
            State::Stopped => return Mono(u64::MAX),
            State::Idle | State::Backoff => self.wake,
            State::FetchingToken => Mono(u64::MAX),
            State::Connecting => self.give_up,
            State::Joining | State::Replaying => {
                self.give_up.min(self.heartbeat).min(self.silence())
            }
            State::Live => {
                let refresh = if self.fetching {
                    Mono(u64::MAX)
                } else {
                    self.refresh_at()
                };
                self.heartbeat.min(self.silence()).min(refresh)
            }
        };
        if let Some((_, at)) = self.align
            && !self.fetching
        {
            next = next.min(at);
        }
        if let Some(token) = &self.using
            && self.aligned == Some(token.exp_unix)
            && !self.expired_live
        {
            next = next.min(token.exp);
        }
        next
    }

    /// Takes an event.
    pub fn handle(&mut self, now: Mono, event: Event, out: &mut Vec<Action>) {
        if self.state == State::Stopped {
            return;
        }
        match event {
            Event::Start(at) => {
                self.wake = at;
                self.tick(now, out);
            }
            Event::Token(token) => self.token_came(now, token, out),
            Event::NoToken(refusal) => self.no_token(now, &refusal),
            Event::Upgraded => {
                self.state = State::Joining;
                self.using = self.dialled.take();
                self.renewal = self.renewal();
                self.heard = now;
                self.heartbeat = now + self.settings.profile.heartbeat;
                self.journey.upgraded(now);
                out.push(Action::Open);
            }
            Event::Refused(refusal) | Event::Denied(refusal) => self.failed(now, &refusal, out),
            Event::Received => self.heard = now,
            Event::Joined if self.state == State::Joining => {
                self.state = State::Replaying;
                out.push(Action::Subscribe);
            }
            Event::Rebootstrap if self.state == State::Replaying => out.push(Action::Subscribe),
            Event::Subscribed if self.state == State::Replaying => {
                self.state = State::Live;
                self.live_since = now;
                self.ever_live = true;
                self.journey.resumed(now);
                self.renew_if_newer(now, out);
            }
            Event::Lost(why) => {
                let refusal = Refusal {
                    reason: why,
                    ..Refusal::default()
                };
                self.failed(now, &refusal, out);
            }
            Event::Gap if self.state == State::Live => {
                let refusal = Refusal {
                    reason: "a gap in what came live".to_owned(),
                    ..Refusal::default()
                };
                self.failed(now, &refusal, out);
            }
            Event::Joined | Event::Rebootstrap | Event::Subscribed | Event::Gap => {}
            Event::Align { expires_unix, at } => {
                // What the token service asked for holds for every reason to call it.
                self.align = Some((expires_unix, at.max(self.token_due)));
            }
            Event::Unalign => self.align = None,
            Event::Tick => self.tick(now, out),
            Event::Stop => {
                self.state = State::Stopped;
                out.push(Action::Close);
            }
        }
    }

    fn tick(&mut self, now: Mono, out: &mut Vec<Action>) {
        self.note_expiry(now, Span::ZERO);
        self.align_when_due(now, out);
        let connected = matches!(self.state, State::Joining | State::Replaying | State::Live);
        if connected && now >= self.silence() {
            let idle = self.settings.profile.read_idle;
            return self.failed(now, &said(format!("nothing arrived for {idle}")), out);
        }
        match self.state {
            State::Idle | State::Backoff if now >= self.wake => self.try_again(now, out),
            State::Connecting | State::Joining | State::Replaying if now >= self.give_up => {
                let limit = self.settings.profile.connect_timeout;
                return self.failed(now, &said(format!("not live within {limit}")), out);
            }
            State::Live if now >= self.refresh_at() => self.fetch(now, self.usual_ttl(), out),
            _ => {}
        }
        if connected && now >= self.heartbeat {
            self.heartbeat = now + self.settings.profile.heartbeat;
            out.push(Action::Heartbeat);
        }
    }

    fn try_again(&mut self, now: Mono, out: &mut Vec<Action>) {
        if self.token.as_ref().is_some_and(|token| token.exp > now) {
            return self.dial(now, out);
        }
        // What the token service asked for holds for every reason to call it.
        if now < self.token_due {
            self.state = State::Backoff;
            self.wake = self.token_due;
            return;
        }
        self.state = State::FetchingToken;
        self.fetch(now, self.usual_ttl(), out);
    }

    fn fetch(&mut self, now: Mono, ttl: u64, out: &mut Vec<Action>) {
        if self.fetching {
            return;
        }
        self.fetching = true;
        let floor = self.token_floor.take();
        self.judge_patience(now, floor);
        out.push(Action::FetchToken(ttl));
    }

    fn dial(&mut self, now: Mono, out: &mut Vec<Action>) {
        self.state = State::Connecting;
        self.give_up = now + self.settings.profile.connect_timeout;
        self.dialled.clone_from(&self.token);
        self.journey.attempt(now);
        let floor = self.connect_floor.take();
        self.judge_patience(now, floor);
        out.push(Action::Dial);
    }

    fn judge_patience(&mut self, now: Mono, floor: Option<Mono>) {
        let Some(floor) = floor else { return };
        self.obedience.given += 1;
        if now + PUNCTUAL >= floor {
            self.obedience.obeyed += 1;
        } else {
            self.disobeyed.push((now, floor));
        }
    }

    fn token_came(&mut self, now: Mono, token: Held, out: &mut Vec<Action>) {
        self.fetching = false;
        self.token_attempt = 0;
        self.token_due = Mono(0);
        if let Some((expires, _)) = self.align {
            if token.exp_unix == expires {
                self.align = None;
                self.aligned = Some(expires);
                self.aligned_at = Some(now);
            } else {
                // The second turned between the request and its answer. A token is a token: it is used if need be.
                self.align = Some((expires, now + ALIGN_AGAIN));
                if self.state != State::FetchingToken {
                    return;
                }
            }
        }
        self.token = Some(token);
        match self.state {
            State::FetchingToken => self.dial(now, out),
            State::Live => self.renew_if_newer(now, out),
            // One that is about to be live renews when it is.
            _ => {}
        }
    }

    /// A planned reconnect, when the token held is not the one in use.
    fn renew_if_newer(&mut self, now: Mono, out: &mut Vec<Action>) {
        if self.using == self.token || self.token.is_none() {
            return;
        }
        self.note_expiry(now, Span::ZERO);
        self.using = None;
        out.push(Action::Close);
        self.journey
            .lost(now, "replaced for a new token".to_owned(), true);
        self.dial(now, out);
    }

    fn no_token(&mut self, now: Mono, refusal: &Refusal) {
        self.fetching = false;
        self.token_attempt += 1;
        let Settings {
            client,
            pacing,
            ignores_retry_after,
            ..
        } = &self.settings;
        let mut wait = pacing.delay(*client, self.outage, self.token_attempt + 1);
        if let Some(retry_after) = refusal.retry_after {
            self.token_floor = Some(now + retry_after);
            if !ignores_retry_after {
                let jitter = pacing.after_refusal(*client, self.outage, self.token_attempt);
                wait = wait.max(retry_after.plus(jitter));
            }
        }
        self.token_due = now + wait;
        if let Some((expires, _)) = self.align {
            self.align = Some((expires, self.token_due));
        }
        if self.state == State::FetchingToken {
            self.journey
                .without_token(now, &format!("no token: {}", refusal.reason));
            self.state = State::Backoff;
            self.wake = self.token_due;
        }
    }

    /// The attempt, or the connection, is over.
    fn failed(&mut self, now: Mono, refusal: &Refusal, out: &mut Vec<Action>) {
        let connecting = matches!(
            self.state,
            State::Connecting | State::Joining | State::Replaying
        );
        if !connecting && self.state != State::Live {
            return;
        }
        self.note_expiry(now, SLACK);
        if connecting {
            self.journey.failed(now, &refusal.reason);
        } else {
            self.journey.lost(now, refusal.reason.clone(), false);
            if now.since(self.live_since) >= self.settings.profile.stable_after {
                self.attempt = 0;
                self.outage += 1;
            }
        }
        // Only the token that was refused is given up: a newer one may have come meanwhile.
        let refused = self.using.take().or(self.dialled.take());
        if wants_new_token(refusal) && refused == self.token {
            self.token = None;
        }
        out.push(Action::Drop);
        let unauthorized = refusal.status == Some(401);
        if (self.settings.stays_down && self.ever_live)
            || (self.settings.pacing.policy == Policy::Ios && unauthorized)
        {
            self.state = State::Stopped;
            return;
        }
        self.attempt += 1;
        let Settings {
            client,
            pacing,
            ignores_retry_after,
            ..
        } = &self.settings;
        let mut wait = pacing.delay(*client, self.outage, self.attempt);
        if let Some(retry_after) = refusal.retry_after {
            self.connect_floor = Some(now + retry_after);
            if !ignores_retry_after {
                let jitter = pacing.after_refusal(*client, self.outage, self.attempt);
                wait = wait.max(retry_after.plus(jitter));
            }
        }
        self.state = State::Backoff;
        self.wake = now + wait;
    }

    /// The planted expiry passes under an open connection. `slack`: the other side's clock may have been a little
    /// ahead.
    fn note_expiry(&mut self, now: Mono, slack: Span) {
        let connected = matches!(self.state, State::Joining | State::Replaying | State::Live);
        if let Some(token) = &self.using
            && connected
            && self.aligned == Some(token.exp_unix)
            && !self.expired_live
            && now + slack >= token.exp
        {
            self.expired_live = true;
            self.journey.expired(token.exp.min(now));
        }
    }

    fn align_when_due(&mut self, now: Mono, out: &mut Vec<Action>) {
        let Some((expires, at)) = self.align else {
            return;
        };
        if self.fetching || now < at {
            return;
        }
        let unix = (now.0 + self.settings.unix_offset_us) / 1_000_000;
        match expires.checked_sub(unix) {
            Some(ttl) if ttl > 0 => {
                self.fetch(now, ttl, out);
            }
            // Too late for this client: it keeps the token that it has.
            _ => self.align = None,
        }
    }

    fn usual_ttl(&self) -> u64 {
        (self.settings.profile.token_ttl.as_micros() / 1_000_000).max(1)
    }

    fn silence(&self) -> Mono {
        self.heard + self.settings.profile.read_idle
    }

    /// Ahead of the expiry, and not all clients in the same instant.
    fn renewal(&self) -> Mono {
        let Some(token) = &self.using else {
            return Mono(u64::MAX);
        };
        let lead = token.exp.since(token.refresh_after);
        let Settings { client, pacing, .. } = &self.settings;
        let place = decide::unit(pacing.seed, "refresh", &client.to_string(), token.exp_unix);
        token.refresh_after + lead.scale(place * 0.5)
    }

    fn refresh_at(&self) -> Mono {
        self.renewal.max(self.token_due)
    }
}

fn said(reason: String) -> Refusal {
    Refusal {
        reason,
        ..Refusal::default()
    }
}

/// Whether another token may be let in. One that is called invalid stays so however often it is renewed, as far as a
/// client can know.
fn wants_new_token(refusal: &Refusal) -> bool {
    match deny_reason(refusal.reason.as_bytes()) {
        Some(reason) => reason.refresh_helps(),
        None => refusal.status == Some(401),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::quantity::Rate;

    const UNIX: u64 = 1_000_000_000_000;

    fn ms(millis: u64) -> Mono {
        Mono(millis * 1_000)
    }

    fn settings() -> Settings {
        let profile = Profile::embedded();
        Settings {
            client: ClientId(3),
            pacing: Pacing {
                policy: Policy::Desktop,
                base: profile.backoff_base,
                cap: profile.backoff_cap,
                seed: 7,
                fleet: 10,
                capacity: Some(Rate::per_second(10.0)),
            },
            profile,
            unix_offset_us: UNIX,
            ignores_retry_after: false,
            stays_down: false,
        }
    }

    fn token(name: &str, exp_ms: u64) -> Held {
        Held {
            jwt: name.to_owned(),
            exp_unix: (UNIX + exp_ms * 1_000) / 1_000_000,
            exp: ms(exp_ms),
            refresh_after: ms(exp_ms - 1_000),
        }
    }

    struct Rig {
        machine: Machine,
        now: u64,
    }

    impl Rig {
        fn new(settings: Settings) -> Self {
            let machine = Machine::new(settings, 1, ms(0));
            Self { machine, now: 0 }
        }

        fn at(&mut self, now: u64, event: Event) -> Vec<Action> {
            assert!(now >= self.now, "time goes on");
            self.now = now;
            let mut out = Vec::new();
            self.machine.handle(ms(now), event, &mut out);
            out
        }

        /// Lets the next timer fire; when that was.
        fn tick(&mut self) -> (u64, Vec<Action>) {
            let due = self.machine.deadline().0.div_ceil(1_000);
            assert!(due < 1_000_000, "no timer is set");
            let due = due.max(self.now);
            (due, self.at(due, Event::Tick))
        }

        /// Ticks until something else than a heartbeat is to be done.
        fn next_deed(&mut self) -> (u64, Vec<Action>) {
            loop {
                let (at, actions) = self.tick();
                // Heartbeats are answered: the lane is not silent.
                self.at(at, Event::Received);
                if actions.iter().any(|action| *action != Action::Heartbeat) {
                    return (at, actions);
                }
            }
        }

        fn live(settings: Settings, exp_ms: u64) -> Self {
            let mut rig = Self::new(settings);
            assert_eq!(rig.at(0, Event::Start(ms(0))), [Action::FetchToken(120)]);
            assert_eq!(
                rig.at(1, Event::Token(token("first", exp_ms))),
                [Action::Dial]
            );
            rig.connect(2);
            rig
        }

        fn connect(&mut self, at: u64) {
            assert_eq!(self.at(at, Event::Upgraded), [Action::Open]);
            assert_eq!(self.at(at, Event::Joined), [Action::Subscribe]);
            assert_eq!(self.at(at, Event::Subscribed), []);
            assert_eq!(self.machine.state(), State::Live);
        }
    }

    fn refusal(status: u16, reason: &str, wait: Option<u64>) -> Event {
        Event::Refused(Refusal {
            status: Some(status),
            reason: reason.to_owned(),
            retry_after: wait.map(Span::from_millis),
        })
    }

    #[test]
    fn a_lost_connection_is_tried_again_with_growing_delays_that_only_stability_resets() {
        let mut rig = Rig::live(settings(), 100_000);
        assert_eq!(rig.at(5_000, Event::Lost("FIN".to_owned())), [Action::Drop]);
        assert_eq!(rig.tick(), (5_250, vec![Action::Dial]));
        rig.at(5_251, Event::Refused(Refusal::default()));
        assert_eq!(rig.tick(), (5_751, vec![Action::Dial]));
        rig.connect(5_760);
        // Live for less than `stable_after`: the next delay is the third, not the first.
        rig.at(6_000, Event::Lost("FIN".to_owned()));
        assert_eq!(rig.tick(), (7_000, vec![Action::Dial]));
        rig.connect(7_010);
        rig.at(9_100, Event::Received);
        rig.at(9_100, Event::Lost("FIN".to_owned()));
        assert_eq!(rig.tick(), (9_350, vec![Action::Dial]));
    }

    #[test]
    fn silence_and_a_slow_attempt_end_a_connection() {
        let mut rig = Rig::live(settings(), 100_000);
        let mut last = (0, Vec::new());
        while rig.machine.state() == State::Live {
            last = rig.tick();
        }
        assert_eq!(last.0, 3_002, "nothing was heard since 2 ms");
        let (at, _) = rig.tick();
        assert_eq!(rig.machine.state(), State::Connecting);
        let (gave_up, actions) = rig.tick();
        assert_eq!((gave_up, actions), (at + 3_000, vec![Action::Drop]));
    }

    #[test]
    fn retry_after_is_a_floor_and_the_planted_defect_is_seen_to_ignore_it() {
        for (ignores, at_least) in [(false, 2_000), (true, 0)] {
            let mut rig = Rig::live(
                Settings {
                    ignores_retry_after: ignores,
                    ..settings()
                },
                100_000,
            );
            rig.at(3_000, Event::Lost("reset".to_owned()));
            rig.tick();
            rig.at(4_000, refusal(503, "busy", Some(2_000)));
            let (again, actions) = rig.tick();
            assert_eq!(actions, [Action::Dial]);
            assert!(
                again >= 4_000 + at_least && (again < 6_000) == ignores,
                "{again}"
            );
            assert_eq!(rig.machine.obedience.given, 1);
            assert_eq!(rig.machine.obedience.obeyed, u64::from(!ignores));
            assert_eq!(rig.machine.disobeyed.len(), usize::from(ignores));
        }
    }

    #[test]
    fn a_token_is_renewed_ahead_and_taken_on_by_a_planned_reconnect() {
        let mut rig = Rig::live(settings(), 10_000);
        let (asked, actions) = rig.next_deed();
        assert_eq!(actions, [Action::FetchToken(120)]);
        assert!((9_000..9_501).contains(&asked), "{asked}");
        let actions = rig.at(asked + 5, Event::Token(token("second", 120_000)));
        assert_eq!(actions, [Action::Close, Action::Dial]);
        rig.connect(asked + 10);
        assert_eq!(rig.machine.journey.planned(), 1);
        assert_eq!(rig.machine.expires(), Some(ms(120_000)));
    }

    #[test]
    fn an_expired_token_is_renewed_before_connecting_and_an_invalid_one_is_kept() {
        for (reason, renewed) in [
            ("token_expired", true),
            ("unknown_kid", true),
            ("invalid_signature", false),
        ] {
            let mut rig = Rig::live(settings(), 100_000);
            rig.at(
                5_000,
                Event::Denied(Refusal {
                    reason: reason.to_owned(),
                    ..Refusal::default()
                }),
            );
            let (_, actions) = rig.tick();
            let expected = if renewed {
                Action::FetchToken(120)
            } else {
                Action::Dial
            };
            assert_eq!(actions, [expected], "{reason}");
        }
    }

    #[test]
    fn a_rate_limited_token_service_is_not_asked_again_too_early() {
        let mut rig = Rig::new(settings());
        rig.at(0, Event::Start(ms(0)));
        let limited = Refusal {
            status: Some(429),
            reason: "slow down".to_owned(),
            retry_after: Some(Span::from_secs(1)),
        };
        rig.at(10, Event::NoToken(limited));
        let (again, actions) = rig.tick();
        assert_eq!(actions, [Action::FetchToken(120)]);
        assert!(again >= 1_010, "{again}");
        assert_eq!(
            rig.machine.obedience,
            Obedience {
                given: 1,
                obeyed: 1
            }
        );
    }

    #[test]
    fn a_common_expiry_does_not_cut_short_what_the_token_service_asked_for() {
        let mut rig = Rig::new(settings());
        rig.at(0, Event::Start(ms(0)));
        let limited = Refusal {
            status: Some(429),
            reason: "slow down".to_owned(),
            retry_after: Some(Span::from_secs(1)),
        };
        rig.at(10, Event::NoToken(limited));
        let align = Event::Align {
            expires_unix: (UNIX + 8_000_000) / 1_000_000,
            at: ms(200),
        };
        rig.at(100, align);
        let (again, actions) = rig.tick();
        assert!(
            matches!(actions[..], [Action::FetchToken(_)]),
            "{actions:?}"
        );
        assert!(again >= 1_010, "{again}");
        assert_eq!(rig.machine.disobeyed, []);
    }

    #[test]
    fn a_token_that_comes_during_an_attempt_is_not_taken_for_the_one_it_was_made_with() {
        let renewed_while_connecting = || {
            let mut rig = Rig::live(settings(), 10_000);
            let (asked, _) = rig.next_deed();
            rig.at(asked + 1, Event::Lost("FIN".to_owned()));
            let (dialled, actions) = rig.tick();
            assert_eq!(actions, [Action::Dial]);
            let second = Event::Token(token("second", 120_000));
            assert_eq!(rig.at(dialled + 1, second), []);
            (rig, dialled + 2)
        };
        let (mut rig, now) = renewed_while_connecting();
        rig.at(now, Event::Upgraded);
        assert_eq!(rig.machine.expires(), Some(ms(10_000)));
        rig.at(now, Event::Joined);
        let actions = rig.at(now, Event::Subscribed);
        assert_eq!(actions, [Action::Close, Action::Dial]);

        let (mut rig, now) = renewed_while_connecting();
        rig.at(now, refusal(401, "token_expired", None));
        let (_, actions) = rig.tick();
        assert_eq!(actions, [Action::Dial], "the newer token was not refused");
    }

    #[test]
    fn a_common_expiry_is_taken_on_and_its_passing_under_a_live_connection_noted() {
        let mut rig = Rig::live(settings(), 100_000);
        let expires_unix = (UNIX + 8_000_000) / 1_000_000;
        rig.at(
            2_500,
            Event::Align {
                expires_unix,
                at: ms(3_200),
            },
        );
        let (at, actions) = rig.next_deed();
        assert_eq!((at, actions), (3_200, vec![Action::FetchToken(5)]));
        // The second turned meanwhile: this one expires too late.
        assert_eq!(rig.at(3_201, Event::Token(token("late", 9_000))), []);
        let (again, actions) = rig.next_deed();
        assert_eq!((again, actions), (3_451, vec![Action::FetchToken(5)]));
        let actions = rig.at(3_452, Event::Token(token("aligned", 8_000)));
        assert_eq!(actions, [Action::Close, Action::Dial]);
        rig.connect(3_460);
        assert_eq!(rig.machine.aligned(), Some((expires_unix, false)));
        assert_eq!(rig.machine.aligned_at(), Some(ms(3_452)));
        // It is renewed ahead, but the service does not answer in time.
        let (_, actions) = rig.next_deed();
        assert_eq!(actions, [Action::FetchToken(120)]);
        while rig.machine.aligned() == Some((expires_unix, false)) {
            let (at, _) = rig.tick();
            rig.at(at, Event::Received);
        }
        assert_eq!(rig.now, 8_000);
    }

    #[test]
    fn the_planted_defect_keeps_a_client_down_once_it_was_live() {
        let mut rig = Rig::live(
            Settings {
                stays_down: true,
                ..settings()
            },
            100_000,
        );
        rig.at(5_000, Event::Lost("FIN".to_owned()));
        assert_eq!(rig.machine.state(), State::Stopped);
        assert_eq!(rig.machine.deadline(), Mono(u64::MAX));
    }
}
