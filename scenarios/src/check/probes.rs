//! External probes: what types cannot say, and what becomes of them in a plan.

use std::collections::{BTreeMap, BTreeSet};

use model::command::is_name;
use model::quantity::Span;

use super::{Checks, is_plain_name};
use crate::diagnostic::Diagnostic;
use crate::plan::{self, Ask, CommandAsk, HttpAsk, PromqlAsk, Rule, Web};
use crate::scenario::{CommandProbe, HttpProbe, Probe, PromqlProbe, Scenario};
use crate::target::address::Url;
use crate::target::{Surroundings, headers, named_file, secrets};
use crate::tree::{Node, Value};

/// Each of them is a load of its own.
const MOST: usize = 32;
const SHORTEST_EVERY: Span = Span::from_millis(100);
const SHORTEST_WITHIN: Span = Span::from_millis(10);

/// Checks all probes of a scenario; the plan's, as far as there is nothing wrong with them.
pub(crate) fn resolve(checks: &mut Checks<'_>, scenario: &Scenario) -> Vec<plan::Probe> {
    let source = checks.source;
    let around = Surroundings::of(source);
    let steady = scenario
        .steady
        .probes
        .iter()
        .map(|probe| (probe.clone(), Rule::Steady));
    let abort = scenario.abort.iter().flat_map(|abort| &abort.probes);
    let abort = abort.map(|probe| {
        let (lasting, always) = (probe.lasting, probe.always);
        (probe.probe(), Rule::Abort { lasting, always })
    });
    unjudged(checks, scenario);
    let mut resolved = Vec::new();
    for (part, probes) in [
        ("steady", steady.collect::<Vec<_>>()),
        ("abort", abort.collect()),
    ] {
        if probes.len() > MOST {
            let message = format!("{} probes are more than {MOST}", probes.len());
            let hint = "each is a load of its own: ask for what decides";
            checks.error(&[part, "probes", &MOST.to_string()], message, hint);
        }
        let mut names = BTreeSet::new();
        for (place, (probe, rule)) in probes.into_iter().enumerate() {
            let place = place.to_string();
            let mut one = One {
                checks,
                at: [part, "probes", &place],
                around: &around,
            };
            if !names.insert(probe.name.clone()) {
                let message = format!("another probe is called `{}`", probe.name);
                let hint = "results tell them apart by name: give each its own";
                one.error(&["name"], message, hint);
            }
            one.times(scenario, &probe, rule);
            resolved.extend(one.resolve(&probe, rule));
        }
    }
    resolved
}

/// Without a bound on it, a trial in which the system never is steady again passes when all clients are whole.
fn unjudged(checks: &mut Checks<'_>, scenario: &Scenario) {
    let abort = scenario.abort.as_ref();
    let judged = scenario.bounds.time_to_steady.is_some()
        || abort.is_some_and(|abort| !abort.probes.is_empty());
    if !scenario.steady.probes.is_empty() && !judged {
        let message = "nothing judges whether these probes are good again after the faults";
        let hint = "add bounds: { time_to_steady: 15s }, or probes to `abort`";
        checks.warning(&["steady", "probes"], message, hint);
    }
}

/// Hides what may be a secret in the headers and URLs of probes wherever it is shown.
pub(crate) fn mask(found: &mut [Diagnostic], tree: &Node) {
    let mut hidden = Vec::new();
    for part in ["steady", "abort"] {
        let probes = tree.get(part).and_then(|entry| entry.node.get("probes"));
        let Some(Value::List(items)) = probes.map(|entry| &entry.node.value) else {
            continue;
        };
        for what in ["http", "promql"] {
            let asks = items.iter().filter_map(|item| item.get(what));
            let parts = asks.flat_map(|ask| ["url", "headers"].map(|key| ask.node.get(key)));
            for entry in parts.flatten() {
                hidden.extend(secrets::under(&entry.key, &entry.node));
            }
        }
    }
    secrets::mask(found, &hidden);
}

