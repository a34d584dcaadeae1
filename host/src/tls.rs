//! TLS, by rustls: what a configuration of the model's becomes, once for all connections that use it.
//!
//! ```text
//! reason     what went wrong in a handshake, and the remedy
//! authority  certificates for as long as a process lives, or written for operators
//! certified  what a client's certificate says of its holder
//! ```

mod authority;
mod certified;
mod reason;

use std::io;
use std::sync::Arc;

use model::target::{TlsClient, TlsIdentity};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub use self::authority::{Authority, Root, Use};
pub use self::certified::Certified;
pub use self::reason::{Trouble, reason, trouble};
pub use rustls::pki_types::ServerName;

/// The one protocol that is spoken inside: a `WebSocket` begins with HTTP/1.1, and HTTP/2 has no such upgrade.
const HTTP_1_1: &[u8] = b"http/1.1";

/// A TLS configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM text without what it should have.
    #[error("{what}: {problem}; give it as PEM, as in -----BEGIN {label}-----")]
    Pem {
        /// Which text.
        what: &'static str,
        /// What is wrong with it. Never the text itself: it may be a key.
        problem: String,
        /// What a PEM text of that kind begins with.
        label: &'static str,
    },
    /// The system trusts nobody, and no authority was named.
    #[error(
        "the system has no trusted certificates ({0}); install ca-certificates, or name the target's own authority"
    )]
    NoRoots(String),
    /// rustls does not take it, such as a key that does not fit its certificate.
    #[error("{what}: {error}")]
    Unusable {
        /// Which part.
        what: &'static str,
        /// Why.
        error: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What is to be the server's name is none.
    #[error("`{0}` is not a host name or an address that a certificate could bear")]
    Name(String),
}

impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> Self {
        Self::new(io::ErrorKind::InvalidInput, error)
    }
}

/// Opens TLS as a client. Clones share one configuration.
#[derive(Clone)]
pub struct Connector(TlsConnector);

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

impl Connector {
    /// With these settings: made once, for reading the system's certificates takes milli-seconds.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn new(settings: &TlsClient) -> Result<Self, TlsError> {
        let roots = match &settings.ca_pem {
            Some(pem) => roots("the target's authority", pem)?,
            None => system_roots()?,
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable("TLS versions", error))?
            .with_root_certificates(roots);
        let mut config = match &settings.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let (chain, key) = parts("the client's certificate and key", identity)?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| unusable("the client's certificate and key", error))?
            }
        };
        config.alpn_protocols = vec![HTTP_1_1.to_vec()];
        // The clients of a fleet stand for as many devices: none may resume another's session, and each reconnect
        // costs the lane a whole handshake.
        config.resumption = Resumption::disabled();
        Ok(Self(Arc::new(config).into()))
    }

    /// Shakes hands with a server that has to be `name`.
    ///
    /// # Errors
    /// What failed and the remedy; see [`reason`].
    pub async fn connect(
        &self,
        name: ServerName<'static>,
        stream: TcpStream,
    ) -> io::Result<TlsStream<TcpStream>> {
        let shown = name.to_str().into_owned();
        self.0.connect(name, stream).await.map_err(|error| {
            let text = format!("TLS with `{shown}`: {}", reason(&error));
            io::Error::new(error.kind(), text)
        })
    }
}

/// The configuration of a server that shows `identity`; with `client_ca_pem` it requires a certificate of its clients
/// that one of these authorities has issued.
///
/// # Errors
/// See [`TlsError`].
pub fn server(
    identity: &TlsIdentity,
    client_ca_pem: Option<&str>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let (chain, key) = parts("the server's certificate and key", identity)?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable("TLS versions", error))?;
    let builder = match client_ca_pem {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let roots = Arc::new(roots("the clients' authority", pem)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
                .build()
                .map_err(|error| unusable("the clients' authority", error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| unusable("the server's certificate and key", error))?;
    config.alpn_protocols = vec![HTTP_1_1.to_vec()];
    // See the client's side.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The name of a server: a host's, or an address.
///
/// # Errors
/// It is neither.
pub fn server_name(host: &str) -> Result<ServerName<'static>, TlsError> {
    let bare = host
        .strip_prefix('[')
        .and_then(|v6| v6.strip_suffix(']'))
        .unwrap_or(host);
    ServerName::try_from(bare.to_owned()).map_err(|_| TlsError::Name(host.to_owned()))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn roots(what: &'static str, pem: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(what, pem)? {
        roots
            .add(certificate)
            .map_err(|error| unusable(what, error))?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some stores hold oddities that no verifier takes; the others count.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let errors: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        let errors = match &*errors.join(", ") {
            "" => "its store is empty".to_owned(),
            errors => errors.to_owned(),
        };
        return Err(TlsError::NoRoots(errors));
    }
    Ok(roots)
}

fn parts(
    what: &'static str,
    identity: &TlsIdentity,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let certificates = certificates(what, &identity.chain_pem)?;
    let key =
        PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).map_err(|_| TlsError::Pem {
            what,
            problem: "no private key in it".to_owned(),
            label: "PRIVATE KEY",
        })?;
    Ok((certificates, key))
}

fn certificates(what: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |problem: String| TlsError::Pem {
        what,
        problem,
        label: "CERTIFICATE",
    };
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(error.to_string()))?;
    if found.is_empty() {
        return Err(wrong("no certificate in it".to_owned()));
    }
    Ok(found)
}

fn unusable(
    what: &'static str,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> TlsError {
    TlsError::Unusable {
        what,
        error: error.into(),
    }
}
