//! One named proxy: a plane for as long as it exists, and a listener while it is enabled.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use host::clock;
use host::http::Failure;
use model::fault::Direction;
use model::quantity::Span;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ended::Ended;
use super::error::{bad_body, no_toxic, toxic_exists};
use super::input::{ProxyInput, ToxicInput, ToxicPatch};
use super::listen::bind;
use super::view::{ProxyView, ToxicView};
use crate::faults::{Cause, Rule};
use crate::identity::IdentifyBy;
use crate::listener;
use crate::plane::Plane;
use crate::toxics::{Lifetime, Toxic};
use crate::upstream::Upstream;

/// A proxy with a name.
#[derive(Debug)]
pub(super) struct Named {
    name: String,
    seed: u64,
    /// Where it listens; as it was asked for before it first did.
    listen: String,
    upstream: String,
    /// TLS that ends here; it passes through without.
    tls: Option<Ended>,
    plane: Arc<Plane>,
    connections: TaskTracker,
    accepting: Option<Accepting>,
}

/// A listener in use.
#[derive(Debug)]
struct Accepting {
    stop: CancellationToken,
    data: TcpListener,
}

impl Named {
    /// Disabled, and without toxics.
    pub(super) fn new(input: ProxyInput, tls: Option<Ended>, seed: u64, plane: Arc<Plane>) -> Self {
        if let Some(by) = input.identify_by {
            plane.identities.set(by);
        }
        Self {
            name: input.name,
            seed,
            listen: input.listen,
            upstream: input.upstream,
            tls,
            plane,
            connections: TaskTracker::new(),
            accepting: None,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn listen(&self) -> &str {
        &self.listen
    }

    pub(super) fn upstream(&self) -> &str {
        &self.upstream
    }

    pub(super) const fn tls(&self) -> Option<&Ended> {
        self.tls.as_ref()
    }

    pub(super) const fn plane(&self) -> &Arc<Plane> {
        &self.plane
    }

    pub(super) const fn is_enabled(&self) -> bool {
        self.accepting.is_some()
    }

    pub(super) fn view(&self) -> ProxyView {
        ProxyView {
            name: self.name.clone(),
            listen: self.listen.clone(),
            upstream: self.upstream.clone(),
            enabled: self.is_enabled(),
            toxics: self.toxics(),
            identify_by: self.plane.identities.by().as_deref().cloned(),
            tls: self.tls.as_ref().map(Ended::view),
        }
    }

    /// Tells connections that come from now on apart by this; they are told apart as before where it is none.
    pub(super) fn identify_by(&self, by: Option<IdentifyBy>) {
        if let Some(by) = by {
            self.plane.identities.set(by);
        }
    }

    /// Begins to accept there.
    pub(super) fn enable(&mut self, addr: SocketAddr) -> Result<(), String> {
        let data = bind(addr)?;
        self.accept(data)
    }

    fn accept(&mut self, data: TcpListener) -> Result<(), String> {
        if let Ok(addr) = data.local_addr() {
            self.listen = addr.to_string();
        }
        let stop = CancellationToken::new();
        let tls = self.tls.as_ref().map(Ended::terminator);
        let upstream = Arc::new(Upstream::named(&self.upstream, tls));
        listener::accept(&data, &self.plane, &upstream, &self.connections, &stop)
            .map_err(|error| format!("listen tcp {}: {error}", self.listen))?;
        self.accepting = Some(Accepting { stop, data });
        Ok(())
    }

    /// Closes the listener, if there is one, and tells the connections to end; they are not waited for.
    pub(super) fn disable(&mut self) {
        if let Some(data) = self.pause() {
            listener::close(&data);
        }
    }

    fn pause(&mut self) -> Option<TcpListener> {
        let Accepting { stop, data } = self.accepting.take()?;
        stop.cancel();
        self.plane.end();
        Some(data)
    }

    /// Takes another upstream, or other TLS; connections of before end.
    pub(super) fn redirect(
        &mut self,
        upstream: Option<String>,
        tls: Option<Ended>,
    ) -> Result<(), String> {
        if upstream.is_none() && tls.is_none() {
            return Ok(());
        }
        if let Some(upstream) = upstream {
            self.upstream = upstream;
        }
        self.tls = tls.or(self.tls.take());
        self.pause().map_or(Ok(()), |data| self.accept(data))
    }

    /// Takes another address, or, where that cannot be had, keeps everything as it was. Connections end.
    pub(super) fn rebind(&mut self, addr: SocketAddr) -> Result<(), String> {
        let data = if let Ok(data) = bind(addr) {
            self.disable();
            data
        } else {
            // What is in the way may be the proxy itself, on another address of the same port.
            let before = self.accepting.as_ref();
            let again = before.and_then(|before| before.data.local_addr().ok());
            self.disable();
            match (bind(addr), again) {
                (Ok(data), _) => data,
                (Err(reason), None) => return Err(reason),
                (Err(reason), Some(again)) => {
                    self.enable(again)?;
                    return Err(reason);
                }
            }
        };
        self.accept(data)
    }

    /// To be asked for later.
    pub(super) fn set_listen(&mut self, listen: String) {
        self.listen = listen;
    }

    /// Waits until its connections have ended, after they were told to.
    pub(super) fn drained(&self) -> impl Future<Output = ()> + use<> {
        let connections = self.connections.clone();
        async move { listener::drain(&connections).await }
    }

    /// Upstream ones before downstream ones, each in the order in which they came.
    pub(super) fn toxics(&self) -> Vec<ToxicView> {
        let rules = self.plane.rules();
        let (upstream, downstream): (Vec<_>, Vec<_>) = rules
            .list
            .iter()
            .filter_map(|rule| toxic(rule))
            .partition(|toxic| toxic.direction != Direction::Downstream);
        upstream.into_iter().chain(downstream).map(view).collect()
    }

    fn find(&self, name: &str) -> Option<Toxic> {
        let rules = self.plane.rules();
        let mut toxics = rules.list.iter().filter_map(|rule| toxic(rule));
        toxics.find(|toxic| toxic.name == name).cloned()
    }

    pub(super) fn toxic(&self, name: &str) -> Result<ToxicView, Failure> {
        self.find(name).as_ref().map(view).ok_or_else(no_toxic)
    }

    pub(super) fn add_toxic(&self, mut input: ToxicInput) -> Result<ToxicView, Failure> {
        input.check_type()?;
        if self.find(&input.name).is_some() {
            return Err(toxic_exists());
        }
        let settings = input.settings()?;
        let suits = settings.check_tls(self.tls.is_some());
        suits.map_err(bad_body)?;
        let mut toxic = Toxic {
            name: input.name,
            settings,
            stream: input.stream,
            direction: input.direction,
            toxicity: input.toxicity,
            lifetime: input.lifetime.map(lifetime),
            uid: 0,
            gate: Arc::default(),
            expiry: None,
        };
        let added = view(&toxic);
        self.expire(&mut toxic);
        self.plane.change(|list, generation| {
            toxic.uid = generation;
            list.push(Arc::new(self.rule(toxic, generation)));
        });
        Ok(added)
    }

    /// Changes it as a whole, or not at all.
    pub(super) fn update_toxic(&self, name: &str, body: &[u8]) -> Result<ToxicView, Failure> {
        let before = self.find(name).ok_or_else(no_toxic)?;
        let patch = ToxicPatch::read(body, &before.settings)?;
        let suits = patch.settings.check_direction(before.direction);
        suits.map_err(bad_body)?;
        let mut toxic = Toxic {
            settings: patch.settings,
            toxicity: patch.toxicity.unwrap_or(before.toxicity),
            lifetime: patch.lifetime.map(lifetime).or(before.lifetime),
            ..before
        };
        let updated = view(&toxic);
        if patch.lifetime.is_some() {
            self.expire(&mut toxic);
        }
        self.plane.change(|list, generation| {
            let same = |rule: &&mut Arc<Rule>| toxic_uid(rule) == Some(toxic.uid);
            if let Some(rule) = list.iter_mut().find(same) {
                *rule = Arc::new(self.rule(toxic, generation));
            }
        });
        Ok(updated)
    }

    fn rule(&self, toxic: Toxic, generation: u64) -> Rule {
        let log = self.plane.decisions.clone();
        Rule::toxic(&self.name, self.seed, toxic, generation, log)
    }

    pub(super) fn remove_toxic(&self, name: &str) -> Result<(), Failure> {
        let before = self.find(name).ok_or_else(no_toxic)?;
        self.plane
            .change(|list, _| list.retain(|rule| toxic_uid(rule) != Some(before.uid)));
        Ok(())
    }

    pub(super) fn remove_toxics(&self) {
        self.plane.change(|list, _| list.clear());
    }

    /// Has a toxic with a lifetime remove itself when that is over, unless it was given another one.
    fn expire(&self, toxic: &mut Toxic) {
        let Some(lifetime) = toxic.lifetime else {
            return;
        };
        let gone = CancellationToken::new();
        toxic.expiry = Some(Arc::new(gone.clone().drop_guard()));
        let (plane, timer) = (Arc::downgrade(&self.plane), self.plane.timer.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = gone.cancelled() => return,
                () = timer.sleep_until(lifetime.until) => {}
            }
            let Some(plane) = plane.upgrade() else { return };
            plane.change(|list, _| {
                list.retain(|rule| {
                    self::toxic(rule).and_then(|toxic| toxic.lifetime) != Some(lifetime)
                });
            });
        });
    }
}

fn lifetime(span: Span) -> Lifetime {
    Lifetime {
        span,
        until: clock::now() + span,
    }
}

pub(super) fn toxic(rule: &Rule) -> Option<&Toxic> {
    match &rule.cause {
        Cause::Toxic(toxic) => Some(toxic),
        Cause::Ordered(_) | Cause::Leased(_) => None,
    }
}

fn toxic_uid(rule: &Rule) -> Option<u64> {
    toxic(rule).map(|toxic| toxic.uid)
}

fn view(toxic: &Toxic) -> ToxicView {
    ToxicView {
        attributes: toxic.settings.clone(),
        name: toxic.name.clone(),
        kind: toxic.settings.name(),
        stream: toxic.stream.clone(),
        toxicity: toxic.toxicity.as_ratio(),
        lifetime: toxic
            .lifetime
            .map(|lifetime| lifetime.span.as_micros() / 1_000),
    }
}
