//! Open-loop publishing: the schedule is fixed up front, one writer per stream keeps to it, and what is due while the
//! lane is away waits in order. Nothing due is dropped, and nothing is sent twice as two events: after a conflict or a
//! broken connection the writer re-reads the head and submits the same key again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use host::clock;
use host::timer::Timer;
use model::event::{Event, Origin};
use model::histogram::Micros;
use model::ids::{Seq, StreamId};
use model::schedule::Schedule;
use model::shard::Ledger;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ledger::{Book, Outcome};
use crate::pipeline::{self, Pipeline};
use crate::store::{AppendError, Store};

/// Between attempts while the lane does not take an event.
const PACE: Duration = Duration::from_millis(75);
/// So many conflicts in a row are answered at once, as long as the head moves on: somebody else writes the stream too, and
/// the next attempt may well be first.
const CONTENDED: u32 = 16;
/// How long the answers to a burst may take in all; the lane may be held, or half dead.
const TOGETHER_WITHIN: Duration = Duration::from_secs(5);
/// How long, after the order to stop, an event whose outcome is open may still be settled.
const SETTLE: Duration = Duration::from_millis(1_500);

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
    submitted: Submitted,
    writers: TaskTracker,
}

/// How many events were begun, by stream: all those with a lower index may be there.
type Submitted = Arc<Mutex<BTreeMap<StreamId, u64>>>;

impl Publisher {
    /// None yet.
    #[must_use]
    pub fn new(press: Press) -> Self {
        Self {
            press,
            book: Arc::default(),
            submitted: Arc::default(),
            writers: TaskTracker::new(),
        }
    }

    /// The ledger.
    #[must_use]
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// How many events were begun, by stream, of those streams too that are in no ledger.
    #[must_use]
    pub fn submitted(&self) -> BTreeMap<StreamId, u64> {
        lock(&self.submitted).clone()
    }

