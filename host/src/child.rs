//! The protocol between a process and its children: configuration by the first line on stdin, one ready line on
//! stdout, logs on stderr, and the end of stdin as the order to end. A parent that is killed closes the pipe with
//! it, so nothing outlives its parent.

use std::fs::OpenOptions;
use std::io::{self, BufRead, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use model::role::{PROTOCOL_VERSION, Ready};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{ChildStdin, Command};
use tokio_util::sync::CancellationToken;

/// Reads this process's configuration from the first line on stdin.
///
/// # Errors
/// The line is missing or not what is expected.
pub fn read_config<T: DeserializeOwned>() -> io::Result<T> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    serde_json::from_str(&line).map_err(|error| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("configuration on stdin: {error}"),
        )
    })
}

/// The socket that is this process's stdin, where [`spawn_linked`] has started it. Its parent says nothing more after the
/// configuration before [`announce`], so nothing has been read of it too early.
///
/// # Errors
/// stdin cannot be had, or is no socket.
pub fn link() -> io::Result<UnixStream> {
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    let link = std::os::unix::net::UnixStream::from(stdin);
    link.set_nonblocking(true)?;
    UnixStream::from_std(link)
}

/// A token that is cancelled when stdin ends. Call it once, after [`read_config`].
#[must_use]
pub fn until_stdin_ends() -> CancellationToken {
    let token = CancellationToken::new();
    let ended = token.clone();
    // A thread and not a task: tokio reads stdin on its blocking pool, which would keep the runtime from ending.
    std::thread::spawn(move || {
        let mut sink = [0_u8; 512];
        let mut stdin = io::stdin().lock();
        loop {
            match stdin.read(&mut sink) {
                Ok(1..) => {}
                // A signal is not the end.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => break,
            }
        }
        ended.cancel();
    });
    token
}

/// Says on stdout that this process is ready.
///
/// # Errors
/// stdout is closed.
pub fn announce(what: &str, control: SocketAddr, listen: &[(&str, SocketAddr)]) -> io::Result<()> {
    say_ready(what, control, listen, None)
}

/// Says on stdout that this process is ready, and that `node` is the foreign process that it stands for.
///
/// # Errors
/// stdout is closed.
pub fn announce_node(
    what: &str,
    control: SocketAddr,
    listen: &[(&str, SocketAddr)],
    node: u32,
) -> io::Result<()> {
    say_ready(what, control, listen, Some(node))
}

