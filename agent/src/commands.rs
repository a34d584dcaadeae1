//! The commands of the agent's own configuration: run by name, a few at once, each in a group of its own that ends with
//! it. What a caller chooses is the name and some variables; never the program, its arguments, or its other environment.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join;
use host::http::{Failure, StatusCode};
use model::command::{CommandAnswer, CommandConfig, CommandOrder, OUTPUT_LIMIT, is_variable};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{ChildStderr, ChildStdout};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::guard::Guarded;

/// A fleet that fetches its tokens by a command comes all at once; a host runs only so many programs well.
const AT_ONCE: usize = 8;
/// What every command has of the agent's own environment.
const PASSED_ON: [&str; 3] = ["PATH", "HOME", "LANG"];
/// How long the outputs of a command that has ended are waited for: a process that left the group may hold them open.
const DRAIN_WITHIN: Duration = Duration::from_millis(200);

/// The commands of one agent.
#[derive(Debug)]
pub struct Commands {
    named: BTreeMap<String, CommandConfig>,
    folder: PathBuf,
    /// Fair: who came first is served first.
    free: Arc<Semaphore>,
}

impl Commands {
    /// These commands, run in this folder.
    #[must_use]
    pub fn new(named: BTreeMap<String, CommandConfig>, folder: PathBuf) -> Self {
        Self {
            named,
            folder,
            free: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// Runs one to its end. It is killed when its caller has gone, which is when the future is dropped; one that still
    /// waits for its turn is then never begun.
    ///
    /// # Errors
    /// 404 for a command that is not configured, 400 for a variable that may not be set, 500 for a program that cannot
    /// be started.
    pub async fn run(&self, name: &str, order: CommandOrder) -> Result<CommandAnswer, Failure> {
        let config = self.named.get(name).ok_or_else(|| self.unknown(name))?;
        check(name, &order)?;
        let turn = Arc::clone(&self.free).acquire_owned().await;
        let turn = turn.expect("the semaphore is never closed");
        let mut command = self.command(config, order);
        let within = config.within.duration();
        let gone = CancellationToken::new();
        let _caller = gone.clone().drop_guard();
        // In a task of its own, so that a command whose caller goes away is killed and reaped all the same.
        let run = tokio::spawn(async move {
            let _turn = turn;
            let program = command.get_program().to_string_lossy().into_owned();
            let started = Guarded::start_command(&mut command)
                .map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
            to_its_end(started, within, &gone).await
        });
        let answer = run
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)));
        answer.map_err(|error| {
            Failure::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!(
                    "command `{name}` could not be run: {error}; its `run` is in the agent's own configuration"
                ),
            )
        })
    }

    fn command(&self, config: &CommandConfig, order: CommandOrder) -> Command {
        let (program, arguments) = config.split();
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .envs(environment())
            .envs(order.variables)
            .current_dir(&self.folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn unknown(&self, name: &str) -> Failure {
        let known: Vec<&str> = self.named.keys().map(String::as_str).collect();
        let known = match known.as_slice() {
            [] => "it has none".to_owned(),
            known => format!("it has {}", known.join(", ")),
        };
        Failure::new(
            StatusCode::NOT_FOUND,
            format!(
                "no command `{name}`: commands are named in the agent's own configuration, and {known}"
            ),
        )
    }
}

/// What a command has of the agent's own environment.
pub(crate) fn environment() -> impl Iterator<Item = (&'static str, OsString)> {
    PASSED_ON
        .into_iter()
        .filter_map(|name| Some((name, std::env::var_os(name)?)))
}

fn check(name: &str, order: &CommandOrder) -> Result<(), Failure> {
    for (variable, value) in &order.variables {
        let wrong = if !is_variable(variable) {
            "a caller may set FAULTLANE_ and capitals or underscores, and nothing else"
        } else if value.contains('\0') {
            "its value holds a NUL, which no environment can"
        } else {
            continue;
        };
        return Err(Failure::new(
            StatusCode::BAD_REQUEST,
            format!("command `{name}`: variable `{variable}`: {wrong}"),
        ));
    }
    Ok(())
}

/// Waits for the end, brings it about when the time is over or nobody wants it any more, and reads meanwhile.
async fn to_its_end(
    mut guarded: Guarded,
    within: Duration,
    gone: &CancellationToken,
) -> io::Result<CommandAnswer> {
    let (stdout, stderr) = guarded.take_outputs();
    let stdout = stdout.map(ChildStdout::from_std).transpose()?;
    let stderr = stderr.map(ChildStderr::from_std).transpose()?;
    let (mut said, mut complained) = (Vec::new(), Vec::new());
    let (timed_out, status) = {
        let mut reading =
            std::pin::pin!(join(keep(stdout, &mut said), keep(stderr, &mut complained)));
        let mut ending = std::pin::pin!(end(guarded, within, gone));
        let mut read = false;
        let ended = loop {
            tokio::select! {
                ended = &mut ending => break ended?,
                _ = &mut reading, if !read => read = true,
            }
        };
        if !read {
            let _ = tokio::time::timeout(DRAIN_WITHIN, reading).await;
        }
        ended
    };
    Ok(CommandAnswer {
        exit: status.code(),
        signal: status.signal(),
        stdout: String::from_utf8_lossy(&said).into_owned(),
        stderr: String::from_utf8_lossy(&complained).into_owned(),
        timed_out,
    })
}

/// Whether its time was over, and how it ended. With it ends whatever is left of its group.
async fn end(
    mut guarded: Guarded,
    within: Duration,
    gone: &CancellationToken,
) -> io::Result<(bool, ExitStatus)> {
    let timed_out = tokio::select! {
        biased;
        () = guarded.ended() => false,
        () = gone.cancelled() => false,
        () = tokio::time::sleep(within) => true,
    };
    // What was killed is gone within milli-seconds, but the wait for it blocks.
    let reaped = tokio::task::spawn_blocking(move || guarded.reap_status()).await;
    Ok((timed_out, reaped.map_err(io::Error::other)??))
}

/// Reads to the end and keeps the beginning: a command that says more must not wait for ever to be heard.
async fn keep(pipe: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut pipe) = pipe else { return };
    let mut chunk = vec![0; 8 * 1024];
    while let Ok(count @ 1..) = pipe.read(&mut chunk).await {
        let room = OUTPUT_LIMIT - kept.len();
        kept.extend_from_slice(&chunk[..count.min(room)]);
    }
}
