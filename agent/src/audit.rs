//! Who asked this agent for what, when, and what came of it: JSON lines that are only ever added to. A request that is to
//! change something is written down before it is looked into, so that even one during which the agent dies is there, and
//! again once it is answered. What only looks, renews or is passed on to a child is not written down unless it is refused.
//! What was sent is not, beyond names: it may hold secrets.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, SecondsFormat};
use host::clock;
use host::door::TurnedAway;
use host::http::{Failure, Method, Reply, Request, StatusCode};
use host::jsonl::Appender;
use model::instant::Mono;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::access::Who;

/// Whoever is turned away costs a line, and must not fill the disk: so many in a second, the others are counted.
const TURNED_AWAY_A_SECOND: u32 = 10;
/// The longest refusal that is kept.
const LONGEST_ERROR: usize = 400;

/// How far a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// It is about to be looked into.
    Asked,
    /// It was done, or failed.
    Answered,
    /// It was not let through: certificate, token, role, lock, policy or halt.
    Refused,
    /// The caller went away before there was an answer.
    Abandoned,
}

/// A line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The request's number in this life of the agent; 0 for who was turned away before there was a request.
    pub request: u64,
    /// When, by the wall clock.
    pub at: String,
    /// When, by the monotonic clock of that boot.
    pub at_us: Mono,
    /// How far it has come.
    pub step: Step,
    /// Who.
    pub who: Option<Who>,
    /// Where from, of those whose name is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// `POST /faults`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    /// What it is about, as far as the request says: a fault's id, kind, node and lease, a child's name and role, a run.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub about: Value,
    /// The answer's status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why it was refused, or why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How many were turned away since the last line about one, without a line of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlogged: Option<u32>,
}

/// The log.
#[derive(Debug)]
pub struct Audit {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    appender: Appender,
    requests: u64,
    second: u64,
    in_second: u32,
    unlogged: u32,
}

impl Audit {
    /// Opens the log or begins it, for its owner alone (mode 0600).
    ///
    /// # Errors
    /// It cannot be written; the error names it.
    pub fn open(path: &Path) -> io::Result<Arc<Self>> {
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(named)?;
        }
        let appender = Appender::open(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(named)?;
        Ok(Arc::new(Self {
            inner: Mutex::new(Inner {
                appender,
                requests: 0,
                second: 0,
                in_second: 0,
                unlogged: 0,
            }),
        }))
    }

    /// Begins a request's entry.
    pub fn begin(self: &Arc<Self>, who: Who, request: &Request) -> Entry {
        let mut entry = self.begin_refused(who, request);
        entry.silent = is_silent(request);
        if !entry.silent {
            entry.on_record = entry.write(Step::Asked, None, None);
        }
        entry
    }

    /// Begins the entry of a request that is not let through: it has but one line.
    pub fn begin_refused(self: &Arc<Self>, who: Who, request: &Request) -> Entry {
        Entry {
            audit: Arc::clone(self),
            number: self.number(),
            who,
            what: format!("{} {}", request.method, request.path),
            about: about(request),
            silent: true,
            open: true,
            on_record: true,
        }
    }

    /// Somebody was not let in.
    pub fn turned_away(&self, stranger: &TurnedAway) {
        tracing::warn!(from = %stranger.from, reason = stranger.reason, "turned away");
        let unlogged = {
            let mut inner = self.lock();
            let second = clock::now().0 / 1_000_000;
            if inner.second != second {
                (inner.second, inner.in_second) = (second, 0);
            }
            inner.in_second += 1;
            if inner.in_second > TURNED_AWAY_A_SECOND {
                inner.unlogged += 1;
                return;
            }
            std::mem::take(&mut inner.unlogged)
        };
        self.write(&Line {
            request: 0,
            at: wall(),
            at_us: clock::now(),
            step: Step::Refused,
            who: None,
            from: Some(stranger.from.to_string()),
            what: None,
            about: Value::Null,
            status: None,
            error: Some(short(&stranger.reason)),
            unlogged: Some(unlogged).filter(|count| *count > 0),
        });
    }

    fn number(&self) -> u64 {
        let mut inner = self.lock();
        inner.requests += 1;
        inner.requests
    }

