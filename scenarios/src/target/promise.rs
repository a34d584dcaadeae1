//! What is promised, and what gates judge by. Nothing here has a default: a number that nobody chose would decide a go.

use model::quantity::Span;
use model::target::Promise;

use super::Limits;
use super::file::{LimitsEntry, PromiseEntry};
use crate::check::Checks;

/// Beyond this a skew was probably meant in another unit.
const MAX_SKEW: Span = Span::from_secs(900);

fn required<T: Copy>(
    checks: &mut Checks<'_>,
    section: &str,
    key: &str,
    value: Option<T>,
    purpose: &str,
) -> Option<T> {
    if value.is_none() {
        let message = format!("`{section}.{key}` is missing");
        let hint = format!("{purpose}; there is no default");
        checks.error(&[section, key], message, hint);
    }
    value
}

pub(super) fn promise(checks: &mut Checks<'_>, entry: &PromiseEntry) -> Option<Promise> {
    const AT: &str = "promise";
    let expiry_enforcement = required(
        checks,
        AT,
        "expiry_enforcement",
        entry.expiry_enforcement,
        "say what becomes of a connection whose token expires: live (it is closed) or at_connect (it lives on)",
    );
    let skew = required(
        checks,
        AT,
        "skew",
        entry.skew,
        "say how long past its expiry a token is still accepted, such as 30s: what arrives later is a leak",
    );
    let acknowledged = required(
        checks,
        AT,
        "acknowledged",
        entry.acknowledged,
        "say what an acknowledgement is worth: durable, or within 500ms (an event so old survives a crash)",
    );
    let world = required(
        checks,
        AT,
        "world",
        entry.world,
        "say whether others publish to these streams too: closed (nobody) or open (only this run's events are judged)",
    );
    let authorization = required(
        checks,
        AT,
        "authorization",
        entry.authorization,
        "say whether the lane looks at a token's scopes and streams: enforced, or none",
    );
    if let Some(skew) = skew.filter(|skew| *skew > MAX_SKEW) {
        let message = format!("a skew of {skew} makes expiry meaningless");
        checks.error(&[AT, "skew"], message, "it is at most 15m");
    }
    if let Some((skew, other)) = skew
        .zip(entry.profile.token_skew)
        .filter(|(skew, other)| skew != other)
    {
        let message = format!("`token_skew` is {other}, and promise.skew is {skew}");
        let hint = "remove it: promise.skew says it";
        checks.error(&[AT, "profile", "token_skew"], message, hint);
    }
    Some(Promise {
        expiry_enforcement: expiry_enforcement?,
        token_skew: skew?,
        acknowledged: acknowledged?.0,
        world: world?,
        authorization: authorization?,
        token_checks: entry.token_checks,
    })
}

pub(super) fn limits(checks: &mut Checks<'_>, entry: &LimitsEntry) -> Option<Limits> {
    const AT: &str = "limits";
    let migration_buffer = required(
        checks,
        AT,
        "migration_buffer",
        entry.migration_buffer,
        "the SLO gate allows p95 delivery latency to exceed that before the cutover by so much, such as 100ms",
    );
    let storm_target = required(
        checks,
        AT,
        "storm_target",
        entry.storm_target,
        "the SLO gate wants the fleet whole within this time of a reconnect storm, such as 30s",
    );
    let fallback_threshold = required(
        checks,
        AT,
        "fallback_threshold",
        entry.fallback_threshold,
        "the fallback gate allows at most this share of clients on the legacy lane, such as 1%",
    );
    let rollback_slo = required(
        checks,
        AT,
        "rollback_slo",
        entry.rollback_slo,
        "a rollback rehearsal has to be complete within this time, such as 5m",
    );
    for (key, time) in [
        ("storm_target", storm_target),
        ("rollback_slo", rollback_slo),
    ] {
        if time == Some(Span::ZERO) {
            let message = format!("`{key}` is 0s: no service can keep it");
            checks.error(&[AT, key], message, "write a time such as 30s");
        }
    }
    Some(Limits {
        migration_buffer: migration_buffer?,
        storm_target: storm_target?,
        fallback_threshold: fallback_threshold?,
        rollback_slo: rollback_slo?,
    })
}
