//! A plan in words, for `faultlane plan`.

use std::fmt::Write as _;

use model::fault::{Direction, Fault};
use model::quantity::{Rate, Span};
use model::target::Wire;

use super::{Plan, Probe, Rule, Step};

mod network;
mod resource;

impl Plan {
    /// What will happen: the load, the exact timeline with a line for each injection and each undo, and what is judged.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = format!(
            "{} on {}, seed {}\n{}\n",
            self.scenario, self.lane, self.seed, self.digest
        );
        if !self.about.is_empty() {
            let about = self.about.split_whitespace().collect::<Vec<_>>().join(" ");
            let _ = writeln!(text, "{about}");
        }
        if let Some(defect) = self.defect {
            let _ = writeln!(
                text,
                "planted defect: {defect}, which must be called {}",
                defect.anomaly()
            );
        }
        for (title, lines) in [
            ("Load", self.load()),
            ("Target", self.settings()),
            ("Steady", self.steadiness()),
            ("Timeline, from steady state", self.timeline()),
            ("Judged", self.judged()),
        ] {
            let _ = writeln!(text, "\n{title}");
            for line in lines {
                let _ = writeln!(text, "  {line}");
            }
        }
        text
    }

    fn load(&self) -> Vec<String> {
        let load = &self.workload;
        let burst = load.burst.map_or_else(String::new, |burst| {
            format!(
                " (the first: {} at once, every {})",
                burst.events, burst.every
            )
        });
        let mut lines = vec![
            format!(
                "{} clients in {} shards, each on {} of {} streams; first connections over {}",
                load.clients,
                load.shards,
                load.streams_per_client,
                load.streams.len(),
                load.ramp
            ),
            format!(
                "{} on each stream{burst} with {} bytes of padding; probes every {}; reconnect policy {:?}",
                load.publish, load.padding, load.probe_every, load.policy
            ),
        ];
        lines.extend(self.hosts());
        lines
    }

    /// Where an inventory has agents run parts of it.
    fn hosts(&self) -> Option<String> {
        let layout = &self.layout;
        if layout.is_local() {
            return None;
        }
        let own = || "the conductor".to_owned();
        let clients = match layout.clients.as_slice() {
            [] => own(),
            agents => agents.join(", "),
        };
        Some(format!(
            "on hosts: lane {}, tokens {}, publisher {}, clients {clients}",
            layout.lane.clone().unwrap_or_else(own),
            layout.tokens.clone().unwrap_or_else(own),
            layout.publisher.clone().unwrap_or_else(own),
        ))
    }

    fn settings(&self) -> Vec<String> {
        let (target, profile) = (&self.target, &self.target.profile);
        let limit =
            |rate: Option<Rate>| rate.map_or("no limit".to_owned(), |rate| rate.to_string());
        let mut lines = vec![
            format!(
                "profile {}: heartbeat {}, read-idle {}, connect timeout {}, backoff {} to {}, stable after {}",
                profile.name,
                profile.heartbeat,
                profile.read_idle,
                profile.connect_timeout,
                profile.backoff_base,
                profile.backoff_cap,
                profile.stable_after
            ),
            format!(
                "tokens live {}, are renewed {} ahead, skew {}; retention {}, replay budget {}",
                profile.token_ttl,
                profile.refresh_lead,
                profile.token_skew,
                profile.retention,
                profile.replay_budget
            ),
            format!(
                "upgrades: {}; tokens: {}, {} at once",
                limit(target.accept_rate),
                limit(target.token_rate),
                target.token_burst
            ),
        ];
        if target.wire == Wire::Bsatn {
            lines.push("messages in BSATN".to_owned());
        }
        lines.extend(
            target
                .stream_budgets
                .iter()
                .map(|(stream, (retention, budget))| {
                    format!("{stream}: retention {retention}, replay budget {budget}")
                }),
        );
        lines
    }

    fn steadiness(&self) -> Vec<String> {
        let steady = &self.steady;
        let mut lines = vec![format!(
            "for {}: {} connected, delivery p99 within {}; before the faults it has to come within {}",
            steady.window, steady.connected, steady.delivery_p99, steady.within
        )];
        let probes = self.probes.iter();
        let probes = probes.filter(|probe| probe.rule == Rule::Steady);
        lines.extend(probes.map(|probe| format!("and all the while {}", asked(probe))));
        lines
    }

    fn timeline(&self) -> Vec<String> {
        let mut lines: Vec<(Span, String)> = Vec::new();
        for step in &self.steps {
            let until = step.at.plus(step.fault.lead()).plus(step.lasts);
            let whom = step.node.as_ref().map_or_else(
                || format!("{} of the clients", step.share),
                |node| format!("node {node}"),
            );
            let done_by = self.done_by(step);
            let whom = if done_by.is_empty() {
                whom
            } else {
                format!("{whom}; by {}", done_by.join(", "))
            };
            let what = action(&step.fault);
            let injection = format!(
                "{:<20} {what} [{whom}; {}; lease {}]",
                step.id,
                length(step),
                step.lease
            );
            lines.push((step.at, injection));
            lines.push((
                until,
                format!("{:<20} undo: {}", step.id, step.fault.undo()),
            ));
        }
        lines.sort_by_key(|(at, _)| *at);
        let width = lines
            .iter()
            .map(|(at, _)| at.to_string().len())
            .max()
            .unwrap_or(0);
        lines
            .into_iter()
            .map(|(at, line)| format!("+{:<width$}  {line}", at.to_string()))
            .collect()
    }

    fn judged(&self) -> Vec<String> {
        let criteria = &self.criteria;
        let mut lines = vec![format!(
            "at least {} affected; whole again within {} of the last heal, or counted as not recovered",
            criteria.affected, criteria.deadline
        )];
        for (phase, bounds) in &criteria.bounds {
            let bounds: Vec<_> = bounds
                .each()
                .map(|(name, _, bound)| format!("{name} ≤ {bound}"))
                .collect();
            lines.push(format!("{:<10} {}", phase, bounds.join(", ")));
        }
        if let Some(steady) = criteria.steady {
            lines.push(format!("steady again within {steady} of the last heal"));
        }
        lines.push(self.limits());
        if let Some(rule) = &self.abort {
            lines.push(format!(
                "ended early, as failed, when fewer than {} are live for {} after the last heal",
                rule.connected_below, rule.lasting
            ));
        }
        for probe in &self.probes {
            let Rule::Abort { lasting, always } = probe.rule else {
                continue;
            };
            let when = if always {
                "at any time"
            } else {
                "after the last heal"
            };
            lines.push(format!(
                "ended early, as failed, when for {lasting} {when} it is not so that {}",
                asked(probe)
            ));
        }
        lines
    }

    fn limits(&self) -> String {
        let limits = &self.criteria.limits;
        let mut parts = vec![
            format!("duplicate deliveries {}", limits.duplicate_delivery),
            format!("over-replayed rows {}", limits.over_replay),
            format!("Retry-After ignored {}", limits.retry_after_ignored),
            format!("wrong reasons {}", limits.wrong_reason),
        ];
        parts.extend(
            limits
                .attempts_per_client
                .map(|limit| format!("attempts per client {limit}")),
        );
        parts.extend(
            limits
                .peak_arrivals
                .map(|limit| format!("peak arrivals {limit}")),
        );
        parts.extend(
            limits
                .delivery_p95
                .map(|limit| format!("delivery p95 {limit}")),
        );
        format!("at most: {}; safety anomalies: none", parts.join(", "))
    }
}

