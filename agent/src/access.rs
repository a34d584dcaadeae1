//! Who a caller is, and which of the three roles it has: to observe, to inject, to halt.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use host::door::Caller;
use host::http::{Failure, Method, Request, StatusCode, header};
use serde::{Deserialize, Serialize};

/// What stands before a role in a certificate's URI: `faultlane:role/inject`.
pub const ROLE_URI: &str = "faultlane:role/";

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// To look: every `GET`.
    Observe,
    /// To change: faults, children, commands, calls, runs.
    Inject,
    /// To pull the lever: halt, and clear it.
    Halt,
}

impl Role {
    const ALL: [Self; 3] = [Self::Observe, Self::Inject, Self::Halt];

    /// As certificates and logs have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Inject => "inject",
            Self::Halt => "halt",
        }
    }

    /// The URI by which a certificate bears it.
    #[must_use]
    pub fn uri(self) -> String {
        format!("{ROLE_URI}{}", self.name())
    }

    fn needed_by(request: &Request) -> Self {
        match (&request.method, request.segments().as_slice()) {
            (&Method::GET, _) => Self::Observe,
            (_, ["halt", ..]) => Self::Halt,
            _ => Self::Inject,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// The first name of its certificate, or `local`.
    pub name: String,
    /// What it may do.
    pub roles: BTreeSet<Role>,
    /// Its address, or the user's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// SHA-256 of its certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

impl Who {
    fn local(from: Option<String>) -> Self {
        Self {
            name: "local".to_owned(),
            roles: Role::ALL.into(),
            from,
            fingerprint: None,
        }
    }

    fn of(caller: &Caller) -> Self {
        let (certified, from) = match caller {
            Caller::Anybody => return Self::local(None),
            Caller::User(id) => return Self::local(Some(format!("user {id}"))),
            Caller::Certified(certified, from) => (certified, from),
        };
        let role_of = |uri: &String| {
            let name = uri.strip_prefix(ROLE_URI)?;
            Role::ALL.into_iter().find(|role| role.name() == name)
        };
        // Of somebody's own authority the name may be a URI, such as spiffe://example/night-drill.
        let is_name = |uri: &&String| !uri.starts_with(ROLE_URI);
        let name = certified
            .names
            .first()
            .or_else(|| certified.uris.iter().find(is_name));
        Self {
            name: name.map_or("nameless", String::as_str).to_owned(),
            roles: certified.uris.iter().filter_map(role_of).collect(),
            from: Some(from.to_string()),
            fingerprint: Some(certified.fingerprint.clone()),
        }
    }
}

/// Whom an agent lets in.
#[derive(Debug, Default)]
pub struct Access {
    token: Option<Token>,
}

/// What callers on loopback have to show, for every user of the host can reach that.
struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// A caller that is not let in, and as whom it was known.
#[derive(Debug)]
pub struct Refused {
    /// Who it is, as far as that is known.
    pub who: Who,
    /// 401 or 403.
    pub failure: Failure,
}

impl Access {
    /// Lets those in who show what is in a file that only this user can read (mode 0600); it is made where it is not there.
    ///
    /// # Errors
    /// It can be neither read nor made; the error names it.
    pub fn by_token(file: &Path) -> std::io::Result<Self> {
        let token = read_or_make(file).map_err(|error| {
            std::io::Error::new(error.kind(), format!("{}: {error}", file.display()))
        })?;
        Ok(Self {
            token: Some(Token(token)),
        })
    }

    /// Who sends a request, if it may.
    ///
    /// # Errors
    /// 401 without the token, 403 without the role.
    pub fn admit(&self, request: &Request) -> Result<Who, Box<Refused>> {
        let mut who = Who::of(&request.caller);
        if let Some(Token(token)) = &self.token {
            let shown = request.headers.get(header::AUTHORIZATION);
            let shown = shown.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
            if !shown.is_some_and(|shown| same(shown, token.as_bytes())) {
                who.name = String::from("unknown");
                who.roles.clear();
                let text = "this agent wants `Authorization: Bearer …` with what is in the file `token` of its state_dir";
                let failure = Failure::new(StatusCode::UNAUTHORIZED, text);
                return Err(Box::new(Refused { who, failure }));
            }
        }
        let needed = Role::needed_by(request);
        if who.roles.contains(&needed) {
            return Ok(who);
        }
        let roles: Vec<_> = who.roles.iter().map(|role| role.name()).collect();
        let has = if roles.is_empty() {
            "none".to_owned()
        } else {
            roles.join(", ")
        };
        let text = format!(
            "{} {} needs the role `{needed}`; `{}` has {has}: use a certificate that bears the URI {}",
            request.method,
            request.path,
            who.name,
            needed.uri()
        );
        let failure = Failure::new(StatusCode::FORBIDDEN, text);
        Err(Box::new(Refused { who, failure }))
    }
}

/// Takes as long wherever they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

fn read_or_make(file: &Path) -> std::io::Result<String> {
    use std::fmt::Write as _;
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    match std::fs::read_to_string(file) {
        Ok(text) if text.trim().len() >= 32 => return Ok(text.trim().to_owned()),
        Ok(_) => {
            let text = "it holds less than 32 characters; remove it, and another one is made";
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, text));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut bytes = [0_u8; 32];
    let mut filled = 0;
    while filled < bytes.len() {
        filled +=
            rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    let token = bytes.iter().fold(String::new(), |mut token, byte| {
        let _ = write!(token, "{byte:02x}");
        token
    });
    let mut made = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)?;
    made.write_all(token.as_bytes())?;
    made.sync_all()?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use host::tls::Certified;

    use super::*;

    fn request(method: Method, path: &str, uris: &[&str]) -> Request {
        let certified = Certified {
            names: vec!["ada".to_owned()],
            uris: uris.iter().map(|uri| (*uri).to_owned()).collect(),
            fingerprint: "00".to_owned(),
        };
        Request {
            method,
            path: path.to_owned(),
            query: String::new(),
            headers: header::HeaderMap::new(),
            body: Vec::new().into(),
            caller: Caller::Certified(Arc::new(certified), ([127, 0, 0, 1], 1).into()),
        }
    }

    #[test]
    fn each_role_opens_its_own_routes_and_no_others() {
        let routes = [
            (Method::GET, "/status", Role::Observe),
            (Method::GET, "/faults/f", Role::Observe),
            (Method::POST, "/faults", Role::Inject),
            (Method::DELETE, "/faults/f", Role::Inject),
            (Method::POST, "/children/lane/call", Role::Inject),
            (Method::POST, "/commands/queue", Role::Inject),
            (Method::POST, "/run", Role::Inject),
            (Method::POST, "/halt", Role::Halt),
            (Method::POST, "/halt/clear", Role::Halt),
        ];
        for (method, path, needed) in routes {
            for role in Role::ALL {
                let request = request(method.clone(), path, &[&role.uri()]);
                match Access::default().admit(&request) {
                    Ok(who) => assert_eq!((role, &*who.name), (needed, "ada"), "{path}"),
                    Err(refused) => {
                        assert_ne!(role, needed, "{path}");
                        assert_eq!(refused.failure.status, StatusCode::FORBIDDEN);
                        let text = refused.failure.to_string();
                        assert!(
                            text.contains(needed.name()) && text.contains(path),
                            "{text}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn what_merely_looks_like_a_role_is_none() {
        for uri in [
            "faultlane:role/all",
            "faultlane:role/",
            "x:faultlane:role/inject",
            "FAULTLANE:role/inject",
        ] {
            let request = request(Method::POST, "/faults", &[uri]);
            assert!(Access::default().admit(&request).is_err(), "{uri}");
        }
    }

    #[test]
    fn a_token_is_made_once_and_asked_of_everybody() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let access = Access::by_token(&file).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let token = std::fs::read_to_string(&file).unwrap();
        Access::by_token(&file).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), token);
        let mut request = request(Method::GET, "/status", &[]);
        request.caller = Caller::Anybody;
        let refused = access.admit(&request).unwrap_err();
        assert_eq!(refused.failure.status, StatusCode::UNAUTHORIZED);
        let mut show = |text: String| {
            request
                .headers
                .insert(header::AUTHORIZATION, text.parse().unwrap());
            access.admit(&request)
        };
        assert!(show(format!("Bearer {}", "0".repeat(64))).is_err());
        assert_eq!(show(format!("Bearer {token}")).unwrap().name, "local");
    }
}
