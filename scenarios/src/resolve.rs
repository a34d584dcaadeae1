//! From text to scenario, and from scenario to plan.

use std::collections::BTreeMap;

use model::criteria::{Criteria, Phase};
use model::event::{canonical_json, hex};
use model::fault::{Fault, Holder};
use model::ids::{Lane, StreamId};
use model::profile::Profile;
use model::quantity::{Rate, Span};
use model::target::{ExpiryEnforcement, Kind, Promise, Wire};
use sha2::{Digest as _, Sha256};

use crate::check::{self, probes};
use crate::diagnostic::{Diagnostic, Diagnostics, Place};
use crate::parse as yaml;
use crate::plan::{AbortRule, Plan, Steady, Step, TargetSettings, Workload};
use crate::scenario::{Entry, Scenario};
use crate::settings::{Settings, lay_quick_over};
use crate::source::Source;
use crate::target::Target;
use crate::tree::Node;
use crate::typed;

mod nodes;

/// A stream for the stale-cursor probes, with budgets so small that there soon is something to be stale against.
const STALE_STREAM: &str = "runtime.run.stale.events";
const STALE_BUDGETS: (u64, u64) = (20, 10);

/// The node that a node fault hits when the scenario names none.
pub(crate) const DEFAULT_NODE: &str = "lane";

/// A target is not asked for more than this share of what it says it can admit while the fleet first connects.
const RAMP_LOAD: f64 = 0.9;

/// A scenario that can be planned.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// As it is written, without its short form laid over it.
    pub scenario: Scenario,
    /// What is probably not meant.
    pub warnings: Vec<Diagnostic>,
}

/// Reads a scenario and checks it, in its plain and in its short form.
///
/// # Errors
/// Everything that is wrong with it, as far as it could be told in one go; with the warnings.
pub fn parse(source: &Source) -> Result<Checked, Diagnostics> {
    parse_for(source, None)
}

/// As [`parse`], for a target other than the embedded one: its nodes, streams, promises and limits are what the scenario
/// is checked against.
///
/// # Errors
/// As [`parse`].
pub fn parse_for(source: &Source, target: Option<&Target>) -> Result<Checked, Diagnostics> {
    let mut tree = yaml::tree(source)?;
    let mut found = Vec::new();
    let scenario = read(&tree, source, target, &mut found);
    // The short form counts on the embedded target's short clocks.
    if let Some(quick) = tree.take("quick").filter(|_| target.is_none()) {
        lay_quick_over(&mut tree, quick);
        read(&tree, source, None, &mut found);
    }
    let warnings = Diagnostics::sort_out(found)?;
    // Whatever keeps a scenario from being read is an error among those found.
    let scenario = scenario.ok_or_else(|| unreadable(source))?;
    Ok(Checked { scenario, warnings })
}

/// Resolves a scenario with a lane, a seed and settings. The settings are laid over the text before types and bounds
/// are checked, so a wrong one is refused like a wrong line of the file.
///
/// # Errors
/// What is wrong with the scenario under these settings.
pub fn plan(
    scenario: &Scenario,
    source: &Source,
    settings: &Settings,
) -> Result<Plan, Diagnostics> {
    if let Some(target) = &settings.target
        && !target.lanes.contains_key(&settings.lane)
    {
        let lanes: Vec<_> = target.lanes.keys().map(|lane| lane.name()).collect();
        let (name, lane) = (&target.name, settings.lane);
        let place = Place::Setting(format!("--lane {lane}"));
        let message = format!("the target `{name}` has no lane `{lane}`");
        return Err(Diagnostic::error(place, message)
            .hint(format!("it has {}", lanes.join(", ")))
            .into());
    }
    let plain = settings.clients.is_none() && settings.set.is_empty() && !settings.quick;
    // Whoever parsed the scenario may not have known the target.
    if plain && settings.target.is_none() {
        let tree = yaml::tree(source)?;
        return build(scenario, &tree, source, settings);
    }
    let mut tree = yaml::tree(source)?;
    let mut found = settings.lay_over(&mut tree);
    let overlaid = read(&tree, source, settings.target.as_deref(), &mut found);
    Diagnostics::sort_out(found)?;
    let scenario = overlaid.ok_or_else(|| unreadable(source))?;
    build(&scenario, &tree, source, settings)
}

fn read(
    tree: &Node,
    source: &Source,
    target: Option<&Target>,
    found: &mut Vec<Diagnostic>,
) -> Option<Scenario> {
    let before = found.len();
    let read = match typed::read::<Scenario>(tree, source) {
        Ok(scenario) => {
            found.extend(check::check(&scenario, tree, source, target));
            Some(scenario)
        }
        Err(mistakes) => {
            found.extend(mistakes);
            None
        }
    };
    probes::mask(&mut found[before..], tree);
    read
}

