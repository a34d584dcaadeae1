//! A process that somebody else has started, by its pidfd: it can be signalled and its end is seen, but not how it ended.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::time::Duration;

use host::clock;
use host::fd::watched;
use model::instant::Mono;
use rustix::process::Signal;

use crate::process::{self, Exit};
use crate::procfs::Identity;

/// The process.
#[derive(Debug)]
pub struct Held {
    identity: Identity,
    pidfd: OwnedFd,
    ended: OnceLock<Mono>,
}

impl Held {
    /// Takes hold of a process; `None` when it has gone.
    #[must_use]
    pub fn of(identity: Identity) -> Option<Self> {
        Some(Self {
            identity,
            pidfd: process::hold(identity)?,
            ended: OnceLock::new(),
        })
    }

    /// Which it is.
    #[must_use]
    pub const fn identity(&self) -> Identity {
        self.identity
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// It has ended, or it may not be signalled.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        if process::send(&self.pidfd, self.identity.pid, signal)? {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("process {} has ended", self.identity.pid),
        ))
    }

    /// That it ended, and when that was first seen; `None` while it has not.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        let ended = process::ends_within(&self.pidfd, Duration::ZERO).unwrap_or(false);
        ended.then(|| Exit {
            at: *self.ended.get_or_init(clock::now),
            status: None,
        })
    }

    /// Waits for its end; `None` when that does not come in time.
    pub async fn exited_within(&self, limit: Duration) -> Option<Exit> {
        let ended = async { watched(self.pidfd.try_clone()?)?.readable().await.map(drop) };
        if let Ok(Err(error)) = tokio::time::timeout(limit, ended).await {
            tracing::warn!(pid = self.identity.pid, %error, "its end cannot be waited for");
        }
        self.exit()
    }
}