    /// The whole ledger.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        Ledger {
            origin: Some(self.press.origin.clone()),
            streams: self.book.streams(),
        }
    }

    /// Writes a stream from now on. One that is not `accounted` for serves probes only: its events are in no ledger.
    pub fn write(&self, stream: StreamId, schedule: Schedule, accounted: bool) {
        if accounted {
            self.book.open(&stream, schedule);
        }
        let writer = Writer {
            press: self.press.clone(),
            book: accounted.then(|| Arc::clone(&self.book)),
            submitted: Arc::clone(&self.submitted),
            head: None,
            acknowledged: 0,
            tried: 0,
            deadline: None,
            pipeline: None,
        };
        self.writers.spawn(writer.run(stream, schedule));
    }

    /// Stops all writers, and waits until what they had begun is settled or given up.
    pub async fn stop(&self) {
        self.press.stop.cancel();
        self.writers.close();
        self.writers.wait().await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Writer {
    press: Press,
    book: Option<Arc<Book>>,
    submitted: Submitted,
    /// The head as far as it is known.
    head: Option<Seq>,
    /// The last seq acknowledged to this writer.
    acknowledged: Seq,
    /// The last seq that it asked for.
    tried: Seq,
    /// When to give up, once the order to stop has come.
    deadline: Option<Instant>,
    /// The connection for bursts.
    pipeline: Option<Pipeline>,
}

impl Writer {
    async fn run(mut self, stream: StreamId, schedule: Schedule) {
        let (mut idle, mut index) = (true, 0);
        loop {
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
                lock(&self.press.send_lag).record(begun.since(due));
            }
            let together = schedule.burst.map_or(1, |burst| {
                u64::from(burst.events.max(1)).min(pipeline::MOST as u64)
            });
            let events: Vec<Event> = (index..index + together)
                .take_while(|index| schedule.due(*index) == Some(due))
                .map(|index| self.press.origin.event(&stream, index, due))
                .collect();
            let next = index + events.len() as u64;
            lock(&self.submitted).insert(stream.clone(), next);
            for place in 0..events.len() as u64 {
                if let Some(book) = &self.book {
                    book.invoke(&stream, index + place);
                }
            }
            let mut done = 0;
            if events.len() > 1 {
                done = self.publish_together(index, &events).await;
            }
            // What is left of a burst that broke off may have been appended all the same.
            let unsettled = events.len() > 1;
            for (place, event) in (0..).zip(&events).skip(done) {
                let outcome = self.publish(event, unsettled).await;
                if let Some(book) = &self.book {
                    book.settle(&stream, index + place, outcome);
                }
            }
            index = next;
            // An event that queued behind this one says nothing about the punctuality of the harness.
            idle = schedule.due(index).is_some_and(|next| clock::now() < next);
        }
    }

    /// Sends events without waiting for each answer; how many of them were acknowledged, from the first on. The others
    /// may have been appended or not.
    async fn publish_together(&mut self, first_index: u64, events: &[Event]) -> usize {
        let mut done = 0;
        if let Err(error) = self.try_together(first_index, events, &mut done).await {
            tracing::debug!(%error, done, of = events.len(), "a burst broke off");
            (self.head, self.pipeline) = (None, None);
        }
        done
    }

    async fn try_together(
        &mut self,
        first_index: u64,
        events: &[Event],
        done: &mut usize,
    ) -> Result<(), AppendError> {
        let stream = &events[0].stream;
        let head = match self.head {
            Some(head) => head,
            None => self.read_head(stream).await?,
        };
        let store = &self.press.store;
        if self.pipeline.is_none() {
            self.pipeline = Pipeline::open(store).await?;
        }
        let Some(pipeline) = &mut self.pipeline else {
            return Ok(());
        };
        let (book, last) = (self.book.as_deref(), &mut self.acknowledged);
        let acknowledged = |place: usize, seq| {
            if let Some(book) = book {
                let index = first_index + place as u64;
                book.settle(stream, index, Outcome::Acknowledged(seq));
            }
            *last = seq;
            *done = place + 1;
        };
        let sent = pipeline.append(events, head.saturating_add(1), acknowledged);
        match tokio::time::timeout(TOGETHER_WITHIN, sent).await {
            Ok(appended) => appended?,
            Err(_) => return Err(AppendError::Unknown("no answers in time".to_owned())),
        }
        self.head = Some(self.acknowledged);
        Ok(())
    }

    /// `unsettled`: it may have been appended already.
    async fn publish(&mut self, event: &Event, mut unsettled: bool) -> Outcome {
        let (mut conflicts, mut refused) = (0, 0);
        loop {
            match self.attempt(event, unsettled).await {
                Ok(seq) => {
                    if unsettled && let Some(book) = &self.book {
                        book.repeated(&event.stream, event.index);
                    }
                    self.head = Some(seq);
                    self.acknowledged = seq;
                    return Outcome::Acknowledged(seq);
                }
                Err(error) => {
                    tracing::debug!(key = event.key, %error, "not acknowledged");
                    self.head = None;
                    unsettled |= matches!(error, AppendError::Unknown(_));
                    // A conflict is over with the head read anew, unless somebody was first again. A lane that conflicts
                    // about the same seq once more is one that is away.
                    let stale_head = matches!(error, AppendError::Conflict(_))
                        && self.tried > std::mem::replace(&mut refused, self.tried)
                        && conflicts < CONTENDED;
                    conflicts += 1;
                    if stale_head {
                        continue;
                    }
                    conflicts = 0;
                    if self.give_up().await {
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
        let head = match self.head {
            Some(head) => head,
            None => self.read_head(&event.stream).await?,
        };
        let store = &self.press.store;
        // After the head: should the open append be committed only now, then it is as the seq after that head, which
        // is what a repetition that changes nothing is taken to have.
        if unsettled {
            let found = store
                .find(&event.stream, &event.key, self.acknowledged)
                .await;
            if let Some(seq) = found? {
                return Ok(seq);
            }
        }
        self.tried = head.saturating_add(1);
        store.append(event, self.tried).await
    }

    /// What the lane says of its head. One that lies behind what it had acknowledged has gone back: an append of unknown
    /// outcome may then be found at a seq that was used before.
    async fn read_head(&mut self, stream: &str) -> Result<Seq, AppendError> {
        let (head, _) = self.press.store.head(stream).await?;
        self.acknowledged = self.acknowledged.min(head);
        Ok(head)
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

#[cfg(test)]
mod tests {
    use host::http::{Failure, Request, Response, StatusCode, serve};
    use host::net::listen;
    use host::peer::Peer;
    use model::ids::Lane;
    use model::intervals::IntervalSet;
    use model::quantity::{Rate, Span};
    use model::target::Access;

    use super::*;

    fn press(addr: std::net::SocketAddr, lane: Lane) -> Press {
        let origin = Origin {
            run: "r".to_owned(),
            seed: 7,
            padding: 0,
        };
        Press {
            origin,
            store: Store::new(
                lane,
                &Access::plain(addr, addr),
                Arc::new(Peer::plain(addr)),
                "publish",
            ),
            timer: Timer::start().unwrap(),
            send_lag: Arc::default(),
            stop: CancellationToken::new(),
        }
    }

    #[tokio::test]
    async fn a_busy_foreign_writer_neither_paces_the_publisher_down_nor_makes_it_give_up() {
        const FIRST_EACH_TIME: u32 = 100;
        let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
        let addr = listener.local_addr().unwrap();
        let head = Arc::new(Mutex::new((4_u64, 0_u32)));
        let lane = move |request: Request| {
            let head = Arc::clone(&head);
            async move {
                let (head, conflicts) = &mut *head.lock().unwrap();
                if request.method == "GET" {
                    return Response::json(&serde_json::json!({"head": *head, "floor": 0}));
                }
                *head += 1;
                if *conflicts < FIRST_EACH_TIME {
                    // Somebody else has just appended.
                    *conflicts += 1;
                    let text = format!(
                        "sequence_conflict expected_next_seq={head} actual_next_seq={}",
                        *head + 1
                    );
                    return Err(Failure::new(StatusCode::CONFLICT, text));
                }
                Response::json(&serde_json::json!({"seq": *head, "duplicate": false}))
            }
        };
        tokio::spawn(serve(listener, CancellationToken::new(), lane));
        let publisher = Publisher::new(press(addr));
        let schedule = Schedule {
            stream: "s".to_owned(),
            rate: Rate::per_second(100.0),
            burst: None,
            first: clock::now(),
        };
        let began = Instant::now();
        publisher.write(schedule, true);
        while publisher.book().counts().1 == 0 {
            let paced = PACE * (FIRST_EACH_TIME / 2);
            assert!(began.elapsed() < paced, "paced down by conflicts");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        publisher.stop().await;
        let ledger = &publisher.book().ledger().streams["s"];
        assert!(ledger.failed.is_empty() && ledger.unknown.is_empty());
        assert_eq!(ledger.acknowledged[0].0, 5 + u64::from(FIRST_EACH_TIME));
    }

    #[tokio::test]
    async fn a_lane_that_only_conflicts_is_asked_in_moderation_and_given_up_at_the_end() {
        let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
        let addr = listener.local_addr().unwrap();
        let appends = Arc::<Mutex<u32>>::default();
        let counted = Arc::clone(&appends);
        let lane = move |request: Request| {
            let appends = Arc::clone(&counted);
            async move {
                if request.method == "GET" {
                    return Response::json(&serde_json::json!({"head": 4, "floor": 0}));
                }
                *appends.lock().unwrap() += 1;
                let text = "sequence_conflict expected_next_seq=5 actual_next_seq=9";
                Err(Failure::new(StatusCode::CONFLICT, text))
            }
        };
        tokio::spawn(serve(listener, CancellationToken::new(), lane));
        let publisher = Publisher::new(press(addr, Lane::Khala));
        let schedule = Schedule {
            rate: Rate::per_second(100.0),
            burst: None,
            first: clock::now(),
        };
        publisher.write("s".to_owned(), schedule, true);
        tokio::time::sleep(Duration::from_millis(300)).await;
        let begun = *appends.lock().unwrap();
        assert!(begun <= 8, "{begun} appends in 300 ms");
        tokio::time::timeout(Duration::from_secs(10), publisher.stop())
            .await
            .expect("the writer gives up");
        let ledger = publisher.ledger();
        assert_eq!(ledger.streams["s"].failed.len(), 1);
    }

    /// A spacetime lane with one stream, by HTTP only.
    #[derive(Default)]
    struct Log {
        /// Key by seq.
        keys: Vec<String>,
        appends: u32,
    }

    impl Log {
        /// After the third event it loses the last two; the next append is committed, and its answer lost.
        fn answer(&mut self, request: &Request) -> host::http::Reply {
            let text = String::from_utf8(request.body.to_vec()).unwrap();
            if request.path.contains("/sql") {
                let after = text.rsplit_once("> ").map(|(_, seq)| seq.parse().unwrap());
                let rows: Vec<serde_json::Value> = match after {
                    None => vec![serde_json::json!(["s", self.keys.len(), 0])],
                    Some(after) => (1..)
                        .zip(&self.keys)
                        .filter(|(seq, _)| *seq > after)
                        .map(|(seq, key)| serde_json::json!(["s", seq, key, "h", "{}", 0, 0, true]))
                        .collect(),
                };
                return Response::json(&serde_json::json!([{ "rows": rows }]));
            }
            let row: serde_json::Value = serde_json::from_str(&text).unwrap();
            let (seq, key) = (row[1].as_u64().unwrap(), row[2].as_str().unwrap());
            if self.keys.iter().any(|known| known == key) {
                return Response::empty();
            }
            if seq != self.keys.len() as u64 + 1 {
                let conflict = StatusCode::from_u16(530).unwrap();
                return Err(Failure::new(conflict, "sequence_conflict"));
            }
            self.keys.push(key.to_owned());
            self.appends += 1;
            match self.appends {
                3 => self.keys.truncate(1),
                4 => return Err(Failure::new(StatusCode::BAD_GATEWAY, "broken")),
                _ => {}
            }
            Response::empty()
        }
    }

    #[tokio::test]
    async fn an_append_of_unknown_outcome_is_found_at_a_seq_that_is_used_again() {
        let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
        let addr = listener.local_addr().unwrap();
        let log = Arc::<Mutex<Log>>::default();
        let answering = Arc::clone(&log);
        let lane = move |request: Request| {
            let log = Arc::clone(&answering);
            async move { log.lock().unwrap().answer(&request) }
        };
        tokio::spawn(serve(listener, CancellationToken::new(), lane));
        let publisher = Publisher::new(press(addr, Lane::Spacetime));
        let schedule = Schedule {
            rate: Rate::per_second(200.0),
            burst: None,
            first: clock::now(),
        };
        publisher.write("s".to_owned(), schedule, true);
        let enough = async {
            while log.lock().unwrap().keys.len() < 5 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), enough)
            .await
            .expect("it goes on publishing");
        publisher.stop().await;
        let ledger = publisher.ledger().streams.remove("s").unwrap();
        let [first, second] = &ledger.acknowledged[..] else {
            panic!("{:?}", ledger.acknowledged);
        };
        assert_eq!(*first, (1, 0, 3));
        assert_eq!(
            (second.0, second.1),
            (2, 3),
            "the fourth is the second again"
        );
        assert_eq!(ledger.repeated, IntervalSet::range(3, 3));
    }
}
