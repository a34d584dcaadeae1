//! URLs and addresses, as far as a target file needs them. A mistake is a message and a remedy.

use std::net::IpAddr;

/// What is wrong, and what to do about it.
pub(crate) type Mistake = (String, String);

/// A URL in its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    /// `wss` or `https`.
    pub(crate) secure: bool,
    /// A name, or an IP address (version 6 with its brackets).
    pub(crate) host: String,
    pub(crate) port: u16,
    /// What Host says: the host, with its port where that is not the scheme's own.
    pub(crate) authority: String,
    /// From the first `/`; empty for none.
    pub(crate) path: String,
}

impl Url {
    /// Reads a URL with one of these schemes. A query is taken where a request has one of its own.
    pub(crate) fn read(text: &str, schemes: &[&str], query: bool) -> Result<Self, Mistake> {
        let known = schemes.join("://, ");
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err((
                "the URL has no scheme".to_owned(),
                format!("begin it with one of {known}://"),
            ));
        };
        if !schemes.contains(&scheme) {
            return Err((
                format!("the scheme `{scheme}` is not one that can be spoken here"),
                format!("begin the URL with one of {known}://"),
            ));
        }
        let secure = matches!(scheme, "wss" | "https");
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.contains('@') {
            return Err((
                "the URL holds a user or a password".to_owned(),
                "remove it and write headers: { authorization: \"${NAME}\" }".to_owned(),
            ));
        }
        if path.contains('#') || (path.contains('?') && !query) {
            return Err((
                "the URL has a query or a fragment".to_owned(),
                "end it with its path: what comes after that is the lane's own".to_owned(),
            ));
        }
        if path.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err((
                "the URL's path holds white space".to_owned(),
                "write it as %20".to_owned(),
            ));
        }
        let default = if secure { 443 } else { 80 };
        let (host, port) = split(authority, Some(default))?;
        Ok(Self {
            secure,
            authority: if port == default {
                host.clone()
            } else {
                format!("{host}:{port}")
            },
            host,
            port,
            path: path.to_owned(),
        })
    }

    /// The path with its query as a request line has it.
    pub(crate) fn request_path(&self) -> String {
        if self.path.starts_with('/') {
            self.path.clone()
        } else {
            format!("/{}", self.path)
        }
    }

    /// `host:port`.
    pub(crate) fn dial(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    pub(crate) fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }
}

/// Reads `host:port`.
pub(crate) fn host_port(text: &str) -> Result<String, Mistake> {
    if text.contains("://") || text.contains('/') {
        return Err((
            format!("`{text}` is a URL, not an address"),
            "write host:port, such as 10.0.0.7:3000; the URL goes to `url`".to_owned(),
        ));
    }
    split(text, None).map(|(host, port)| format!("{host}:{port}"))
}

fn split(text: &str, default: Option<u16>) -> Result<(String, u16), Mistake> {
    let bracket = text.rfind(']').map_or(0, |at| at + 1);
    let (host, port) = match text[bracket..].rfind(':') {
        Some(at) => (&text[..bracket + at], Some(&text[bracket + at + 1..])),
        None => (text, None),
    };
    let inner = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let valid = match inner {
        Some(inner) => matches!(inner.parse(), Ok(IpAddr::V6(_))),
        None => {
            !host.is_empty()
                && host
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
        }
    };
    if !valid {
        return Err((
            format!("`{host}` is not a host"),
            "write a name or an IP address, version 6 in brackets: [::1]:3000".to_owned(),
        ));
    }
    let port = match (port, default) {
        (Some(port), _) => port.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
            (
                format!("`{port}` is not a port"),
                "it is 1 to 65535".to_owned(),
            )
        })?,
        (None, Some(default)) => default,
        (None, None) => {
            return Err((
                format!("`{text}` lacks its port"),
                format!("write {text}:443 or whichever port it listens on"),
            ));
        }
    };
    Ok((host.to_owned(), port))
}

fn is_loopback(host: &str) -> bool {
    let inner = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || inner
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}