/// `healthz: GET http://127.0.0.1:9000/healthz says 200; asked every 1s, answered within 1s`.
fn asked(probe: &Probe) -> String {
    let Probe {
        name,
        ask,
        every,
        within,
        ..
    } = probe;
    let wanted = ask.wanted();
    format!("{name}: {ask} says {wanted}; asked every {every}, answered within {within}")
}

fn length(step: &Step) -> String {
    match step.fault.ends_after() {
        Some(Span::ZERO) => "momentary".to_owned(),
        Some(after) => format!("ends by itself after {after}"),
        None => format!("for {}", step.lasts),
    }
}

fn action(fault: &Fault) -> String {
    let way = |direction: Direction| match direction {
        Direction::Upstream => "client to lane",
        Direction::Downstream => "lane to client",
        Direction::Both => "both ways",
    };
    match fault {
        Fault::Latency(latency) if latency.jitter == Span::ZERO => {
            format!(
                "delay every chunk by {}, {}",
                latency.delay,
                way(latency.direction)
            )
        }
        Fault::Latency(latency) => {
            format!(
                "delay every chunk by {} ± {}, {}",
                latency.delay,
                latency.jitter,
                way(latency.direction)
            )
        }
        Fault::Bandwidth(bandwidth) => format!(
            "pace each connection to {} a second, {}",
            bandwidth.per_second,
            way(bandwidth.direction)
        ),
        Fault::Hold(_) => "hold all bytes both ways, let new connections hang".to_owned(),
        Fault::Reset(_) => "close every connection with RST".to_owned(),
        Fault::Refuse(_) => "close new connections with RST".to_owned(),
        Fault::WsClose(close) => format!("send Close {} {:?} and close", close.code, close.reason),
        Fault::RefuseUpgrade(refuse) => {
            let retry = refuse
                .retry_after
                .map(|retry| format!(" and Retry-After of {retry}"));
            format!(
                "answer upgrades with {}{}",
                refuse.status,
                retry.unwrap_or_default()
            )
        }
        Fault::Toxic(toxic) => {
            let settings = toxic.attributes.iter();
            let mut words: Vec<String> = vec![toxic.kind.clone()];
            words.extend(settings.map(|(key, value)| format!("{key}={value}")));
            format!("{}, {}", words.join(" "), way(toxic.direction))
        }
        Fault::Kill(_) => "SIGKILL".to_owned(),
        Fault::Terminate(terminate) => format!("SIGTERM, and SIGKILL after {}", terminate.grace),
        Fault::Pause(_) => "SIGSTOP".to_owned(),
        Fault::Restore(restore) => format!(
            "copy the data, and {} later SIGKILL and put the copy in their place",
            restore.age
        ),
        Fault::KillTree(_) => "SIGKILL to the process and to all that descend from it".to_owned(),
        Fault::CrashLoop(settings) => {
            let most = settings
                .times
                .map(|times| format!(", {times} times in all"));
            format!(
                "SIGKILL, and again {} after each time that it is back{}",
                settings.every,
                most.unwrap_or_default()
            )
        }
        Fault::Partition(_)
        | Fault::PacketLoss(_)
        | Fault::Throttle(_)
        | Fault::Netem(_)
        | Fault::DropSockets(_) => network::action(fault),
        Fault::CpuBurn(_) | Fault::MemoryFill(_) | Fault::DiskFill(_) => resource::action(fault),
        Fault::ClockSkew(skew) => format!("let the clock be {} off", skew.offset),
        Fault::TokenExpiry(expiry) => format!(
            "take on tokens, over {}, that all expire in the same second {} later",
            expiry.spread, expiry.after
        ),
    }
}
