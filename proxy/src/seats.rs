//! How many connections a process has descriptors for, and the word when they run out.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::process::{Resource, getrlimit};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Descriptors kept for everything else: the API, so that it answers a full proxy's owner, listeners, timers.
const RESERVE: u64 = 128;
/// A connection has two sockets.
const EACH: u64 = 2;
/// Where there is no limit.
const MOST: u64 = 1 << 20;
/// What to do about it.
const REMEDY: &str = "raise the limit of open files (ulimit -n), or have `faultlane proxy` use more processes (--workers N)";

/// How many connections one process can have.
pub(crate) fn capacity() -> u64 {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(MOST);
    (limit.min(MOST).saturating_sub(RESERVE) / EACH).max(1)
}

/// The seats of this process, whatever proxies they are for: descriptors are the process's.
pub(crate) fn seats() -> &'static Seats {
    static SEATS: LazyLock<Seats> = LazyLock::new(|| Seats::new(capacity()));
    &SEATS
}

/// A seat for each connection.
#[derive(Debug)]
pub(crate) struct Seats {
    free: Semaphore,
    all: u64,
    usher: Usher,
}

impl Seats {
    fn new(all: u64) -> Self {
        Self {
            free: Semaphore::new(usize::try_from(all).unwrap_or(usize::MAX)),
            all,
            usher: Usher::default(),
        }
    }

    /// Waits for a free seat. What cannot be seated keeps those behind it in the listener's queue.
    pub(crate) async fn take(&self) -> SemaphorePermit<'_> {
        self.usher
            .look(self.free.available_permits() as u64, self.all);
        self.free.acquire().await.expect("nobody closes it")
    }
}

/// Says once that the seats become few, and once that there are none.
#[derive(Debug, Default)]
pub(crate) struct Usher {
    said: AtomicU8,
}

/// What there is to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Few,
    None,
}

impl Usher {
    /// Takes a look before a seat is taken.
    pub(crate) fn look(&self, free: u64, all: u64) {
        let open = all.saturating_sub(free);
        match self.word(free, all) {
            Some(Word::Few) => tracing::warn!(
                open,
                most = all,
                "connections near the limit of open files; {REMEDY}"
            ),
            Some(Word::None) => {
                tracing::warn!(
                    open,
                    most = all,
                    "connections wait to be accepted, as the limit of open files is reached; {REMEDY}"
                );
            }
            None => {}
        }
    }

    /// A tenth is few. What was said is said again only after a fifth was free.
    fn word(&self, free: u64, all: u64) -> Option<Word> {
        let (level, word) = match free {
            0 => (2, Some(Word::None)),
            few if few * 10 < all => (1, Some(Word::Few)),
            _ => (0, None),
        };
        let said = self.said.load(Ordering::Relaxed);
        if level > said || level == 0 && free * 5 > all {
            self.said.store(level, Ordering::Relaxed);
        }
        word.filter(|_| level > said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_once_that_seats_are_few_and_once_that_there_are_none() {
        let usher = Usher::default();
        let words = |frees: &[u64]| -> Vec<Option<Word>> {
            frees.iter().map(|free| usher.word(*free, 100)).collect()
        };
        assert_eq!(
            words(&[100, 10, 9, 8, 1]),
            [None, None, Some(Word::Few), None, None]
        );
        assert_eq!(
            words(&[0, 1, 0, 15, 0]),
            [Some(Word::None), None, None, None, None]
        );
        assert_eq!(
            words(&[21, 9, 0]),
            [None, Some(Word::Few), Some(Word::None)]
        );
    }

    #[tokio::test]
    async fn who_finds_no_seat_waits_for_one() {
        let seats = Seats::new(2);
        let (first, _second) = (seats.take().await, seats.take().await);
        let mut third = Box::pin(seats.take());
        assert!(futures_util::poll!(&mut third).is_pending());
        drop(first);
        let _third = third.await;
    }
}
