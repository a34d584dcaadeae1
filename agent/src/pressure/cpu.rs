//! Cores that are kept busy: each worker computes for its share of every period, and sleeps for the rest.

use std::hint::black_box;
use std::io;
use std::thread;

use host::clock;
use model::quantity::{Share, Span};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::{Report, figures, say};

/// Short enough that nobody sees it as a pause, and long against what a sleep errs by.
const PERIOD: Span = Span::from_millis(20);
/// Between two looks at the clock: some micro-seconds.
const TURNS: u64 = 2_000;

/// Keeps cores busy until this process is ended.
pub(super) fn burn(workers: u32, load: Share, pin: bool) -> io::Result<()> {
    let cores = if pin { allowed()? } else { Vec::new() };
    let mut threads = Vec::new();
    for (worker, place) in (0..workers).zip(0_usize..) {
        let core = cores.get(place % cores.len().max(1)).copied();
        let thread = thread::Builder::new().name(format!("burn-{worker}"));
        threads.push(thread.spawn(move || {
            if let Some(core) = core
                && let Err(error) = stay_on(core)
            {
                tracing::warn!(core, %error, "the worker goes where the kernel puts it");
            }
            compute_for(PERIOD.scale(load.as_ratio()));
        })?);
    }
    say(&Report {
        done: true,
        figures: figures([("workers", workers.into())]),
    });
    for thread in threads {
        // None returns.
        let _ = thread.join();
    }
    Ok(())
}

fn compute_for(busy: Span) -> ! {
    let mut number = 1_u64;
    loop {
        let begun = clock::now();
        while clock::now().since(begun) < busy {
            for turn in 0..TURNS {
                number = black_box(number.wrapping_mul(6_364_136_223_846_793_005) ^ turn);
            }
        }
        let rest = (begun + PERIOD).since(clock::now());
        if rest > Span::ZERO {
            thread::sleep(rest.duration());
        }
    }
}

/// The cores that this process may be on.
fn allowed() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count())
        .filter(|core| set.is_set(*core).unwrap_or(false))
        .collect())
}

fn stay_on(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}
