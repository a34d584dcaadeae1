//! The decision log: a line for each thing that a toxic has decided by chance. Whoever decides never waits for the disk:
//! lines go into a bounded buffer, and where the writer cannot keep up they are left out and counted.

use std::fmt::Display;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use host::jsonl::Appender;
use serde::Serialize;

use crate::faults::{Cause, Rule};
use crate::identity::Subject;

/// Lines that may wait for the writer. One takes a few hundred bytes, of which an id may have 256.
const WAITING: usize = 8_192;

/// A file of decisions, as JSON lines.
#[derive(Debug)]
pub(crate) struct Log {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// The log, for the toxics of one proxy.
#[derive(Debug, Clone)]
pub(crate) struct Decisions {
    log: Arc<Log>,
    proxy: String,
}

#[derive(Debug, Default)]
struct Shared {
    buffer: Mutex<Buffer>,
    /// Something is in the buffer, or it was closed.
    changed: Condvar,
}

/// What waits for the writer.
#[derive(Debug, Default)]
struct Buffer {
    lines: Vec<Line>,
    /// Lines left out since the last of `lines`.
    dropped: u64,
    is_closed: bool,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Line {
    Decision(Box<Decision>),
    /// So many are missing here.
    Dropped {
        dropped: u64,
    },
}

#[derive(Debug, Serialize)]
struct Decision {
    proxy: String,
    toxic: String,
    #[serde(rename = "type")]
    kind: &'static str,
    /// The client's id, or `connection-7`.
    connection: String,
    /// How many connections the client has had before.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u64>,
    direction: &'static str,
    index: u64,
    decided: String,
    /// The ordinal stood in for an id.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    nondeterministic: bool,
}

impl Buffer {
    /// Whether the writer has to be told.
    fn push(&mut self, line: impl FnOnce() -> Line) -> bool {
        if self.is_closed {
            return false;
        }
        if self.lines.len() >= WAITING {
            self.dropped += 1;
            return false;
        }
        self.lines.push(line());
        self.lines.len() == 1
    }

    fn take(&mut self) -> Vec<Line> {
        let mut lines = std::mem::take(&mut self.lines);
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            lines.push(Line::Dropped { dropped });
        }
        lines
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lines that came since the last time; none once it was closed.
    fn wait(&self) -> Vec<Line> {
        let mut buffer = self.lock();
        while buffer.lines.is_empty() && !buffer.is_closed {
            buffer = self
                .changed
                .wait(buffer)
                .unwrap_or_else(PoisonError::into_inner);
        }
        buffer.take()
    }

    fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }
}

impl Log {
    /// Appends to this file, which is made where it is not there.
    ///
    /// # Errors
    /// The file cannot be opened, or no thread can be had.
    pub(crate) fn open(path: &Path) -> io::Result<Arc<Self>> {
        let mut file = Appender::open(path)?;
        let shared = Arc::new(Shared::default());
        let lines = Arc::clone(&shared);
        let write = move || {
            let mut lost = 0;
            loop {
                let mut batch = lines.wait();
                if batch.is_empty() {
                    return;
                }
                if lost > 0 {
                    batch.insert(0, Line::Dropped { dropped: lost });
                }
                match file.append_all(&batch) {
                    Ok(()) => lost = 0,
                    Err(error) => {
                        if lost == 0 {
                            tracing::warn!(%error, "decisions are not logged until that works again");
                        }
                        lost = batch.iter().map(Line::decisions).sum();
                    }
                }
            }
        };
        let writer = std::thread::Builder::new()
            .name("decision-log".to_owned())
            .spawn(write)?;
        Ok(Arc::new(Self {
            shared,
            writer: Mutex::new(Some(writer)),
        }))
    }

    /// Writes what waits, and no more after that.
    pub(crate) fn close(&self) {
        self.shared.close();
        let writer = self.writer.lock().map(|mut writer| writer.take());
        if let Ok(Some(writer)) = writer {
            let _ = writer.join();
        }
    }

    /// For the toxics of this proxy.
    pub(crate) fn of(self: &Arc<Self>, proxy: &str) -> Decisions {
        Decisions {
            log: Arc::clone(self),
            proxy: proxy.to_owned(),
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Line {
    const fn decisions(&self) -> u64 {
        match self {
            Self::Decision(_) => 1,
            Self::Dropped { dropped } => *dropped,
        }
    }
}

impl Decisions {
    /// Takes note of a decision of a toxic.
    pub(crate) fn write(
        &self,
        rule: &Rule,
        subject: &Subject,
        direction: &'static str,
        index: u64,
        decided: impl Display,
    ) {
        let Cause::Toxic(toxic) = &rule.cause else {
            return;
        };
        let line = || {
            let (connection, attempt) = match subject {
                Subject::Client { id, attempt } => (id.to_string(), Some(*attempt)),
                Subject::Connection(_) => (subject.to_string(), None),
            };
            Line::Decision(Box::new(Decision {
                proxy: self.proxy.clone(),
                toxic: toxic.name.clone(),
                kind: toxic.settings.name(),
                connection,
                nondeterministic: attempt.is_none(),
                attempt,
                direction,
                index,
                decided: decided.to_string(),
            }))
        };
        let shared = &self.log.shared;
        if shared.lock().push(line) {
            shared.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_writer_cannot_keep_up_with_is_left_out_and_counted() {
        let mut buffer = Buffer::default();
        let line = || Line::Dropped { dropped: 0 };
        assert!(buffer.push(line), "the writer sleeps");
        for _ in 1..WAITING + 5 {
            assert!(!buffer.push(line));
        }
        let lines = buffer.take();
        assert_eq!(lines.len(), WAITING + 1);
        assert!(matches!(lines.last(), Some(Line::Dropped { dropped: 5 })));
        assert!(buffer.push(line), "there is room again");
        assert_eq!(buffer.take().len(), 1);
        buffer.is_closed = true;
        assert!(!buffer.push(line) && buffer.take().is_empty());
    }
}
