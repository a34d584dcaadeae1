//! Durable streams. One append-only file of JSON lines holds the events and checkpoints of all streams; what is
//! served lies in memory. An append is acknowledged, and shown to subscribers, when it is on disk; one sync serves
//! all appends that wait for it (group commit), on a thread of its own.
//!
//! Idempotency comes first: a key that is known is accepted, whatever else the append says. Then the expected seq is
//! checked. Events can be removed by their keys; no seq is used again for it. The file is never compacted: a log lives as
//! long as a drill.

mod commit;
mod record;
mod stream;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use lanes::spacetime::rows::{StreamCheckpoint, SyncEvent};
use model::ids::{Seq, StreamId};
use tokio::sync::oneshot;

pub use record::Record;
pub use stream::{Budget, Stream, Window};

/// When an append is on disk, as seen from its acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Before it.
    Synced,
    /// So long after it: a kill loses what is younger.
    Late(Duration),
    /// Never: the log is empty after a restart, and what the file may hold is not read.
    Never,
}

/// Whoever is shown what was committed, in order. It is called with the log locked, so that a subscription made
/// under [`Log::lock`] misses nothing and gets nothing twice.
pub trait Audience: Send + 'static {
    /// What comes with an append and is handed on: whose call it was.
    type Tag: Send + std::fmt::Debug;

    /// A record was committed; `log` already holds it.
    fn committed(&mut self, streams: &Streams, change: &Change, tag: Self::Tag);
}

/// A committed record and what it replaced.
#[derive(Debug)]
pub enum Change {
    /// An event.
    Event {
        /// The event.
        event: Arc<SyncEvent>,
        /// When the stream's head had last changed before; `None` for its first event.
        head_before_ms: Option<u64>,
        /// When it changed now, in milli-seconds since the Unix epoch.
        at_ms: u64,
    },
    /// A checkpoint.
    Checkpoint {
        /// The row.
        row: Arc<StreamCheckpoint>,
        /// The row with the same key that it replaced.
        before: Option<Arc<StreamCheckpoint>>,
    },
}

/// What became of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The event's seq.
    pub seq: Seq,
    /// The key was known and nothing was appended.
    pub duplicate: bool,
}

/// Why an append was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Another seq is next. The text is the sync module's.
    #[error("sequence_conflict expected_next_seq={expected} actual_next_seq={actual}")]
    Conflict {
        /// What the publisher expected.
        expected: Seq,
        /// What is next.
        actual: Seq,
    },
    /// The disk refused it; nothing was appended.
    #[error("the log could not be written: {0}")]
    Disk(String),
    /// The server is ending; whether it was appended is unknown.
    #[error("the log is closed")]
    Closed,
}

/// The streams and checkpoints that a log holds.
#[derive(Debug, Default)]
pub struct Streams {
    by_name: BTreeMap<StreamId, Stream>,
    checkpoints: BTreeMap<String, Arc<StreamCheckpoint>>,
    budget: Budget,
    own_budgets: BTreeMap<StreamId, Budget>,
    none: Stream,
}

impl Streams {
    /// A stream; an empty one where nothing was ever appended.
    #[must_use]
    pub fn get(&self, stream: &str) -> &Stream {
        self.by_name.get(stream).unwrap_or(&self.none)
    }

    /// A stream's window, with its own budget even where nothing was ever appended.
    #[must_use]
    pub fn window(&self, stream: &str) -> Window {
        self.get(stream).window(self.budget_of(stream))
    }

    /// Every stream by name.
    pub fn iter(&self) -> impl Iterator<Item = (&StreamId, &Stream)> {
        self.by_name.iter()
    }

    /// Every checkpoint by key.
    pub fn checkpoints(&self) -> impl Iterator<Item = &Arc<StreamCheckpoint>> {
        self.checkpoints.values()
    }

    fn budget_of(&self, stream: &str) -> Budget {
        self.own_budgets.get(stream).copied().unwrap_or(self.budget)
    }

    /// Which of these keys are those of events that are still there.
    fn held(&self, stream: Option<&StreamId>, keys: &[String]) -> Vec<String> {
        let keys: HashSet<&String> = keys.iter().collect();
        let all = self.by_name.iter();
        all.filter(|(name, _)| stream.is_none_or(|own| own == *name))
            .flat_map(|(_, stream)| stream.after(0))
            .filter(|event| keys.contains(&event.idempotency_key))
            .map(|event| event.idempotency_key.clone())
            .collect()
    }

