//! What the kernel says about processes, from `/proc`.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

use crate::memory::kilobytes;

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

/// All processes whose parent is `parent`, zombies included.
#[must_use]
pub fn children_of(parent: u32) -> Vec<(u32, Stat)> {
    numbers("/proc")
        .filter_map(|pid| Some((pid, stat(pid)?)))
        .filter(|(_, stat)| stat.parent == parent)
        .collect()
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
    fn this_process_runs_and_nobody_has_process_zero() {
        let own = stat(std::process::id()).unwrap();
        assert!(own.started > 0 && own.parent > 0, "{own:?}");
        assert_eq!(is_stopped(std::process::id()), Some(false));
        assert_eq!((stat(0), is_stopped(0)), (None, None));
    }
}
