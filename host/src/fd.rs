//! Descriptors that tokio has no type for.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use tokio::io::unix::AsyncFd;

/// A descriptor whose readiness can be waited for on this runtime.
///
/// # Errors
/// The runtime does not take it, such as a file's.
pub fn watched<T: AsFd + AsRawFd>(fd: T) -> io::Result<AsyncFd<T>> {
    #[expect(
        deprecated,
        reason = "the successor is an unsafe fn; what implements AsFd keeps its descriptor open"
    )]
    AsyncFd::new(fd)
}
