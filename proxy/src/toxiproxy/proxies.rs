//! The named proxies and what changes them.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use futures_util::future::join_all;
use host::http::Failure;
use host::timer::Timer;
use host::tls::TlsError;
use tokio::sync::{Mutex, MutexGuard};

use super::Settings;
use super::ended::{Ended, Files, TlsInput};
use super::error::{bad_body, internal, no_proxy, proxy_exists};
use super::input::{ProxyInput, ProxyPatch};
use super::listen::resolve;
use super::named::Named;
use super::view::ProxyView;
use crate::crew::Crew;
use crate::decisions::Log;
use crate::plane::Plane;
use crate::tls::Issuer;

type Map = BTreeMap<String, Named>;

/// All proxies, by their names. The lock is held while listeners are bound and closed, never while names are looked up
/// or data flow.
#[derive(Debug)]
pub(super) struct Proxies {
    seed: u64,
    off_loopback: bool,
    timer: Timer,
    /// The processes that have the connections; none for this one.
    crew: Option<Arc<Crew>>,
    log: Option<Arc<Log>>,
    files: Files,
    issuer: Arc<Issuer>,
    map: Mutex<Map>,
}

impl Proxies {
    /// Those of a server with these settings, of which there are none yet.
    pub(super) fn new(settings: &Settings, crew: Option<Arc<Crew>>) -> io::Result<Self> {
        let log = settings
            .decision_log
            .as_deref()
            .map(Log::open)
            .transpose()?;
        Ok(Self {
            seed: settings.seed,
            off_loopback: settings.off_loopback,
            timer: Timer::start()?,
            crew,
            log,
            files: Files::new(settings.tls_dir.as_deref())?,
            issuer: Arc::default(),
            map: Mutex::default(),
        })
    }

    /// Waits until a change is made in every process, and its counts are here.
    pub(super) async fn made_everywhere(&self) {
        if let Some(crew) = &self.crew {
            crew.catch_up().await;
        }
    }

