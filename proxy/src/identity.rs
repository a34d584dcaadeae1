//! Whom a connection of the standalone proxy belongs to, so that decisions about it do not depend on who came first.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// An id longer than this is not taken for one.
pub(crate) const LONGEST: usize = 256;
/// The ids whose connections are counted: so many at least of those that came last, twice as many at most. With
/// [`LONGEST`], at most 17 MB of a proxy's memory are ids.
const REMEMBERED: usize = 32_768;

/// Where the first request of a connection says whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum IdentifyBy {
    /// In this header.
    Header(String),
    /// In this parameter of the query.
    Query(String),
}

impl IdentifyBy {
    /// Whether it can be in a request.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Self::Header(name) if !is_token(name) => Err(format!(
                "identify_by: header {name:?} is not the name of a header; use one like X-Client"
            )),
            Self::Query(name) if name.is_empty() => Err(
                "identify_by: query \"\" is not the name of a parameter; use one like client"
                    .to_owned(),
            ),
            Self::Header(_) | Self::Query(_) => Ok(()),
        }
    }
}

/// Whether it can be a header's name (RFC 9110, section 5.6.2).
pub(crate) fn is_token(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(fits)
}

/// Whom decisions are about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    /// A client that says who it is.
    Client {
        id: Arc<str>,
        /// How many connections it has had before.
        attempt: u64,
    },
    /// A connection that stands for itself, by its ordinal: who is the seventh depends on who comes when.
    Connection(u64),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client { id, attempt } => write!(f, "{id}#{attempt}"),
            Self::Connection(ordinal) => write!(f, "connection-{ordinal}"),
        }
    }
}

/// How the connections of a proxy are told apart.
#[derive(Debug, Default)]
pub(crate) struct Identities {
    by: Mutex<Option<Arc<IdentifyBy>>>,
    attempts: Mutex<Attempts>,
}

impl Identities {
    pub(crate) fn by(&self) -> Option<Arc<IdentifyBy>> {
        self.by
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// For the connections that come from now on.
    pub(crate) fn set(&self, by: IdentifyBy) {
        *self.by.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(by));
    }

    /// Counts a connection of this client.
    pub(crate) fn came(&self, id: Arc<str>) -> Subject {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        let attempt = attempts.count(&id, REMEMBERED);
        Subject::Client { id, attempt }
    }
}

/// Counts by id, in bounded memory: when as many are young as are to be remembered, they grow old, and those that were
/// old are forgotten.
#[derive(Debug, Default)]
struct Attempts {
    young: HashMap<Arc<str>, u64>,
    old: HashMap<Arc<str>, u64>,
}

impl Attempts {
    /// How often it has been counted before.
    fn count(&mut self, id: &Arc<str>, remembered: usize) -> u64 {
        if let Some(count) = self.young.get_mut(id) {
            *count += 1;
            return *count - 1;
        }
        let before = self.old.remove(id).unwrap_or(0);
        if self.young.len() == remembered {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(Arc::clone(id), before + 1);
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_came_lately_is_counted_and_the_memory_is_bounded(ids in prop::collection::vec(0..12_u8, 0..200)) {
            const REMEMBERED: usize = 4;
            let mut attempts = Attempts::default();
            for (at, id) in ids.iter().enumerate() {
                let count = attempts.count(&id.to_string().into(), REMEMBERED);
                prop_assert!(attempts.young.len() + attempts.old.len() <= 2 * REMEMBERED);
                let before = ids[..at].iter().rposition(|other| other == id);
                let mut since = ids[before.unwrap_or(0)..at].to_vec();
                since.sort_unstable();
                since.dedup();
                if before.is_none() {
                    prop_assert_eq!(count, 0);
                } else if since.len() <= REMEMBERED {
                    prop_assert!(count > 0, "{} others since", since.len());
                }
            }
        }
    }

    #[test]
    fn a_client_that_comes_again_is_another_subject() {
        let identities = Identities::default();
        let subjects: Vec<_> = ["a", "b", "a"]
            .map(|id| identities.came(id.into()).to_string())
            .into();
        assert_eq!(subjects, ["a#0", "b#0", "a#1"]);
    }
}
