//! What happened when in a trial: the row's `log_file`.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use model::instant::Mono;

/// A text file with one line an event, each with the seconds since the trial began.
#[derive(Debug)]
pub struct Diary {
    file: Mutex<File>,
    started: Mono,
}

impl Diary {
    /// Begins one.
    ///
    /// # Errors
    /// The file cannot be made; the error names it.
    pub fn begin(path: &Path, started: Mono) -> io::Result<Self> {
        let file = File::create(path).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        })?;
        Ok(Self {
            file: Mutex::new(file),
            started,
        })
    }

    /// Adds a line. A full disk costs the line, not the trial: results.jsonl, which decides, is written with care.
    pub fn note(&self, line: &str) {
        let since = host::clock::now().since(self.started).as_secs_f64();
        tracing::debug!("{line}");
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = writeln!(file, "{since:10.3}s  {line}") {
            tracing::warn!(%error, "the trial's log could not be written");
        }
    }
}
