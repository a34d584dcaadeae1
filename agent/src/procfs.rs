//! What the kernel says about processes, from `/proc`.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

use crate::memory::kilobytes;

use model::quantity::Span;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Clock ticks a second as `/proc` counts them: the kernel's `USER_HZ`, whatever its own tick.
const TICKS_PER_SECOND: u64 = 100;
/// `PF_EXITING` of the kernel's `sched.h`: the process is being taken down.
const EXITING: u64 = 0x4;
/// The flag of a thread of the kernel (`PF_KTHREAD`), there.
const KERNELS: u64 = 0x0020_0000;
/// SIGKILL in the masks of `/proc/PID/status`.
const KILLED: u64 = 1 << 8;

/// A process as `/proc/PID/stat` tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// The program's name, at most 15 bytes of it.
    pub name: String,
    /// `R`, `S`, `D`, `T` (stopped), `t` (traced), `Z` (zombie) and so on.
    pub state: char,
    /// The parent's process id.
    pub parent: u32,
    /// When it was started, in clock ticks since the host was booted. With the process id this names a process for
    /// good: ids are used again, but not with the same start.
    pub started: u64,
}

/// Looks at a process; `None` when there is none of that id.
#[must_use]
pub fn stat(pid: u32) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// One process and no other, within one boot of the machine: an id is used again, but not with the same start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    /// Its id.
    pub pid: u32,
    /// Its start, as [`Stat::started`].
    pub started: u64,
}

/// How a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It has ended; its parent may not have asked how.
    Gone,
    /// It has been sent SIGKILL, or is ending by itself: nothing can keep it any more.
    Dying,
    /// It runs, or is stopped.
    Lives,
}

impl Identity {
    /// Who has that id now; `None` when nobody does, or only a process that has ended.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        let started = stat(pid)?.started;
        let found = Self { pid, started };
        (found.life() != Life::Gone).then_some(found)
    }

    /// How it is. A process that was sent SIGKILL is told from one that was not, however long it takes to go.
    #[must_use]
    pub fn life(self) -> Life {
        let of = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", self.pid));
        let (Ok(text), Ok(status)) = (of("stat"), of("status")) else {
            return Life::Gone;
        };
        let Some(stat) = parse(&text).filter(|stat| stat.started == self.started) else {
            return Life::Gone;
        };
        // Of a process whose first thread has ended before the others the state is that thread's.
        if stat.state == 'X' || (stat.state == 'Z' && field(&text, 20).is_none_or(|n| n <= 1)) {
            return Life::Gone;
        }
        let pending = status.lines().filter_map(|line| {
            let mask = line
                .strip_prefix("SigPnd:")
                .or_else(|| line.strip_prefix("ShdPnd:"))?;
            u64::from_str_radix(mask.trim(), 16).ok()
        });
        let is_exiting = field(&text, 9).is_some_and(|flags| flags & EXITING != 0);
        if is_exiting || pending.into_iter().any(|mask| mask & KILLED != 0) {
            return Life::Dying;
        }
        Life::Lives
    }

    /// For how long it has been there, to 10 ms.
    #[must_use]
    pub fn age(self) -> Span {
        let up = clock_gettime(ClockId::Boottime);
        let up = u64::try_from(up.tv_sec).unwrap_or(0) * 1_000_000
            + u64::try_from(up.tv_nsec).unwrap_or(0) / 1_000;
        let started = self.started.saturating_mul(1_000_000 / TICKS_PER_SECOND);
        Span::from_micros(up.saturating_sub(started))
    }
}

/// Every process that there is, zombies included.
pub(crate) fn all() -> impl Iterator<Item = (u32, Stat)> {
    numbers("/proc").filter_map(|pid| Some((pid, stat(pid)?)))
}

/// Whether it is a thread of the kernel's own: it can be signalled, and nothing comes of that.
#[must_use]
pub(crate) fn is_kernels(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|text| field(&text, 9))
        .is_some_and(|flags| flags & KERNELS != 0)
}

/// The parent of a process, its parent, and so on to the first process.
#[must_use]
pub fn ancestors(pid: u32) -> Vec<u32> {
    let parent = |pid: &u32| stat(*pid).map(|stat| stat.parent).filter(|pid| *pid > 0);
    std::iter::successors(parent(&pid), parent).collect()
}

/// All processes whose parent is `parent`, zombies included.
#[must_use]
pub fn children_of(parent: u32) -> Vec<(u32, Stat)> {
    all().filter(|(_, stat)| stat.parent == parent).collect()
}

/// Whether every thread of a process is stopped: a process is stopped thread by thread. `None` when there is no such
/// process.
#[must_use]
pub fn is_stopped(pid: u32) -> Option<bool> {
    let mut threads = numbers(&format!("/proc/{pid}/task")).peekable();
    threads.peek()?;
    let state_of = |thread| {
        let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/stat")).ok()?;
        Some(parse(&text)?.state)
    };
    // A thread that ended meanwhile does not run.
    Some(threads.all(|thread| state_of(thread).is_none_or(|state| matches!(state, 'T' | 't'))))
}

