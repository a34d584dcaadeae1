//! The standalone proxy: named proxies, each with its own listener, upstream and toxics, driven by Toxiproxy's HTTP API
//! so that its clients work unchanged.
//!
//! ```text
//! api      routes, statuses and the order of checks
//! input    request bodies, read as Toxiproxy reads them: any case of keys, unknown fields ignored
//! view     what is answered
//! error    refusals in Toxiproxy's words
//! proxies  the named proxies and what changes them
//! named    one of them: a plane, and a listener while it is enabled
//! ended    TLS that ends at a proxy: what is asked for, and where its certificates come from
//! listen   binding, with the words that Go has for what goes wrong
//! metrics  byte counters for Prometheus
//! ```
//!
//! A change of the configuration changes rules and listeners, and tells connections; it never waits for them, so no
//! stalled peer can delay it. Toxics have no lease: this API exists on a standalone proxy only, never on a drill's.

mod api;
mod ended;
mod error;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod input;
mod listen;
mod metrics;
mod named;
mod proxies;
mod view;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::proxies::Proxies;
use crate::crew::Crew;
pub use crate::toxics::schema;

/// How the standalone proxy behaves.
#[derive(Clone, Default)]
pub struct Settings {
    /// The seed of every decision.
    pub seed: u64,
    /// What callers have to present as Bearer token.
    pub token: Option<String>,
    /// Browsers are let in: a page could then reach the API by DNS rebinding.
    pub allow_browsers: bool,
    /// Proxies may listen off loopback.
    pub off_loopback: bool,
    /// Where each decision of a toxic is written, as a JSON line.
    pub decision_log: Option<PathBuf>,
    /// The directory below which certificates and keys are read that the API names by their files; without it, none are.
    pub tls_dir: Option<PathBuf>,
}

// By hand: the token is a secret.
impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("seed", &self.seed)
            .field("token", &self.token.is_some())
            .field("allow_browsers", &self.allow_browsers)
            .field("off_loopback", &self.off_loopback)
            .field("decision_log", &self.decision_log)
            .field("tls_dir", &self.tls_dir)
            .finish()
    }
}

/// A standalone proxy that has not begun to answer its API.
#[derive(Debug)]
pub struct Server {
    settings: Arc<Settings>,
    proxies: Arc<Proxies>,
}

impl Server {
    /// Without any proxy, on the current runtime.
    ///
    /// # Errors
    /// No descriptor is left for the timer, the decision log cannot be opened, or there is no such directory for TLS.
    pub fn new(settings: Settings) -> io::Result<Self> {
        Self::with(settings, None)
    }

    /// As [`Self::new`], with workers that have the connections.
    ///
    /// # Errors
    /// No descriptor is left for the timer.
    pub fn manned(settings: Settings, crew: Arc<Crew>) -> io::Result<Self> {
        Self::with(settings, Some(crew))
    }

    fn with(settings: Settings, crew: Option<Arc<Crew>>) -> io::Result<Self> {
        Ok(Self {
            proxies: Arc::new(Proxies::new(&settings, crew)?),
            settings: Arc::new(settings),
        })
    }

    /// What clients have to trust of proxies that show certificates of the server's own, as PEM. It is another one with
    /// every server.
    ///
    /// # Errors
    /// No key could be made.
    pub fn authority(&self) -> io::Result<String> {
        Ok(self.proxies.authority()?)
    }

    /// Makes the proxies of a configuration, which is a body of `POST /populate`.
    ///
    /// # Errors
    /// What is wrong with it, or that a listener cannot be bound. Proxies before that one are there.
    pub async fn populate(&self, configuration: &[u8]) -> Result<(), String> {
        let (_, failure) = api::populate(&self.proxies, configuration).await;
        failure.map_or(Ok(()), |failure| Err(failure.message))
    }

    /// Answers the API on `api` until `shutdown`, then closes every listener and every connection.
    pub async fn serve(self, api: TcpListener, shutdown: CancellationToken) {
        let Self { settings, proxies } = self;
        let serving = Arc::clone(&proxies);
        host::http::serve(api, shutdown, move |request| {
            let (settings, proxies) = (Arc::clone(&settings), Arc::clone(&serving));
            async move { Ok(api::answer(&settings, &proxies, &request).await) }
        })
        .await;
        proxies.end().await;
    }
}
