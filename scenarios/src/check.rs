//! What types cannot say: limits, and settings that contradict each other.

use model::criteria::Phase;
use model::profile::Profile;
use model::quantity::{Rate, Span};

use crate::diagnostic::{Diagnostic, Place, Severity};
use crate::resolve::lasts;
use crate::scenario::Scenario;
use crate::source::Source;
use crate::target::Target;
use crate::tree::Node;
use crate::typed::place;

mod foreign;
mod network;
pub(crate) mod probes;
mod resource;
mod timeline;
mod toxics;

/// Larger fleets want more than one host.
const MAX_CLIENTS: u32 = 100_000;
const MAX_STREAMS: u32 = 1_000;
const MAX_SHARDS: u32 = 64;
/// How many events a burst may have.
const BURSTS: (u32, u32) = (2, 1_024);
const SHORTEST_BETWEEN_BURSTS: Span = Span::from_millis(100);
const MAX_PADDING: u64 = 64 * 1024;
const MAX_PUBLISH: f64 = 1_000.0;
/// A drill that waits longer than this for anything was probably meant in another unit.
const MAX_WAIT: Span = Span::from_secs(3_600);

/// Looks for all of it. Without a target a scenario is meant for the embedded one.
pub(crate) fn check(
    scenario: &Scenario,
    tree: &Node,
    source: &Source,
    target: Option<&Target>,
) -> Vec<Diagnostic> {
    let mut checks = Checks::new(tree, source, target);
    checks.name("scenario", &scenario.name);
    checks.workload(scenario);
    checks.target(scenario);
    checks.steady(scenario);
    timeline::check(&mut checks, scenario);
    checks.criteria(scenario);
    checks.deadline(scenario);
    checks.abort(scenario);
    probes::resolve(&mut checks, scenario);
    checks.quick(scenario);
    foreign::check(&mut checks, scenario);
    checks.found
}

/// A file under examination, and what was found in it.
pub(crate) struct Checks<'a> {
    tree: &'a Node,
    source: &'a Source,
    /// What a scenario is checked against; `None` for the embedded target, and while a target file is read.
    target: Option<&'a Target>,
    pub(crate) found: Vec<Diagnostic>,
}

impl<'a> Checks<'a> {
    pub(crate) fn new(tree: &'a Node, source: &'a Source, target: Option<&'a Target>) -> Self {
        Self {
            tree,
            source,
            target,
            found: Vec::new(),
        }
    }

    fn note(&mut self, severity: Severity, place: Place, message: String, hint: String) {
        let diagnostic = match severity {
            Severity::Error => Diagnostic::error(place, message),
            Severity::Warning => Diagnostic::warning(place, message),
        };
        self.found.push(diagnostic.hint(hint));
    }

    pub(crate) fn error(
        &mut self,
        path: &[&str],
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let place = place(self.tree.origin_of(path), self.source);
        self.note(Severity::Error, place, message.into(), hint.into());
    }

    /// An error about a key rather than about what it holds.
    pub(crate) fn key_error(
        &mut self,
        path: &[&str],
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let place = place(self.tree.key_origin_of(path), self.source);
        self.note(Severity::Error, place, message.into(), hint.into());
    }

    pub(crate) fn warning(
        &mut self,
        path: &[&str],
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let place = place(self.tree.origin_of(path), self.source);
        self.note(Severity::Warning, place, message.into(), hint.into());
    }

    /// The clocks and budgets that a scenario meets.
    fn clocks(&self, scenario: &Scenario) -> Profile {
        match self.target {
            Some(target) => target.profile.clone(),
            None => scenario.target.profile.apply(Profile::embedded()),
        }
    }

    pub(crate) fn name(&mut self, what: &str, name: &str) {
        if !is_plain_name(name) {
            let hint =
                "use up to 64 lower-case letters, digits and hyphens, such as restart-of-one-node";
            self.error(&["name"], format!("`{name}` is not a {what}'s name"), hint);
        }
    }

