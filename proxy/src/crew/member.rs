//! One worker as its parent sees it: started, told, counted, and replaced when it has died.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use host::child::{Linked, SpawnError};
use serde_json::json;
use tokio::net::UnixStream;
use tokio::sync::Notify;

use super::Crew;
use super::wire::{Counts, Inbox, Order, Report, line, send};
use crate::tap::Way;

/// How long a worker may take to become ready.
const READY: Duration = Duration::from_secs(10);
/// How long it may take to end: its connections have a second and a half.
const GRACE: Duration = Duration::from_secs(3);
/// One that dies at once is not started again at once.
const AGAIN: Duration = Duration::from_secs(1);
/// Orders that may wait for a worker before it is given no connection more.
const QUEUE: usize = 256;

/// A worker, whichever process it is at the moment.
#[derive(Debug)]
pub(super) struct Member {
    index: usize,
    state: Mutex<State>,
    /// There is something to say to it.
    orders: Notify,
    /// It has answered, or another process has taken its place.
    answers: Notify,
    /// It did not answer in time.
    stuck: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Counts the processes.
    process: u64,
    /// It can be told something, and it can be given connections.
    is_there: bool,
    serves: bool,
    orders: VecDeque<(Vec<u8>, Option<OwnedFd>)>,
    /// Connections that it was given and has not reported the end of.
    open: u64,
    asked: u64,
    answered: u64,
    counts: BTreeMap<u64, Counts>,
}

/// What a worker has room for.
pub(super) struct Room {
    pub(super) seats: u64,
    pub(super) is_ready: bool,
}

impl Member {
    pub(super) fn new(index: usize) -> Self {
        Self {
            index,
            state: Mutex::default(),
            orders: Notify::new(),
            answers: Notify::new(),
            stuck: Notify::new(),
        }
    }

    pub(super) async fn start(&self, program: &Path) -> Result<Linked, SpawnError> {
        let config = json!({"worker": self.index});
        host::child::spawn_linked(program, &["proxy", "--worker"], &config, READY).await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, order: &Order, carried: Option<OwnedFd>) {
        let mut state = self.state();
        if state.is_there {
            state.open += u64::from(carried.is_some());
            state.orders.push_back((line(order), carried));
            drop(state);
            self.orders.notify_one();
        }
    }

    /// Tells it something, if it is there: when it comes back it is told everything.
    pub(super) fn tell(&self, order: &Order) {
        self.push(order, None);
    }

    /// Has it forget a plane.
    pub(super) fn forget(&self, plane: u64) {
        self.state().counts.remove(&plane);
        self.tell(&Order::Forget { plane });
    }

    /// Gives it a connection.
    pub(super) fn serve(&self, order: &Order, client: OwnedFd) {
        self.push(order, Some(client));
    }

    /// Connections that it has; `None` while it can be given none.
    pub(super) fn open(&self) -> Option<u64> {
        let state = self.state();
        state.serves.then_some(state.open)
    }

    pub(super) fn serves(&self) -> bool {
        self.state().serves
    }

    pub(super) fn room(&self, capacity: u64) -> Room {
        let state = self.state();
        let seats = if state.serves {
            capacity.saturating_sub(state.open)
        } else {
            0
        };
        Room {
            seats,
            is_ready: seats > 0 && state.orders.len() < QUEUE,
        }
    }

    /// Waits until it has done what it was told, or another process has taken its place. It has so long.
    pub(super) async fn catch_up(&self, limit: Duration) {
        let (process, number) = {
            let mut state = self.state();
            if !state.is_there {
                return;
            }
            state.asked += 1;
            (state.process, state.asked)
        };
        self.tell(&Order::Answer { number });
        let caught_up = async {
            loop {
                let answer = self.answers.notified();
                let mut answer = std::pin::pin!(answer);
                answer.as_mut().enable();
                {
                    let state = self.state();
                    if !state.is_there || state.process != process || state.answered >= number {
                        return;
                    }
                }
                answer.await;
            }
        };
        if tokio::time::timeout(limit, caught_up).await.is_err() {
            tracing::warn!(
                worker = self.index,
                ?limit,
                "a worker did not take a change on; it is replaced"
            );
            self.stuck.notify_one();
        }
    }

    /// Says what there is to say.
    async fn write(&self, crew: &Crew, link: &UnixStream) -> io::Result<()> {
        loop {
            let (next, left) = {
                let mut state = self.state();
                (state.orders.pop_front(), state.orders.len())
            };
            let Some((message, carried)) = next else {
                self.orders.notified().await;
                continue;
            };
            if left + 1 == QUEUE {
                crew.room.notify_one();
            }
            send(link, &message, carried.as_ref()).await?;
        }
    }

