//! What must be undone, on disk before it is done. Each fault leaves up to four entries: the intent before anything is
//! changed, that it was applied, that it was seen to be, and that it was undone. A fault whose last entry is not the
//! last of these is undone when the agent starts anew, or by its watchdog once the lease has lapsed; as every undo is
//! idempotent, it does not matter how far it came.
//!
//! Whoever writes the journal holds the lock of the file: an agent for as long as it lives, a watchdog while it undoes.
//! So one of them does, when an agent comes back just then. A program that an agent runs to change something holds it too
//! ([`crate::tool`]): where it outlives the agent, nothing is undone before it has done its worst.
//!
//! A renewal is an entry too, but nobody waits until it is on disk. Where the machine goes down and the entry with it, an
//! earlier deadline is left, and whoever goes by that undoes too soon, never too late.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use host::clock;
use host::jsonl::{self, Appender};
use model::fault::FaultOrder;
use model::ids::FaultId;
use model::instant::Mono;
use model::lease::Deadline;
use model::quantity::Span;
use serde::{Deserialize, Serialize};

use crate::crash::{self, Moment};
use crate::faults::machine;
use crate::faults::network::{self, Change};
use crate::faults::recall::Recall;
use crate::faults::rollback::Rollback;
use crate::process;
use crate::procfs::Identity;

/// How long an agent that starts waits for a watchdog that is undoing what an earlier life left.
const LOCKED_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What an undo in a later life must know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Undo {
    /// A child is started again. A later life of the agent has no child to start: they all ended with it.
    Restart {
        /// Its name.
        node: String,
        /// The process that was ended.
        pid: u32,
    },
    /// A process is continued.
    Continue {
        /// The child's name.
        node: String,
        /// The process.
        pid: u32,
        /// Its start, as [`crate::procfs::Stat::started`], so that no other process of that id is continued.
        started: u64,
    },
    /// A process is continued, and what a rollback left beside its data is removed.
    PutBack {
        /// The child's name.
        node: String,
        /// The process.
        pid: u32,
        /// Its start, as in [`Self::Continue`].
        started: u64,
        /// The folder of its data.
        data: PathBuf,
    },
    /// Children undo it. They ended with the agent, and their faults with them.
    Relay {
        /// Their names.
        children: Vec<String>,
    },
    /// What a process was done is undone; an operator's node is up again.
    Recall(Recall),
    /// What is ours in the kernel is taken away.
    Network(Change),
    /// A worker is ended.
    EndWorker {
        /// The process.
        pid: u32,
        /// Its start, as in [`Self::Continue`].
        started: u64,
    },
    /// A fault's file is removed.
    RemoveFile {
        /// The file, which is this fault's alone.
        file: PathBuf,
    },
}

/// A step in a fault's life.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// It is about to be applied.
    Intent {
        /// As it was ordered.
        order: Box<FaultOrder>,
        /// What its undo must know.
        undo: Undo,
        /// When its lease lapses, unless that is renewed.
        lease: Deadline,
    },
    /// The change was asked for.
    Applied,
    /// The change was seen.
    Observed,
    /// The lease was renewed.
    Renewed {
        /// It lapses then, in the boot of the intent.
        #[serde(rename = "until_us")]
        until: Mono,
    },
    /// It is undone.
    Undone {
        /// Who asked, or why there was nothing to undo.
        reason: String,
    },
}

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The fault.
    pub id: FaultId,
    /// When, on the monotonic clock of that boot. Nothing is decided by it.
    #[serde(rename = "at_us")]
    pub at: Mono,
    /// What happened.
    pub event: Event,
}

impl Event {
    const fn name(&self) -> &'static str {
        match self {
            Self::Intent { .. } => "intent",
            Self::Applied => "applied",
            Self::Observed => "observed",
            Self::Renewed { .. } => "renewed",
            Self::Undone { .. } => "undone",
        }
    }
}

/// A fault that was begun and is not undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenFault {
    /// Its name.
    pub id: FaultId,
    /// When it was begun: an id is used again in another life of the agent.
    pub begun: Mono,
    /// What its undo must know.
    pub undo: Undo,
    /// When its lease lapses.
    pub lease: Deadline,
    /// Whether it is on record that the change was asked for. Where it is not, it may have been all the same.
    pub applied: bool,
}

impl OpenFault {
    /// Undoes it, without a runtime, from whatever state it is in and any number of times; a word on how.
    ///
    /// # Errors
    /// It could not be undone.
    pub fn undo(&self) -> io::Result<String> {
        if self.lease.boot == clock::boot() {
            undo_of_an_earlier_life(&self.undo, self.applied)
        } else {
            undo_of_an_earlier_boot(&self.undo)
        }
    }

