//! An authority and certificates for those who have none: agents show theirs to whoever calls, callers theirs to agents, with
//! the roles they have. Nothing that is there is written over.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use host::tls::{Root, TlsError, Use};
use model::target::TlsIdentity;

use crate::access::Role;

/// The authority's name, by which what it has issued is known to be its own.
const AUTHORITY: &str = "faultlane";
const AUTHORITY_FILE: &str = "ca";
const AUTHORITY_DAYS: u32 = 3_650;

/// Whose certificate it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// An agent: to be called.
    Agent,
    /// It drives drills: observe, inject.
    Conductor,
    /// It looks on: observe.
    Observer,
    /// It has the lever: observe, halt.
    Operator,
}

impl Holder {
    const fn roles(self) -> &'static [Role] {
        match self {
            Self::Agent => &[],
            Self::Conductor => &[Role::Observe, Role::Inject],
            Self::Observer => &[Role::Observe],
            Self::Operator => &[Role::Observe, Role::Halt],
        }
    }
}

/// A certificate that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// What it is called, and its files.
    pub name: String,
    /// The hosts and addresses at which an agent is called, beside its name.
    pub hosts: Vec<String>,
    /// Whose it is.
    pub holder: Holder,
}

/// Why nothing was made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A name that is no file's and no certificate's.
    #[error(
        "`{0}` is no name for a certificate; use up to 63 lower-case letters, digits, hyphens and dots, and not `ca`"
    )]
    Name(String),
    /// Two of one name.
    #[error("two certificates are to be called `{0}`; call each by a name of its own")]
    Twice(String),
    /// It would be written over.
    #[error("{} exists and is not written over; choose another folder or another name{add}", path.display())]
    Exists {
        /// Which file.
        path: PathBuf,
        /// What else there is to do.
        add: &'static str,
    },
    /// A file.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Makes an authority and what it issues; the files, in the order in which they were written. Keys have the mode 0600.
///
/// # Errors
/// See [`PkiError`].
pub fn init(dir: &Path, wanted: &[Wanted], days: u32) -> Result<Vec<PathBuf>, PkiError> {
    check(dir, wanted)?;
    let [certificate, key] = files(dir, AUTHORITY_FILE);
    absent(
        &[&certificate, &key],
        "; `faultlane pki add` issues more certificates of an authority that is there",
    )?;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| PkiError::File {
            path: dir.to_owned(),
            source,
        })?;
    let (root, identity) = Root::begin(AUTHORITY, lasting(AUTHORITY_DAYS))?;
    let mut written = write(dir, AUTHORITY_FILE, &identity)?;
    written.extend(issue(&root, dir, wanted, days)?);
    Ok(written)
}

/// Issues more certificates of the authority that [`init`] has made there.
///
/// # Errors
/// See [`PkiError`].
pub fn add(dir: &Path, wanted: &[Wanted], days: u32) -> Result<Vec<PathBuf>, PkiError> {
    check(dir, wanted)?;
    let [_, path] = files(dir, AUTHORITY_FILE);
    let key = fs::read_to_string(&path).map_err(|source| PkiError::File { path, source })?;
    issue(&Root::resume(AUTHORITY, &key)?, dir, wanted, days)
}

fn issue(root: &Root, dir: &Path, wanted: &[Wanted], days: u32) -> Result<Vec<PathBuf>, PkiError> {
    let mut written = Vec::new();
    for Wanted {
        name,
        hosts,
        holder,
    } in wanted
    {
        let mut names = vec![name.as_str()];
        names.extend(hosts.iter().map(String::as_str));
        let uris: Vec<String> = holder.roles().iter().map(|role| role.uri()).collect();
        let purpose = match holder {
            Holder::Agent => Use::Server,
            _ => Use::Client,
        };
        let identity = root.issue(&names, &uris, purpose, lasting(days))?;
        written.extend(write(dir, name, &identity)?);
    }
    Ok(written)
}

/// Before anything is made, so that nothing is half made.
fn check(dir: &Path, wanted: &[Wanted]) -> Result<(), PkiError> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let mut names = BTreeSet::new();
    for Wanted { name, .. } in wanted {
        let edges = name.starts_with(['-', '.']) || name.ends_with(['-', '.']);
        if name.is_empty()
            || name.len() > 63
            || edges
            || name == AUTHORITY_FILE
            || !name.chars().all(allowed)
        {
            return Err(PkiError::Name(name.clone()));
        }
        if !names.insert(name) {
            return Err(PkiError::Twice(name.clone()));
        }
        let [certificate, key] = files(dir, name);
        absent(&[&certificate, &key], "")?;
    }
    Ok(())
}

fn absent(paths: &[&PathBuf], add: &'static str) -> Result<(), PkiError> {
    match paths.iter().find(|path| path.symlink_metadata().is_ok()) {
        Some(path) => Err(PkiError::Exists {
            path: (*path).clone(),
            add,
        }),
        None => Ok(()),
    }
}

fn files(dir: &Path, name: &str) -> [PathBuf; 2] {
    [
        dir.join(format!("{name}.pem")),
        dir.join(format!("{name}.key")),
    ]
}

fn write(dir: &Path, name: &str, identity: &TlsIdentity) -> Result<Vec<PathBuf>, PkiError> {
    let [certificate, key] = files(dir, name);
    for (path, mode, text) in [
        (&key, 0o600, &identity.key_pem),
        (&certificate, 0o644, &identity.chain_pem),
    ] {
        let write = || {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(path)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        write().map_err(|source| PkiError::File {
            path: path.clone(),
            source,
        })?;
    }
    Ok(vec![certificate, key])
}

fn lasting(days: u32) -> Duration {
    Duration::from_hours(24) * days
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn wanted(name: &str, holder: Holder) -> Wanted {
        Wanted {
            name: name.to_owned(),
            hosts: Vec::new(),
            holder,
        }
    }

    #[test]
    fn keys_are_private_and_nothing_is_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("pki");
        let agent = wanted("db-1", Holder::Agent);
        let written = init(&dir, std::slice::from_ref(&agent), 30).unwrap();
        assert_eq!(written.len(), 4);
        let before: Vec<_> = written.iter().map(|path| fs::read(path).unwrap()).collect();
        for path in written
            .iter()
            .filter(|path| path.extension().unwrap() == "key")
        {
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        let again = init(&dir, &[wanted("ada", Holder::Operator)], 30).unwrap_err();
        assert!(again.to_string().contains("pki add"), "{again}");
        let twice = add(&dir, &[wanted("ada", Holder::Operator), agent], 30).unwrap_err();
        assert!(twice.to_string().contains("db-1"), "{twice}");
        assert!(!dir.join("ada.pem").exists(), "half of it was made");
        add(&dir, &[wanted("ada", Holder::Operator)], 30).unwrap();
        let after: Vec<_> = written.iter().map(|path| fs::read(path).unwrap()).collect();
        assert_eq!(before, after);
    }

    #[test]
    fn names_are_plain_and_given_once() {
        let folder = tempfile::tempdir().unwrap();
        for bad in ["", "ca", "../x", "Ada", "a b", "-a", ".a", "a."] {
            let error = init(folder.path(), &[wanted(bad, Holder::Observer)], 30).unwrap_err();
            assert!(matches!(error, PkiError::Name(_)), "{bad}: {error}");
        }
        let two = [wanted("a", Holder::Observer), wanted("a", Holder::Agent)];
        assert!(matches!(
            init(folder.path(), &two, 30),
            Err(PkiError::Twice(_))
        ));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
