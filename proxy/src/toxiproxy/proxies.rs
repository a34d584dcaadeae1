//! The named proxies and what changes them.

use std::collections::BTreeMap;
use std::io;

use futures_util::future::join_all;
use host::http::Failure;
use host::timer::Timer;
use tokio::sync::{Mutex, MutexGuard};

use super::error::{internal, no_proxy, proxy_exists};
use super::input::{ProxyInput, ProxyPatch};
use super::listen::resolve;
use super::named::Named;
use super::view::ProxyView;
use crate::plane::Plane;

type Map = BTreeMap<String, Named>;

/// All proxies, by their names. The lock is held while listeners are bound and closed, never while names are looked up
/// or data flow.
#[derive(Debug)]
pub(super) struct Proxies {
    seed: u64,
    off_loopback: bool,
    timer: Timer,
    map: Mutex<Map>,
}

impl Proxies {
    pub(super) fn new(seed: u64, off_loopback: bool) -> io::Result<Self> {
        Ok(Self {
            seed,
            off_loopback,
            timer: Timer::start()?,
            map: Mutex::default(),
        })
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

    fn make(&self, input: ProxyInput) -> Named {
        let plane = Plane::new(self.timer.clone(), None);
        Named::new(input.name, input.listen, input.upstream, self.seed, plane)
    }

    pub(super) async fn create(&self, input: ProxyInput) -> Result<ProxyView, Failure> {
        let addr = resolve(&input.listen, self.off_loopback).await;
        let mut map = self.lock().await;
        if map.contains_key(&input.name) {
            return Err(proxy_exists());
        }
        let enabled = input.enabled;
        let mut proxy = self.make(input);
        if enabled {
            addr.and_then(|addr| proxy.enable(addr)).map_err(internal)?;
        }
        let view = proxy.view();
        map.insert(view.name.clone(), proxy);
        Ok(view)
    }

    /// Makes a proxy, in place of one of its name unless that one is the same, or the new one cannot listen: then that one
    /// stays as it is.
    pub(super) async fn upsert(&self, input: ProxyInput) -> Result<ProxyView, Failure> {
        let addr = resolve(&input.listen, self.off_loopback).await;
        let mut map = self.lock().await;
        if let Some(before) = map.get_mut(&input.name) {
            let same_address = before.listen() == input.listen
                || addr
                    .as_ref()
                    .is_ok_and(|addr| before.listen() == addr.to_string());
            if same_address && before.upstream() == input.upstream {
                return Ok(before.view());
            }
        }
        let enabled = input.enabled;
        let mut proxy = self.make(input);
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
        if !enabled {
            proxy.disable();
            if moves {
                proxy.set_listen(listen);
            }
            if let Some(upstream) = upstream {
                proxy.redirect(upstream).map_err(internal)?;
            }
            return Ok(proxy.view());
        }
        let done = match addr {
            Ok(addr) if !proxy.is_enabled() => proxy.enable(addr),
            Ok(addr) if moves => proxy.rebind(addr),
            Ok(_) => Ok(()),
            Err(reason) => Err(reason),
        };
        done.map_err(internal)?;
        if let Some(upstream) = upstream {
            proxy.redirect(upstream).map_err(internal)?;
        }
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
    }
}
