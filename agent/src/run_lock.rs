//! One conductor at a time. Whoever drives a run takes the agent for it, and gets a number that is higher than any that the
//! agent has ever given: the fence. Its calls carry that; when its lease has lapsed, or the agent has had another life, the
//! number is stale, and a conductor that comes back from the dead is refused instead of obeyed.
//!
//! An agent that nobody has taken obeys calls without a fence: there is no run to keep them from.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use host::http::{Failure, Request, StatusCode};
use model::instant::Mono;
use model::quantity::Span;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// The header that carries the fence.
pub const FENCE: &str = "faultlane-fence";

const LEASES: (Span, Span) = (Span::from_millis(100), Span::from_secs(300));
const LONGEST_NAME: usize = 128;

/// `POST /run`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeRun {
    /// The run.
    pub run: String,
    /// For how long, unless it is renewed.
    pub lease: Span,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunTaken {
    /// To be sent as [`FENCE`].
    pub fence: u64,
}

/// `POST /run/renew`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewRun {
    /// Counted from now.
    pub lease: Span,
}

/// Who has the agent, in `GET /status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunView {
    /// The run.
    pub run: String,
    /// Who took it.
    pub by: String,
    /// Its number.
    pub fence: u64,
    /// How much of its lease is left.
    pub left: Span,
}

/// What is on disk: the last that was given.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Last {
    fence: u64,
    run: String,
    by: String,
}

#[derive(Debug)]
enum State {
    Free,
    Held {
        until: Mono,
    },
    /// Its lease is over, and what it left is being undone.
    Lapsing,
}

/// The lock of an agent.
#[derive(Debug)]
pub struct RunLock {
    path: PathBuf,
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug)]
struct Inner {
    last: Option<Last>,
    state: State,
    /// How the last run came to its end, for a conductor that still believes in it.
    ended: &'static str,
}