    fn workload(&mut self, scenario: &Scenario) {
        let load = &scenario.workload;
        let counts = [
            ("clients", load.clients, MAX_CLIENTS),
            ("shards", load.shards, MAX_SHARDS),
            ("streams", load.streams, MAX_STREAMS),
            ("streams_per_client", load.streams_per_client, MAX_STREAMS),
        ];
        for (key, count, most) in counts {
            if count == 0 || count > most {
                self.error(
                    &["workload", key],
                    format!("`{key}` is {count}"),
                    format!("it is 1 to {most}"),
                );
            }
        }
        if load.streams_per_client > load.streams {
            let message = format!(
                "a client cannot subscribe to {} of {} streams",
                load.streams_per_client, load.streams
            );
            let hint = "lower `streams_per_client` or raise `streams`";
            self.error(&["workload", "streams_per_client"], message, hint);
        }
        self.rate(&["workload", "publish"], load.publish, MAX_PUBLISH);
        if let Some(burst) = load.burst {
            let (fewest, most) = BURSTS;
            if !(fewest..=most).contains(&burst.events) {
                let message = format!("a burst of {} events is out of range", burst.events);
                let hint =
                    format!("it is {fewest} to {most}: a server queues no more for one connection");
                self.error(&["workload", "burst", "events"], message, hint);
            }
            if burst.every < SHORTEST_BETWEEN_BURSTS {
                let message = format!("a burst every {} is none", burst.every);
                let hint =
                    format!("make it {SHORTEST_BETWEEN_BURSTS} or longer, or raise `publish`");
                self.error(&["workload", "burst", "every"], message, hint);
            }
        }
        if load.padding.bytes() > MAX_PADDING {
            let message = format!("a padding of {} is too large", load.padding);
            self.error(&["workload", "padding"], message, "it is at most 64KiB");
        }
        if load.probe_every < Span::from_millis(100) {
            let message = format!(
                "probes every {} would be a load of their own",
                load.probe_every
            );
            self.error(
                &["workload", "probe_every"],
                message,
                "it is at least 100ms",
            );
        }
        self.wait(&["workload", "ramp"], load.ramp);
    }

    fn rate(&mut self, path: &[&str], rate: Rate, most: f64) {
        let rate = rate.as_per_second();
        // `0.0001/s` is no rate at which a drill of seconds would see anything.
        if !(0.01..=most).contains(&rate) {
            self.error(
                path,
                format!("a rate of {rate}/s makes no drill"),
                format!("it is 0.01/s to {most}/s"),
            );
        }
    }

    fn wait(&mut self, path: &[&str], wait: Span) {
        if wait > MAX_WAIT {
            let message = format!("{wait} is longer than an hour");
            self.error(
                path,
                message,
                "was another unit meant? ms, s and m are known",
            );
        }
    }

    fn target(&mut self, scenario: &Scenario) {
        let target = &scenario.target;
        for (key, rate) in [
            ("accept_rate", target.accept_rate),
            ("token_rate", target.token_rate),
        ] {
            if let Some(rate) = rate {
                self.rate(&["target", key], rate, 1e6);
            }
        }
        if target.token_burst == 0 {
            self.error(
                &["target", "token_burst"],
                "a burst of 0 issues no token",
                "it is 1 or more",
            );
        }
        for (stream, budget) in &target.stream_budgets {
            if budget.retention == 0 || budget.replay_budget == 0 {
                let message = format!("`{stream}` keeps or replays nothing");
                self.error(
                    &["target", "stream_budgets", stream],
                    message,
                    "both budgets are 1 or more",
                );
            }
        }
        self.profile(
            &["target", "profile"],
            &scenario.target.profile.apply(Profile::embedded()),
        );
    }

