//! The text of a scenario or of a target file.

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use thiserror::Error;

use crate::diagnostic::{Diagnostic, Diagnostics, Place};
use crate::tree::Mark;

/// A scenario of the library is some 2 KiB, a target file some 4; a file beyond this is neither.
const MAX_BYTES: usize = 256 * 1024;

/// The text of a scenario or of a target file, and the name by which diagnostics call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Shown in diagnostics: a path, or `restart.yaml` for the library's.
    pub name: String,
    /// YAML.
    pub text: String,
}

/// Why there is no text.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The file could not be read.
    #[error("{name}: {source}: name a readable YAML file")]
    Io {
        /// The path.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// What was read is not text.
    #[error(transparent)]
    NotText(#[from] Diagnostics),
}

impl Source {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, is no regular file, is larger than 256 KiB, or is not text.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        let name = path.display().to_string();
        let mut bytes = Vec::new();
        // To open a pipe would wait for its writer, and a device may never end.
        regular(path)
            .and_then(|()| fs::File::open(path))
            // One byte more than allowed tells a file that is too large, however large.
            .and_then(|file| file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes))
            .map_err(|source| ReadError::Io {
                name: name.clone(),
                source,
            })?;
        Ok(Self::from_bytes(name, bytes)?)
    }

    /// Takes bytes that are to be text.
    ///
    /// # Errors
    /// They are more than 256 KiB, are not UTF-8, or hold a NUL.
    pub fn from_bytes(name: String, bytes: Vec<u8>) -> Result<Self, Diagnostics> {
        let bad = match std::str::from_utf8(&bytes) {
            _ if bytes.len() > MAX_BYTES => None,
            Ok(text) => text.find('\0'),
            Err(error) => Some(error.valid_up_to().min(nul(&bytes).unwrap_or(usize::MAX))),
        };
        if let Some(at) = bad {
            let before = String::from_utf8_lossy(&bytes[..at]).into_owned();
            let last = before.rsplit('\n').next().unwrap_or_default();
            let mark = Mark {
                line: before.matches('\n').count() + 1,
                column: last.chars().count() + 1,
                width: 1,
            };
            let message = format!("this is not text: byte 0x{:02x}", bytes[at]);
            let place = Place::File {
                name,
                mark,
                text: last.to_owned(),
            };
            return Err(Diagnostic::error(place, message)
                .hint("it has to be YAML in UTF-8")
                .into());
        }
        match String::from_utf8(bytes) {
            Ok(text) if text.len() <= MAX_BYTES => Ok(Self { name, text }),
            _ => Err(too_large(name).into()),
        }
    }

    /// What [`Source::from_bytes`] would refuse, for a text that came another way.
    pub(crate) fn check_text(&self) -> Result<(), Diagnostics> {
        if self.text.len() > MAX_BYTES {
            return Err(too_large(self.name.clone()).into());
        }
        if self.text.contains('\0') {
            return Self::from_bytes(self.name.clone(), self.text.clone().into_bytes()).map(drop);
        }
        if self
            .text
            .lines()
            .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
        {
            let message = "the file is empty".to_owned();
            let hint = "begin with an example: docs/ has them";
            return Err(Diagnostic::error(self.place(Mark::START), message)
                .hint(hint)
                .into());
        }
        Ok(())
    }

    /// A place in this text, with its line.
    pub(crate) fn place(&self, mark: Mark) -> Place {
        let text = self
            .text
            .lines()
            .nth(mark.line - 1)
            .unwrap_or_default()
            .to_owned();
        Place::File {
            name: self.name.clone(),
            mark,
            text,
        }
    }
}

fn regular(path: &Path) -> io::Result<()> {
    if fs::metadata(path)?.is_file() {
        Ok(())
    } else {
        Err(io::Error::other("it is not a regular file"))
    }
}

fn nul(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == 0)
}

fn too_large(name: String) -> Diagnostic {
    let place = Place::File {
        name,
        mark: Mark::START,
        text: String::new(),
    };
    let message = format!("the file is larger than {} KiB", MAX_BYTES / 1024);
    Diagnostic::error(place, message).hint("keep data elsewhere")
}
