//! Exit codes, and errors that carry one.

use std::fmt;
use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: go, or done.
    Go,
    /// 1: no-go.
    NoGo,
    /// 2: the command line or a scenario is wrong.
    Usage,
    /// 3: inconclusive.
    Inconclusive,
    /// 4: it could not be run.
    CouldNotRun,
    /// What a guarded program exited with.
    Other(u8),
}

impl Exit {
    const fn code(self) -> u8 {
        match self {
            Self::Go => 0,
            Self::NoGo => 1,
            Self::Usage => 2,
            Self::Inconclusive => 3,
            Self::CouldNotRun => 4,
            Self::Other(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub(crate) struct Error {
    /// What to exit with.
    pub(crate) exit: Exit,
    /// What to say.
    pub(crate) message: String,
}

impl Error {
    /// The command line or a file given on it is wrong.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self {
            exit: Exit::Usage,
            message: message.to_string(),
        }
    }

    /// It was right, but could not be done.
    pub(crate) fn could_not_run(message: impl fmt::Display) -> Self {
        Self {
            exit: Exit::CouldNotRun,
            message: message.to_string(),
        }
    }
}
