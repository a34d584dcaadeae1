//! A node's data folder as it was: copied while the node stands still, and put in the place of the folder once the node
//! is dead.
//!
//! | step | what is on disk |
//! |---|---|
//! | before | `data` |
//! | copied | `data`, `data.older` |
//! | swapped | `data` (the older), `data.newer` |
//! | cleared | `data` |
//!
//! Between any two of these [`Rollback::clear`] makes the last of what it finds, and never leaves a node without data.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A file's length and the time of its last change.
type Stamp = (u64, Option<SystemTime>);

/// What a copy of a folder is worth: how much there is of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extent {
    /// Files.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
}

/// The way back of one folder.
#[derive(Debug, Clone)]
pub struct Rollback {
    data: PathBuf,
    older: PathBuf,
    newer: PathBuf,
}

/// The files of a folder when it was copied.
#[derive(Debug, Default)]
pub struct Copied {
    stamps: BTreeMap<PathBuf, Stamp>,
}

impl Rollback {
    /// Of that folder.
    #[must_use]
    pub fn of(data: &Path) -> Self {
        let beside = |suffix: &str| {
            let mut name = data.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        Self {
            data: data.to_owned(),
            older: beside(".older"),
            newer: beside(".newer"),
        }
    }

    /// The folder.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Copies the folder. Whoever writes to it should stand still meanwhile.
    ///
    /// # Errors
    /// A file could not be read or written; the error names it. What was copied is for [`Self::clear`].
    pub fn copy(&self) -> io::Result<(Copied, Extent)> {
        let mut copied = Copied::default();
        let mut extent = Extent::default();
        copy_tree(&self.data, &self.older, &mut |file, bytes| {
            copied.stamps.insert(file.to_owned(), stamp(file));
            extent.files += 1;
            extent.bytes += bytes;
        })?;
        Ok((copied, extent))
    }

    /// Puts the copy in the place of the folder; how many files had changed or come since it was made. The node must be
    /// dead.
    ///
    /// # Errors
    /// The folder could not be renamed.
    pub fn swap(&self, copied: &Copied) -> io::Result<u64> {
        let changed = changed_since(&self.data, copied)?;
        rename(&self.data, &self.newer)?;
        rename(&self.older, &self.data)?;
        Ok(changed)
    }

    /// Removes what is beside the folder, from whatever state; a folder that is not in its place is put there first.
    ///
    /// # Errors
    /// Something could not be renamed or removed.
    pub fn clear(&self) -> io::Result<()> {
        if !self.data.exists() && self.newer.exists() {
            // The copy may be all that a swap has left to do: it was whole before the swap began.
            let whole = if self.older.exists() {
                &self.older
            } else {
                &self.newer
            };
            rename(whole, &self.data)?;
        }
        for folder in [&self.older, &self.newer] {
            match fs::remove_dir_all(folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(named(folder, &error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn copy_tree(from: &Path, to: &Path, done: &mut impl FnMut(&Path, u64)) -> io::Result<()> {
    fs::create_dir_all(to).map_err(|error| named(to, &error))?;
    for entry in fs::read_dir(from).map_err(|error| named(from, &error))? {
        let entry = entry.map_err(|error| named(from, &error))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(|error| named(&source, &error))?;
        if kind.is_dir() {
            copy_tree(&source, &target, done)?;
        } else if kind.is_file() {
            let bytes = fs::copy(&source, &target).map_err(|error| named(&source, &error))?;
            done(&source, bytes);
        }
    }
    Ok(())
}

fn changed_since(folder: &Path, copied: &Copied) -> io::Result<u64> {
    let mut changed = 0;
    for entry in fs::read_dir(folder).map_err(|error| named(folder, &error))? {
        let path = entry.map_err(|error| named(folder, &error))?.path();
        if path.is_dir() {
            changed += changed_since(&path, copied)?;
        } else if copied.stamps.get(&path) != Some(&stamp(&path)) {
            changed += 1;
        }
    }
    Ok(changed)
}

fn stamp(file: &Path) -> Stamp {
    file.metadata()
        .map_or((0, None), |found| (found.len(), found.modified().ok()))
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to).map_err(|error| named(from, &error))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder {
        _keep: tempfile::TempDir,
        data: PathBuf,
        rollback: Rollback,
    }

    fn folder() -> Folder {
        let keep = tempfile::tempdir().unwrap();
        let data = keep.path().join("lane");
        fs::create_dir_all(data.join("log")).unwrap();
        fs::write(data.join("log/1"), "old").unwrap();
        fs::write(data.join("settings"), "same").unwrap();
        let rollback = Rollback::of(&data);
        Folder {
            _keep: keep,
            data,
            rollback,
        }
    }

    fn beside(folder: &Folder) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder.data.parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_folder_goes_back_and_what_had_changed_is_counted() {
        let folder = folder();
        let (copied, extent) = folder.rollback.copy().unwrap();
        assert_eq!(extent, Extent { files: 2, bytes: 7 });
        fs::write(folder.data.join("log/1"), "old and new").unwrap();
        fs::write(folder.data.join("log/2"), "new").unwrap();
        assert_eq!(folder.rollback.swap(&copied).unwrap(), 2);
        folder.rollback.clear().unwrap();
        assert_eq!(
            fs::read_to_string(folder.data.join("log/1")).unwrap(),
            "old"
        );
        assert!(!folder.data.join("log/2").exists());
        assert_eq!(beside(&folder), ["lane"]);
    }

    #[test]
    fn nothing_changed_is_nothing_rolled_back() {
        let folder = folder();
        let (copied, _) = folder.rollback.copy().unwrap();
        assert_eq!(folder.rollback.swap(&copied).unwrap(), 0);
    }

    #[test]
    fn from_every_half_way_state_the_folder_is_there_and_nothing_beside_it() {
        for stop_after in 0..4 {
            let folder = folder();
            let Rollback { data, older, newer } = &folder.rollback;
            let steps: [&dyn Fn(); 3] = [
                &|| drop(folder.rollback.copy().unwrap()),
                &|| fs::rename(data, newer).unwrap(),
                &|| fs::rename(older, data).unwrap(),
            ];
            for step in &steps[..stop_after.min(3)] {
                step();
            }
            for _ in 0..2 {
                folder.rollback.clear().unwrap();
                assert_eq!(beside(&folder), ["lane"], "stopped after {stop_after}");
                assert!(data.join("log/1").exists());
            }
        }
    }
}
