//! Worker processes, for more connections than one process has descriptors for.
//!
//! ```text
//! wire    what parent and worker say to each other, over the socket that is a worker's stdin
//! member  one worker as its parent sees it: started, told, counted, replaced
//! worker  the worker's own side
//! ```
//!
//! The parent has the API, the listeners and the rules, and no connection. What it accepts it hands over, as a descriptor, to
//! the worker with the fewest connections; it counts them, so that a connection has the number that it would have in one
//! process, and decisions are the same. It could have workers accept by themselves from a shared listener, which saves the
//! parent some micro-seconds for each connection, but then numbers would depend on who was faster, a limit on connecting
//! would be cut into pieces, and one worker could take all of a quiet proxy's connections.
//!
//! Each change of a plane's rules goes to all workers as the whole state of that plane, in the same queue as the connections:
//! a connection that was accepted after a change is served by it. A worker that does not take a change on in time is killed
//! like one that has died, and its successor begins with the state that there is. So no change is ever half made, and none has
//! to be taken back.

mod member;
mod wire;
mod worker;

use std::collections::BTreeMap;
use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::member::Member;
use self::wire::Order;
pub use self::worker::main as worker;
use crate::faults::Rules;
use crate::plane::Plane;
use crate::seats::{Usher, capacity};
use crate::toxics::Slots;

/// How long a worker may take to take a change on.
const TAKE_ON: Duration = Duration::from_secs(5);

/// The workers of a standalone proxy.
#[derive(Debug)]
pub struct Crew {
    program: PathBuf,
    members: Vec<Arc<Member>>,
    planes: Mutex<BTreeMap<u64, Weak<Plane>>>,
    enlisted: AtomicU64,
    /// Connections that one worker can have.
    capacity: u64,
    usher: Usher,
    /// There may be room again.
    room: Notify,
    ends: CancellationToken,
    attending: TaskTracker,
}

impl Crew {
    /// Starts so many workers: `program proxy --worker`.
    ///
    /// # Errors
    /// One of them does not become ready.
    pub async fn start(program: &Path, workers: usize) -> io::Result<Arc<Self>> {
        let crew = Arc::new(Self {
            program: program.to_owned(),
            members: (1..=workers)
                .map(|index| Arc::new(Member::new(index)))
                .collect(),
            planes: Mutex::default(),
            enlisted: AtomicU64::new(0),
            capacity: capacity(),
            usher: Usher::default(),
            room: Notify::new(),
            ends: CancellationToken::new(),
            attending: TaskTracker::new(),
        });
        let starting = crew
            .members
            .iter()
            .map(|member| member.start(&crew.program));
        let started = join_all(starting).await;
        for (member, started) in crew.members.iter().zip(started) {
            let process = started.map_err(io::Error::other)?;
            let attends = member::attend(Arc::clone(member), Arc::clone(&crew), process);
            crew.attending.spawn(attends);
        }
        Ok(crew)
    }

    /// Ends all workers, and waits until they have.
    pub(crate) async fn end(&self) {
        self.ends.cancel();
        self.attending.close();
        self.attending.wait().await;
    }

    fn planes(&self) -> MutexGuard<'_, BTreeMap<u64, Weak<Plane>>> {
        self.planes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A plane whose connections the workers have.
    pub(crate) fn enlist(self: &Arc<Self>, plane: Weak<Plane>) -> Relay {
        let id = self.enlisted.fetch_add(1, Ordering::Relaxed);
        self.planes().insert(id, plane);
        Relay {
            crew: Arc::clone(self),
            id,
            open: AtomicU64::new(0),
        }
    }

    fn plane(&self, id: u64) -> Option<Arc<Plane>> {
        self.planes().get(&id).and_then(Weak::upgrade)
    }

    /// Waits until every worker has done what it was told before, and its counts are here. One that does not is replaced.
    pub(crate) async fn catch_up(&self) {
        join_all(self.members.iter().map(|member| member.catch_up(TAKE_ON))).await;
    }

    /// Waits until a worker has room for a connection.
    async fn room(&self) {
        loop {
            let room = self.room.notified();
            let (mut free, mut is_ready, mut all) = (0, false, 0);
            for member in &self.members {
                let has = member.room(self.capacity);
                (free, is_ready) = (free + has.seats, is_ready || has.is_ready);
                all += self.capacity;
            }
            if self.members.iter().all(|member| member.serves()) {
                self.usher.look(free, all);
            }
            if is_ready {
                // Another listener may wait for the same.
                self.room.notify_one();
                return;
            }
            room.await;
        }
    }
}

/// A plane's way to the workers.
#[derive(Debug)]
pub(crate) struct Relay {
    crew: Arc<Crew>,
    id: u64,
    /// Connections that the workers have of it, as last heard.
    pub(crate) open: AtomicU64,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.crew.planes().remove(&self.id);
        for member in &self.crew.members {
            member.forget(self.id);
        }
    }
}

impl Relay {
    /// Tells all workers the rules of the plane. To be called in the order of the changes.
    pub(crate) fn tell(&self, rules: &Rules, ended: u64) {
        let order = Order::rules(self.id, rules, ended);
        for member in &self.crew.members {
            member.tell(&order);
        }
    }

    fn tell_one(&self, member: &Member, rules: &Rules, ended: u64) {
        member.tell(&Order::rules(self.id, rules, ended));
    }

    /// Waits until a worker has room for a connection.
    pub(crate) async fn room(&self) {
        self.crew.room().await;
    }

    /// Hands a connection over to the worker that has the fewest. Where there is none any more it is closed.
    pub(crate) fn hand_over(
        &self,
        client: TcpStream,
        ordinal: u64,
        upstream: String,
        slots: &Slots,
    ) {
        let order = Order::serve(self.id, ordinal, upstream, slots);
        let fewest = self
            .crew
            .members
            .iter()
            .filter_map(|member| Some((member.open()?, member)))
            .min_by_key(|(open, _)| *open);
        if let Some((_, member)) = fewest {
            member.serve(&order, client.into());
        } else {
            tracing::warn!("no worker is there; a connection is closed");
        }
    }
}
