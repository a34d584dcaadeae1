//! Open-loop publishing: the schedule is fixed up front, one writer per stream keeps to it, and what is due while the
//! lane is away waits in order. Nothing due is dropped, and nothing is sent twice as two events: after a conflict or a
//! broken connection the writer re-reads the head and submits the same key again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use host::clock;
use host::timer::Timer;
use model::event::{Event, Origin};
use model::histogram::Micros;
use model::ids::{Seq, StreamId};
use model::instant::Mono;
use model::quantity::{Rate, Span};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ledger::{Book, Outcome};
use crate::store::{AppendError, Store};

/// Between attempts while the lane does not take an event.
const PACE: Duration = Duration::from_millis(75);
/// How long, after the order to stop, an event whose outcome is open may still be settled.
const SETTLE: Duration = Duration::from_millis(1_500);

/// A stream to be published to.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// Its name.
    pub stream: StreamId,
    /// Events per second.
    pub rate: Rate,
    /// The first event is due.
    pub first: Mono,
}

impl Schedule {
    /// The instant of an event; `None` for a rate of zero.
    fn due(&self, index: u64) -> Option<Mono> {
        let per_second = self.rate.as_per_second();
        (per_second > 0.0).then(|| self.first + Span::from_secs(1).scale(index as f64 / per_second))
    }
}

/// What all writers share.
#[derive(Debug, Clone)]
pub struct Press {
    /// What to write.
    pub origin: Origin,
    /// Where to.
    pub store: Store,
    /// When.
    pub timer: Timer,
    /// Actual less intended send.
    pub send_lag: Arc<Mutex<Micros>>,
    /// The order to stop.
    pub stop: CancellationToken,
}

/// The writers of a shard.
#[derive(Debug)]
pub struct Publisher {
    press: Press,
    book: Arc<Book>,
    writers: TaskTracker,
}

impl Publisher {
    /// None yet.
    #[must_use]
    pub fn new(press: Press) -> Self {
        Self {
            press,
            book: Arc::default(),
            writers: TaskTracker::new(),
        }
    }

    /// The ledger.
    #[must_use]
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// Writes a stream from now on. One that is not `accounted` for serves probes only: its events are in no ledger.
    pub fn write(&self, schedule: Schedule, accounted: bool) {
        let writer = Writer {
            press: self.press.clone(),
            book: accounted.then(|| Arc::clone(&self.book)),
            head: None,
            acknowledged: 0,
            deadline: None,
        };
        self.writers.spawn(writer.run(schedule));
    }

    /// Stops all writers, and waits until what they had begun is settled or given up.
    pub async fn stop(&self) {
        self.press.stop.cancel();
        self.writers.close();
        self.writers.wait().await;
    }
}

struct Writer {
    press: Press,
    book: Option<Arc<Book>>,
    /// The head as far as it is known.
    head: Option<Seq>,
    /// The last seq acknowledged to this writer.
    acknowledged: Seq,
    /// When to give up, once the order to stop has come.
    deadline: Option<Instant>,
}

impl Writer {
    async fn run(mut self, schedule: Schedule) {
        let mut idle = true;
        for index in 0.. {
            let Some(due) = schedule.due(index) else {
                return;
            };
            tokio::select! {
                biased;
                () = self.press.stop.cancelled() => return,
                () = self.press.timer.sleep_until(due) => {}
            }
            let begun = clock::now();
            if idle && self.head.is_some() {
                let mut lag = self
                    .press
                    .send_lag
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                lag.record(begun.since(due));
            }
            let event = self.press.origin.event(&schedule.stream, index, due);
            if let Some(book) = &self.book {
                book.invoke(&schedule.stream, index);
            }
            let outcome = self.publish(&event).await;
            if let Some(book) = &self.book {
                book.settle(&schedule.stream, index, outcome);
            }
            // An event that queued behind this one says nothing about the punctuality of the harness.
            idle = schedule
                .due(index + 1)
                .is_some_and(|next| clock::now() < next);
        }
    }

    async fn publish(&mut self, event: &Event) -> Outcome {
        let mut unsettled = false;
        loop {
            match self.attempt(event, unsettled).await {
                Ok(seq) => {
                    self.head = Some(seq);
                    self.acknowledged = seq;
                    return Outcome::Acknowledged(seq);
                }
                Err(error) => {
                    tracing::debug!(key = event.key, %error, "not acknowledged");
                    self.head = None;
                    unsettled |= matches!(error, AppendError::Unknown(_));
                    if !matches!(error, AppendError::Conflict(_)) && self.give_up().await {
                        return if unsettled {
                            Outcome::Unknown
                        } else {
                            Outcome::Failed
                        };
                    }
                }
            }
        }
    }

    async fn attempt(&mut self, event: &Event, unsettled: bool) -> Result<Seq, AppendError> {
        let not_sent = AppendError::NotSent;
        if unsettled {
            let store = &self.press.store;
            let found = store
                .find(&event.stream, &event.key, self.acknowledged)
                .await;
            if let Some(seq) = found.map_err(not_sent)? {
                return Ok(seq);
            }
        }
        let head = match self.head {
            Some(head) => head,
            None => {
                self.press
                    .store
                    .head(&event.stream)
                    .await
                    .map_err(not_sent)?
                    .0
            }
        };
        self.press.store.append(event, head + 1).await
    }

    /// Waits a little; `true` once the order to stop has come and its grace is over.
    async fn give_up(&mut self) -> bool {
        if self.deadline.is_none() {
            tokio::select! {
                () = self.press.stop.cancelled() => self.deadline = Some(Instant::now() + SETTLE),
                () = tokio::time::sleep(PACE) => {}
            }
            return false;
        }
        tokio::time::sleep(PACE).await;
        self.deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
    }
}
