//! The threads that carry connections. Each has a runtime of its own and accepts from every listener; a connection stays
//! with the thread that it began on. So nothing that a connection does, from its first byte to its last, wakes another
//! thread or is stolen by one, and what is asked of the API is never behind it.

use std::cell::OnceCell;
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use host::timer::Timer;
use tokio::runtime::{Builder, Handle};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, yield_now};

/// More would be woken by each new connection than the kernel can deal with it.
const MOST: usize = 4;

/// By how many connections a thread may be ahead of another one, before that one has to carry what this one accepts. At
/// one, the threads would wake each other for every connection; at four and more, one works while the other waits.
const AHEAD: usize = 2;

/// Each thread's runtime always has a timer that is nearer than those that connections begin to guard against a peer
/// which does not answer: without one, each of them would have to wake the runtime to say so.
const TICK: Duration = Duration::from_secs(1);

/// How long what is less urgent waits for a thread to come to rest.
const LONGEST: Duration = Duration::from_millis(500);

thread_local! {
    static OWN: OnceCell<Own> = const { OnceCell::new() };
}

/// What a thread that carries connections has for itself.
#[derive(Debug, Clone)]
struct Own {
    timer: Timer,
    lull: Arc<Lull>,
}

/// Who waits for a thread to have nothing more urgent to do.
#[derive(Debug, Default)]
struct Lull {
    /// How many have begun to wait.
    came: AtomicU64,
    begun: Notify,
    over: Notify,
}

impl Lull {
    /// Ends the wait once nobody has begun to wait for two turns of the thread, or after `longest`.
    async fn watch(&self, longest: Duration) {
        self.begun.notified().await;
        let (mut came, begun) = (0, Instant::now());
        while came != self.came.load(Ordering::Relaxed) && begun.elapsed() < longest {
            came = self.came.load(Ordering::Relaxed);
            // Those whose turn it is now may come behind this task.
            yield_now().await;
            yield_now().await;
        }
        self.over.notify_waiters();
    }

    async fn wait(&self) {
        let over = self.over.notified();
        self.came.fetch_add(1, Ordering::Relaxed);
        self.begun.notify_one();
        over.await;
    }
}

/// A thread that carries connections.
#[derive(Debug)]
pub(crate) struct Carrier {
    runtime: Handle,
    /// How many it carries.
    load: AtomicUsize,
}

/// A connection's part of a carrier's load.
#[derive(Debug)]
pub(crate) struct Load(&'static Carrier);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.load.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Carrier {
    /// Runs a task on it.
    pub(crate) fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.runtime.spawn(task)
    }

    /// Who is to carry a connection that this one has accepted.
    pub(crate) fn assign(&'static self) -> (&'static Self, Load) {
        self.assign_among(all().unwrap_or_default())
    }

    fn assign_among(&'static self, carriers: &'static [Self]) -> (&'static Self, Load) {
        let load = |carrier: &&Self| carrier.load.load(Ordering::Relaxed);
        let least = carriers.iter().min_by_key(load);
        let carrier = least
            .filter(|least| load(least) + AHEAD <= load(&self))
            .unwrap_or(self);
        carrier.load.fetch_add(1, Ordering::Relaxed);
        (carrier, Load(carrier))
    }
}

/// The threads of this process, whatever proxies they are for. They end with it.
///
/// # Errors
/// No thread or no descriptor was left when they were first asked for.
pub(crate) fn all() -> io::Result<&'static [Carrier]> {
    static THREADS: LazyLock<io::Result<Vec<Carrier>>> = LazyLock::new(|| {
        let count = available_parallelism().map_or(1, std::num::NonZero::get);
        (0..count.min(MOST)).map(start).collect()
    });
    match &*THREADS {
        Ok(threads) => Ok(threads),
        Err(error) => Err(io::Error::new(
            error.kind(),
            format!("start the threads that carry connections: {error}"),
        )),
    }
}

