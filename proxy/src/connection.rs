//! One connection: a task that owns both sockets.

mod admission;
mod ending;
mod leaving;
mod upgrading;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use host::clock;
use model::instant::Mono;
use model::quantity::Span;

use self::ending::{Closing, End, Entry, Parting};
use self::leaving::Watch;
use self::upgrading::Upgrading;
use crate::faults::{Effects, Rule, Stage, farewell};
use crate::link::{Link, Turn, Wants};
use crate::plane::{NOT_HELD, Plane};
use crate::side::Side;
use crate::tap::Way;
use crate::threads;
use crate::toxics::Slots;
use crate::upstream::Upstream;
use crate::websocket::Request;

/// How long the head of a request is waited for where a fault depends on it. Later the connection is anonymous, and
/// its frames are not looked for.
const HEAD: Span = Span::from_secs(1);
/// How long a frame may take to end before a connection that is to be closed is closed in its middle.
const BOUNDARY: Span = Span::from_secs(1);

type Dial = Pin<Box<dyn Future<Output = io::Result<Side>> + Send>>;

/// A connection from its accept to its end. The sockets come before the entry, so that they are closed, or
/// reset, when the connection is struck out.
pub(crate) struct Connection {
    client: Side,
    upstream: Option<Side>,
    /// Where it goes.
    route: Arc<Upstream>,
    dial: Option<Dial>,
    /// It is dialled for then.
    dial_due: Option<Mono>,
    up: Link,
    down: Link,
    effects: Effects,
    /// The generation of rules that it was accepted in, and the last one that it looked at.
    born: u64,
    seen: u64,
    accepted: Mono,
    slots: Slots,
    /// When its head has to be there.
    head_due: Mono,
    request: Request,
    /// The request may go on.
    admitted: bool,
    upgraded: bool,
    upgrading: Upgrading,
    /// TLS that passes through: nothing in it can be read.
    opaque: bool,
    closing: Option<Closing>,
    alarm: Option<Alarm>,
    entry: Entry,
}