/// The processor time that a process has had, of all its threads: what `/proc/PID/stat` has in ticks, in full. `None` when
/// there is no such process.
#[must_use]
pub fn cpu_time(pid: u32) -> Option<Duration> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?);
    Some(clock_getcpuclockid(pid).ok()?.now().ok()?.into())
}

/// How many bytes of a process are in memory. `None` when there is no such process, or it has none any more.
#[must_use]
pub fn resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    kilobytes(
        status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?,
    )
}

/// Where a process listens on TCP over IPv4, by its own descriptors.
#[must_use]
pub fn listening_on(pid: u32) -> Vec<SocketAddr> {
    let sockets: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let link = fs::read_link(entry.ok()?.path()).ok()?;
            let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(inode.to_owned())
        })
        .collect();
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
    table
        .lines()
        .skip(1)
        .filter_map(listener)
        .filter(|(_, inode)| sockets.iter().any(|own| own == inode))
        .map(|(addr, _)| addr)
        .collect()
}

/// A listening socket's address and inode, from a line of `/proc/PID/net/tcp`: `sl local remote state … inode …`. The
/// address is in hexadecimal, its bytes in the order in which they lie in memory.
fn listener(line: &str) -> Option<(SocketAddr, &str)> {
    const LISTEN: &str = "0A";
    let mut fields = line.split_ascii_whitespace();
    let (ip, port) = fields.nth(1)?.split_once(':')?;
    if fields.nth(1)? != LISTEN {
        return None;
    }
    let ip = Ipv4Addr::from(u32::from_str_radix(ip, 16).ok()?.to_ne_bytes());
    let port = u16::from_str_radix(port, 16).ok()?;
    Some((SocketAddr::from((ip, port)), fields.nth(5)?))
}

fn numbers(folder: &str) -> impl Iterator<Item = u32> + use<> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// `PID (NAME) STATE PPID …`: the name may hold anything, closing parentheses and spaces too.
fn parse(text: &str) -> Option<Stat> {
    let (head, tail) = text.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let mut fields = tail.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    // Field 22 of the file; the parent was field 4.
    let started = fields.nth(17)?.parse().ok()?;
    Some(Stat {
        name: name.to_owned(),
        state,
        parent,
        started,
    })
}

/// A number of `/proc/PID/stat`, which proc(5) counts from 1; from the third on.
fn field(text: &str, number: usize) -> Option<u64> {
    let (_, tail) = text.rsplit_once(')')?;
    tail.split_ascii_whitespace().nth(number - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_name_is_read(name in "[ -~]{0,15}", pid in 1_u32.., parent in 1_u32.., started: u64) {
            let zeros = "0 ".repeat(17);
            let text = format!("{pid} ({name}) T {parent} {zeros}{started} 1 2 3\n");
            prop_assert_eq!(parse(&text), Some(Stat { name, state: 'T', parent, started }));
        }

        #[test]
        fn no_text_panics(text in ".{0,60}") {
            let _ = parse(&text);
        }
    }

    #[test]
    fn a_listener_is_found_by_the_process_that_has_it() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        assert!(listening_on(std::process::id()).contains(&addr));
        drop(listener);
        assert!(!listening_on(std::process::id()).contains(&addr));
    }

    #[test]
    fn what_this_process_has_used_grows() {
        let own = std::process::id();
        let before = cpu_time(own).unwrap();
        while cpu_time(own).unwrap() <= before {}
        assert!(resident(own).unwrap() > 100_000);
        assert_eq!((cpu_time(u32::MAX), resident(0)), (None, None));
    }

    #[test]
    fn a_process_that_was_killed_is_told_from_one_that_lives() {
        let mut sleeper = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let found = Identity::of(sleeper.id()).unwrap();
        assert_eq!(found.life(), Life::Lives);
        assert!(found.age() < Span::from_secs(50), "{}", found.age());
        let other = Identity {
            started: found.started + 1,
            ..found
        };
        assert_eq!(other.life(), Life::Gone, "of another start");
        assert!(ancestors(sleeper.id()).contains(&std::process::id()));
        assert!(ancestors(std::process::id()).contains(&1));
        sleeper.kill().unwrap();
        assert_ne!(found.life(), Life::Lives);
        sleeper.wait().unwrap();
        assert_eq!(found.life(), Life::Gone);
    }

    #[test]
    fn this_process_runs_and_nobody_has_process_zero() {
        let own = stat(std::process::id()).unwrap();
        assert!(own.started > 0 && own.parent > 0, "{own:?}");
        assert_eq!(is_stopped(std::process::id()), Some(false));
        assert_eq!((stat(0), is_stopped(0)), (None, None));
    }
}
