//! Machines for kernel faults: network namespaces that a test makes and removes, joined by a bridge in one of their own.
//! Nothing of the machine's own network is touched.

use std::fs::File;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Why a test cannot be done here, if it cannot. It is said out loud.
pub(crate) fn skipped() -> bool {
    let root = rustix::process::geteuid().is_root();
    let missing = ["nft", "tc", "ip", "ss"]
        .into_iter()
        .find(|program| Command::new(program).arg("-V").output().is_err());
    let why = match (root, missing) {
        (false, _) => "kernel faults are tested as root only".to_owned(),
        (true, Some(program)) => format!("kernel faults are tested where there is `{program}`"),
        // Root in a container may have no right to make one.
        (true, None) if !can_make_namespaces() => {
            "kernel faults are tested in network namespaces, which cannot be made here".to_owned()
        }
        (true, None) => return false,
    };
    // Past the capture of a passing test's output, which nobody would see.
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {why}");
    true
}

fn can_make_namespaces() -> bool {
    static CAN: LazyLock<bool> = LazyLock::new(|| {
        let tried = Command::new("unshare").args(["--net", "true"]).status();
        tried.is_ok_and(|status| status.success())
    });
    *CAN
}

/// Machines `10.77.0.1`, `10.77.0.2` and so on; `fd77::1`, `fd77::2`.
pub(crate) struct Lab {
    names: Vec<String>,
}

impl Lab {
    /// So many machines, and the switch between them.
    pub(crate) fn new(machines: u8) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = format!(
            "flt{}x{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let switch = format!("{unique}s");
        let mut lab = Self { names: Vec::new() };
        lab.add(&switch);
        ip(&["-n", &switch, "link", "add", "br0", "type", "bridge"]);
        ip(&["-n", &switch, "link", "set", "br0", "up"]);
        for n in 1..=machines {
            let name = format!("{unique}m{n}");
            lab.add(&name);
            let port = format!("p{n}");
            ip(&[
                "-n", &name, "link", "add", "eth0", "type", "veth", "peer", "name", &port, "netns",
                &switch,
            ]);
            ip(&["-n", &switch, "link", "set", &port, "master", "br0", "up"]);
            ip(&[
                "-n",
                &name,
                "addr",
                "add",
                &format!("10.77.0.{n}/24"),
                "dev",
                "eth0",
            ]);
            ip(&[
                "-n",
                &name,
                "addr",
                "add",
                &format!("fd77::{n}/64"),
                "dev",
                "eth0",
                "nodad",
            ]);
            ip(&["-n", &name, "link", "set", "lo", "up"]);
            ip(&["-n", &name, "link", "set", "eth0", "up"]);
        }
        lab
    }

    fn add(&mut self, name: &str) {
        ip(&["netns", "add", name]);
        self.names.push(name.to_owned());
    }

    fn file(&self, machine: u8) -> File {
        File::open(format!("/run/netns/{}", self.names[usize::from(machine)])).unwrap()
    }

    /// Moves this thread to a machine for good: what it starts and the sockets that it opens are there.
    pub(crate) fn move_to(&self, machine: u8) {
        enter(&self.file(machine));
    }

    /// Does something on a machine; sockets that it makes stay there.
    pub(crate) fn on<T: Send>(&self, machine: u8, work: impl FnOnce() -> T + Send) -> T {
        let namespace = self.file(machine);
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    enter(&namespace);
                    work()
                })
                .join()
                .unwrap()
        })
    }

    /// What a program says on a machine.
    pub(crate) fn run(&self, machine: u8, program: &str, args: &[&str]) -> String {
        self.on(machine, || said(program, args))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in &self.names {
            // Nothing lives in it any more, or it ends with the test's processes.
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

pub(crate) fn v4(machine: u8, port: u16) -> SocketAddr {
    (Ipv4Addr::new(10, 77, 0, machine), port).into()
}

pub(crate) fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn enter(namespace: &File) {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

fn ip(args: &[&str]) {
    said("ip", args);
}