fn say_ready(
    what: &str,
    control: SocketAddr,
    listen: &[(&str, SocketAddr)],
    node: Option<u32>,
) -> io::Result<()> {
    let ready = Ready {
        ready: what.to_owned(),
        protocol: PROTOCOL_VERSION,
        pid: std::process::id(),
        node,
        control,
        listen: listen
            .iter()
            .map(|(name, addr)| ((*name).to_owned(), *addr))
            .collect(),
    };
    let mut line = serde_json::to_vec(&ready)?;
    line.push(b'\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(&line)?;
    stdout.flush()
}

/// A child that has said that it is ready. Dropping it closes its stdin, which ends it.
#[derive(Debug)]
pub struct Child {
    /// What it said.
    pub ready: Ready,
    /// The process: wait for it, or take its id.
    pub process: tokio::process::Child,
    stdin: Option<ChildStdin>,
}

/// Why a child could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// It could not be started, or its pipes broke.
    #[error("start `{command}`: {source}")]
    Start {
        /// Program and arguments.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// It said something else than that it is ready, or nothing in time.
    #[error("`{command}` did not become ready: {reason}; its log is {}", log.display())]
    NotReady {
        /// Program and arguments.
        command: String,
        /// What happened instead.
        reason: String,
        /// Where its stderr went.
        log: PathBuf,
    },
}

/// Starts a child of our own: `program args… --config-stdin`, with `config` as the first line on its stdin and its
/// stderr appended to `log`; waits for its ready line.
///
/// # Errors
/// See [`SpawnError`]. A child that did not become ready has been killed.
pub async fn spawn(
    program: &Path,
    args: &[&str],
    config: &impl Serialize,
    log: &Path,
    timeout: Duration,
) -> Result<Child, SpawnError> {
    let command = format!("{} {}", program.display(), args.join(" "));
    let start = |source: io::Error| SpawnError::Start {
        command: command.clone(),
        source,
    };
    let mut line = serde_json::to_vec(config).map_err(|error| start(error.into()))?;
    line.push(b'\n');
    let stderr = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .map_err(|error| {
            start(io::Error::new(
                error.kind(),
                format!("{}: {error}", log.display()),
            ))
        })?;
    let mut process = Command::new(program)
        .args(args)
        .arg("--config-stdin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(stderr)
        // Ctrl-C on a terminal goes to the whole foreground group: only the conductor shall hear it.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(start)?;
    let (stdin, stdout) = (process.stdin.take(), process.stdout.take());
    let (mut stdin, stdout) = stdin
        .zip(stdout)
        .ok_or_else(|| start(io::Error::other("no pipes")))?;
    match become_ready(&mut stdin, stdout, &line, timeout).await {
        Ok(ready) => Ok(Child {
            ready,
            process,
            stdin: Some(stdin),
        }),
        Err(reason) => {
            let _ = process.kill().await;
            Err(SpawnError::NotReady {
                command,
                reason,
                log: log.to_owned(),
            })
        }
    }
}

/// A child whose stdin is one end of a socket. It ends when the other end, which is here, is dropped.
#[derive(Debug)]
pub struct Linked {
    /// What it said.
    pub ready: Ready,
    /// The process.
    pub process: tokio::process::Child,
    /// What it reads on its stdin, by [`link`], and answers to.
    pub link: UnixStream,
}

/// As [`spawn`], for a child to which there is more to say than its configuration, descriptors too. It has this process's
/// stderr.
///
/// # Errors
/// See [`SpawnError`]. A child that did not become ready has been killed.
pub async fn spawn_linked(
    program: &Path,
    args: &[&str],
    config: &impl Serialize,
    timeout: Duration,
) -> Result<Linked, SpawnError> {
    let command = format!("{} {}", program.display(), args.join(" "));
    let start = |source: io::Error| SpawnError::Start {
        command: command.clone(),
        source,
    };
    let mut first = serde_json::to_vec(config).map_err(|error| start(error.into()))?;
    first.push(b'\n');
    let (near, far) = std::os::unix::net::UnixStream::pair().map_err(start)?;
    near.set_nonblocking(true).map_err(start)?;
    let mut link = UnixStream::from_std(near).map_err(start)?;
    let mut process = Command::new(program)
        .args(args)
        .arg("--config-stdin")
        .stdin(OwnedFd::from(far))
        .stdout(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(start)?;
    let stdout = process.stdout.take();
    let stdout = stdout.ok_or_else(|| start(io::Error::other("no pipe")))?;
    match become_ready(&mut link, stdout, &first, timeout).await {
        Ok(ready) => Ok(Linked {
            ready,
            process,
            link,
        }),
        Err(reason) => {
            let _ = process.kill().await;
            Err(SpawnError::NotReady {
                command,
                reason,
                log: PathBuf::from("stderr"),
            })
        }
    }
}

/// Tells a child its configuration and waits for its ready line; or what went wrong.
async fn become_ready(
    stdin: &mut (impl AsyncWrite + Unpin),
    stdout: impl AsyncRead + Unpin,
    line: &[u8],
    timeout: Duration,
) -> Result<Ready, String> {
    let talk = async {
        stdin.write_all(line).await?;
        let mut answer = String::new();
        BufReader::new(stdout).read_line(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    let answer = tokio::time::timeout(timeout, talk)
        .await
        .map_err(|_| format!("no ready line within {timeout:?}"))?
        .map_err(|error| error.to_string())?;
    if answer.is_empty() {
        return Err("it ended".to_owned());
    }
    match serde_json::from_str::<Ready>(&answer) {
        Ok(ready) if ready.protocol == PROTOCOL_VERSION => Ok(ready),
        Ok(ready) => Err(format!(
            "it speaks protocol {}, this is {PROTOCOL_VERSION}",
            ready.protocol
        )),
        Err(error) => Err(format!(
            "its ready line is not one ({error}): {}",
            answer.trim_end()
        )),
    }
}

impl Child {
    /// Takes it apart, for an owner that waits for the process in one place and ends it from another. The pipe is the
    /// child's stdin: it ends when that is dropped.
    #[must_use]
    pub fn into_parts(self) -> (Ready, tokio::process::Child, Option<ChildStdin>) {
        (self.ready, self.process, self.stdin)
    }

    /// Asks the child to end by closing its stdin; kills it when it has not ended in time. `true` when it ended by
    /// itself.
    pub async fn end(mut self, grace: Duration) -> bool {
        drop(self.stdin.take());
        if tokio::time::timeout(grace, self.process.wait())
            .await
            .is_ok()
        {
            return true;
        }
        tracing::warn!(
            pid = self.ready.pid,
            what = self.ready.ready,
            ?grace,
            "did not end with its stdin; killed"
        );
        let _ = self.process.kill().await;
        false
    }
}
