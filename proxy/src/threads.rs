//! The threads that carry connections. Each has a runtime of its own and accepts from every listener; a connection stays
//! with the thread that accepted it. So nothing that a connection does, from its first byte to its last, wakes another
//! thread or is stolen by one, and what is asked of the API is never behind it.

use std::cell::OnceCell;
use std::io;
use std::sync::LazyLock;
use std::thread::available_parallelism;
use std::time::Duration;

use host::timer::Timer;
use tokio::runtime::{Builder, Handle};

/// More would be woken by each new connection than the kernel can deal with it.
const MOST: usize = 4;

/// Each thread's runtime always has a timer that is nearer than those that connections begin to guard against a peer
/// which does not answer: without one, each of them would have to wake the runtime to say so.
const TICK: Duration = Duration::from_secs(1);

thread_local! {
    static TIMER: OnceCell<Timer> = const { OnceCell::new() };
}

/// The threads of this process, whatever proxies they are for. They end with it.
///
/// # Errors
/// No thread or no descriptor was left when they were first asked for.
pub(crate) fn all() -> io::Result<&'static [Handle]> {
    static THREADS: LazyLock<io::Result<Vec<Handle>>> = LazyLock::new(|| {
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
    carriers.fold(own, |sum, thread| sum + thread.metrics().num_alive_tasks())
}

/// Sleeps that end on the thread which sleeps; `None` on a thread that carries no connections.
pub(crate) fn timer() -> Option<Timer> {
    TIMER.with(|timer| timer.get().cloned())
}

fn start(ordinal: usize) -> io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
    std::thread::Builder::new()
        .name(format!("carrier-{ordinal}"))
        .spawn(move || {
            runtime.block_on(async {
                let timer = Timer::start().map(|timer| TIMER.with(|own| own.set(timer)));
                // Nobody waits for the word only when the process ends.
                let _ = ready.send(timer.map(drop));
                loop {
                    tokio::time::sleep(TICK).await;
                }
            });
        })?;
    is_ready
        .recv()
        .unwrap_or_else(|_| Err(io::Error::other("a thread did not start")))?;
    Ok(handle)
}
