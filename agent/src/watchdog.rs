//! `faultlane watchdog --journal FILE`: undoes what an agent left in force when it was killed and does not come back
//! within the lease.
//!
//! An agent starts one before it can have a fault, and holds the other end of its stdin. When that closes, the agent has
//! ended. If the journal has nothing open then, so does the watchdog. Else each open fault is undone when its lease
//! lapses, by the function that an agent uses when it starts again, and the journal says so. It locks the journal only
//! while it undoes, so that an agent which comes back finds it free, undoes everything at once, and the watchdog finds
//! nothing to do. Of several watchdogs of one folder, as agents leave them that are killed one after another, the first
//! does the work of all.
//!
//! SIGTERM means: not later, now. It is how a service manager says that whatever is left is about to be killed.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use host::clock;
use model::ids::FaultId;
use model::instant::Mono;
use model::quantity::Span;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::setsid;

use crate::journal::{self, Journal, OpenFault};

mod keeper;

pub use keeper::Watchdog;

/// How soon a watchdog notices that an agent has come back, or that another has gone without coming back.
const LOOK_EVERY: Span = Span::from_millis(100);
/// How soon it tries again where the journal is locked.
const LOCKED_LOOK_EVERY: Span = Span::from_millis(10);
/// A watchdog that has nothing left to do is gone after one look; one that takes longer has, and sees what else is open.
const GIVES_WAY_AFTER: Span = Span::from_secs(1);
const RETRY_AFTER: Span = Span::from_secs(1);
const WHY: &str = "the agent was gone, its lease lapsed";

/// Runs a watchdog over a journal, until the agent has ended and nothing is open.
///
/// # Errors
/// The journal cannot be read.
pub fn main(journal: &Path) -> io::Result<()> {
    // A terminal that goes away shall not take it along. It fails for who leads a group, as a shell's job does.
    let _ = setsid();
    // A drill may fill the memory. Who is not root cannot ask for this, and is small all the same.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
    let alarm = Alarm::new()?;
    let watch = Watch::open(journal)?;
    let mut stdout = io::stdout();
    stdout.write_all(b"ready\n")?;
    stdout.flush()?;
    alarm.until_stdin_ends()?;
    watch.to_its_end(&alarm)
}

/// The journal by its descriptor: it can be read, and what it has open undone, when the folder is already gone.
#[derive(Debug)]
struct Watch {
    file: File,
    folder: File,
    path: PathBuf,
}

impl Watch {
    fn open(path: &Path) -> io::Result<Self> {
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let folder = path.parent().unwrap_or(Path::new("/"));
        Ok(Self {
            file: File::options()
                .read(true)
                .write(true)
                .open(path)
                .map_err(named)?,
            folder: File::open(folder).map_err(named)?,
            path: path.to_owned(),
        })
    }

    fn to_its_end(&self, alarm: &Alarm) -> io::Result<()> {
        let mut mine = self.open_faults()?;
        if mine.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = mine.iter().map(|fault| fault.id.as_str()).collect();
        tracing::warn!(faults = ?ids, "the agent has ended and they are in force; each is undone when its lease lapses");
        let began = clock::now();
        let mut hurry = false;
        // Its lock is that of the watchdogs among themselves.
        while !locked(&self.folder)? {
            if clock::now().since(began) > GIVES_WAY_AFTER {
                tracing::info!("another watchdog is at it");
                return Ok(());
            }
            hurry |= alarm.wait(LOOK_EVERY)?;
        }
        let mut failed = BTreeMap::new();
        loop {
            let next = if locked(&self.file)? {
                let next = self.undo_what_is_due(alarm, &mut hurry, &mut failed)?;
                self.file.unlock()?;
                next
            } else {
                // An agent is back, and undoes before it does anything else; or a program of the old one has not ended.
                let open = self.open_faults()?;
                mine.retain(|fault| {
                    open.iter()
                        .any(|other| (&other.id, other.begun) == (&fault.id, fault.begun))
                });
                (!mine.is_empty()).then(|| clock::now() + LOCKED_LOOK_EVERY)
            };
            let Some(next) = next else {
                tracing::info!("nothing is in force any more");
                return Ok(());
            };
            let pause = next
                .since(clock::now())
                .clamp(Span::from_millis(1), LOOK_EVERY);
            hurry |= alarm.wait(pause)?;
        }
    }

