//! `faultlane pressure`: the worker of a fault that takes up what a machine has to give. It does nothing before it is told
//! to, so that it can be on record first.
//!
//! An agent starts it and holds the other end of its stdin. The first line there is a [`Config`], each that follows a
//! [`Word`]; each line on its stdout is a [`Report`], the first of which says that it is ready. It ends when its stdin does,
//! and no later than the lease that it has been told: a clock of its own, so that it also ends where the agent stands still.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, Write as _};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;

use host::{child, clock};
use model::fault::Amount;
use model::instant::Mono;
use model::quantity::{ByteSize, Share, Span};
use serde::{Deserialize, Serialize};

mod cpu;
mod memory;

/// How often a lease is looked at: it can be made longer meanwhile.
const LOOK_EVERY: Span = Span::from_millis(20);
/// The exit code of one that nobody has ended in time.
const LAPSED: i32 = 3;

/// What a worker is to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// What to take up.
    pub press: Press,
    /// It ends then, unless it is told otherwise.
    #[serde(rename = "until_us")]
    pub until: Mono,
}

/// What a worker takes up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Press {
    /// Processor time.
    Cpu {
        /// So many threads.
        workers: u32,
        /// How much of the time each computes.
        load: Share,
        /// Whether each stays on a core of its own.
        pin: bool,
    },
    /// Memory.
    Memory {
        /// How much, or which share of what is available.
        size: Amount,
        /// What has to stay available, at least.
        reserve: ByteSize,
    },
}

/// What a worker is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// Begin.
    Go,
    /// The lease is another.
    Until {
        /// When it lapses.
        #[serde(rename = "until_us")]
        until: Mono,
    },
}

/// What a worker says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Report {
    /// It has taken up all that it will.
    pub done: bool,
    /// Figures by name.
    pub figures: BTreeMap<String, u64>,
}

/// Runs a worker. It never returns once it has been told to begin.
///
/// # Errors
/// There is no configuration on stdin, or what is to be taken up cannot be looked at.
pub fn main() -> io::Result<()> {
    // Should memory run out, the kernel takes this process and no other. Nobody needs a right to ask for that.
    std::fs::write("/proc/self/oom_score_adj", "1000")?;
    let config: Config = child::read_config()?;
    let until = Arc::new(AtomicU64::new(config.until.0));
    let (begin, word) = mpsc::channel();
    let told = Arc::clone(&until);
    thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(move || listen(&told, &begin))?;
    thread::Builder::new()
        .name("lease".to_owned())
        .spawn(move || keep(&until))?;
    say(&Report::default());
    if word.recv().is_err() {
        return Ok(());
    }
    match config.press {
        Press::Cpu { workers, load, pin } => cpu::burn(workers, load, pin),
        Press::Memory { size, reserve } => memory::fill(size, reserve),
    }
}

fn listen(until: &AtomicU64, begin: &mpsc::Sender<()>) {
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        match serde_json::from_str(&line) {
            // Who waits for it is gone only when this process ends.
            Ok(Word::Go) => drop(begin.send(())),
            Ok(Word::Until { until: other }) => until.store(other.0, Ordering::SeqCst),
            Err(error) => tracing::warn!(%error, line, "not a word for a worker"),
        }
    }
    process::exit(0);
}

fn keep(until: &AtomicU64) {
    loop {
        let left = Mono(until.load(Ordering::SeqCst)).since(clock::now());
        if left == Span::ZERO {
            tracing::warn!("the lease lapsed and nobody ended this worker: it ends by itself");
            process::exit(LAPSED);
        }
        thread::sleep(left.min(LOOK_EVERY).duration());
    }
}

/// Whoever reads it holds stdin too: where nobody does, this process is about to end.
fn say(report: &Report) {
    let mut line = serde_json::to_vec(report).unwrap_or_default();
    line.push(b'\n');
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(&line).and_then(|()| stdout.flush());
}

fn figures<const N: usize>(named: [(&str, u64); N]) -> BTreeMap<String, u64> {
    named
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}
