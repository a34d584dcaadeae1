//! How much memory there is to be had: by the machine, and by the control groups of this process, whichever is less.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use model::quantity::ByteSize;

const GROUPS: &str = "/sys/fs/cgroup";
/// Below this a machine kills, swaps and stalls, whoever is to blame.
const LEAST_RESERVE: u64 = 128 << 20;

/// Memory as it is now, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// What the machine has, or the least that a control group may have.
    pub total: u64,
    /// What can be had without that others lose theirs.
    pub available: u64,
}

impl Memory {
    /// Looks at it.
    ///
    /// # Errors
    /// The kernel does not tell (`MemAvailable`, Linux 3.14).
    pub fn look() -> io::Result<Self> {
        let said = fs::read_to_string("/proc/meminfo")?;
        let machine = of_machine(&said).ok_or_else(|| {
            let text =
                "/proc/meminfo does not say MemTotal and MemAvailable; Linux 3.14 and later do";
            io::Error::new(io::ErrorKind::Unsupported, text)
        })?;
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let within = folders(&groups).filter_map(|folder| of_group(&folder));
        Ok(within.fold(machine, |least, group| Self {
            total: least.total.min(group.total),
            available: least.available.min(group.available),
        }))
    }

    /// What has to stay available: what was asked for, and never less than 5 % or 128 MiB.
    #[must_use]
    pub fn reserve(&self, asked: ByteSize) -> u64 {
        asked.bytes().max(self.total / 20).max(LEAST_RESERVE)
    }
}

fn of_machine(said: &str) -> Option<Memory> {
    let field = |name: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(name))?;
        kilobytes(line)
    };
    Some(Memory {
        total: field("MemTotal:")?,
        available: field("MemAvailable:")?,
    })
}

/// `  123 kB`, in bytes.
pub(crate) fn kilobytes(text: &str) -> Option<u64> {
    let number: u64 = text.trim().strip_suffix("kB")?.trim().parse().ok()?;
    number.checked_mul(1_024)
}

/// The folders of the groups that a process is in, and of those above them, by its `/proc/PID/cgroup`. A container may
/// see its own group as the root: folders that are not there are passed over.
fn folders(groups: &str) -> impl Iterator<Item = PathBuf> + '_ {
    groups.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next().unwrap_or("-"), fields.next().unwrap_or(""));
        let root = match controllers {
            "" => Some(PathBuf::from(GROUPS)),
            list if list.split(',').any(|name| name == "memory") => {
                Some(Path::new(GROUPS).join("memory"))
            }
            _ => None,
        };
        let mut found = Vec::new();
        if let Some(mut folder) = root {
            found.push(folder.clone());
            for part in Path::new(path).components() {
                if let Component::Normal(name) = part {
                    folder.push(name);
                    found.push(folder.clone());
                }
            }
        }
        found
    })
}

/// What a group may have; `None` where it has no limit. Pages of files that nobody has used for long are given up for who
/// asks, and do not count as taken.
fn of_group(folder: &Path) -> Option<Memory> {
    let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let (limit, used, idle) = match number("memory.max") {
        Some(limit) => (limit, number("memory.current")?, "inactive_file "),
        None => (
            number("memory.limit_in_bytes")?,
            number("memory.usage_in_bytes")?,
            "total_inactive_file ",
        ),
    };
    let stat = read("memory.stat").unwrap_or_default();
    let idle = stat.lines().find_map(|line| line.strip_prefix(idle));
    let idle = idle.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    Some(Memory {
        total: limit,
        available: limit.saturating_sub(used.saturating_sub(idle)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,80}") {
            let _ = (of_machine(&text), folders(&text).count(), kilobytes(&text));
        }
    }

    #[test]
    fn a_machine_tells_and_never_more_than_it_has() {
        let said = "MemTotal:       1000 kB\nMemFree:  1 kB\nMemAvailable:    500 kB\n";
        let (total, available) = (1_024_000, 512_000);
        assert_eq!(of_machine(said), Some(Memory { total, available }));
        let here = Memory::look().unwrap();
        assert!(here.available <= here.total, "{here:?}");
        let reserve = |asked| here.reserve(ByteSize::new(asked));
        assert!(reserve(0) >= LEAST_RESERVE && reserve(0) >= here.total / 20);
        assert_eq!(reserve(1 << 50), 1 << 50);
    }

    #[test]
    fn groups_of_both_kinds_are_looked_at_up_to_the_root() {
        let all: Vec<_> = folders("7:cpu,memory:/a/b\n3:cpu:/c\n0::/../d\n").collect();
        let shown: Vec<_> = all.iter().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(
            shown,
            [
                "/sys/fs/cgroup/memory",
                "/sys/fs/cgroup/memory/a",
                "/sys/fs/cgroup/memory/a/b",
                "/sys/fs/cgroup",
                "/sys/fs/cgroup/d"
            ]
        );
    }

    #[test]
    fn what_a_group_may_have_is_its_limit_less_what_it_cannot_give_up() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        assert_eq!(of_group(folder.path()), None);
        write("memory.max", "max\n");
        assert_eq!(of_group(folder.path()), None);
        write("memory.max", "1000\n");
        write("memory.current", "900\n");
        write("memory.stat", "anon 5\ninactive_file 300\n");
        let (total, available) = (1_000, 400);
        assert_eq!(of_group(folder.path()), Some(Memory { total, available }));
    }
}