fn unreadable(source: &Source) -> Diagnostics {
    let place = source.place(crate::tree::Mark::START);
    Diagnostic::error(place, "the scenario could not be read".to_owned()).into()
}

fn build(
    scenario: &Scenario,
    tree: &Node,
    source: &Source,
    settings: &Settings,
) -> Result<Plan, Diagnostics> {
    // They refer to files and variables, which may have gone since they were checked.
    let mut checks = check::Checks::new(tree, source, settings.target.as_deref());
    let probes = probes::resolve(&mut checks, scenario);
    probes::mask(&mut checks.found, tree);
    let mut layout = nodes::layout(settings)?;
    let default_node = settings.target.as_deref().and_then(Target::default_node);
    let steps = nodes::resolve(
        &mut checks,
        steps(scenario, default_node),
        scenario,
        settings,
        &layout,
    );
    Diagnostics::sort_out(checks.found)?;
    let (mut workload, steady) = load(scenario);
    if let Some(target) = &settings.target {
        let asked = workload.streams.len();
        workload.streams = target.streams.iter().take(asked).cloned().collect();
    }
    let clients = usize::try_from(workload.clients).unwrap_or(usize::MAX);
    layout.clients.truncate(clients);
    let hosts = u32::try_from(layout.clients.len()).unwrap_or(u32::MAX);
    workload.shards = workload.shards.max(hosts);
    let described = settings.target.as_deref();
    let target = TargetSettings {
        wire: wire(settings),
        ..target(scenario, settings.kind, described)
    };
    let mut criteria = criteria(scenario);
    if let Some(limits) = &target.limits {
        let whole = &mut criteria.bounds.entry(Phase::Recovery).or_default().max;
        *whole = Some(whole.map_or(limits.storm_target, |own| own.min(limits.storm_target)));
        criteria.deadline = criteria.deadline.max(limits.storm_target);
    }
    // Where an expiry cuts nobody off, nobody notices it.
    if target.promise.expiry_enforcement == ExpiryEnforcement::AtConnect && only_expiries(scenario)
    {
        criteria.bounds.remove(&Phase::Detect);
    }
    let mut plan = Plan {
        scenario: scenario.name.clone(),
        about: scenario.about.clone(),
        lane: settings.lane,
        seed: settings.seed,
        workload,
        target,
        layout,
        steady,
        steps,
        abort: scenario.abort.as_ref().and_then(|rule| {
            Some(AbortRule {
                connected_below: rule.connected_below?,
                lasting: rule.lasting?,
            })
        }),
        probes,
        criteria,
        digest: String::new(),
        defect: None,
    };
    plan.digest = digest(&plan);
    plan.defect = settings.defect;
    Ok(plan)
}

/// What the target file says where there is one, else what was asked for.
fn wire(settings: &Settings) -> Wire {
    let endpoint = settings
        .target
        .as_ref()
        .and_then(|target| target.lanes.get(&settings.lane));
    match (settings.lane, endpoint) {
        (Lane::Khala, _) => Wire::default(),
        (Lane::Spacetime, Some(endpoint)) => endpoint.wire,
        (Lane::Spacetime, None) => settings.wire,
    }
}

/// The target's settings, as far as the target lets itself be set.
fn target(scenario: &Scenario, kind: Kind, described: Option<&Target>) -> TargetSettings {
    let (kind, promise, profile) = if let Some(target) = described {
        (
            Kind::Described,
            target.promise.clone(),
            target.profile.clone(),
        )
    } else {
        let mut profile = scenario.target.profile.apply(Profile::embedded());
        let promise = match kind {
            Kind::Spacetimedb => Promise::spacetimedb(),
            Kind::Embedded | Kind::Described => Promise::strict(profile.token_skew),
        };
        kind.name().clone_into(&mut profile.name);
        profile.token_skew = promise.token_skew;
        (kind, promise, profile)
    };
    TargetSettings {
        kind,
        wire: Wire::default(),
        promise,
        profile,
        // A real server takes in whoever comes.
        accept_rate: scenario
            .target
            .accept_rate
            .filter(|_| kind == Kind::Embedded),
        token_rate: scenario
            .target
            .token_rate
            .filter(|_| kind != Kind::Described),
        token_burst: scenario.target.token_burst,
        stream_budgets: budgets(scenario, described),
        limits: described.map(|target| target.limits),
    }
}

