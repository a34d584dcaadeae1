//! A fault that is the root qdisc of an interface: throttle (tbf) or netem. It is put only where the kernel's default is,
//! which comes back by itself when it goes: what somebody has set up is never replaced.

use std::sync::OnceLock;

use futures_util::future::BoxFuture;
use host::clock;
use host::http::Failure;
use model::fault::{Netem, Observation, Throttle};
use model::instant::{Bracket, Mono};
use model::net::Interface;
use model::quantity::{ByteSize, Share, Span};
use serde_json::Value;

use super::super::NotApplied;
use super::super::deed::{Deed, Undone};
use super::{Change, away, failed, impossible, in_the_way};
use crate::journal::Undo;
use crate::tool::{self, ToolError};

/// So begin the handles of every fault's qdiscs; two digits follow.
pub(super) const HANDLES: &str = "fa";
/// The kinds that faults are made of.
const KINDS: [&str; 2] = ["tbf", "netem"];
/// The handle of a qdisc that nobody has set up.
const DEFAULT: &str = "0:";
/// What tc says where somebody has been quicker, of the same kind and of another.
const TAKEN: [&str; 2] = ["Exclusivity flag on", "NLM_F_REPLACE"];
/// What a packet has around what the MTU limits: Ethernet, and a VLAN.
const FRAME: u64 = 18;

/// One qdisc.
#[derive(Debug)]
pub(super) struct QdiscFault {
    interface: Interface,
    handle: String,
    /// Its kind and that's settings, as tc takes them.
    settings: Vec<String>,
    /// When it was first seen to take a packet.
    bitten: OnceLock<Mono>,
}

impl QdiscFault {
    pub(super) async fn throttle(settings: &Throttle, handle: String) -> Result<Self, Failure> {
        let mtu = mtu(&settings.interface).await?;
        let rate = settings.per_second.bytes();
        if rate == 0 {
            return Err(impossible(
                &"at 0B a second nothing passes; use partition for that",
            ));
        }
        let least = mtu + FRAME;
        let burst = settings
            .burst
            .map_or_else(|| (rate / 100).max(2 * least), ByteSize::bytes);
        if burst < least {
            return Err(impossible(&format_args!(
                "a burst of {burst}B lets no packet of `{}` through, which are up to {least}B; raise `burst`, or leave it out",
                settings.interface
            )));
        }
        let settings_for_tc = vec![
            "tbf".to_owned(),
            "rate".to_owned(),
            format!("{}bit", rate.saturating_mul(8)),
            "burst".to_owned(),
            format!("{burst}b"),
            "latency".to_owned(),
            micros(settings.latency),
        ];
        Self::aim(&settings.interface, handle, settings_for_tc).await
    }

    pub(super) async fn netem(settings: &Netem, handle: String) -> Result<Self, Failure> {
        let mut for_tc = vec!["netem".to_owned()];
        if settings.delay > Span::ZERO {
            for_tc.extend(["delay".to_owned(), micros(settings.delay)]);
            if settings.jitter > Span::ZERO {
                for_tc.push(micros(settings.jitter));
            }
        }
        for (name, share) in [
            ("reorder", settings.reorder),
            ("duplicate", settings.duplicate),
            ("corrupt", settings.corrupt),
            ("loss", settings.loss),
        ] {
            if share.as_ratio() > 0.0 {
                for_tc.extend([name.to_owned(), percent(share)]);
            }
        }
        Self::aim(&settings.interface, handle, for_tc).await
    }

    async fn aim(
        interface: &Interface,
        handle: String,
        settings: Vec<String>,
    ) -> Result<Self, Failure> {
        let there = show_away(interface).await?;
        match there.iter().find(|qdisc| qdisc.root) {
            Some(Qdisc { handle, kind, .. }) if handle != DEFAULT => {
                return Err(in_the_way(&format_args!(
                    "interface `{interface}` has a qdisc that is not this fault's, {kind} {handle}; it is left alone: undo the fault that it is of, or choose another interface"
                )));
            }
            _ => {}
        }
        Ok(Self {
            interface: interface.clone(),
            handle,
            settings,
            bitten: OnceLock::new(),
        })
    }

    async fn add(&self) -> Result<(), NotApplied> {
        let (interface, handle) = (self.interface.clone(), self.handle.clone());
        let settings = self.settings.clone();
        let added = away(move || {
            let mut args = vec!["qdisc", "add", "dev", interface.name(), "root", "handle"];
            args.push(&handle);
            args.extend(settings.iter().map(String::as_str));
            tool::change("tc", &args, b"")
        });
        added.await.map_err(|error| {
            if TAKEN.iter().any(|taken| error.said().contains(taken)) {
                return NotApplied::untouched(in_the_way(&format_args!(
                    "somebody else has given `{}` a qdisc meanwhile, which is left alone ({error})",
                    self.interface
                )));
            }
            NotApplied::half_way(failed(&error))
        })
    }

    async fn own(&self) -> Result<Option<Qdisc>, Failure> {
        let there = show_away(&self.interface).await?;
        Ok(there.into_iter().find(|qdisc| qdisc.is(&self.handle)))
    }

    async fn is_there(&self) -> Result<(Mono, Observation), Failure> {
        let own = self.own().await?;
        let observed = clock::now();
        if own.is_none() {
            return Err(failed(&format_args!(
                "tc gave `{}` the qdisc {}, and the kernel does not show it",
                self.interface, self.handle
            )));
        }
        let mut observation = Observation::default();
        self.tell(own.as_ref(), &mut observation);
        Ok((observed, observation))
    }