    /// As [`Self::undo`], for a thread of its own: a panic is an undo that failed.
    pub(crate) fn undone(&self) -> io::Result<String> {
        std::panic::catch_unwind(|| self.undo())
            .unwrap_or_else(|_| Err(io::Error::other("the undo panicked")))
    }
}

/// The journal of an agent.
#[derive(Debug)]
pub struct Journal {
    appender: Appender,
    /// Holds the lock where this process took it by [`Self::lock`]: for as long as it, or a copy of it, is open.
    lock: Option<File>,
    path: PathBuf,
}

impl Journal {
    /// Opens the journal, undoes what an earlier life of the agent left in force, and returns those faults' ids.
    ///
    /// # Errors
    /// As [`Self::lock`] and [`Self::replay`].
    pub fn open(path: &Path) -> io::Result<(Self, Vec<FaultId>)> {
        let mut journal = Self::lock(path)?;
        let healed = journal.replay()?;
        Ok((journal, healed))
    }

    /// Opens the journal or makes it. It is this process's until the journal is dropped.
    ///
    /// # Errors
    /// It cannot be opened, or somebody else does not let go of it.
    pub fn lock(path: &Path) -> io::Result<Self> {
        let named = |error: io::Error| named(path, &error);
        let is_new = !path.exists();
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(named)?;
        let lock = File::open(path).map_err(named)?;
        let begun = clock::now();
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(named(error)),
                Err(TryLockError::WouldBlock) => {}
            }
            if clock::now().since(begun) > Span::from(LOCKED_WITHIN) {
                return Err(named(io::Error::new(
                    io::ErrorKind::ResourceBusy,
                    format!(
                        "somebody has locked it for {LOCKED_WITHIN:?}: a watchdog that undoes what an earlier agent left, \
                         if the log says so; else another agent. Wait for its end, or end it"
                    ),
                )));
            }
            thread::sleep(LOOK_EVERY);
        }
        if is_new && let Some(folder) = path.parent() {
            // Else a machine that goes down could lose the file with every entry that was waited for.
            File::open(folder)
                .and_then(|folder| folder.sync_all())
                .map_err(named)?;
        }
        let journal = Self::locked(file, path)?;
        Ok(Self {
            lock: Some(lock),
            ..journal
        })
    }

    /// The lock, for somebody else to hold too: nobody undoes before all have let go of it. Nothing can be written to it.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn held(&self) -> io::Result<File> {
        match &self.lock {
            Some(lock) => lock.try_clone(),
            None => Err(io::Error::other("the journal's lock is held elsewhere")),
        }
    }

    /// The journal in a file that the caller has locked.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn locked(file: File, path: &Path) -> io::Result<Self> {
        Ok(Self {
            appender: Appender::adopt(file, path)?,
            lock: None,
            path: path.to_owned(),
        })
    }

    /// Undoes what an earlier life of the agent left in force, and returns those faults' ids. All at the same time: one that
    /// takes long, such as a node that has to be started, must not hold up the others, and one that fails neither.
    ///
    /// # Errors
    /// The journal cannot be read (a torn last line is no error), or an undo failed: that fault stays open, and the next
    /// start tries again. The others are undone.
    pub fn replay(&mut self) -> io::Result<Vec<FaultId>> {
        let open = self.open_faults()?;
        let (mut healed, mut failed) = (Vec::new(), None);
        thread::scope(|scope| {
            let (done, ended) = mpsc::channel();
            for fault in &open {
                let done = done.clone();
                // Who waits for it is gone only when this process ends.
                scope.spawn(move || drop(done.send((fault, fault.undone()))));
            }
            drop(done);
            for (fault, how) in ended {
                match how.and_then(|how| self.undone(fault, "the agent was restarted", &how)) {
                    Ok(()) => healed.push(fault.id.clone()),
                    Err(error) => {
                        let id = &fault.id;
                        tracing::error!(fault = id, %error, "what an earlier life left could not be undone");
                        failed.get_or_insert(error);
                    }
                }
            }
        });
        failed.map_or(Ok(healed), Err)
    }

    /// The faults that were begun and not undone, oldest first.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn open_faults(&self) -> io::Result<Vec<OpenFault>> {
        Ok(open_faults(self.appender.lines()?.values))
    }

    /// Says that a fault of an earlier life is undone: by whom or why, and how.
    ///
    /// # Errors
    /// It could not be written. The fault stays open, and is undone once more.
    pub fn undone(&mut self, fault: &OpenFault, why: &str, how: &str) -> io::Result<()> {
        let (id, reason) = (fault.id.as_str(), format!("{why}: {how}"));
        tracing::warn!(
            fault = id,
            reason,
            "an earlier life of the agent left it in force"
        );
        self.record(id, Event::Undone { reason })
    }

    /// Adds an entry and waits until it is on disk.
    ///
    /// # Errors
    /// It could not be written.
    pub fn record(&mut self, id: &str, event: Event) -> io::Result<()> {
        let step = event.name();
        let entry = Entry {
            id: id.to_owned(),
            at: clock::now(),
            event,
        };
        crash::at(step, Moment::Before);
        crash::while_writing(step, &self.path, &entry);
        self.appender.append(&entry)?;
        crash::at(step, Moment::After);
        Ok(())
    }

    /// Adds a renewal, and does not wait.
    ///
    /// # Errors
    /// It could not be written.
    pub fn renewed(&mut self, id: &str, until: Mono) -> io::Result<()> {
        self.appender.append_soon(&Entry {
            id: id.to_owned(),
            at: clock::now(),
            event: Event::Renewed { until },
        })
    }
}