    pub(super) async fn lock(&self) -> MutexGuard<'_, Map> {
        self.map.lock().await
    }

    /// Asks one proxy for something.
    pub(super) async fn with<T>(
        &self,
        name: &str,
        ask: impl FnOnce(&Named) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        ask(self.lock().await.get(name).ok_or_else(no_proxy)?)
    }

    /// What clients have to trust of proxies that show certificates of the server's own, as PEM.
    pub(super) fn authority(&self) -> Result<String, TlsError> {
        self.issuer.pem()
    }

    fn make(&self, input: ProxyInput, tls: Option<Ended>) -> Named {
        let timer = self.timer.clone();
        let plane = match &self.crew {
            None => Plane::with_log(timer, self.log.as_ref().map(|log| log.of(&input.name))),
            Some(crew) => Plane::manned(timer, crew),
        };
        Named::new(input, tls, self.seed, plane)
    }

    /// TLS as it is asked for.
    fn ended(&self, tls: Option<TlsInput>) -> Result<Option<Ended>, Failure> {
        let ended = tls.map(|tls| Ended::new(tls, &self.files, &self.issuer));
        ended.transpose().map_err(bad_body)
    }

    /// What a server with workers cannot do for a proxy: certificates and the clients' attempts are one process's.
    fn check_crew(&self, tls: bool, identify_by: bool) -> Result<(), Failure> {
        let wanted = [("tls", tls), ("identify_by", identify_by)];
        match wanted.into_iter().find(|(_, wanted)| *wanted) {
            Some((field, _)) if self.crew.is_some() => Err(bad_body(format_args!(
                "{field}: a server with workers cannot do that; start it without --workers"
            ))),
            _ => Ok(()),
        }
    }

    pub(super) async fn create(&self, mut input: ProxyInput) -> Result<ProxyView, Failure> {
        self.check_crew(input.tls.is_some(), input.identify_by.is_some())?;
        let tls = self.ended(input.tls.take())?;
        let addr = resolve(&input.listen, self.off_loopback).await;
        let mut map = self.lock().await;
        if map.contains_key(&input.name) {
            return Err(proxy_exists());
        }
        let enabled = input.enabled;
        let mut proxy = self.make(input, tls);
        if enabled {
            addr.and_then(|addr| proxy.enable(addr)).map_err(internal)?;
        }
        let view = proxy.view();
        map.insert(view.name.clone(), proxy);
        Ok(view)
    }

    /// Makes a proxy, in place of one of its name unless that one is the same, or the new one cannot listen: then that one
    /// stays as it is.
    pub(super) async fn upsert(&self, mut input: ProxyInput) -> Result<ProxyView, Failure> {
        self.check_crew(input.tls.is_some(), input.identify_by.is_some())?;
        let tls = self.ended(input.tls.take())?;
        let addr = resolve(&input.listen, self.off_loopback).await;
        let mut map = self.lock().await;
        if let Some(before) = map.get_mut(&input.name) {
            let same_address = before.listen() == input.listen
                || addr
                    .as_ref()
                    .is_ok_and(|addr| before.listen() == addr.to_string());
            let same_identity =
                before.plane().identities.by().as_deref() == input.identify_by.as_ref();
            let same_way = before.upstream() == input.upstream && before.tls() == tls.as_ref();
            if same_address && same_identity && same_way {
                return Ok(before.view());
            }
        }
        let enabled = input.enabled;
        let mut proxy = self.make(input, tls);
        if enabled {
            let addr = addr.map_err(internal)?;
            // What is there may have the address that is asked for.
            let before = map.get_mut(proxy.name());
            let before = before.filter(|before| before.is_enabled());
            let again = before
                .as_ref()
                .and_then(|before| before.listen().parse().ok());
            if let Some(before) = before {
                before.disable();
            }
            if let Err(reason) = proxy.enable(addr) {
                if let (Some(before), Some(again)) = (map.get_mut(proxy.name()), again) {
                    before.enable(again).map_err(internal)?;
                }
                return Err(internal(reason));
            }
        } else if let Some(before) = map.get_mut(proxy.name()) {
            before.disable();
        }
        let view = proxy.view();
        map.insert(view.name.clone(), proxy);
        Ok(view)
    }

    /// Changes a proxy as a whole, or not at all.
    pub(super) async fn update(&self, name: &str, patch: ProxyPatch) -> Result<ProxyView, Failure> {
        self.check_crew(patch.tls.is_some(), patch.identify_by.is_some())?;
        let tls = self.ended(patch.tls)?;
        // The address it has means what it meant, whatever else is asked for.
        let listen = match &patch.listen {
            Some(listen) => listen.clone(),
            None => {
                self.with(name, |proxy| Ok(proxy.listen().to_owned()))
                    .await?
            }
        };
        let addr = resolve(&listen, self.off_loopback).await;
        let mut map = self.lock().await;
        let proxy = map.get_mut(name).ok_or_else(no_proxy)?;
        let enabled = patch.enabled.unwrap_or(proxy.is_enabled());
        let moves = proxy.listen() != listen
            && addr
                .as_ref()
                .map_or(true, |addr| proxy.listen() != addr.to_string());
        let upstream = patch.upstream.filter(|new| new != proxy.upstream());
        let tls = tls.filter(|new| Some(new) != proxy.tls());
        if !enabled {
            proxy.disable();
            proxy.identify_by(patch.identify_by);
            if moves {
                proxy.set_listen(listen);
            }
            proxy.redirect(upstream, tls).map_err(internal)?;
            return Ok(proxy.view());
        }
        let done = match addr {
            Ok(addr) if !proxy.is_enabled() => proxy.enable(addr),
            Ok(addr) if moves => proxy.rebind(addr),
            Ok(_) => Ok(()),
            Err(reason) => Err(reason),
        };
        done.map_err(internal)?;
        proxy.identify_by(patch.identify_by);
        proxy.redirect(upstream, tls).map_err(internal)?;
        Ok(proxy.view())
    }

    pub(super) async fn remove(&self, name: &str) -> Result<(), Failure> {
        let mut map = self.lock().await;
        let mut proxy = map.remove(name).ok_or_else(no_proxy)?;
        proxy.disable();
        Ok(())
    }

    /// Enables every proxy, and removes every toxic.
    pub(super) async fn reset(&self) -> Result<(), Failure> {
        let disabled: Vec<_> = {
            let map = self.lock().await;
            let disabled = map.values().filter(|proxy| !proxy.is_enabled());
            disabled
                .map(|proxy| (proxy.name().to_owned(), proxy.listen().to_owned()))
                .collect()
        };
        let mut addrs = BTreeMap::new();
        for (name, listen) in disabled {
            addrs.insert(name, resolve(&listen, self.off_loopback).await);
        }
        for proxy in self.lock().await.values_mut() {
            if !proxy.is_enabled()
                && let Some(addr) = addrs.remove(proxy.name())
            {
                addr.and_then(|addr| proxy.enable(addr)).map_err(internal)?;
            }
            proxy.remove_toxics();
        }
        Ok(())
    }

    /// Closes everything, and waits for the connections to end.
    pub(super) async fn end(&self) {
        let mut map = std::mem::take(&mut *self.lock().await);
        for proxy in map.values_mut() {
            proxy.disable();
        }
        join_all(map.values().map(Named::drained)).await;
        if let Some(crew) = &self.crew {
            crew.end().await;
        }
        if let Some(log) = self.log.clone() {
            let _ = tokio::task::spawn_blocking(move || log.close()).await;
        }
    }
}
