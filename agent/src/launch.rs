//! `faultlane launch --within 2s PROGRAM ARGS…`: starts an operator's node for whoever asks, agent or watchdog. What the
//! program leaves behind is the node; so it gets nothing of theirs: a session of its own, no signal blocked, the usual place
//! in the queue of the out-of-memory killer, and the environment that it is given.
//!
//! Its stdin is the node's turn, a locked file. It is held until the program has ended, also when whoever asked is killed
//! meanwhile, so that nobody starts the node a second time beside it; and not by the node itself. What runs for longer than it
//! may is killed, with its group, and then so is the turn over.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, Stdio};

use model::quantity::Span;
use nix::sys::signal::SigSet;
use rustix::process::{Pid, Signal, kill_process_group, setsid};

use crate::process;

/// Its exit code where the program's time was over; timeout(1) has the same.
pub const TIMED_OUT: u8 = 124;

/// Runs the program to its end; the code to exit with: the program's, 128 and the number of the signal that ended it, or
/// [`TIMED_OUT`].
///
/// # Errors
/// It could not be started.
pub fn main(program: &OsStr, args: &[OsString], within: Span) -> io::Result<u8> {
    SigSet::empty().thread_set_mask()?;
    // It fails for who leads a group, as a shell's job does.
    let _ = setsid();
    // A watchdog is spared. To be spared less is always allowed, and where this process was to be spared less than others, it
    // may not change that.
    let _ = std::fs::write("/proc/self/oom_score_adj", "0");
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()?;
    let in_time =
        process::open(child.id()).and_then(|pidfd| process::ends_within(&pidfd, within.duration()));
    if !matches!(in_time, Ok(true)) {
        kill_process_group(Pid::from_child(&child), Signal::KILL)?;
    }
    let status = child.wait()?;
    if !in_time? {
        return Ok(TIMED_OUT);
    }
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .and_then(|code| u8::try_from(code).ok());
    Ok(code.unwrap_or(u8::MAX))
}
