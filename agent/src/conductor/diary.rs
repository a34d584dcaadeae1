//! What happened when in a trial: the row's `log_file`.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use model::instant::Mono;
use results::redact::Masker;

/// A text file with one line an event, each with the seconds since the trial began, and without secrets.
#[derive(Debug)]
pub struct Diary {
    file: Mutex<File>,
    started: Mono,
    masker: Masker,
}

impl Diary {
    /// Begins one.
    ///
    /// # Errors
    /// The file cannot be made; the error names it.
    pub fn begin(path: &Path, started: Mono, masker: Masker) -> io::Result<Self> {
        let file = File::create(path).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        })?;
        Ok(Self {
            file: Mutex::new(file),
            started,
            masker,
        })
    }

    /// Adds a line. A full disk costs the line, not the trial: results.jsonl, which decides, is written with care.
    pub fn note(&self, line: &str) {
        let since = host::clock::now().since(self.started).as_secs_f64();
        let line = self.masker.mask(line);
        tracing::debug!("{line}");
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = writeln!(file, "{since:10.3}s  {line}") {
            tracing::warn!(%error, "the trial's log could not be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_holds_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trial.log");
        let masker = Masker::new(["a-session"]);
        let diary = Diary::begin(&path, host::clock::now(), masker).unwrap();
        diary.note("bad session a-session, token=abc");
        let written = std::fs::read_to_string(path).unwrap();
        assert!(
            written.ends_with("  bad session [redacted], token=[redacted]\n"),
            "{written}"
        );
    }
}
