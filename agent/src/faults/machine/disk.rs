//! A fault that is a file: it takes up room on a disk, and leaves a reserve.
//!
//! Figures: `bytes_asked`, `bytes_held`, `bytes_reserved`, `bytes_free_before`, `bytes_free`, `stopped_short`,
//! `file_missing` (somebody else has removed it).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use futures_util::future::BoxFuture;
use host::clock;
use host::http::{Failure, StatusCode};
use model::fault::{DiskFill, FaultOrder, Observation};
use model::instant::{Bracket, Mono};
use model::quantity::ByteSize;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statvfs::statvfs;
use tokio_util::sync::CancellationToken;

use super::super::NotApplied;
use super::super::deed::{Deed, Undone};
use super::super::network::{digest, plain};
use super::{failed, impossible};
use crate::journal::Undo;

/// So begins the name of every file that a fault makes.
const FILES: &str = ".faultlane-fill-";
/// Below this programs stop in the middle of what they write, and so may the one that is to undo the fault.
const LEAST_RESERVE: u64 = 64 << 20;
/// Between two looks at what is free.
const CHUNK: u64 = 16 << 20;
/// What `st_blocks` counts in.
const BLOCK: u64 = 512;
/// Written where a file system cannot set room aside, over and over.
const PIECE: usize = 1 << 20;

/// Removes a fault's file, from whatever state and any number of times; a word on how. Nothing is removed that has not the
/// name of one.
///
/// # Errors
/// It is no such file, or cannot be removed; the error names it.
pub(crate) fn remove(file: &Path) -> io::Result<String> {
    let shown = file.display();
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{shown}: {error}"));
    let name = file.file_name().unwrap_or_default();
    if !name.as_encoded_bytes().starts_with(FILES.as_bytes()) {
        let text =
            "it has not the name of a fault's file and is left alone; the journal is damaged";
        return Err(named(io::Error::new(io::ErrorKind::InvalidData, text)));
    }
    match fs::remove_file(file) {
        Ok(()) => Ok(format!("{shown} was removed")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Ok(format!("{shown} is not there"))
        }
        Err(error) => Err(named(error)),
    }
}

/// One file.
#[derive(Debug)]
pub(super) struct DiskFault {
    file: PathBuf,
    settings: DiskFill,
    filled: OnceLock<Filled>,
    interrupt: OnceLock<CancellationToken>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Filled {
    asked: u64,
    held: u64,
    reserve: u64,
    free_before: u64,
}

/// A file system, in bytes.
#[derive(Debug, Clone, Copy)]
struct Room {
    total: u64,
    free: u64,
}

impl Room {
    fn of(folder: &Path) -> io::Result<Self> {
        let said = statvfs(folder)?;
        let block: u64 = said.fragment_size();
        Ok(Self {
            total: said.blocks().saturating_mul(block),
            free: said.blocks_available().saturating_mul(block),
        })
    }

    /// What has to stay free.
    fn reserve(self, asked: ByteSize) -> u64 {
        asked.bytes().max(self.total / 20).max(LEAST_RESERVE)
    }
}

impl DiskFault {
    /// A file of a name that there is not yet.
    pub(super) fn aim(
        order: &FaultOrder,
        settings: &DiskFill,
        folder: &Path,
    ) -> Result<Self, Failure> {
        let shown = folder.display();
        let really = folder.canonicalize().map_err(|error| {
            let text = format!("folder `{shown}`: {error}");
            Failure::new(StatusCode::NOT_FOUND, text)
        })?;
        // What the policy allows is a name, and a link would lead elsewhere.
        if settings.folder.is_some() && really != folder {
            return Err(impossible(&format_args!(
                "folder `{shown}` is really `{}`; name that, if the policy allows it",
                really.display()
            )));
        }
        let room = Room::of(&really).map_err(|error| failed(&format_args!("{shown}: {error}")))?;
        let reserve = room.reserve(settings.reserve);
        if room.free <= reserve {
            return Err(impossible(&format_args!(
                "nothing can be taken up in `{shown}`: {} bytes are free there, and {reserve} have to stay so; ask for a \
                 smaller `reserve`, or free some",
                room.free
            )));
        }
        let (now, pid) = (clock::now().0.to_string(), std::process::id().to_string());
        let own = digest(&[&really.to_string_lossy(), &order.id, &now, &pid]);
        let file = really.join(format!("{FILES}{}-{own}", plain(&order.id)));
        if file.symlink_metadata().is_ok() {
            let text = format!("{} is there already and is left alone", file.display());
            return Err(Failure::new(StatusCode::CONFLICT, text));
        }
        Ok(Self {
            file,
            settings: settings.clone(),
            filled: OnceLock::new(),
            interrupt: OnceLock::new(),
        })
    }

