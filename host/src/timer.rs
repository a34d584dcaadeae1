//! Sleeps by timerfd. tokio's own timers round up to the next milli-second (100 µs asked, 1,095 µs slept); these are
//! late by some 0.1 ms. All sleeps of a process share one descriptor.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use model::instant::Mono;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use crate::{clock, fd};

/// The sleeps of one process; clones share them.
#[derive(Debug, Clone)]
pub struct Timer {
    queue: Arc<Queue>,
}

#[derive(Debug)]
struct Queue {
    fd: AsyncFd<OwnedFd>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    sleepers: BTreeMap<(Mono, u64), oneshot::Sender<()>>,
    next_id: u64,
}

impl Timer {
    /// Starts a timer on the current runtime.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn start() -> std::io::Result<Self> {
        let fd = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        let fd = fd::watched(fd)?;
        let queue = Arc::new(Queue {
            fd,
            waiting: Mutex::default(),
        });
        let driver = Arc::downgrade(&queue);
        tokio::spawn(async move {
            while let Some(queue) = driver.upgrade() {
                if queue.expire().await.is_err() {
                    return;
                }
            }
        });
        Ok(Self { queue })
    }

    /// Sleeps until an instant; returns at once when it has passed.
    pub async fn sleep_until(&self, at: Mono) {
        if at <= clock::now() {
            return;
        }
        let awake = self.queue.enqueue(at);
        // The sender goes only when the sleep is over or the driver has died; either way there is nothing to wait for.
        let _ = awake.await;
    }
}

impl Queue {
    fn enqueue(&self, at: Mono) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.next_id += 1;
        let key = (at, waiting.next_id);
        waiting.sleepers.insert(key, sender);
        if waiting
            .sleepers
            .first_key_value()
            .is_some_and(|(first, _)| *first == key)
        {
            self.arm(at);
        }
        receiver
    }

    fn arm(&self, at: Mono) {
        let it_value = Timespec {
            tv_sec: i64::try_from(at.0 / 1_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(at.0 % 1_000_000 * 1_000).unwrap_or(0),
        };
        let once = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value,
        };
        timerfd_settime(self.fd.get_ref(), TimerfdTimerFlags::ABSTIME, &once)
            .expect("the instant is a valid time");
    }

    async fn expire(&self) -> std::io::Result<()> {
        let mut ready = self.fd.readable().await?;
        let mut ticks = [0_u8; 8];
        let _ = ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut ticks)?));
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::now();
        while let Some(first) = waiting.sleepers.first_entry() {
            let at = first.key().0;
            if at > now {
                self.arm(at);
                break;
            }
            // A sleeper that was dropped no longer listens.
            let _ = first.remove().send(());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::quantity::Span;

    #[tokio::test]
    async fn sleepers_wake_in_order_and_never_early() {
        let timer = Timer::start().unwrap();
        let start = clock::now();
        let sleeps = [30, 10, 20, 0].map(|millis| {
            let timer = timer.clone();
            tokio::spawn(async move {
                let at = start + Span::from_millis(millis);
                timer.sleep_until(at).await;
                let woke = clock::now();
                assert!(woke >= at);
                woke
            })
        });
        let mut woke = Vec::new();
        for sleep in sleeps {
            woke.push(sleep.await.unwrap());
        }
        assert!(
            woke[3] < woke[1] && woke[1] < woke[2] && woke[2] < woke[0],
            "{woke:?}"
        );
    }
}
