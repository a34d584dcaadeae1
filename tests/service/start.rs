//! Starts the service of this folder for a test. Included by each test binary that drills it.

#![allow(dead_code, reason = "each test that includes this uses a part of it")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// What is presented for tokens.
pub(crate) const SESSION_SECRET: &str = "session-of-the-drill";
/// What a publisher presents.
pub(crate) const PUBLISH_SECRET: &str = "publish-secret-of-the-drill";

/// Whether there is a Python to run it with; says aloud when there is none.
pub(crate) fn is_there(test: &str) -> bool {
    let version = "import sys; sys.exit(sys.version_info < (3, 10))";
    let found = Command::new("python3").args(["-c", version]).status();
    let there = found.is_ok_and(|status| status.success());
    if !there {
        // Not eprintln!, which the test runner would keep to itself.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: {test}: install python3 (3.10 or newer) to drill a service in another language"
        );
    }
    there
}

/// A service under way, killed when the test ends.
pub(crate) struct Service {
    child: Child,
    options: Vec<String>,
    pub(crate) addr: SocketAddr,
}

impl Service {
    /// Starts it with these options besides the secrets, and waits until it listens.
    pub(crate) fn start(options: &[&str]) -> Self {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        Self::launch(options, 0)
    }

    fn launch(options: Vec<String>, port: u16) -> Self {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let script = [
            folder.join("tests/service"),
            folder.join("../tests/service"),
        ]
        .map(|folder| folder.join("khala.py"))
        .into_iter()
        .find(|script| script.exists())
        .expect("the service's script");
        // -B: nothing is compiled into the source tree.
        let mut child = Command::new("python3")
            .arg("-B")
            .arg(script)
            .args(["--session-secret", SESSION_SECRET])
            .args(["--publish-secret", PUBLISH_SECRET])
            .args(["--token-secret", "what-tokens-are-signed-by"])
            .args(["--port", &port.to_string()])
            .args(&options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it is piped"))
            .read_line(&mut line)
            .expect("the ready line");
        let port = line
            .trim()
            .strip_prefix("{\"port\": ")
            .and_then(|rest| rest.strip_suffix('}')?.parse().ok())
            .unwrap_or_else(|| panic!("not a ready line: {line:?}"));
        Self {
            child,
            options,
            addr: SocketAddr::from(([127, 0, 0, 1], port)),
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again where it was, with the log that it has.
    pub(crate) fn start_again(&mut self) {
        self.kill();
        *self = Self::launch(self.options.clone(), self.addr.port());
    }

    /// Closes its stdin; whether it then ended well.
    pub(crate) fn ends_with_its_stdin(&mut self) -> bool {
        drop(self.child.stdin.take());
        self.child.wait().is_ok_and(|status| status.success())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}