    async fn fill(&self) -> Result<(), NotApplied> {
        let (file, settings) = (self.file.clone(), self.settings.clone());
        let interrupt = self.interrupt.get().cloned().unwrap_or_default();
        let filled = tokio::task::spawn_blocking(move || {
            fill(&file, &settings, &|| interrupt.is_cancelled())
        });
        let filled = filled
            .await
            .map_err(|error| NotApplied::half_way(failed(&error)))?;
        let filled = filled.map_err(|error| {
            let text = format!("{}: {error}", self.file.display());
            // Somebody has made it in the meantime: it is not ours.
            if error.kind() == io::ErrorKind::AlreadyExists {
                return NotApplied::untouched(Failure::new(StatusCode::CONFLICT, text));
            }
            NotApplied::half_way(failed(&text))
        })?;
        self.filled.get_or_init(|| filled);
        Ok(())
    }

    fn seen(&self) -> Result<(Mono, Observation), Failure> {
        let mut observation = Observation::default();
        self.tell(&mut observation);
        match observation.observed {
            Some(observed) => Ok((observed, observation)),
            None => Err(failed(&format_args!(
                "{} was filled, and was not seen to take up room: {:?}",
                self.file.display(),
                observation.figures
            ))),
        }
    }

    fn tell(&self, observation: &mut Observation) {
        let filled = self.filled.get().copied().unwrap_or_default();
        let mut figure = |name: &str, value: u64| {
            observation.figures.insert(name.to_owned(), value);
        };
        figure("bytes_asked", filled.asked);
        figure("bytes_held", filled.held);
        figure("bytes_reserved", filled.reserve);
        figure("bytes_free_before", filled.free_before);
        figure("stopped_short", (filled.held < filled.asked).into());
        let about = self.file.symlink_metadata().ok();
        figure("file_missing", about.is_none().into());
        if let Some(room) = self.file.parent().and_then(|folder| Room::of(folder).ok()) {
            figure("bytes_free", room.free);
        }
        let taken = about.map_or(0, |about| about.blocks() * BLOCK);
        if filled.held > 0 && taken >= filled.held / 2 {
            observation.bitten = 1;
            observation.observed.get_or_insert_with(clock::now);
        }
    }
}

/// Takes up room, as long as enough stays free.
fn fill(path: &Path, settings: &DiskFill, interrupted: &dyn Fn() -> bool) -> io::Result<Filled> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let room = Room::of(folder)?;
    let mut filled = Filled {
        asked: settings.size.of(room.free),
        held: 0,
        reserve: room.reserve(settings.reserve),
        free_before: room.free,
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let mut sets_aside = true;
    while filled.held < filled.asked {
        if interrupted() {
            let text = "called back before all was taken up";
            return Err(io::Error::new(io::ErrorKind::Interrupted, text));
        }
        let most = Room::of(folder)?.free.saturating_sub(filled.reserve);
        let next = CHUNK.min(filled.asked - filled.held).min(most);
        if next == 0 {
            break;
        }
        if let Err(error) = grow(&mut file, filled.held, next, &mut sets_aside) {
            // Others were quicker, or there is a quota.
            if matches!(
                error.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            ) {
                break;
            }
            return Err(error);
        }
        filled.held += next;
    }
    if !sets_aside {
        // Else it may still be in memory.
        file.sync_all()?;
    }
    Ok(filled)
}

fn grow(file: &mut File, from: u64, bytes: u64, sets_aside: &mut bool) -> io::Result<()> {
    if *sets_aside {
        let (from, bytes) = (signed(from)?, signed(bytes)?);
        match fallocate(&*file, FallocateFlags::empty(), from, bytes) {
            Ok(()) => return Ok(()),
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => *sets_aside = false,
            Err(error) => return Err(error.into()),
        }
    }
    write_noise(file, bytes)
}

/// Numbers that no file system makes less of.
fn write_noise(file: &mut File, bytes: u64) -> io::Result<()> {
    let mut number = bytes | 1;
    let mut left = usize::try_from(bytes).map_err(io::Error::other)?;
    let mut piece = Vec::with_capacity(PIECE);
    while left > 0 {
        piece.clear();
        while piece.len() < PIECE.min(left) {
            number ^= number << 13;
            number ^= number >> 7;
            number ^= number << 17;
            piece.extend_from_slice(&number.to_le_bytes());
        }
        piece.truncate(left);
        file.write_all(&piece)?;
        left -= piece.len();
    }
    Ok(())
}

fn signed(bytes: u64) -> io::Result<i64> {
    i64::try_from(bytes).map_err(io::Error::other)
}

impl Deed for DiskFault {
    fn undo_record(&self) -> Undo {
        Undo::RemoveFile {
            file: self.file.clone(),
        }
    }