    /// Whether it could be written. A log that cannot does not keep a fault from being undone; that it cannot is said.
    fn write(&self, line: &Line) -> bool {
        let mut inner = self.lock();
        // What is asked is safe from the agent's own death once it is written; only the answer waits for the disk.
        let written = if line.step == Step::Asked {
            inner.appender.append_soon(line)
        } else {
            inner.appender.append(line)
        };
        if let Err(error) = &written {
            tracing::error!(%error, "the audit log cannot be written");
        }
        written.is_ok()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request under way.
#[derive(Debug)]
pub struct Entry {
    audit: Arc<Audit>,
    number: u64,
    who: Who,
    what: String,
    about: Value,
    silent: bool,
    open: bool,
    /// That it was asked could be written down, where it has to be.
    on_record: bool,
}

impl Entry {
    /// Whether what is asked may be looked into.
    ///
    /// # Errors
    /// 503 for new work that is not on record.
    pub fn refuse_unrecorded(&self, request: &Request) -> Result<(), Failure> {
        if self.on_record || !is_new_work(request) {
            return Ok(());
        }
        let text = "the audit log cannot be written, and nothing new is done off the record: see the agent's log, and make room";
        Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, text))
    }

    /// It was not let through.
    pub fn refused(mut self, status: StatusCode, error: &str) {
        self.open = false;
        self.write(Step::Refused, Some(status), Some(error));
    }

    /// It was answered.
    pub fn answered(mut self, reply: &Reply) {
        self.open = false;
        let (status, error) = match reply {
            Ok(response) => (response.status, None),
            Err(failure) => (failure.status, Some(failure.message.as_str())),
        };
        // Its words quote what was sent.
        let error = error.filter(|_| status != StatusCode::BAD_REQUEST);
        if status == StatusCode::LOCKED {
            self.write(Step::Refused, Some(status), error);
        } else if !self.silent {
            self.write(Step::Answered, Some(status), error);
        }
    }

    fn write(&self, step: Step, status: Option<StatusCode>, error: Option<&str>) -> bool {
        self.audit.write(&Line {
            request: self.number,
            at: wall(),
            at_us: clock::now(),
            step,
            who: Some(self.who.clone()),
            from: None,
            what: Some(self.what.clone()),
            about: self.about.clone(),
            status: status.map(|status| status.as_u16()),
            error: error.map(short),
            unlogged: None,
        })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.open && !self.silent {
            self.write(Step::Abandoned, None, None);
        }
    }
}

fn is_silent(request: &Request) -> bool {
    request.method == Method::GET
        || matches!(
            request.segments().as_slice(),
            ["faults", _, "renew"] | ["run", "renew"] | ["children", _, "call"]
        )
}

/// What undoes, ends or halts is done in any case.
fn is_new_work(request: &Request) -> bool {
    let segments = request.segments();
    request.method == Method::POST
        && matches!(
            segments.as_slice(),
            ["faults" | "children" | "run" | "ears" | "sends"] | ["commands", _]
        )
}

/// Names out of a request's body, and nothing else.
fn about(request: &Request) -> Value {
    let fields: &[(&str, &str)] = match request.segments().as_slice() {
        ["faults"] => &[("id", "/id"), ("node", "/node"), ("lease", "/lease")],
        ["children"] => &[("child", "/name")],
        ["run"] => &[("run", "/run")],
        ["sends"] => &[("to", "/to")],
        _ => return Value::Null,
    };
    let Ok(body) = serde_json::from_slice::<Value>(&request.body) else {
        return Value::Null;
    };
    let mut about = serde_json::Map::new();
    for (name, pointer) in fields {
        if let Some(Value::String(text)) = body.pointer(pointer) {
            about.insert((*name).to_owned(), short(text).into());
        }
    }
    for (name, field) in [("fault", "fault"), ("role", "role")] {
        let kind = body.get(field).and_then(Value::as_object);
        if let Some(kind) = kind.and_then(|kind| kind.keys().next()) {
            about.insert(name.to_owned(), short(kind).into());
        }
    }
    about.into()
}

fn short(text: &str) -> String {
    text.chars().take(LONGEST_ERROR).collect()
}

fn wall() -> String {
    i64::try_from(clock::unix_micros())
        .ok()
        .and_then(DateTime::from_timestamp_micros)
        .unwrap_or_default()
        .to_rfc3339_opts(SecondsFormat::Micros, true)
}