    /// Clocks and budgets, wherever they were changed.
    pub(crate) fn profile(&mut self, path: &[&str], profile: &Profile) {
        let at = |key| path.iter().copied().chain([key]).collect::<Vec<_>>();
        let clocks = [
            ("heartbeat", profile.heartbeat),
            ("server_tick", profile.server_tick),
            ("heartbeat_timeout", profile.heartbeat_timeout),
            ("read_idle", profile.read_idle),
            ("connect_timeout", profile.connect_timeout),
            ("backoff_base", profile.backoff_base),
            ("backoff_cap", profile.backoff_cap),
        ];
        for (key, clock) in clocks {
            if clock < Span::from_millis(10) || clock > MAX_WAIT {
                self.error(&at(key), format!("`{key}` is {clock}"), "it is 10ms to 1h");
            }
        }
        let order = [
            if profile.heartbeat < profile.server_tick {
                // Heartbeats are answered, so a healthy connection is never quiet for longer than one.
                (
                    "read_idle",
                    "heartbeat",
                    profile.heartbeat,
                    profile.read_idle,
                )
            } else {
                (
                    "read_idle",
                    "server_tick",
                    profile.server_tick,
                    profile.read_idle,
                )
            },
            (
                "heartbeat_timeout",
                "heartbeat",
                profile.heartbeat,
                profile.heartbeat_timeout,
            ),
            (
                "token_ttl",
                "refresh_lead",
                profile.refresh_lead,
                profile.token_ttl,
            ),
        ];
        for (longer, shorter, short, long) in order {
            if short >= long {
                let message =
                    format!("`{longer}` ({long}) has to be longer than `{shorter}` ({short})");
                let hint = "a quiet but healthy connection would be given up, or a new token at once be too old";
                self.error(&at(longer), message, hint);
            }
        }
        if profile.backoff_base > profile.backoff_cap {
            let message = format!(
                "`backoff_base` ({}) exceeds `backoff_cap` ({})",
                profile.backoff_base, profile.backoff_cap
            );
            self.error(
                &at("backoff_cap"),
                message,
                "raise the cap or lower the base",
            );
        }
        if profile.retention == 0 || profile.replay_budget == 0 {
            let message = "nothing could be replayed: retention or replay_budget is 0";
            self.error(path, message, "both are 1 or more");
        }
    }

    fn steady(&mut self, scenario: &Scenario) {
        let steady = &scenario.steady;
        let profile = self.clocks(scenario);
        let least = profile.heartbeat.times(3).max(profile.backoff_cap);
        if steady.window < least {
            let message = format!(
                "a steady window of {} can miss a late wave of clients",
                steady.window
            );
            let hint = format!(
                "make it at least {least}: three heartbeats ({}) and the backoff cap ({})",
                profile.heartbeat, profile.backoff_cap
            );
            self.error(&["steady", "window"], message, hint);
        }
        let needed = scenario.workload.ramp.plus(steady.window);
        if steady.within < needed {
            let message = format!("steady state cannot be reached within {}", steady.within);
            self.error(
                &["steady", "within"],
                message,
                format!("ramp and window take {needed} already"),
            );
        }
        if steady.connected.as_ratio() <= 0.0 {
            self.error(
                &["steady", "connected"],
                "0% connected is not a steady state",
                "write 99.9%",
            );
        }
        if steady.delivery_p99 == Span::ZERO {
            self.error(
                &["steady", "delivery_p99"],
                "no delivery takes 0s",
                "write 250ms",
            );
        }
        self.wait(&["steady", "within"], steady.within);
        self.wait(&["steady", "window"], steady.window);
    }

    fn criteria(&mut self, scenario: &Scenario) {
        if scenario.affected.as_ratio() <= 0.0 {
            let hint = "a drill that affects nobody shows nothing: write 90%";
            self.error(&["affected"], "the least affected share is 0%", hint);
        }
        let reachable: f64 = scenario
            .timeline
            .iter()
            .map(|entry| entry.share.as_ratio())
            .sum();
        if scenario.affected.as_ratio() > reachable.min(1.0) {
            let message = format!(
                "{} cannot be affected: the faults take fewer clients",
                scenario.affected
            );
            self.error(
                &["affected"],
                message,
                "lower `affected`, or raise the `share` of the faults",
            );
        }
        for phase in Phase::ALL {
            let bounds: Vec<_> = scenario.bounds.of(phase).each().collect();
            for pair in bounds.windows(2) {
                let [(lower, _, low), (higher, _, high)] = pair else {
                    continue;
                };
                if low > high {
                    let message = format!(
                        "{phase}: the bound on {lower} ({low}) is above that on {higher} ({high})"
                    );
                    let hint = format!("the one on {lower} can then never be the one that fails");
                    self.warning(&["bounds", phase.name(), lower], message, hint);
                }
            }
        }
    }

