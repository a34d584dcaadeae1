//! Files of JSON lines, append-only. A line is whole or it is not there: a process that dies while it writes leaves a
//! torn last line, which readers leave out and the next writer cuts off.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A file that grows by whole lines.
#[derive(Debug)]
pub struct Appender {
    file: File,
    path: PathBuf,
}

impl Appender {
    /// Opens the file or makes it, and cuts off a torn last line.
    ///
    /// # Errors
    /// The file cannot be opened, read or cut; the error names it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|error| named(path, &error))?;
        Self::adopt(file, path)
    }

    /// Takes a file that is open for reading and writing, for whoever locks it before it is touched, and cuts off a torn
    /// last line. `path` is what errors call it.
    ///
    /// # Errors
    /// The file cannot be read or cut; the error names it.
    pub fn adopt(mut file: File, path: &Path) -> io::Result<Self> {
        let named = |error| named(path, &error);
        let whole = whole_lines(&mut file).map_err(named)?;
        if whole < file.seek(SeekFrom::End(0)).map_err(named)? {
            file.set_len(whole).map_err(named)?;
        }
        file.seek(SeekFrom::End(0)).map_err(named)?;
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }

    /// Appends one line and waits until it is on disk. When the write fails half-way (a full disk) the half line is
    /// cut off again.
    ///
    /// # Errors
    /// The line could not be written or synced; the error names the file.
    pub fn append(&mut self, value: &impl Serialize) -> io::Result<()> {
        self.append_all([value])
    }

    /// Appends one line without waiting for the disk: it outlives this process, and not the machine.
    ///
    /// # Errors
    /// As [`Appender::append`].
    pub fn append_soon(&mut self, value: &impl Serialize) -> io::Result<()> {
        self.write([value], |_| Ok(()))
    }

    /// Appends lines and waits once until all of them are on disk. When the write fails half-way all of them are cut
    /// off again.
    ///
    /// # Errors
    /// The lines could not be written or synced; the error names the file.
    pub fn append_all<T: Serialize>(
        &mut self,
        values: impl IntoIterator<Item = T>,
    ) -> io::Result<()> {
        self.write(values, File::sync_data)
    }

    /// The lines that are in the file by now.
    ///
    /// # Errors
    /// As [`read`].
    pub fn lines<T: DeserializeOwned>(&self) -> io::Result<Lines<T>> {
        read_from(&self.file, &self.path)
    }

    fn write<T: Serialize>(
        &mut self,
        values: impl IntoIterator<Item = T>,
        then: impl FnOnce(&File) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut lines = Vec::new();
        for value in values {
            serde_json::to_writer(&mut lines, &value).map_err(io::Error::other)?;
            lines.push(b'\n');
        }
        let before = self
            .file
            .stream_position()
            .map_err(|error| named(&self.path, &error))?;
        self.file
            .write_all(&lines)
            .and_then(|()| then(&self.file))
            .map_err(|error| {
                let _ = self.file.set_len(before);
                let _ = self.file.seek(SeekFrom::Start(before));
                named(&self.path, &error)
            })
    }
}

/// The lines of a file.
#[derive(Debug)]
pub struct Lines<T> {
    /// The whole lines.
    pub values: Vec<T>,
    /// Whether a torn last line was left out.
    pub torn: bool,
}

/// Reads a file of JSON lines.
///
/// # Errors
/// The file cannot be read, or a line other than a torn last one is not what is expected; the error names the file
/// and the line.
pub fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Lines<T>> {
    all(read_each(path)?, path)
}

/// As [`read`], of a file that is open, whatever has become of its path since. Its position stays where it was.
///
/// # Errors
/// As [`read`].
pub fn read_from<T: DeserializeOwned>(file: &File, path: &Path) -> io::Result<Lines<T>> {
    let mut text = Vec::new();
    let mut piece = [0; 16_384];
    loop {
        let read = file
            .read_at(&mut piece, text.len() as u64)
            .map_err(|error| named(path, &error))?;
        if read == 0 {
            break;
        }
        text.extend_from_slice(&piece[..read]);
    }
    all(parse(&text), path)
}

fn all<T>(lines: Lines<Result<T, serde_json::Error>>, path: &Path) -> io::Result<Lines<T>> {
    let Lines { values, torn } = lines;
    let values = values
        .into_iter()
        .enumerate()
        .map(|(at, line)| {
            line.map_err(|error| {
                let place = format!("{}:{}: {error}", path.display(), at + 1);
                io::Error::new(io::ErrorKind::InvalidData, place)
            })
        })
        .collect::<io::Result<_>>()?;
    Ok(Lines { values, torn })
}

/// Reads a file of JSON lines that may be damaged: what is wrong with one line does not keep the others away.
///
/// # Errors
/// The file cannot be read; the error names it.
pub fn read_each<T: DeserializeOwned>(
    path: &Path,
) -> io::Result<Lines<Result<T, serde_json::Error>>> {
    let text = std::fs::read(path).map_err(|error| named(path, &error))?;
    Ok(parse(&text))
}

fn parse<T: DeserializeOwned>(text: &[u8]) -> Lines<Result<T, serde_json::Error>> {
    let mut lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    let torn = lines.pop().is_some_and(|last| !last.is_empty());
    let values = lines.into_iter().map(serde_json::from_slice).collect();
    Lines { values, torn }
}

/// Bytes up to the end of a file's last whole line. Looked for from the end: the file may be larger than the memory.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    let mut block = [0; 4_096];
    let mut end = file.seek(SeekFrom::End(0))?;
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let piece = &mut block[..usize::try_from(end - start).map_err(io::Error::other)?];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(piece)?;
        if let Some(at) = piece.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_torn_at_any_byte_is_left_out_and_healed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let whole = "{\"n\":1}\n{\"n\":22}\n";
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let expected = whole[..cut].matches('\n').count();
            let lines = read::<serde_json::Value>(&path).unwrap();
            assert_eq!(lines.values.len(), expected, "cut at {cut}");
            assert_eq!(
                lines.torn,
                !whole[..cut].is_empty() && !whole[..cut].ends_with('\n')
            );
            Appender::open(&path)
                .unwrap()
                .append(&serde_json::json!({"n": 3}))
                .unwrap();
            let healed = read::<serde_json::Value>(&path).unwrap();
            assert_eq!(
                (healed.values.len(), healed.torn),
                (expected + 1, false),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn a_long_torn_line_is_cut_off_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        for whole in ["", "{\"n\":1}\n"] {
            for length in [4_095, 4_096, 4_097, 10_000] {
                std::fs::write(&path, format!("{whole}{}", "x".repeat(length))).unwrap();
                Appender::open(&path).unwrap();
                assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
            }
        }
    }

    #[test]
    fn a_bad_line_is_named_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.jsonl");
        std::fs::write(&path, "{}\nnonsense\n{}\n").unwrap();
        let error = read::<serde_json::Value>(&path).unwrap_err().to_string();
        assert!(error.contains("results.jsonl:2:"), "{error}");
    }
}