    /// Hears what it reports until it ends.
    async fn read(&self, crew: &Crew, link: Arc<UnixStream>) -> io::Result<()> {
        let mut inbox = Inbox::new(link);
        while let Some(report) = inbox.next::<Report>().await? {
            let changes: Vec<_> = {
                let mut state = self.state();
                state.open = state.open.saturating_sub(report.ended);
                let counts = report.counts.into_iter();
                counts
                    .map(|(plane, now)| (plane, state.counts.insert(plane, now), now))
                    .collect()
            };
            // Not under the lock: who changes a plane's rules holds theirs and then takes this one.
            for (plane, before, now) in changes {
                add_up(crew, plane, before.unwrap_or_default(), now);
            }
            if let Some(number) = report.answers {
                self.state().answered = number;
            }
            if report.ended > 0 {
                crew.room.notify_one();
            }
            if report.answers.is_some() {
                self.answers.notify_waiters();
            }
        }
        Ok(())
    }

    /// A process has taken the place: it is told everything, and then given connections.
    fn install(&self, crew: &Crew) {
        {
            let mut state = self.state();
            *state = State {
                process: state.process + 1,
                is_there: true,
                ..State::default()
            };
        }
        let ids: Vec<u64> = crew.planes().keys().copied().collect();
        for id in ids {
            let Some(plane) = crew.plane(id) else {
                continue;
            };
            plane.relayed(|relay, rules, ended| relay.tell_one(self, rules, ended));
        }
        self.state().serves = true;
        crew.room.notify_one();
    }

    /// Its process is gone: how many connections with it.
    fn uninstall(&self, crew: &Crew) -> u64 {
        let before = {
            let mut state = self.state();
            let process = state.process;
            std::mem::replace(
                &mut *state,
                State {
                    process,
                    ..State::default()
                },
            )
        };
        for (plane, counts) in before.counts {
            add_up(crew, plane, counts, Counts { open: 0, ..counts });
        }
        self.answers.notify_waiters();
        before.open
    }
}

/// Adds to a plane's counters what a worker has counted since `before`.
fn add_up(crew: &Crew, plane: u64, before: Counts, now: Counts) {
    let Some(plane) = crew.plane(plane) else {
        return;
    };
    let counters = &plane.counters;
    for (counter, before, now) in [
        (
            counters.received(Way::Upstream),
            before.received.0,
            now.received.0,
        ),
        (
            counters.received(Way::Downstream),
            before.received.1,
            now.received.1,
        ),
        (counters.bytes(Way::Upstream), before.sent.0, now.sent.0),
        (counters.bytes(Way::Downstream), before.sent.1, now.sent.1),
    ] {
        counter.fetch_add(now.saturating_sub(before), Ordering::Relaxed);
    }
    plane.relayed(|relay, _, _| {
        relay.open.fetch_add(now.open, Ordering::Relaxed);
        relay.open.fetch_sub(before.open, Ordering::Relaxed);
    });
}

/// Sees to it that there is a process, beginning with this one, until the crew ends.
pub(super) async fn attend(member: Arc<Member>, crew: Arc<Crew>, first: Linked) {
    let mut next = Some(first);
    loop {
        let born = Instant::now();
        if let Some(linked) = next.take()
            && work(&member, &crew, linked).await
        {
            return;
        }
        let pause = if born.elapsed() < AGAIN {
            AGAIN
        } else {
            Duration::ZERO
        };
        tokio::select! {
            () = crew.ends.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        match member.start(&crew.program).await {
            Ok(linked) => next = Some(linked),
            Err(error) => {
                tracing::error!(worker = member.index, %error, "a worker cannot be started again");
            }
        }
    }
}

/// Works with one process until it ends; `true` when that is because the crew does.
async fn work(member: &Member, crew: &Crew, linked: Linked) -> bool {
    let Linked {
        ready,
        mut process,
        link,
    } = linked;
    let link = Arc::new(link);
    member.install(crew);
    let ends = tokio::select! {
        () = crew.ends.cancelled() => true,
        _ = member.write(crew, &link) => false,
        _ = member.read(crew, Arc::clone(&link)) => false,
        () = member.stuck.notified() => false,
    };
    let connections = member.uninstall(crew);
    // Its stdin: it ends with it.
    drop(link);
    if ends && tokio::time::timeout(GRACE, process.wait()).await.is_ok() {
        return true;
    }
    let _ = process.start_kill();
    let status = process
        .wait()
        .await
        .map_or_else(|error| error.to_string(), |status| status.to_string());
    if ends {
        tracing::warn!(
            worker = member.index,
            pid = ready.pid,
            "a worker did not end with its stdin; killed"
        );
    } else {
        tracing::warn!(
            worker = member.index,
            pid = ready.pid,
            status,
            connections,
            "a worker has died; its connections are gone, and it is started again"
        );
    }
    ends
}