/// The faults that are open in the journal that `file` is, whoever has locked it.
///
/// # Errors
/// It cannot be read.
pub(crate) fn open_in(file: &File, path: &Path) -> io::Result<Vec<OpenFault>> {
    Ok(open_faults(jsonl::read_from(file, path)?.values))
}

fn open_faults(entries: Vec<Entry>) -> Vec<OpenFault> {
    let mut open: Vec<OpenFault> = Vec::new();
    for entry in entries {
        match entry.event {
            Event::Intent { undo, lease, .. } => open.push(OpenFault {
                id: entry.id,
                begun: entry.at,
                undo,
                lease,
                applied: false,
            }),
            Event::Undone { .. } => open.retain(|fault| fault.id != entry.id),
            Event::Renewed { until } => {
                // The last of that name is the one that lives.
                if let Some(fault) = open.iter_mut().rev().find(|fault| fault.id == entry.id) {
                    fault.lease.until = until;
                }
            }
            Event::Applied => {
                if let Some(fault) = open.iter_mut().rev().find(|fault| fault.id == entry.id) {
                    fault.applied = true;
                }
            }
            Event::Observed => {}
        }
    }
    open
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// After a boot nothing of the kernel's is left, and a process of that id and start is a stranger.
fn undo_of_an_earlier_boot(undo: &Undo) -> io::Result<String> {
    match undo {
        Undo::Continue { pid, .. } | Undo::EndWorker { pid, .. } => {
            Ok(format!("process {pid} went with the machine's last boot"))
        }
        Undo::PutBack { data, .. } => {
            Rollback::of(data).clear()?;
            Ok(format!("{} is as it was left", data.display()))
        }
        // What was killed, and what was stopped, went with that boot, and this one starts what it is told to.
        Undo::Recall(_) => Ok("its processes went with the machine's last boot".to_owned()),
        Undo::Restart { .. } | Undo::Relay { .. } | Undo::Network(_) | Undo::RemoveFile { .. } => {
            undo_of_an_earlier_life(undo, true)
        }
    }
}

fn undo_of_an_earlier_life(undo: &Undo, applied: bool) -> io::Result<String> {
    Ok(match undo {
        Undo::Restart { node, .. } => {
            format!("`{node}` was the old agent's child and ended with it")
        }
        Undo::Continue { pid, started, .. } => go_on(*pid, *started)?,
        Undo::PutBack {
            pid, started, data, ..
        } => {
            let went_on = go_on(*pid, *started)?;
            // A swap waits for the end of the process, so that nobody writes to what is removed here.
            Rollback::of(data).clear()?;
            format!("{went_on}, nothing is left beside {}", data.display())
        }
        Undo::Relay { children } => format!(
            "the old agent's children ({}) ended, and their faults with them",
            children.join(", ")
        ),
        Undo::Recall(recall) => recall.undo(applied)?,
        Undo::Network(change) => network::undo(change)?,
        Undo::EndWorker { pid, started } => {
            if process::end_orphan(Identity {
                pid: *pid,
                started: *started,
            })? {
                format!("worker {pid} was ended")
            } else {
                format!("worker {pid} is gone")
            }
        }
        Undo::RemoveFile { file } => machine::remove(file)?,
    })
}

fn go_on(pid: u32, started: u64) -> io::Result<String> {
    Ok(if process::continue_orphan(Identity { pid, started })? {
        format!("process {pid} was continued")
    } else {
        format!("process {pid} is gone")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::fault::{Fault, Kill};
    use model::quantity::{Share, Span};
    use proptest::prelude::*;

    fn deadline(seconds: u64) -> Deadline {
        Deadline {
            until: clock::now() + Span::from_secs(seconds),
            boot: clock::boot().to_owned(),
        }
    }

    fn event(step: usize) -> Event {
        match step {
            0 => Event::Intent {
                order: Box::new(FaultOrder {
                    id: String::new(),
                    fault: Fault::Kill(Kill {}),
                    node: None,
                    share: Share::ALL,
                    seed: 7,
                    lease: Span::from_secs(2),
                }),
                undo: Undo::Restart {
                    node: "lane".to_owned(),
                    pid: 12,
                },
                lease: deadline(2),
            },
            1 => Event::Applied,
            2 => Event::Observed,
            _ => Event::Undone {
                reason: "asked".to_owned(),
            },
        }
    }

    proptest! {
        /// However the lives of some faults interleave, and wherever the agent died, even in the middle of a line.
        #[test]
        fn after_a_start_nothing_is_open(picks in prop::collection::vec(0_usize..4, 0..20), cut in 0.0_f64..=1.0) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("journal.jsonl");
            let (mut journal, healed) = Journal::open(&path).unwrap();
            prop_assert!(healed.is_empty());
            let mut steps = [0_usize; 4];
            for pick in picks {
                if steps[pick] < 4 {
                    journal.record(&format!("f{pick}"), event(steps[pick])).unwrap();
                    steps[pick] += 1;
                }
            }
            drop(journal);
            let bytes = std::fs::read(&path).unwrap();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a length")]
            let keep = (bytes.len() as f64 * cut) as usize;
            std::fs::write(&path, &bytes[..keep]).unwrap();
            let kept = jsonl::read::<Entry>(&path).unwrap().values;
            let count = |wanted: fn(&Event) -> bool| kept.iter().filter(|entry| wanted(&entry.event)).count();
            let begun = count(|event| matches!(event, Event::Intent { .. }));
            let undone = count(|event| matches!(event, Event::Undone { .. }));

            let (_, healed) = Journal::open(&path).unwrap();
            prop_assert_eq!(healed.len(), begun - undone);
            let (_, again) = Journal::open(&path).unwrap();
            prop_assert!(again.is_empty(), "{:?}", again);
        }
    }

    #[test]
    fn a_renewal_moves_the_deadline_of_a_fault_that_is_open_and_of_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let (mut journal, _) = Journal::open(&path).unwrap();
        for id in ["f1", "f2"] {
            journal.record(id, event(0)).unwrap();
        }
        journal.record("f2", event(3)).unwrap();
        let until = clock::now() + Span::from_secs(7);
        for id in ["f1", "f2", "f3"] {
            journal.renewed(id, until).unwrap();
        }
        let open = journal.open_faults().unwrap();
        let found: Vec<_> = open
            .iter()
            .map(|fault| (fault.id.as_str(), fault.lease.until))
            .collect();
        assert_eq!(found, [("f1", until)]);
        let file = File::open(&path).unwrap();
        assert_eq!(
            open_in(&file, &path).unwrap(),
            open,
            "read beside its owner"
        );
    }

    #[test]
    fn a_process_of_another_boot_is_a_stranger() {
        let mut sleeper = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = sleeper.id();
        let id = rustix::process::Pid::from_child(&sleeper);
        rustix::process::kill_process(id, rustix::process::Signal::STOP).unwrap();
        let is_stopped = || crate::procfs::is_stopped(pid) == Some(true);
        while !is_stopped() {
            std::thread::yield_now();
        }
        let mut fault = OpenFault {
            id: "f1".to_owned(),
            begun: clock::now(),
            undo: Undo::Continue {
                node: "lane".to_owned(),
                pid,
                started: crate::procfs::stat(pid).unwrap().started,
            },
            lease: deadline(60),
            applied: true,
        };
        fault.lease.boot = "another".to_owned();
        fault.undo().unwrap();
        assert!(is_stopped(), "it was signalled");
        fault.lease.boot = clock::boot().to_owned();
        fault.undo().unwrap();
        while is_stopped() {
            std::thread::yield_now();
        }
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
    }

    #[test]
    fn a_journal_that_is_damaged_in_the_middle_is_named_and_not_guessed_at() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        std::fs::write(&path, "nonsense\n{}\n").unwrap();
        let error = Journal::open(&path).unwrap_err().to_string();
        assert!(error.contains("journal.jsonl:1"), "{error}");
    }
}