    /// tbf counts what had to wait; netem takes whatever passes.
    fn tell(&self, own: Option<&Qdisc>, observation: &mut Observation) {
        let mut figure = |name: &str, value: u64| {
            observation.figures.insert(name.to_owned(), value);
        };
        figure("qdisc_missing", u64::from(own.is_none()));
        let Some(own) = own else { return };
        figure("packets_sent", own.packets);
        figure("bytes_sent", own.bytes);
        figure("packets_dropped", own.drops);
        let bitten = if own.kind == "tbf" {
            figure("waits", own.overlimits);
            own.overlimits + own.drops
        } else {
            own.packets + own.drops
        };
        observation.bitten = bitten;
        if bitten > 0 {
            observation.observed = Some(*self.bitten.get_or_init(clock::now));
        }
    }

    async fn take_off(&self, observation: &mut Observation) -> Result<Undone, Failure> {
        let asked = clock::now();
        if let Ok(Some(own)) = self.own().await {
            self.tell(Some(&own), observation);
        }
        let (interface, handle) = (self.interface.clone(), self.handle.clone());
        let reason = away(move || remove(&interface, &handle))
            .await
            .map_err(|error| failed(&error))?;
        let observed = clock::now();
        Ok((Some(Bracket { asked, observed }), reason))
    }
}

impl Deed for QdiscFault {
    fn undo_record(&self) -> Undo {
        Undo::Network(Change::Qdisc {
            interface: self.interface.clone(),
            handle: self.handle.clone(),
        })
    }

    fn strike(&self) -> BoxFuture<'_, Result<(), NotApplied>> {
        Box::pin(self.add())
    }

    fn bite(&self) -> BoxFuture<'_, Result<(Mono, Observation), Failure>> {
        Box::pin(self.is_there())
    }

    fn look<'a>(&'a self, observation: &'a mut Observation) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            match self.own().await {
                Ok(own) => self.tell(own.as_ref(), observation),
                Err(error) => tracing::warn!(interface = %self.interface, %error, "not looked at"),
            }
        })
    }

    fn undo<'a>(
        &'a self,
        _ending: bool,
        observation: &'a mut Observation,
    ) -> BoxFuture<'a, Result<Undone, Failure>> {
        Box::pin(self.take_off(observation))
    }
}

/// Deletes a fault's qdisc, and none but that; a word on how.
pub(super) fn remove(interface: &Interface, handle: &str) -> Result<String, ToolError> {
    let own = || Ok::<_, ToolError>(show(interface)?.iter().any(|qdisc| qdisc.is(handle)));
    if !own()? {
        return Ok(format!("`{interface}` has no qdisc {handle} any more"));
    }
    let name = interface.name();
    let deleted = tool::change(
        "tc",
        &["qdisc", "del", "dev", name, "root", "handle", handle],
        b"",
    );
    // Somebody may have been quicker: what counts is what is there.
    match deleted {
        Err(error) if own()? => Err(error),
        _ => Ok(format!("qdisc {handle} of `{interface}` is deleted")),
    }
}

/// Whether a fault has put it there: by its kind and the first digits of its handle.
pub(super) fn is_own(kind: &str, handle: &str) -> bool {
    let digits = handle.strip_suffix(':').unwrap_or_default();
    KINDS.contains(&kind) && digits.len() == 4 && digits.starts_with(HANDLES)
}

/// A qdisc as the kernel shows it.
#[derive(Debug)]
struct Qdisc {
    kind: String,
    handle: String,
    root: bool,
    packets: u64,
    bytes: u64,
    drops: u64,
    overlimits: u64,
}

impl Qdisc {
    fn is(&self, handle: &str) -> bool {
        self.root && self.handle == handle && KINDS.contains(&self.kind.as_str())
    }
}

async fn show_away(interface: &Interface) -> Result<Vec<Qdisc>, Failure> {
    let interface = interface.clone();
    away(move || show(&interface))
        .await
        .map_err(|error| failed(&error))
}

/// Those of an interface; none where there is no such interface any more.
fn show(interface: &Interface) -> Result<Vec<Qdisc>, ToolError> {
    let said = tool::run("tc", &["-j", "-s", "qdisc", "show"], b"")?;
    let said: Value = serde_json::from_slice(&said).unwrap_or_default();
    let qdiscs = said.as_array().into_iter().flatten();
    Ok(qdiscs
        .filter(|qdisc| qdisc["dev"] == interface.name())
        .map(|qdisc| {
            let text = |field: &str| qdisc[field].as_str().unwrap_or_default().to_owned();
            let figure = |field: &str| qdisc[field].as_u64().unwrap_or_default();
            Qdisc {
                kind: text("kind"),
                handle: text("handle"),
                root: qdisc["root"] == true,
                packets: figure("packets"),
                bytes: figure("bytes"),
                drops: figure("drops"),
                overlimits: figure("overlimits"),
            }
        })
        .collect())
}

async fn mtu(interface: &Interface) -> Result<u64, Failure> {
    let wanted = interface.clone();
    let said =
        away(move || tool::run("ip", &["-j", "link", "show", "dev", wanted.name()], b"")).await;
    let said = said.map_err(|error| {
        impossible(&format_args!(
            "there is no interface `{interface}` here ({error}); `ip link` shows those that are"
        ))
    })?;
    let links: Value = serde_json::from_slice(&said).unwrap_or_default();
    links[0]["mtu"]
        .as_u64()
        .ok_or_else(|| failed(&format_args!("ip does not tell the MTU of `{interface}`")))
}

fn micros(span: Span) -> String {
    format!("{}us", span.as_micros())
}

fn percent(share: Share) -> String {
    share.to_string()
}