    /// Applies a record. A removal is told to nobody: whoever subscribes later does not find what was removed.
    fn apply(&mut self, record: &Record) -> Option<Change> {
        Some(match record {
            Record::Removed { stream_id, keys } => {
                let keys: HashSet<&str> = keys.iter().map(String::as_str).collect();
                let all = self.by_name.iter_mut();
                let streams =
                    all.filter(|(name, _)| stream_id.as_ref().is_none_or(|own| own == *name));
                streams.for_each(|(_, stream)| stream.remove(&keys));
                return None;
            }
            Record::Event { event, at_ms } => {
                let budget = self.budget_of(&event.stream_id);
                let stream = self.by_name.entry(event.stream_id.clone()).or_default();
                let head_before_ms = stream.push(Arc::clone(event), *at_ms, budget.retention);
                Change::Event {
                    event: Arc::clone(event),
                    head_before_ms,
                    at_ms: *at_ms,
                }
            }
            Record::Checkpoint { row } => Change::Checkpoint {
                row: Arc::clone(row),
                before: self
                    .checkpoints
                    .insert(row.checkpoint_key.clone(), Arc::clone(row)),
            },
        })
    }
}

/// A log's settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// When an append is on disk.
    pub durability: Durability,
    /// What streams keep.
    pub budget: Budget,
    /// What some of them keep instead.
    pub own_budgets: BTreeMap<StreamId, Budget>,
}

/// A log with its audience. Dropping it writes what is still to be written.
#[derive(Debug)]
pub struct Log<A: Audience> {
    shared: Arc<Shared<A>>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared<A: Audience> {
    state: Mutex<State<A>>,
    wake: Condvar,
    durability: Durability,
}

/// What is behind the log's lock.
#[derive(Debug)]
pub struct State<A: Audience> {
    /// What was committed.
    pub streams: Streams,
    /// Who is shown it.
    pub audience: A,
    /// Every key ever appended.
    keys: HashMap<String, Key>,
    /// The seq after which the next is taken, where it is ahead of the committed head.
    assigned: HashMap<StreamId, Seq>,
    pending: VecDeque<Pending<A::Tag>>,
    closed: bool,
}

type Waiter = oneshot::Sender<Result<Appended, AppendError>>;

/// A key that was appended.
#[derive(Debug)]
struct Key {
    seq: Seq,
    /// Whether its event was acknowledged: a repetition is not, before it is.
    settled: bool,
    /// Repetitions that wait for that.
    repeats: Vec<Waiter>,
}

impl Key {
    const fn new(seq: Seq, settled: bool) -> Self {
        Self {
            seq,
            settled,
            repeats: Vec::new(),
        }
    }
}

#[derive(Debug)]
struct Pending<T> {
    record: Record,
    tag: Option<T>,
    waiter: Option<Waiter>,
    /// For [`Durability::Late`]: when it was acknowledged.
    since: std::time::Instant,
}

impl<A: Audience> Log<A> {
    /// Opens the log `path` or makes it, and reads what it holds; a torn last line is cut off.
    ///
    /// # Errors
    /// The file cannot be read or written, or a line other than the last is not a record.
    pub fn open(path: &Path, settings: Settings, audience: A) -> io::Result<Self> {
        let mut state = State {
            streams: Streams {
                budget: settings.budget,
                own_budgets: settings.own_budgets,
                ..Streams::default()
            },
            audience,
            keys: HashMap::new(),
            assigned: HashMap::new(),
            pending: VecDeque::new(),
            closed: false,
        };
        let appender = if settings.durability == Durability::Never {
            None
        } else {
            let appender = host::jsonl::Appender::open(path)?;
            for record in host::jsonl::read::<Record>(path)?.values {
                if let Record::Event { event, .. } = &record {
                    let key = Key::new(event.seq, true);
                    state.keys.insert(event.idempotency_key.clone(), key);
                }
                state.forget(&record);
                state.streams.apply(&record);
            }
            Some(appender)
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            wake: Condvar::new(),
            durability: settings.durability,
        });
        let writer = match appender {
            None => None,
            Some(appender) => {
                let shared = Arc::clone(&shared);
                let write = move || commit::run(&shared, appender);
                Some(
                    std::thread::Builder::new()
                        .name("log".to_owned())
                        .spawn(write)?,
                )
            }
        };
        Ok(Self { shared, writer })
    }

    /// The streams and the audience, between two commits. Not to be held across an await.
    pub fn lock(&self) -> MutexGuard<'_, State<A>> {
        self.shared.lock()
    }

    /// Appends an event: its own `seq` is ignored, `expected` is what it has to be. Waits until it is acknowledged.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub async fn append(
        &self,
        event: SyncEvent,
        expected: Option<Seq>,
        tag: A::Tag,
    ) -> Result<Appended, AppendError> {
        let answer = self
            .lock()
            .append(event, expected, tag, self.shared.durability);
        self.settled(answer).await
    }

    /// Removes the events with these keys, from one stream or from all. Waits until that is acknowledged.
    ///
    /// # Errors
    /// [`AppendError::Disk`] and [`AppendError::Closed`].
    pub async fn remove(
        &self,
        stream_id: Option<StreamId>,
        keys: &[String],
        tag: A::Tag,
    ) -> Result<(), AppendError> {
        let answer = {
            let mut state = self.lock();
            let keys = state.streams.held(stream_id.as_ref(), keys);
            if keys.is_empty() {
                return Ok(());
            }
            let record = Record::Removed { stream_id, keys };
            state.submit(record, tag, self.shared.durability)
        };
        self.settled(answer).await.map(drop)
    }

    /// Stores a checkpoint, replacing the one with its key. Waits until it is acknowledged.
    ///
    /// # Errors
    /// [`AppendError::Disk`] and [`AppendError::Closed`].
    pub async fn checkpoint(&self, row: StreamCheckpoint, tag: A::Tag) -> Result<(), AppendError> {
        let record = Record::Checkpoint { row: Arc::new(row) };
        let answer = self.lock().submit(record, tag, self.shared.durability);
        self.settled(answer).await.map(drop)
    }

    async fn settled(&self, answer: Answer) -> Result<Appended, AppendError> {
        match answer {
            Answer::Now(answer) => answer,
            Answer::Later(answer) => {
                self.shared.wake.notify_one();
                answer.await.unwrap_or(Err(AppendError::Closed))
            }
        }
    }
}

