//! The agents of an inventory, as they are called.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use host::peer::{Peer, PeerError};
use host::tls::{Connector, TlsError};
use model::target::{TlsClient, TlsIdentity};
use scenarios::inventory::{ClientFiles, Place};

use crate::client::Agent;

/// Why an agent cannot be called at all.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// A file that is needed for it cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its name has no address.
    #[error("`{address}` has no address: {source}")]
    Unresolved {
        /// `host:port`.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The certificates and keys are of no use.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// It has no name that a certificate could bear.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The file of a token holds something else.
    #[error("{}: it holds no token", .0.display())]
    NoToken(PathBuf),
}

/// An agent as it is called. Nothing is connected yet.
///
/// # Errors
/// See [`ReachError`].
pub async fn reach(place: &Place) -> Result<Agent, ReachError> {
    match place {
        Place::Socket(path) => Ok(Agent::of(Peer::socket_at(path))),
        Place::Loopback { address, token } => {
            let addr = resolve(address).await?;
            let text = read(token)?;
            Agent::of(Peer::plain(addr))
                .with_token(text.trim())
                .ok_or_else(|| ReachError::NoToken(token.clone()))
        }
        Place::Tls { address, files } => {
            let addr = resolve(address).await?;
            let host = address
                .rsplit_once(':')
                .map_or(address.as_str(), |(host, _)| host);
            let name = files.server_name.as_deref().unwrap_or(host);
            let connector = connector(files)?;
            Ok(Agent::of(Peer::secured(addr, name, connector)?))
        }
    }
}

fn connector(files: &ClientFiles) -> Result<Connector, ReachError> {
    let settings = TlsClient {
        ca_pem: Some(read(&files.ca)?),
        identity: Some(TlsIdentity {
            chain_pem: read(&files.certificate)?,
            key_pem: read(&files.key)?,
        }),
    };
    Ok(Connector::new(&settings)?)
}

/// A PEM or token file, named where it cannot be read.
pub(crate) fn read(path: &Path) -> Result<String, ReachError> {
    std::fs::read_to_string(path).map_err(|source| ReachError::File {
        path: path.to_owned(),
        source,
    })
}

async fn resolve(address: &str) -> Result<SocketAddr, ReachError> {
    let unresolved = |source| ReachError::Unresolved {
        address: address.to_owned(),
        source,
    };
    let mut found = tokio::net::lookup_host(address).await.map_err(unresolved)?;
    found
        .next()
        .ok_or_else(|| unresolved(io::Error::other("the name stands for none")))
}