impl RunLock {
    /// The lock whose last number is in a file. After a start it is free: whatever a run had here ended with the agent.
    ///
    /// # Errors
    /// The file cannot be read, or says no number: to begin again from 1 would let a stale conductor in.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let last = match fs::read(&path) {
            Ok(text) => Some(serde_json::from_slice(&text).map_err(|error| {
                let text =
                    format!("{error}; correct it, with a `fence` no lower than any that was given");
                named(io::Error::new(io::ErrorKind::InvalidData, text))
            })?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(named(error)),
        };
        Ok(Self {
            path,
            inner: Mutex::new(Inner {
                last,
                state: State::Free,
                ended: "the agent was started anew",
            }),
            changed: Notify::new(),
        })
    }

    /// Takes the agent for a run.
    ///
    /// # Errors
    /// 409 while another run has it, 422 for a lease or a name that is none, 500 when the number cannot be kept.
    pub fn take(&self, order: &TakeRun, by: &str, now: Mono) -> Result<RunTaken, Failure> {
        check_lease(order.lease)?;
        if order.run.is_empty() || order.run.len() > LONGEST_NAME {
            let text = format!("a run's name has 1 to {LONGEST_NAME} bytes");
            return Err(Failure::new(StatusCode::UNPROCESSABLE_ENTITY, text));
        }
        let mut inner = self.lock();
        if let Some(held) = inner.held(now) {
            return Err(conflict(&format!("the agent is {held}")));
        }
        let last = Last {
            fence: inner.last.as_ref().map_or(0, |last| last.fence) + 1,
            run: order.run.clone(),
            by: by.to_owned(),
        };
        keep(&self.path, &last).map_err(|error| {
            let text = format!("{}: {error}", self.path.display());
            Failure::new(StatusCode::INTERNAL_SERVER_ERROR, text)
        })?;
        let fence = last.fence;
        inner.last = Some(last);
        inner.state = State::Held {
            until: now + order.lease,
        };
        drop(inner);
        self.changed.notify_one();
        Ok(RunTaken { fence })
    }

    /// Whether a request that is to change something may.
    ///
    /// # Errors
    /// 409: it carries no fence, or another one than the run that has the agent; or one of a run that is over.
    pub fn check(&self, request: &Request, now: Mono) -> Result<(), Failure> {
        let fence = fence_of(request)?;
        let inner = self.lock();
        match (fence, inner.held(now)) {
            (None, None) => Ok(()),
            (None, Some(held)) => Err(conflict(&format!(
                "the agent is {held}, and the request carries no fence of that"
            ))),
            (Some(fence), Some(_)) if inner.is_held_by(fence, now) => Ok(()),
            (Some(fence), Some(held)) => Err(conflict(&format!(
                "fence {fence} is stale: the agent is {held}"
            ))),
            (Some(fence), None) => Err(conflict(&format!(
                "fence {fence} is stale: {}",
                inner.ended
            ))),
        }
    }

    /// Extends the lease of the run that a request is of.
    ///
    /// # Errors
    /// As [`Self::check`], and 409 too when nobody has the agent.
    pub fn renew(&self, request: &Request, lease: Span, now: Mono) -> Result<(), Failure> {
        check_lease(lease)?;
        self.of_holder(request, now, |inner| {
            inner.state = State::Held { until: now + lease }
        })
    }

    /// Whether a request is of the run that has the agent.
    ///
    /// # Errors
    /// As [`Self::renew`].
    pub fn is_of_holder(&self, request: &Request, now: Mono) -> Result<(), Failure> {
        self.of_holder(request, now, |_| {})
    }

    /// Gives the agent back.
    ///
    /// # Errors
    /// As [`Self::renew`].
    pub fn release(&self, request: &Request, now: Mono) -> Result<(), Failure> {
        self.of_holder(request, now, |inner| {
            inner.state = State::Free;
            inner.ended = "its run gave the agent back";
        })
    }

    /// Who has it.
    #[must_use]
    pub fn view(&self, now: Mono) -> Option<RunView> {
        let inner = self.lock();
        match (&inner.state, &inner.last) {
            (State::Held { until }, Some(last)) if *until > now => Some(RunView {
                run: last.run.clone(),
                by: last.by.clone(),
                fence: last.fence,
                left: until.since(now),
            }),
            _ => None,
        }
    }

    /// Waits until a lease has lapsed; the agent is then nobody's until [`Self::cleared`].
    pub async fn lapse(&self) -> String {
        loop {
            let changed = self.changed.notified();
            let now = host::clock::now();
            let until = {
                let mut inner = self.lock();
                match inner.state {
                    State::Held { until } if until <= now => {
                        inner.state = State::Lapsing;
                        inner.ended = "its lease has lapsed";
                        let run = inner.last.as_ref().map(|last| last.run.clone());
                        return run.unwrap_or_default();
                    }
                    State::Held { until } => Some(until),
                    State::Free | State::Lapsing => None,
                }
            };
            let wait = async {
                match until {
                    Some(until) => tokio::time::sleep(until.since(now).duration()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = wait => {}
                () = changed => {}
            }
        }
    }

    /// What a run left behind is undone: the next may come.
    pub fn cleared(&self) {
        self.lock().state = State::Free;
    }

    fn of_holder(
        &self,
        request: &Request,
        now: Mono,
        change: impl FnOnce(&mut Inner),
    ) -> Result<(), Failure> {
        self.check(request, now)?;
        let fence = fence_of(request)?;
        let mut inner = self.lock();
        if !fence.is_some_and(|fence| inner.is_held_by(fence, now)) {
            return Err(conflict("no run has the agent; POST /run takes it"));
        }
        change(&mut inner);
        drop(inner);
        self.changed.notify_one();
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Who has it, in words.
    fn held(&self, now: Mono) -> Option<String> {
        let last = self.last.as_ref()?;
        let (run, by, fence) = (&last.run, &last.by, last.fence);
        match self.state {
            State::Held { until } if until > now => Some(format!(
                "held by run `{run}` of `{by}` (fence {fence}), whose lease lapses in {} unless it is renewed",
                Span::from_millis(until.since(now).as_micros().div_ceil(1_000))
            )),
            State::Held { .. } | State::Lapsing => Some(format!(
                "being cleared of what run `{run}` of `{by}` left when its lease lapsed"
            )),
            State::Free => None,
        }
    }

    fn is_held_by(&self, fence: u64, now: Mono) -> bool {
        let last = self.last.as_ref().map(|last| last.fence);
        matches!(self.state, State::Held { until } if until > now) && last == Some(fence)
    }
}

fn fence_of(request: &Request) -> Result<Option<u64>, Failure> {
    let Some(value) = request.headers.get(FENCE) else {
        return Ok(None);
    };
    let fence = value.to_str().ok().and_then(|text| text.parse().ok());
    fence.map(Some).ok_or_else(|| {
        let text =
            format!("the header {FENCE} holds no number; send the `fence` that POST /run answered");
        Failure::new(StatusCode::BAD_REQUEST, text)
    })
}

fn check_lease(lease: Span) -> Result<(), Failure> {
    let (shortest, longest) = LEASES;
    if (shortest..=longest).contains(&lease) {
        return Ok(());
    }
    let text = format!("a run's lease is {shortest} to {longest}, not {lease}");
    Err(Failure::new(StatusCode::UNPROCESSABLE_ENTITY, text))
}

fn conflict(text: &str) -> Failure {
    Failure::new(StatusCode::CONFLICT, text)
}

/// It is on disk, whole, when this returns.
fn keep(path: &Path, last: &Last) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(&serde_json::to_vec(last)?)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use host::door::Caller;
    use host::http::{Method, header};

    use super::*;

    const AT: fn(u64) -> Mono = |second| Mono(second * 1_000_000);

    fn order(run: &str) -> TakeRun {
        TakeRun {
            run: run.to_owned(),
            lease: Span::from_secs(10),
        }
    }

    fn call(fence: Option<u64>) -> Request {
        let mut headers = header::HeaderMap::new();
        if let Some(fence) = fence {
            headers.insert(FENCE, fence.into());
        }
        Request {
            method: Method::POST,
            path: "/faults".to_owned(),
            query: String::new(),
            headers,
            body: Vec::new().into(),
            caller: Caller::Anybody,
        }
    }

    fn words(outcome: Result<(), Failure>) -> String {
        let failure = outcome.unwrap_err();
        assert_eq!(failure.status, StatusCode::CONFLICT);
        failure.message
    }

    #[test]
    fn one_run_has_it_and_the_others_hear_who() {
        let folder = tempfile::tempdir().unwrap();
        let lock = RunLock::open(folder.path().join("run.json")).unwrap();
        lock.check(&call(None), AT(0)).unwrap();
        let first = lock.take(&order("one"), "ada", AT(0)).unwrap().fence;
        lock.check(&call(Some(first)), AT(9)).unwrap();
        let taken = lock.take(&order("two"), "bob", AT(9)).unwrap_err().message;
        assert!(
            taken.contains("`one`") && taken.contains("`ada`"),
            "{taken}"
        );
        assert!(words(lock.check(&call(None), AT(9))).contains("no fence"));
        assert!(words(lock.check(&call(Some(first + 1)), AT(9))).contains("`one`"));

        lock.renew(&call(Some(first)), Span::from_secs(10), AT(9))
            .unwrap();
        lock.check(&call(Some(first)), AT(18)).unwrap();
        lock.release(&call(Some(first)), AT(18)).unwrap();
        assert!(words(lock.check(&call(Some(first)), AT(18))).contains("gave"));
        let second = lock.take(&order("two"), "bob", AT(18)).unwrap().fence;
        assert!(second > first);
        assert!(words(lock.release(&call(Some(first)), AT(18))).contains("`two`"));
    }

    #[test]
    fn a_lapsed_run_is_over_before_anybody_has_looked() {
        let folder = tempfile::tempdir().unwrap();
        let lock = RunLock::open(folder.path().join("run.json")).unwrap();
        let fence = lock.take(&order("one"), "ada", AT(0)).unwrap().fence;
        assert!(words(lock.check(&call(Some(fence)), AT(10))).contains("being cleared"));
        assert!(
            lock.renew(&call(Some(fence)), Span::from_secs(10), AT(10))
                .is_err()
        );
        assert!(lock.take(&order("two"), "bob", AT(10)).is_err());
        assert!(lock.view(AT(10)).is_none());
    }

    #[test]
    fn fences_rise_over_lives_and_a_damaged_file_is_not_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.json");
        let fence = RunLock::open(path.clone())
            .unwrap()
            .take(&order("one"), "ada", AT(0));
        let fence = fence.unwrap().fence;
        let lock = RunLock::open(path.clone()).unwrap();
        assert!(words(lock.check(&call(Some(fence)), AT(1))).contains("started anew"));
        assert_eq!(
            lock.take(&order("two"), "bob", AT(1)).unwrap().fence,
            fence + 1
        );
        fs::write(&path, "{").unwrap();
        assert!(
            RunLock::open(path)
                .unwrap_err()
                .to_string()
                .contains("run.json")
        );
    }
}