    fn prepare<'a>(
        &'a self,
        interrupt: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        self.interrupt.get_or_init(|| interrupt.clone());
        Box::pin(async { Ok(()) })
    }

    fn strike(&self) -> BoxFuture<'_, Result<(), NotApplied>> {
        Box::pin(self.fill())
    }

    fn bite(&self) -> BoxFuture<'_, Result<(Mono, Observation), Failure>> {
        Box::pin(async { self.seen() })
    }

    fn look<'a>(&'a self, observation: &'a mut Observation) -> BoxFuture<'a, ()> {
        self.tell(observation);
        Box::pin(async {})
    }

    fn undo<'a>(
        &'a self,
        _ending: bool,
        observation: &'a mut Observation,
    ) -> BoxFuture<'a, Result<Undone, Failure>> {
        Box::pin(async move {
            let asked = clock::now();
            self.tell(observation);
            let file = self.file.clone();
            // To give back many extents takes a while.
            let removed = tokio::task::spawn_blocking(move || remove(&file)).await;
            let reason = removed
                .map_err(|error| failed(&error))?
                .map_err(|error| failed(&error))?;
            let observed = clock::now();
            Ok((Some(Bracket { asked, observed }), reason))
        })
    }

    fn traces(&self) -> Vec<String> {
        if self.file.symlink_metadata().is_err() {
            return Vec::new();
        }
        vec![format!("file `{}`", self.file.display())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::fault::Amount;

    #[test]
    fn noise_is_as_long_as_asked_and_does_not_repeat() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("noise");
        let mut file = File::create(&path).unwrap();
        write_noise(&mut file, 1_500_003).unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 1_500_003);
        let mut pieces: Vec<&[u8]> = bytes.chunks_exact(16).collect();
        pieces.sort_unstable();
        pieces.dedup();
        assert_eq!(pieces.len(), bytes.len() / 16);
    }

    #[test]
    fn a_fill_that_is_called_back_stops_and_its_file_goes() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(format!("{FILES}f1"));
        let settings = DiskFill {
            size: Amount::Bytes(ByteSize::new(1 << 40)),
            reserve: ByteSize::new(0),
            folder: None,
        };
        let looks = std::cell::Cell::new(0);
        let third = || looks.replace(looks.get() + 1) == 2;
        let error = fill(&file, &settings, &third).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
        assert_eq!(file.metadata().unwrap().len(), 2 * CHUNK);
        for said in ["was removed", "is not there"] {
            assert!(remove(&file).unwrap().ends_with(said));
        }
    }

    #[test]
    fn what_is_not_a_faults_file_is_never_removed() {
        let folder = tempfile::tempdir().unwrap();
        let precious = folder.path().join("precious");
        fs::write(&precious, "x").unwrap();
        let error = remove(&precious).unwrap_err().to_string();
        assert!(error.contains("precious") && precious.exists(), "{error}");
    }
}
