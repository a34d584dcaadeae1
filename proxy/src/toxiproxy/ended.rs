//! TLS that ends at a proxy and begins anew: the field `tls` of a proxy.

use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use model::target::{TlsClient, TlsIdentity};
use serde_json::Value;

use super::view::TlsView;
use crate::tls::{Certificates, Issuer, Terminator};

/// No certificate or key is as large.
const LARGEST: u64 = 1 << 20;

/// TLS as somebody wants it.
#[derive(Debug, Default)]
pub(super) struct TlsInput {
    self_issued: bool,
    certificate: Option<Source>,
    key: Option<Source>,
    /// Whether the upstream speaks TLS, where that is said.
    upstream: Option<bool>,
    upstream_ca: Option<Source>,
    server_name: Option<String>,
}

/// A PEM text, or the name of a file with one.
struct Source(String);

// By hand: it may be a key.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}

impl Source {
    fn is_inline(&self) -> bool {
        self.0.contains("-----BEGIN") || self.0.contains('\n')
    }

    /// What is shown of it.
    fn shown(&self) -> String {
        if self.is_inline() {
            "inline".to_owned()
        } else {
            self.0.clone()
        }
    }
}

impl TlsInput {
    /// Reads it. By hand, as what is wrong with a key must not be told by showing it.
    pub(super) fn read(value: Value) -> Result<Self, String> {
        let Value::Object(fields) = value else {
            return Err("tls: not an object; use {\"self_issued\": true}, for instance".to_owned());
        };
        let mut input = Self::default();
        for (key, value) in fields {
            match (key.to_lowercase().as_str(), value) {
                (_, Value::Null) => {}
                ("self_issued", Value::Bool(is)) => input.self_issued = is,
                ("certificate", Value::String(text)) => input.certificate = Some(Source(text)),
                ("key", Value::String(text)) => input.key = Some(Source(text)),
                ("upstream_ca", Value::String(text)) => input.upstream_ca = Some(Source(text)),
                ("server_name", Value::String(name)) => input.server_name = Some(name),
                ("upstream", Value::String(how)) if how == "tls" => input.upstream = Some(true),
                ("upstream", Value::String(how)) if how == "plain" => input.upstream = Some(false),
                ("upstream", _) => {
                    return Err("tls: upstream is neither \"plain\" nor \"tls\"".to_owned());
                }
                ("self_issued", _) => {
                    return Err("tls: self_issued is neither true nor false".to_owned());
                }
                (name @ ("certificate" | "key" | "upstream_ca" | "server_name"), _) => {
                    return Err(format!("tls: {name} is not a string"));
                }
                _ => {
                    return Err(format!(
                        "tls: no field {key:?}; there are self_issued, certificate, key, upstream, upstream_ca and \
                         server_name"
                    ));
                }
            }
        }
        input.check()?;
        Ok(input)
    }

    fn check(&self) -> Result<(), String> {
        let problem = match (self.self_issued, &self.certificate, &self.key) {
            (true, None, None) | (false, Some(_), Some(_)) => {
                let for_tls = self.upstream_ca.is_some() || self.server_name.is_some();
                if for_tls && self.upstream == Some(false) {
                    "upstream_ca and server_name are for an upstream that speaks TLS; say \"upstream\": \"tls\""
                } else {
                    return Ok(());
                }
            }
            (true, ..) => {
                "self_issued certificates and one of yours exclude each other; leave one of them out"
            }
            (false, Some(_), None) => "certificate without key; give both",
            (false, None, Some(_)) => "key without certificate; give both",
            (false, None, None) => {
                "no certificate; give certificate and key, or \"self_issued\": true"
            }
        };
        Err(format!("tls: {problem}"))
    }
}

/// TLS that ends here.
#[derive(Debug)]
pub(super) struct Ended {
    identity: Option<TlsIdentity>,
    upstream: Option<TlsClient>,
    view: TlsView,
    terminator: Arc<Terminator>,
}

