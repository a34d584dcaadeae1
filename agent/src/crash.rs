//! Where an agent is to die, for tests of what survives it: `FAULTLANE_CRASH_AT=STEP:MOMENT` in its environment makes it
//! send itself SIGKILL there. Elsewhere each point costs one look at a flag.

use std::env;
use std::fmt;
use std::fs::File;
use std::future::{Future, poll_fn};
use std::io::{self, Write as _};
use std::path::Path;
use std::pin::pin;
use std::sync::OnceLock;

use rustix::process::{Signal, getpid, kill_process};
use serde::Serialize;

/// The variable.
pub const VARIABLE: &str = "FAULTLANE_CRASH_AT";

/// Every point: the steps of the journal with each of their moments, and the undo itself.
pub const POINTS: [&str; 13] = [
    "intent:before",
    "intent:torn",
    "intent:after",
    "applied:before",
    "applied:torn",
    "applied:after",
    "observed:before",
    "observed:torn",
    "observed:after",
    "undo:middle",
    "undone:before",
    "undone:torn",
    "undone:after",
];

static ARMED: OnceLock<&'static str> = OnceLock::new();

/// When, of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Nothing of it is in the journal.
    Before,
    /// Half a line is.
    Torn,
    /// At the first wait of an undo.
    Middle,
    /// It is on disk.
    After,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Before => "before",
            Self::Torn => "torn",
            Self::Middle => "middle",
            Self::After => "after",
        })
    }
}

/// Takes the point from the environment.
///
/// # Errors
/// There is no such point.
pub fn arm() -> io::Result<()> {
    let Some(wanted) = env::var_os(VARIABLE) else {
        return Ok(());
    };
    let point = POINTS.into_iter().find(|point| wanted == *point);
    let point = point.ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "{VARIABLE}={}: no such point; take one of {}, or unset it",
                wanted.display(),
                POINTS.join(", ")
            ),
        )
    })?;
    tracing::warn!(point, "{VARIABLE} is set: the agent will kill itself there");
    ARMED.get_or_init(|| point);
    Ok(())
}

/// Dies here, if it is here that the agent is to.
pub(crate) fn at(step: &str, moment: Moment) {
    if is_armed(step, moment) {
        die();
    }
}

/// Dies with half of the entry's line written.
pub(crate) fn while_writing(step: &str, journal: &Path, entry: &impl Serialize) {
    if is_armed(step, Moment::Torn) {
        let line = serde_json::to_vec(entry).unwrap_or_default();
        let _ = File::options()
            .append(true)
            .open(journal)
            .and_then(|mut file| file.write_all(&line[..line.len() / 2]));
        die();
    }
}

/// An undo, which is begun and not brought to its end where the agent is to die in its middle.
pub(crate) async fn in_the_middle<F: Future>(undo: F) -> F::Output {
    if !is_armed("undo", Moment::Middle) {
        return undo.await;
    }
    let mut undo = pin!(undo);
    poll_fn(|context| {
        let _ = undo.as_mut().poll(context);
        die()
    })
    .await
}

fn is_armed(step: &str, moment: Moment) -> bool {
    ARMED
        .get()
        .is_some_and(|point| *point == format!("{step}:{moment}"))
}

fn die() -> ! {
    let _ = kill_process(getpid(), Signal::KILL);
    loop {
        std::thread::park();
    }
}