    /// What is censored at the deadline is above every bound, so no bound may lie beyond it.
    fn deadline(&mut self, scenario: &Scenario) {
        let deadline = scenario.deadline;
        self.wait(&["deadline"], deadline);
        let under_fault = under_fault(scenario);
        let mut needed = Span::ZERO;
        let mut because = String::new();
        for phase in Phase::ALL {
            // Detection and outage count from the fault, the others from the heal or later.
            let head_start = match phase {
                Phase::Detect | Phase::Outage => under_fault,
                _ => Span::ZERO,
            };
            for (name, _, bound) in scenario.bounds.of(phase).each() {
                let needs =
                    Span::from_micros(bound.as_micros().saturating_sub(head_start.as_micros()));
                if needs > needed {
                    (needed, because) = (needs, format!("bounds.{phase}.{name} is {bound}"));
                }
            }
        }
        if let Some(bound) = scenario.bounds.time_to_steady {
            let needs = bound.plus(scenario.steady.window);
            if needs > needed {
                (needed, because) = (
                    needs,
                    format!(
                        "bounds.time_to_steady is {bound}, and a window takes {}",
                        scenario.steady.window
                    ),
                );
            }
        }
        if deadline < needed {
            let message = format!("the deadline ({deadline}) is below a bound: {because}");
            self.error(
                &["deadline"],
                message,
                format!("a deadline of at least {needed} can tell the two apart"),
            );
        }
        if deadline == Span::ZERO {
            self.error(
                &["deadline"],
                "the deadline is 0s",
                "give the clients time to recover, such as 20s",
            );
        }
    }

    fn abort(&mut self, scenario: &Scenario) {
        let Some(rule) = &scenario.abort else { return };
        match (rule.connected_below, rule.lasting) {
            (None, None) if rule.probes.is_empty() => {
                let hint =
                    "write { connected_below: 10%, lasting: 12s }, or probes, or remove the rule";
                self.error(&["abort"], "nothing is said of when to abort", hint);
            }
            (Some(_), None) => {
                let hint = "add lasting: 12s";
                self.error(&["abort"], "`lasting` is missing", hint);
            }
            (None, Some(_)) => {
                let hint = "add connected_below: 10%; each probe has a `lasting` of its own";
                self.key_error(&["abort", "lasting"], "`connected_below` is missing", hint);
            }
            _ => {}
        }
        if rule
            .connected_below
            .is_some_and(|share| share.as_ratio() <= 0.0)
        {
            let hint = "write 10%, or remove the rule";
            self.error(
                &["abort", "connected_below"],
                "fewer than 0% are never connected",
                hint,
            );
        }
        if let Some(lasting) = rule.lasting.filter(|time| *time >= scenario.deadline) {
            let message = format!("the rule cannot fire: {lasting} is not before the deadline");
            let hint = format!("choose less than {}, or remove the rule", scenario.deadline);
            self.warning(&["abort", "lasting"], message, hint);
        }
    }

    fn quick(&mut self, scenario: &Scenario) {
        let nested = scenario
            .quick
            .as_ref()
            .is_some_and(|quick| quick.contains_key("quick"));
        if nested {
            let message = "the short form has no short form of its own";
            self.error(
                &["quick", "quick"],
                message,
                "move its settings one level up",
            );
        }
    }
}

/// Whether it can name files and rows.
fn is_plain_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !name.is_empty() && name.len() <= 64 && name.chars().all(allowed) && !name.starts_with('-')
}

/// From the first injection to the last heal, at least.
fn under_fault(scenario: &Scenario) -> Span {
    let ends = scenario
        .timeline
        .iter()
        .map(|entry| entry.at.plus(lasts(&entry.fault, entry.lasts)));
    let starts = scenario.timeline.iter().map(|entry| entry.at);
    match (starts.min(), ends.max()) {
        (Some(start), Some(end)) => Span::from_micros(end.as_micros() - start.as_micros()),
        _ => Span::ZERO,
    }
}