// By hand: the same settings make the same.
impl PartialEq for Ended {
    fn eq(&self, other: &Self) -> bool {
        (&self.identity, &self.upstream, &self.view)
            == (&other.identity, &other.upstream, &other.view)
    }
}

impl Ended {
    /// As it is wanted.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn new(
        input: TlsInput,
        files: &Files,
        issuer: &Arc<Issuer>,
    ) -> Result<Self, String> {
        let read = |what, source: &Option<Source>| {
            let source = source.as_ref().map(|source| files.read(what, source));
            source.transpose()
        };
        let chain = read("certificate", &input.certificate)?;
        let key = read("key", &input.key)?;
        let identity = chain
            .zip(key)
            .map(|(chain_pem, key_pem)| TlsIdentity { chain_pem, key_pem });
        let ca_pem = read("upstream_ca", &input.upstream_ca)?;
        let implied = input.upstream_ca.is_some() || input.server_name.is_some();
        let upstream = input.upstream.unwrap_or(implied).then_some(TlsClient {
            ca_pem,
            identity: None,
        });
        let certificates = match &identity {
            None => Ok(Certificates::issued(Arc::clone(issuer))),
            Some(identity) => Certificates::own(identity, Arc::clone(issuer)),
        };
        let terminator = certificates.and_then(|certificates| {
            Terminator::with(
                certificates,
                upstream.as_ref(),
                input.server_name.as_deref(),
            )
        });
        Ok(Self {
            terminator: Arc::new(terminator.map_err(|error| format!("tls: {error}"))?),
            view: TlsView {
                self_issued: input.self_issued,
                certificate: input.certificate.as_ref().map(Source::shown),
                upstream: if upstream.is_some() { "tls" } else { "plain" },
                upstream_ca: input.upstream_ca.as_ref().map(Source::shown),
                server_name: input.server_name,
            },
            identity,
            upstream,
        })
    }

    pub(super) fn terminator(&self) -> Arc<Terminator> {
        Arc::clone(&self.terminator)
    }

    pub(super) fn view(&self) -> TlsView {
        self.view.clone()
    }
}

/// The files that the API may name: those below one directory.
#[derive(Debug)]
pub(super) struct Files(Option<PathBuf>);

impl Files {
    pub(super) fn new(dir: Option<&Path>) -> io::Result<Self> {
        let dir = dir.map(|dir| {
            let real = fs::canonicalize(dir);
            real.map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("--tls-dir {}: {error}", dir.display()),
                )
            })
        });
        Ok(Self(dir.transpose()?))
    }

    /// The PEM text itself.
    fn read(&self, what: &str, source: &Source) -> Result<String, String> {
        if source.is_inline() {
            return Ok(source.0.clone());
        }
        let name = &source.0;
        // What is taken for the name of a key's file may be a key.
        let shown = if what == "key" {
            what.to_owned()
        } else {
            format!("{what} {name:?}")
        };
        let wrong = |problem: &dyn fmt::Display| format!("tls: {shown}: {problem}");
        let Some(dir) = &self.0 else {
            return Err(wrong(
                &"a file is read only below the directory of --tls-dir, and the server was started without; start it \
                  with --tls-dir DIR, or give the PEM text itself",
            ));
        };
        let inside = Path::new(name)
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !inside {
            return Err(wrong(
                &"not a path below the directory of --tls-dir; write it as seen from there",
            ));
        }
        let path = fs::canonicalize(dir.join(name)).map_err(|error| wrong(&error))?;
        if !path.starts_with(dir) {
            return Err(wrong(&"it leads out of the directory of --tls-dir"));
        }
        let is_small = |file: fs::Metadata| file.is_file() && file.len() <= LARGEST;
        if !fs::metadata(&path).is_ok_and(is_small) {
            return Err(wrong(&"not a file, or one of more than 1 MiB"));
        }
        let mut text = String::new();
        fs::File::open(&path)
            .and_then(|file| file.take(LARGEST).read_to_string(&mut text))
            .map_err(|error| wrong(&error))?;
        Ok(text)
    }
}