fn path<'p>(at: [&'p str; 3], field: &[&'p str]) -> Vec<&'p str> {
    at.iter().chain(field).copied().collect()
}

/// A probe under examination.
struct One<'a, 'c> {
    checks: &'a mut Checks<'c>,
    at: [&'a str; 3],
    around: &'a Surroundings<'a>,
}

impl One<'_, '_> {
    fn error(&mut self, field: &[&str], message: impl Into<String>, hint: impl Into<String>) {
        self.checks.error(&path(self.at, field), message, hint);
    }

    fn times(&mut self, scenario: &Scenario, probe: &Probe, rule: Rule) {
        let (every, within) = (probe.every, probe.patience());
        if every < SHORTEST_EVERY {
            let message = format!("a probe every {every} is a load of its own");
            self.error(
                &["every"],
                message,
                format!("it is at least {SHORTEST_EVERY}"),
            );
        } else if within > every {
            let message = format!("`within` ({within}) is longer than `every` ({every})");
            let hint = "a probe is not asked again before it has answered: lower `within`, or raise `every`";
            self.error(&["within"], message, hint);
        } else if within < SHORTEST_WITHIN {
            let message = format!("no answer comes within {within}");
            self.error(
                &["within"],
                message,
                format!("it is at least {SHORTEST_WITHIN}"),
            );
        }
        match rule {
            Rule::Steady if every > scenario.steady.window => {
                let window = scenario.steady.window;
                let message =
                    format!("`every` ({every}) is longer than the steady window ({window})");
                let hint = "the window has to contain an answer: ask more often, or lengthen steady.window";
                self.error(&["every"], message, hint);
            }
            Rule::Abort { lasting, .. } if lasting < every => {
                let message = format!("`lasting` ({lasting}) is shorter than `every` ({every})");
                let hint =
                    "a stretch is seen by two failures at least: lengthen it, or ask more often";
                self.error(&["lasting"], message, hint);
            }
            Rule::Abort { lasting, always } if !always && lasting >= scenario.deadline => {
                let message = format!("the rule cannot fire: {lasting} is not before the deadline");
                let hint = format!(
                    "choose less than {}, or remove the probe",
                    scenario.deadline
                );
                self.checks
                    .warning(&path(self.at, &["lasting"]), message, hint);
            }
            _ => {}
        }
    }

    fn resolve(&mut self, probe: &Probe, rule: Rule) -> Option<plan::Probe> {
        if !is_plain_name(&probe.name) {
            let message = format!("`{}` is not a probe's name", probe.name);
            let hint = "use up to 64 lower-case letters, digits and hyphens, such as healthz";
            self.error(&["name"], message, hint);
        }
        let given = [
            ("http", probe.http.is_some()),
            ("promql", probe.promql.is_some()),
            ("command", probe.command.is_some()),
        ];
        let mut chosen = given.iter().filter(|(_, given)| *given);
        let Some((first, _)) = chosen.next() else {
            let hint = "choose one of http: {…}, promql: {…} and command: {…}";
            self.error(&[], format!("`{}` asks nothing", probe.name), hint);
            return None;
        };
        if let Some((second, _)) = chosen.next() {
            let message = format!("`{second}` is one too many: the probe asks `{first}` already");
            let path = path(self.at, &[*second]);
            let hint = "a probe asks one thing: make the other a probe of its own";
            self.checks.key_error(&path, message, hint);
            return None;
        }
        let ask = match (&probe.http, &probe.promql, &probe.command) {
            (Some(http), ..) => Ask::Http(self.http(http)?),
            (_, Some(promql), _) => Ask::Promql(self.promql(promql)?),
            (.., command) => Ask::Command(self.command(command.as_ref()?)),
        };
        Some(plan::Probe {
            name: probe.name.clone(),
            ask,
            every: probe.every,
            within: probe.patience(),
            rule,
        })
    }

    fn http(&mut self, http: &HttpProbe) -> Option<HttpAsk> {
        if http.status.is_none() && http.contains.is_none() {
            let hint = "add status: 200, or contains: \"…\", or both";
            self.error(&["http"], "nothing is said of which answer is good", hint);
        }
        if let Some(status) = http.status.filter(|status| !(200..=599).contains(status)) {
            let message = format!("{status} is not a status that an answer has");
            self.error(&["http", "status"], message, "it is 200 to 599");
        }
        self.contains("http", http.contains.as_ref());
        let web = self.web("http", &http.url, &http.headers, http.ca.as_ref());
        Some(HttpAsk {
            web: web?,
            status: http.status,
            contains: http.contains.clone(),
        })
    }

    fn promql(&mut self, promql: &PromqlProbe) -> Option<PromqlAsk> {
        if promql.query.trim().is_empty() {
            let hint = "write what yields one number, such as sum(rate(errors_total[1m]))";
            self.error(&["promql", "query"], "the query is empty", hint);
        }
        match (promql.above, promql.below) {
            (None, None) => {
                let hint = "add below: 1, or above: 0, or both";
                self.error(&["promql"], "nothing is said of which number is good", hint);
            }
            (Some(above), Some(below)) if above >= below => {
                let message = format!("no number is above {above} and below {below}");
                let hint = "`above` is the lower limit, `below` the upper one";
                self.error(&["promql", "above"], message, hint);
            }
            _ => {}
        }
        let base = promql.url.split(['?', '#']).next().unwrap_or_default();
        if base.len() < promql.url.len() || base.contains("/api/v1") {
            let message = "the URL is not the server's base URL";
            let hint =
                "end it before /api/v1, such as http://prometheus:9090; the query goes to `query`";
            self.error(&["promql", "url"], message, hint);
            return None;
        }
        let web = self.web("promql", &promql.url, &promql.headers, promql.ca.as_ref());
        Some(PromqlAsk {
            web: web?,
            query: promql.query.clone(),
            above: promql.above,
            below: promql.below,
        })
    }

    fn command(&mut self, command: &CommandProbe) -> CommandAsk {
        if !is_name(&command.run) {
            let message = format!("`{}` is not a command's name", command.run);
            let hint =
                "it is the name that the agent's own configuration gives it: no path, no arguments";
            self.error(&["command", "run"], message, hint);
        }
        self.contains("command", command.contains.as_ref());
        CommandAsk {
            run: command.run.clone(),
            contains: command.contains.clone(),
        }
    }

    fn contains(&mut self, what: &str, text: Option<&String>) {
        if text.is_some_and(String::is_empty) {
            let message = "every answer contains an empty text";
            self.error(
                &[what, "contains"],
                message,
                "write what it has to contain, or leave it out",
            );
        }
    }

    fn web(
        &mut self,
        what: &str,
        url: &str,
        given: &BTreeMap<String, String>,
        ca: Option<&String>,
    ) -> Option<Web> {
        let read = match Url::read(url, &["https", "http"], true) {
            Ok(read) => Some(read),
            Err((message, hint)) => {
                self.error(&[what, "url"], message, hint);
                None
            }
        };
        let query = url.split_once('?').map_or("", |(_, query)| query);
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            if secrets::in_clear(&key.replace('_', "-"), value) || value.contains("${") {
                let message = format!(
                    "`{key}` in the URL is a secret, and URLs are written into the evidence"
                );
                let hint = "send it as a header: headers: { authorization: \"Bearer ${NAME}\" }";
                self.error(&[what, "url"], message, hint);
            }
        }
        self.headers(what, given);
        let plain = read.as_ref().filter(|read| !read.secure);
        if let Some(read) = plain.filter(|read| !read.is_loopback())
            && given.values().any(|value| value.contains("${"))
        {
            let message = format!("a secret goes to {} in plain text", read.host);
            let path = path(self.at, &[what, "url"]);
            self.checks
                .warning(&path, message, "use https:// off loopback");
        }
        let ca_pem = ca.and_then(|ca| self.authority(what, ca, plain.is_some()));
        read.map(|_| Web {
            url: url.to_owned(),
            headers: given.clone(),
            ca_pem,
        })
    }

    /// In a target file a secret in clear text is a warning. Here it would get into the plan, and that is evidence.
    fn headers(&mut self, what: &str, given: &BTreeMap<String, String>) {
        let (clear, well): (BTreeMap<_, _>, BTreeMap<_, _>) = given
            .clone()
            .into_iter()
            .partition(|(name, value)| secrets::in_clear(name, value));
        for name in clear.keys() {
            let message = format!("the value of `{name}` looks like a secret in clear text");
            let hint = "a plan is evidence and holds no secrets: write ${NAME} and export NAME=… before faultlane starts";
            self.error(&[what, "headers", name], message, hint);
        }
        let path = path(self.at, &[what, "headers"]);
        headers(self.checks, &path, &well, self.around);
    }

    fn authority(&mut self, what: &str, ca: &str, plain: bool) -> Option<String> {
        if plain {
            let hint = "begin the URL with https://, or remove `ca`";
            let message = "`ca` has no use: the server is spoken to in plain text";
            self.error(&[what, "ca"], message, hint);
            return None;
        }
        let path = path(self.at, &[what, "ca"]);
        let pem = named_file(self.checks, &path, ca, self.around)?;
        let (message, hint) = if pem.contains("PRIVATE KEY-----") {
            let hint =
                "name a file of certificates only: it is copied into the plan, which is evidence";
            (format!("`{ca}` holds a private key"), hint)
        } else if pem.contains("-----BEGIN CERTIFICATE-----") {
            return Some(pem);
        } else {
            let hint = "it is a PEM file with -----BEGIN CERTIFICATE-----";
            (format!("`{ca}` holds no certificate"), hint)
        };
        self.error(&[what, "ca"], message, hint);
        None
    }
}