/// Tasks that have not ended, of these threads and of the caller's runtime.
pub(crate) fn tasks() -> usize {
    let own = Handle::current().metrics().num_alive_tasks();
    let carriers = all().unwrap_or_default().iter();
    carriers.fold(own, |sum, carrier| {
        sum + carrier.runtime.metrics().num_alive_tasks()
    })
}

/// Sleeps that end on the thread which sleeps; `None` on a thread that carries no connections.
pub(crate) fn timer() -> Option<Timer> {
    OWN.with(|own| own.get().map(|own| own.timer.clone()))
}

/// Waits until none of the connections of this thread has anything to do that is as urgent as what the caller did just now;
/// not at all on a thread that carries none.
pub(crate) async fn lull() {
    if let Some(lull) = OWN.with(|own| own.get().map(|own| Arc::clone(&own.lull))) {
        lull.wait().await;
    }
}

fn start(ordinal: usize) -> io::Result<Carrier> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
    std::thread::Builder::new()
        .name(format!("carrier-{ordinal}"))
        .spawn(move || {
            runtime.block_on(async {
                let lull = Arc::new(Lull::default());
                let own = Timer::start().map(|timer| Own {
                    timer,
                    lull: Arc::clone(&lull),
                });
                let own = own.map(|own| OWN.with(|cell| cell.set(own)));
                // Nobody waits for the word only when the process ends.
                let _ = ready.send(own.map(drop));
                tokio::spawn(async move {
                    loop {
                        lull.watch(LONGEST).await;
                    }
                });
                loop {
                    tokio::time::sleep(TICK).await;
                }
            });
        })?;
    is_ready
        .recv()
        .unwrap_or_else(|_| Err(io::Error::other("a thread did not start")))?;
    Ok(Carrier {
        runtime: handle,
        load: AtomicUsize::new(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thread_that_is_ahead_of_another_gives_it_what_it_accepts() {
        let idle = || Carrier {
            runtime: Handle::current(),
            load: AtomicUsize::new(0),
        };
        let carriers: &'static [Carrier] = Box::leak(Box::new([idle(), idle(), idle()]));
        let accept = || carriers[0].assign_among(carriers);
        let is = |carrier: &Carrier, at: usize| std::ptr::eq(carrier, &raw const carriers[at]);
        let own: Vec<_> = (0..AHEAD).map(|_| accept()).collect();
        assert!(own.iter().all(|(carrier, _)| is(carrier, 0)));
        let given: Vec<_> = (0..2).map(|_| accept()).collect();
        assert!(is(given[0].0, 1) && is(given[1].0, 2));
        assert!(is(accept().0, 0), "no longer far enough ahead");
        drop(own);
        assert!(is(accept().0, 0), "what has ended counts no more");
        drop(given);
        assert!(
            carriers
                .iter()
                .all(|carrier| carrier.load.load(Ordering::Relaxed) == 0)
        );
    }

    /// Somebody who comes to wait, and says when that is over.
    async fn come(lull: &Arc<Lull>) -> JoinHandle<()> {
        let lull = Arc::clone(lull);
        let waiting = tokio::spawn(async move { lull.wait().await });
        yield_now().await;
        waiting
    }

    /// How many of 50, who come one after another, are still waiting when the last of them has come.
    async fn waiting_of_50(longest: Duration) -> usize {
        let lull = Arc::new(Lull::default());
        let watched = Arc::clone(&lull);
        tokio::spawn(async move {
            loop {
                watched.watch(longest).await;
            }
        });
        let mut all = Vec::new();
        for _ in 0..50 {
            all.push(come(&lull).await);
        }
        let waiting = all.iter().filter(|waits| !waits.is_finished()).count();
        for waits in all {
            waits.await.unwrap();
        }
        waiting
    }

    #[tokio::test]
    async fn what_can_wait_waits_until_nobody_comes_any_more() {
        assert_eq!(waiting_of_50(Duration::MAX).await, 50);
    }

    #[tokio::test]
    async fn what_can_wait_does_not_wait_for_ever() {
        assert!(waiting_of_50(Duration::ZERO).await < 5);
    }
}