/// What a described target says of its streams; a scenario's settings are the built-in targets'.
fn budgets(scenario: &Scenario, described: Option<&Target>) -> BTreeMap<StreamId, (u64, u64)> {
    if let Some(target) = described {
        let stale = target.probes.stale.iter();
        return stale
            .map(|stale| (stale.stream.clone(), (stale.retention, stale.replay_budget)))
            .collect();
    }
    let own = scenario.target.stream_budgets.iter();
    [(STALE_STREAM.to_owned(), STALE_BUDGETS)]
        .into_iter()
        .chain(
            own.map(|(stream, budget)| (stream.clone(), (budget.retention, budget.replay_budget))),
        )
        .collect()
}

/// The load and the steady state, with the ramp that the target's doors allow.
fn load(scenario: &Scenario) -> (Workload, Steady) {
    let (asked, target, steady) = (&scenario.workload, &scenario.target, &scenario.steady);
    let through = |clients: u32, door: Option<Rate>| {
        let rate = door.map_or(f64::INFINITY, Rate::as_per_second) * RAMP_LOAD;
        Span::ZERO.max(Span::from_secs(1).scale(f64::from(clients) / rate))
    };
    let ramp = asked
        .ramp
        .max(through(asked.clients, target.accept_rate))
        .max(through(
            asked.clients.saturating_sub(target.token_burst),
            target.token_rate,
        ));
    let stretched = Span::from_micros(ramp.as_micros() - asked.ramp.as_micros());
    let workload = Workload {
        clients: asked.clients,
        shards: asked.shards,
        streams: (1..=asked.streams)
            .map(|n| format!("runtime.run.{n}.events"))
            .collect(),
        streams_per_client: asked.streams_per_client,
        publish: asked.publish,
        burst: asked.burst,
        padding: u32::try_from(asked.padding.bytes()).unwrap_or(u32::MAX),
        policy: asked.policy,
        capacity: asked.capacity.or_else(|| {
            let doors = [target.accept_rate, target.token_rate]
                .into_iter()
                .flatten();
            doors.min_by(|a, b| a.as_per_second().total_cmp(&b.as_per_second()))
        }),
        ramp,
        probe_every: asked.probe_every,
    };
    let steady = Steady {
        window: steady.window,
        connected: steady.connected,
        delivery_p99: steady.delivery_p99,
        within: steady.within.plus(stretched),
    };
    (workload, steady)
}

/// The steps by instant, each with the place of its entry in the file.
fn steps(scenario: &Scenario, default_node: Option<&str>) -> Vec<(usize, Step)> {
    let mut entries: Vec<_> = scenario.timeline.iter().enumerate().collect();
    entries.sort_by_key(|(_, entry)| entry.at);
    entries
        .into_iter()
        .zip(1..)
        .map(|((written, entry), place)| (written, step(entry, place, default_node)))
        .collect()
}

fn step(entry: &Entry, place: u32, default_node: Option<&str>) -> Step {
    Step {
        id: format!("f{place}-{}", entry.fault.name()),
        at: entry.at,
        lasts: lasts(&entry.fault, entry.lasts),
        fault: entry.fault.clone(),
        node: match entry.fault.holder() {
            Holder::Agent => {
                let node = entry.node.as_deref().or(default_node);
                Some(node.unwrap_or(DEFAULT_NODE).to_owned())
            }
            Holder::Tokens => Some("tokens".to_owned()),
            Holder::Proxy | Holder::Shard => None,
        },
        nodes: Vec::new(),
        share: entry.share,
        lease: entry.lease,
    }
}

/// How long a fault lasts: its `for`, or the time it takes to end by itself.
pub(crate) fn lasts(fault: &Fault, given: Option<Span>) -> Span {
    fault.ends_after().or(given).unwrap_or_default()
}

fn criteria(scenario: &Scenario) -> Criteria {
    let bounds = Phase::ALL
        .into_iter()
        .map(|phase| (phase, scenario.bounds.of(phase).clone()))
        .filter(|(_, bounds)| bounds.each().next().is_some())
        .collect();
    Criteria {
        affected: scenario.affected,
        bounds,
        steady: scenario.bounds.time_to_steady,
        limits: scenario.limits.clone(),
        deadline: scenario.deadline,
    }
}

fn only_expiries(scenario: &Scenario) -> bool {
    let expires = |entry: &Entry| matches!(entry.fault, Fault::TokenExpiry(_));
    scenario.timeline.iter().all(expires)
}

/// `sha256:<hex>` over the plan's canonical JSON without its digest and its defect.
pub(crate) fn digest(plan: &Plan) -> String {
    let mut value =
        serde_json::to_value(plan).expect("a plan has only string keys and finite numbers");
    if let Some(fields) = value.as_object_mut() {
        fields.remove("digest");
        fields.remove("defect");
    }
    format!("sha256:{}", hex(&Sha256::digest(canonical_json(&value))))
}
