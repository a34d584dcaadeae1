//! The tokens that the service has revoked: served as JSON, and for the khala lane written beside the shared keys.

use std::io;
use std::path::{Path, PathBuf};

use lanes::token::RevokedList;

use super::keys;

/// A revoked token stays on the list for so long after its `exp`, in seconds: longer than any lane's skew.
const KEPT_AFTER_EXP_S: u64 = 3_600;

/// The list and its file.
#[derive(Debug)]
pub(super) struct Revoked {
    file: PathBuf,
    list: RevokedList,
}

/// Where the list lies.
fn file_beside(key_file: &Path) -> PathBuf {
    key_file.with_extension("revoked.json")
}

/// The list as the khala lane reads it; an empty one where nothing was ever revoked.
///
/// # Errors
/// The file is there and cannot be read, or it is no such list; the error names it.
pub(crate) fn read(key_file: &Path) -> io::Result<RevokedList> {
    match keys::read(&file_beside(key_file)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(RevokedList::default()),
        other => other,
    }
}

impl Revoked {
    /// The list that lies there.
    pub(super) fn open(key_file: &Path) -> io::Result<Self> {
        Ok(Self {
            list: read(key_file)?,
            file: file_beside(key_file),
        })
    }

    pub(super) const fn list(&self) -> &RevokedList {
        &self.list
    }

    /// Revokes a token. `now` is in seconds since the Unix epoch.
    pub(super) fn revoke(&mut self, token_id: &str, exp: u64, now: u64) -> io::Result<()> {
        let revoked = &mut self.list.revoked;
        revoked.retain(|_, exp| exp.saturating_add(KEPT_AFTER_EXP_S) > now);
        revoked.insert(token_id.to_owned(), exp);
        keys::write(&self.file, &self.list)
    }
}