impl<A: Audience> Drop for Log<A> {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_one();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl<A: Audience> Shared<A> {
    fn lock(&self) -> MutexGuard<'_, State<A>> {
        // A panic in an audience leaves the streams whole: they change before it is called.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Answer {
    Now(Result<Appended, AppendError>),
    Later(oneshot::Receiver<Result<Appended, AppendError>>),
}

impl<A: Audience> State<A> {
    fn append(
        &mut self,
        mut event: SyncEvent,
        expected: Option<Seq>,
        tag: A::Tag,
        durability: Durability,
    ) -> Answer {
        // A known key is accepted, but not before its first append is.
        if let Some(key) = self.keys.get_mut(&event.idempotency_key) {
            if !key.settled {
                let (sender, receiver) = oneshot::channel();
                key.repeats.push(sender);
                return Answer::Later(receiver);
            }
            return Answer::Now(Ok(Appended {
                seq: key.seq,
                duplicate: true,
            }));
        }
        let head = self.streams.get(&event.stream_id).head();
        let actual = self
            .assigned
            .get(&event.stream_id)
            .map_or(head, |last| *last.max(&head))
            + 1;
        if let Some(expected) = expected.filter(|expected| *expected != actual) {
            return Answer::Now(Err(AppendError::Conflict { expected, actual }));
        }
        event.seq = actual;
        let key = Key::new(actual, durability != Durability::Synced);
        self.keys.insert(event.idempotency_key.clone(), key);
        self.assigned.insert(event.stream_id.clone(), actual);
        let record = Record::Event {
            event: Arc::new(event),
            at_ms: host::clock::unix_micros() / 1_000,
        };
        self.submit(record, tag, durability)
    }

    fn submit(&mut self, record: Record, tag: A::Tag, durability: Durability) -> Answer {
        if self.closed {
            return Answer::Now(Err(AppendError::Closed));
        }
        let mut pending = Pending {
            record,
            tag: Some(tag),
            waiter: None,
            since: std::time::Instant::now(),
        };
        if durability == Durability::Synced {
            let (sender, receiver) = oneshot::channel();
            pending.waiter = Some(sender);
            self.pending.push_back(pending);
            return Answer::Later(receiver);
        }
        let seq = self.commit(&mut pending);
        if durability != Durability::Never {
            self.pending.push_back(pending);
        }
        Answer::Now(Ok(Appended {
            seq,
            duplicate: false,
        }))
    }

    /// Forgets the keys of what is removed: they may be appended again.
    fn forget(&mut self, record: &Record) {
        if let Record::Removed { keys, .. } = record {
            for key in keys {
                self.keys.remove(key);
            }
        }
    }

    /// Makes a record visible. Its seq; 0 for what is no event.
    fn commit(&mut self, pending: &mut Pending<A::Tag>) -> Seq {
        self.forget(&pending.record);
        let change = self.streams.apply(&pending.record);
        if let Some((change, tag)) = change.zip(pending.tag.take()) {
            self.audience.committed(&self.streams, &change, tag);
        }
        pending.record.seq()
    }

    /// Answers everyone who waits for a record. One that never reached the disk is forgotten.
    fn answer(&mut self, pending: Pending<A::Tag>, outcome: &Result<(), AppendError>) {
        let seq = pending.record.seq();
        let mut repeats = Vec::new();
        if let Record::Event { event, .. } = &pending.record {
            if outcome.is_err() {
                self.assigned.remove(&event.stream_id);
                if let Some(key) = self.keys.remove(&event.idempotency_key) {
                    repeats = key.repeats;
                }
            } else if let Some(key) = self.keys.get_mut(&event.idempotency_key) {
                key.settled = true;
                repeats = std::mem::take(&mut key.repeats);
            }
        }
        let waiters = pending.waiter.into_iter().map(|first| (first, false));
        for (waiter, duplicate) in waiters.chain(repeats.into_iter().map(|other| (other, true))) {
            // One that no longer waits has gone with its connection.
            let _ = waiter.send(outcome.clone().map(|()| Appended { seq, duplicate }));
        }
    }
}
