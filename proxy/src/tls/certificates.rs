//! What clients are shown: the certificate that was given, or one that is issued when a client asks for a host; and on
//! order one with which something is wrong.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use host::tls::{Authority, TlsError, server};
use model::target::TlsIdentity;
use rustls::ServerConfig;

/// How long the authorities are valid.
const LIFETIME: Duration = Duration::from_hours(24 * 365);
/// A certificate is issued anew when it has been shown for so long: it is valid for a day.
const FRESH: Duration = Duration::from_hours(12);
/// How long a certificate has been expired that is to be.
const EXPIRED: Duration = Duration::from_hours(24);
/// So many certificates are kept: clients choose for which hosts they are.
const KEPT: usize = 256;
/// Nobody is called that (RFC 6761).
const WRONG_HOST: &str = "wrong-host.invalid";

/// What is wrong with a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Flaws {
    /// It is no longer valid.
    pub(crate) expired: bool,
    /// It is for a host that nobody asks for.
    pub(crate) wrong_host: bool,
    /// Its issuer is one that nobody can trust.
    pub(crate) unknown_issuer: bool,
}

/// What the clients of a proxy are shown.
#[derive(Debug)]
pub(crate) struct Certificates {
    /// The certificate that was given; without one, the issuer's are shown.
    own: Option<Arc<ServerConfig>>,
    issuer: Arc<Issuer>,
}

impl Certificates {
    /// This one; `issuer` makes those with flaws.
    pub(crate) fn own(identity: &TlsIdentity, issuer: Arc<Issuer>) -> Result<Self, TlsError> {
        let own = server(identity, issuer.client_ca_pem.as_deref())?;
        Ok(Self {
            own: Some(own),
            issuer,
        })
    }

    /// Those that are issued for whatever host is asked for.
    pub(crate) const fn issued(issuer: Arc<Issuer>) -> Self {
        Self { own: None, issuer }
    }

    /// For a client that asked for that host.
    pub(super) fn config(&self, asked: &str, flaws: Flaws) -> Result<Arc<ServerConfig>, TlsError> {
        match &self.own {
            Some(own) if flaws == Flaws::default() => Ok(Arc::clone(own)),
            _ => self.issuer.config(asked, flaws),
        }
    }
}

/// Issues certificates on demand. Its keys are made when they are first needed, and are never written anywhere.
#[derive(Debug, Default)]
pub(crate) struct Issuer {
    client_ca_pem: Option<String>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    authority: Option<Authority>,
    /// The authority that nobody can trust.
    stranger: Option<Authority>,
    issued: HashMap<(String, Flaws), Issued>,
}

#[derive(Debug)]
struct Issued {
    config: Arc<ServerConfig>,
    at: Instant,
}

impl Issuer {
    /// One that requires of clients a certificate by that authority, if there is one.
    pub(crate) fn new(client_ca_pem: Option<String>) -> Self {
        Self {
            client_ca_pem,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has to be trusted, as PEM.
    pub(crate) fn pem(&self) -> Result<String, TlsError> {
        let mut state = self.state();
        made(&mut state.authority, "faultlane").map(Authority::pem)
    }

    fn config(&self, host: &str, flaws: Flaws) -> Result<Arc<ServerConfig>, TlsError> {
        let mut state = self.state();
        let key = (host.to_owned(), flaws);
        if let Some(issued) = state.issued.get(&key)
            && issued.at.elapsed() < FRESH
        {
            return Ok(Arc::clone(&issued.config));
        }
        let config = server(&state.issue(host, flaws)?, self.client_ca_pem.as_deref())?;
        state.keep(key, &config);
        Ok(config)
    }
}

impl State {
    fn issue(&mut self, host: &str, flaws: Flaws) -> Result<TlsIdentity, TlsError> {
        let authority = if flaws.unknown_issuer {
            made(&mut self.stranger, "faultlane, not to be trusted")?
        } else {
            made(&mut self.authority, "faultlane")?
        };
        let names = [if flaws.wrong_host { WRONG_HOST } else { host }];
        if flaws.expired {
            let end = SystemTime::now() - EXPIRED;
            authority.issue_for(&names, end - EXPIRED..end)
        } else {
            authority.issue(&names)
        }
    }

    fn keep(&mut self, key: (String, Flaws), config: &Arc<ServerConfig>) {
        if self.issued.len() >= KEPT {
            let oldest = self.issued.iter().min_by_key(|(_, issued)| issued.at);
            let oldest = oldest.map(|(key, _)| key.clone());
            oldest.and_then(|oldest| self.issued.remove(&oldest));
        }
        let issued = Issued {
            config: Arc::clone(config),
            at: Instant::now(),
        };
        self.issued.insert(key, issued);
    }
}

/// The authority, which is made if there is none yet.
fn made<'a>(authority: &'a mut Option<Authority>, name: &str) -> Result<&'a Authority, TlsError> {
    let there = match authority.take() {
        Some(there) => there,
        None => Authority::lasting(name, LIFETIME)?,
    };
    Ok(authority.insert(there))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_kept_and_their_number_is_bounded() {
        let issuer = Issuer::default();
        let of = |host: &str| issuer.config(host, Flaws::default()).unwrap();
        let first = of("host-0");
        assert!(Arc::ptr_eq(&first, &of("host-0")));
        let expired = Flaws {
            expired: true,
            ..Flaws::default()
        };
        assert!(!Arc::ptr_eq(
            &first,
            &issuer.config("host-0", expired).unwrap()
        ));
        for n in 1..=KEPT {
            of(&format!("host-{n}"));
            assert!(issuer.state().issued.len() <= KEPT);
        }
        assert!(!Arc::ptr_eq(&first, &of("host-0")), "the oldest has gone");
    }
}