    /// Undoes the faults whose lease has lapsed, and those whose lease lapses meanwhile: one that takes long, such as a node
    /// that has to be started, must not hold up the others. When to look again, if any is left.
    fn undo_what_is_due(
        &self,
        alarm: &Alarm,
        hurry: &mut bool,
        failed: &mut BTreeMap<FaultId, Mono>,
    ) -> io::Result<Option<Mono>> {
        let mut journal = Journal::locked(self.file.try_clone()?, &self.path)?;
        let mut undoing: Vec<(FaultId, Mono)> = Vec::new();
        thread::scope(|scope| {
            let (done, ended) = mpsc::channel();
            loop {
                let mut next = None;
                let mut look_at =
                    |at: Mono| next = Some(next.map_or(at, |next: Mono| next.min(at)));
                let now = clock::now();
                for fault in journal.open_faults()? {
                    let which = (fault.id.clone(), fault.begun);
                    match failed.get(&fault.id) {
                        _ if undoing.contains(&which) => {}
                        Some(again) if *again > now => look_at(*again),
                        _ if *hurry || fault.lease.has_passed(now, clock::boot()) => {
                            undoing.push(which);
                            let done = done.clone();
                            scope.spawn(move || {
                                let undone = fault.undone();
                                // Who waits for it is gone only when the journal could not be read.
                                drop(done.send((fault, undone)));
                            });
                        }
                        _ => look_at(fault.lease.until),
                    }
                }
                if undoing.is_empty() {
                    return Ok(next);
                }
                let pause = next.map_or(LOOK_EVERY, |next| next.since(now));
                let pause = pause.clamp(Span::from_millis(1), LOOK_EVERY);
                if let Ok((fault, undone)) = ended.recv_timeout(pause.duration()) {
                    undoing.retain(|(id, begun)| (id, begun) != (&fault.id, &fault.begun));
                    let said = undone.and_then(|how| journal.undone(&fault, WHY, &how));
                    if let Err(error) = said {
                        tracing::error!(fault = fault.id, %error, "the undo failed; it is tried again in {RETRY_AFTER}");
                        failed.insert(fault.id, clock::now() + RETRY_AFTER);
                    }
                }
                *hurry |= alarm.wait(Span::ZERO)?;
            }
        })
    }

    fn open_faults(&self) -> io::Result<Vec<OpenFault>> {
        journal::open_in(&self.file, &self.path)
    }
}

fn locked(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// What can wake a watchdog: the end of its stdin, and signals, which do not end it.
#[derive(Debug)]
struct Alarm {
    signals: SignalFd,
}

impl Alarm {
    fn new() -> io::Result<Self> {
        let mut mask = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            mask.add(signal);
        }
        mask.thread_block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Self {
            signals: SignalFd::with_flags(&mask, flags)?,
        })
    }

    fn until_stdin_ends(&self) -> io::Result<()> {
        let stdin = io::stdin();
        let mut sink = [0; 64];
        loop {
            let mut ready = [
                PollFd::new(&stdin, PollFlags::IN),
                PollFd::new(&self.signals, PollFlags::IN),
            ];
            match poll(&mut ready, None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            let [stdin_is_ready, signalled] = ready.map(|fd| !fd.revents().is_empty());
            if stdin_is_ready {
                match rustix::io::read(&stdin, &mut sink) {
                    Ok(1..) | Err(rustix::io::Errno::INTR) => {}
                    Ok(0) | Err(_) => return Ok(()),
                }
            }
            if signalled && self.hurry()? {
                tracing::info!("the agent lives, and its watchdog ends with it");
            }
        }
    }

    /// Sleeps for so long, or until there is a reason to hurry; whether there is.
    fn wait(&self, limit: Span) -> io::Result<bool> {
        let limit = Timespec::try_from(Duration::from(limit)).map_err(io::Error::other)?;
        let mut ready = [PollFd::new(&self.signals, PollFlags::IN)];
        match poll(&mut ready, Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => self.hurry(),
            Err(error) => Err(error.into()),
        }
    }

    fn hurry(&self) -> io::Result<bool> {
        let mut hurry = false;
        while let Some(signal) = self.signals.read_signal()? {
            hurry |= signal.ssi_signo != Signal::SIGHUP as u32;
        }
        Ok(hurry)
    }
}