/// A sleep that outlives one wait.
struct Alarm {
    at: Mono,
    sleep: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Connection {
    pub(crate) fn new(client: Side, plane: Arc<Plane>, route: Arc<Upstream>, ordinal: u64) -> Self {
        let handle = plane.enter(ordinal);
        // Read after it was entered: of a change it either is woken or knows.
        let born = plane.rules().generation;
        let accepted = clock::now();
        Self {
            client,
            upstream: None,
            route,
            dial: None,
            dial_due: None,
            up: Link::new(Arc::clone(&plane), Arc::clone(&handle), Way::Upstream),
            down: Link::new(Arc::clone(&plane), Arc::clone(&handle), Way::Downstream),
            effects: Effects::default(),
            born,
            seen: born,
            accepted,
            slots: Slots::default(),
            head_due: accepted + HEAD,
            request: Request::default(),
            admitted: false,
            upgraded: false,
            upgrading: Upgrading::default(),
            opaque: false,
            closing: None,
            alarm: None,
            entry: Entry { plane, handle },
        }
    }

    /// With turns that limits on connecting have given it already.
    pub(crate) fn with_slots(self, slots: Slots) -> Self {
        Self { slots, ..self }
    }

    pub(crate) fn run(self) -> impl Future<Output = ()> + Send {
        // Boxed, as is its end: a future has room for all that it ever moves, which would be three times as much.
        let mut connection = Box::new(self);
        async move {
            match connection.drive().await {
                End::Close => connection.tally(),
                End::Reset(rule) => {
                    if connection.reset(rule.as_deref()) {
                        // Others may have to be reset now too, which is more urgent than the closes.
                        threads::lull().await;
                    }
                }
                End::Parting(parting) => Box::pin(connection.part(parting)).await,
            }
        }
    }

    async fn drive(&mut self) -> End {
        if let Some(end) = self.refresh() {
            return end;
        }
        loop {
            if self.entry.plane.generation() != self.seen
                && let Some(end) = self.refresh()
            {
                return end;
            }
            if self.effects.is_held() {
                self.up.wants = Wants::default();
                self.down.wants = Wants::default();
            } else {
                match self.turn() {
                    Ok(Step::Wait) => {}
                    Ok(Step::Again) => {
                        tokio::task::yield_now().await;
                        continue;
                    }
                    Ok(Step::Decide) => continue,
                    Ok(Step::End(end)) => return end,
                    Err(error) => return self.broken(&error),
                }
            }
            match self.wait().await {
                Ok(None) => {}
                Ok(Some(end)) => return end,
                Err(error) => return self.broken(&error),
            }
        }
    }

    /// Looks at the rules and obeys them from now on.
    fn refresh(&mut self) -> Option<End> {
        let Entry { plane, handle } = &self.entry;
        if plane.has_ended(self.born) {
            return Some(End::Close);
        }
        let rules = plane.rules();
        let mut effects = Effects::of(
            &rules,
            handle,
            Stage {
                born: self.born,
                seen: self.seen,
                accepted: self.accepted,
                is_dialled: self.upstream.is_some() || self.dial.is_some(),
            },
            &mut self.slots,
        );
        self.seen = rules.generation;
        if let Some(rule) = effects.reset.take() {
            return Some(End::Reset(Some(rule)));
        }
        if self.effects.silent.is_some() && effects.silent != self.effects.silent {
            return Some(End::Reset(None));
        }
        if let Some(rule) = effects.close.take()
            && self.closing.is_none()
            && self.can_be_closed(&rule)
        {
            self.down.stepwise = true;
            self.closing = Some(Closing::ordered(rule));
        }
        self.up.set_shape(std::mem::take(&mut effects.upstream));
        self.down.set_shape(std::mem::take(&mut effects.downstream));
        let before = std::mem::replace(&mut self.effects, effects);
        self.client.shake_hands(self.effects.handshake);
        self.obey_upgrade_toxics();
        self.hold(&before);
        self.entry.handle.obeys.store(self.seen, Ordering::Release);
        self.verdict()
    }

    /// How a toxic of either direction ends it.
    fn verdict(&self) -> Option<End> {
        self.up.verdict.or(self.down.verdict).map(End::from)
    }

    /// Only a WebSocket is closed with a Close frame; whether one is inside TLS that passes through nobody knows.
    fn can_be_closed(&self, rule: &Rule) -> bool {
        if self.opaque {
            rule.bites.opaque.fetch_add(1, Ordering::Relaxed);
        }
        self.upgraded
    }

    /// Begins or ends a hold, as observed by the bytes that pass.
    fn hold(&mut self, before: &Effects) {
        let handle = &self.entry.handle;
        if self.effects.is_held() && !before.is_held() {
            let passed = handle.passed.load(Ordering::Acquire);
            handle.held_from.store(passed, Ordering::Release);
        }
        if before.is_held() && !self.effects.is_held() {
            let leaked = handle.passed_while_held().unwrap_or(0);
            for rule in &before.hold {
                rule.bites.leaked.fetch_add(leaked, Ordering::Relaxed);
            }
            handle.held_from.store(NOT_HELD, Ordering::Release);
        }
        for rule in &self.effects.hold {
            if handle.bitten_by(rule) && rule.generation <= self.born {
                rule.bites.connects.fetch_add(1, Ordering::Relaxed);
            }
        }
        let greets = self.client.is_shaking_hands();
        let greeted_by = self.effects.greeted_by.iter().filter(|_| greets);
        for rule in self.effects.stopped.iter().chain(greeted_by) {
            handle.bitten_by(rule);
        }
    }

    /// Does what can be done without waiting.
    fn turn(&mut self) -> io::Result<Step> {
        if let Some(step) = self.admit() {
            return Ok(step);
        }
        // What rustls finds wrong it finds in what it reads: from the client here, from the lane below.
        let counters = &self.entry.plane.counters;
        let mut again = false;
        self.up.is_last = self.down.is_finished();
        match self
            .up
            .pump(Some(&mut self.client), self.upstream.as_mut())
            .inspect_err(|error| counters.broke(Way::Downstream, error))?
        {
            Turn::Waits => {}
            Turn::Again => again = true,
            Turn::Head(head) => {
                self.asked(head);
                return Ok(self.identified());
            }
        }
        if self.effects.silent.is_some() && self.up.has_ended() {
            return Ok(Step::End(End::Close));
        }
        self.dial();
        if let Some(step) = self.close_at_boundary() {
            return Ok(step);
        }
        self.down.is_last = self.up.is_finished();
        match self
            .down
            .pump(self.upstream.as_mut(), Some(&mut self.client))
            .inspect_err(|error| self.entry.plane.counters.broke(Way::Upstream, error))?
        {
            Turn::Waits => {}
            Turn::Again => again = true,
            Turn::Head(head) => {
                self.answered(&head);
                return Ok(Step::Decide);
            }
        }
        if self.gives_up_on_answer() {
            return Ok(Step::Decide);
        }
        self.tally();
        if let Some(end) = self.verdict() {
            return Ok(Step::End(end));
        }
        Ok(if self.up.is_finished() && self.down.is_finished() {
            Step::End(End::Close)
        } else if again {
            Step::Again
        } else {
            Step::Wait
        })
    }

    fn close_at_boundary(&mut self) -> Option<Step> {
        let closing = self.closing.as_mut()?;
        if self.down.is_cut_off() || self.down.cut_at_boundary() && self.down.is_cut_off() {
            let frame = farewell(&closing.rule);
            return Some(Step::farewell(&closing.rule, frame));
        }
        let now = clock::now();
        let deadline = *closing.deadline.get_or_insert(now + BOUNDARY);
        (now >= deadline || self.down.is_drained())
            .then(|| Step::farewell(&closing.rule, Vec::new()))
    }

    /// Counts what passed and what the slowing faults did to it.
    fn tally(&mut self) {
        for link in [&mut self.up, &mut self.down] {
            if self.upgraded {
                link.meter.publish_frames();
            }
            let delayed = std::mem::take(&mut link.delayed);
            let waits = std::mem::take(&mut link.waits);
            let delays = link
                .shape()
                .delays
                .iter()
                .map(|delay| (&delay.rule, delayed));
            let paces = link.shape().paces.iter().map(|pace| (&pace.rule, waits));
            for (rule, count) in delays.chain(paces).filter(|(_, count)| *count > 0) {
                self.entry.handle.bitten_by(rule);
                rule.bites.chunks.fetch_add(count, Ordering::Relaxed);
            }
        }
    }

    /// Something keeps it from reading for as long as a fault lasts. A hold is none of these: no news passes a partition,
    /// that a peer has gone neither.
    fn is_stopped(&self) -> bool {
        !self.effects.is_held()
            && (!self.effects.stopped.is_empty()
                || self.up.stops_at.is_some()
                || self.down.stops_at.is_some())
    }

    /// Waits for a socket, an instant, the dialled lane, or another generation of rules; or, where it is stopped, for
    /// its peers to go.
    async fn wait(&mut self) -> io::Result<Option<End>> {
        let closing = self.closing.as_ref().and_then(|closing| closing.deadline);
        let head = self.up.withheld.then_some(self.head_due);
        let is_stopped = self.is_stopped();
        let until = if self.effects.is_held() {
            None
        } else {
            let (up, down) = (self.up.wants.until, self.down.wants.until);
            let answer = self.answer_head_due();
            [up, down, closing, head, answer, self.dial_due]
                .into_iter()
                .flatten()
                .min()
        };
        self.set_alarm(until);
        let Self {
            client,
            upstream,
            dial,
            up,
            down,
            seen,
            alarm,
            entry,
            ..
        } = self;
        let mut watch = is_stopped.then(|| {
            let is_idle = up.is_idle() && down.is_idle();
            let (reads_client, reads_upstream) = (up.wants.read, down.wants.read);
            Watch::over(
                client,
                reads_client,
                upstream.as_ref(),
                reads_upstream,
                is_idle,
            )
        });
        let mut are_gone = false;
        let dialled = poll_fn(|cx| {
            entry.handle.waker.register(cx.waker());
            if entry.plane.generation() != *seen {
                return Poll::Ready(Ok(None));
            }
            if let Some(dialling) = dial
                && let Poll::Ready(stream) = dialling.as_mut().poll(cx)
            {
                *dial = None;
                return Poll::Ready(stream.map(Some));
            }
            if let Some(watch) = &mut watch
                && let Poll::Ready(gone) = watch.poll(cx)
            {
                are_gone = true;
                return Poll::Ready(gone.map(|()| None));
            }
            let mut ready = up.wants.read && client.tcp().poll_read_ready(cx).is_ready();
            ready |= down.wants.write && client.tcp().poll_write_ready(cx).is_ready();
            if let Some(upstream) = upstream.as_ref() {
                ready |= down.wants.read && upstream.tcp().poll_read_ready(cx).is_ready();
                ready |= up.wants.write && upstream.tcp().poll_write_ready(cx).is_ready();
            }
            if let Some(alarm) = alarm {
                ready |= alarm.sleep.as_mut().poll(cx).is_ready();
            }
            if ready {
                Poll::Ready(Ok(None))
            } else {
                Poll::Pending
            }
        })
        .await?;
        drop(watch);
        if are_gone {
            return Ok(Some(End::Close));
        }
        if self
            .alarm
            .as_ref()
            .is_some_and(|alarm| alarm.at <= clock::now())
        {
            self.alarm = None;
        }
        if let Some(stream) = dialled {
            self.upstream = Some(stream);
        }
        Ok(None)
    }

    fn set_alarm(&mut self, until: Option<Mono>) {
        if self.alarm.as_ref().map(|alarm| alarm.at) == until {
            return;
        }
        self.alarm = until.map(|at| {
            let timer = threads::timer().unwrap_or_else(|| self.entry.plane.timer.clone());
            let sleep = Box::pin(async move { timer.sleep_until(at).await });
            Alarm { at, sleep }
        });
    }

    fn broken(&self, error: &io::Error) -> End {
        if self.client.is_shaking_hands() && self.upstream.is_none() {
            // The alert that was sent is to be heard, which RST could prevent.
            return End::Close;
        }
        tracing::debug!(connection = self.entry.handle.ordinal, %error, "broken");
        End::Reset(None)
    }
}

/// What a turn asks for.
enum Step {
    /// Nothing more can be done now.
    Wait,
    /// There is more to do, after others had their turn.
    Again,
    /// What is known of the connection has changed.
    Decide,
    End(End),
}

impl Step {
    fn farewell(rule: &Arc<Rule>, frame: Vec<u8>) -> Self {
        Self::End(End::Parting(Parting::Farewell(Arc::clone(rule), frame)))
    }
}
