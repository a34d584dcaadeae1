//! The targets that a drill starts by itself: the embedded lanes, and a real server.

use std::collections::BTreeMap;
use std::path::PathBuf;

use futures_util::future::try_join_all;
use host::http::CallError;
use model::probe::{ProbesConfig, Rival, StaleStream};
use model::role::{LaneConfig, Role, SpacetimedbConfig, TokensConfig};
use model::shard::TokenSource;
use model::target::{Access, Kind, Names};
use scenarios::plan::Plan;

use super::{ANY_PORT, LANE, Site, TOKENS, TTL_LIMITS, proxy, secret, start};
use crate::conductor::hosts::Hosts;

const ORG: &str = "acme";
const RIVAL_ORG: &str = "rival";
/// Published to for the stale-cursor probes: its budgets are small, so that there soon is something to be stale
/// against.
const STALE_STREAM: &str = "runtime.run.stale.events";
/// The rival's stream: whatever of it reaches the fleet has leaked.
const RIVAL_STREAM: &str = "runtime.run.rival.events";

/// What keeps strangers from publishing and from drawing tokens.
struct Secrets {
    session: String,
    publish: String,
}

/// Starts tokens, lane, and a proxy on each host with clients. What is kept there bears the trial's name, as an agent may
/// have several trials after one another.
pub(super) async fn begin(hosts: &Hosts, plan: &Plan, trial: &str) -> Result<Site, CallError> {
    let secrets = Secrets {
        session: secret(),
        publish: match plan.target.kind {
            // Its module asks nobody who they are.
            Kind::Spacetimedb => String::new(),
            Kind::Embedded | Kind::Described => secret(),
        },
    };
    let trial = trial.replace('/', "_");
    let key_file = hosts.tokens.data.join(format!("keys-{trial}.json"));
    let lane_data = hosts.lane.data.join(format!("lane-{trial}"));
    let tokens = Role::Tokens(TokensConfig {
        listen: hosts.tokens.any_port(),
        key_file: key_file.clone(),
        session_secret: secrets.session.clone(),
        ttl: plan.target.profile.token_ttl,
        ttl_limits: TTL_LIMITS,
        refresh_lead: plan.target.profile.refresh_lead,
        skew: plan.target.profile.token_skew,
        rate: plan.target.token_rate,
        burst: plan.target.token_burst,
        tenants: tenants(plan),
        defect: plan.defect,
    });
    let tokens = start(&hosts.tokens.agent, TOKENS, tokens).await?;
    let lane = match plan.target.kind {
        Kind::Spacetimedb => Role::Spacetimedb(server_config(plan, lane_data)),
        Kind::Embedded | Kind::Described => Role::Lane(LaneConfig {
            lane: plan.lane,
            listen: hosts.lane.any_port(),
            data_dir: lane_data,
            profile: plan.target.profile.clone(),
            strict: true,
            accept_rate: plan.target.accept_rate,
            database: Names::default().database,
            issuer: format!("http://{tokens}"),
            key_file,
            publish_secret: secrets.publish.clone(),
            stream_budgets: plan.target.stream_budgets.clone(),
            defect: plan.defect,
        }),
    };
    let lane = start(&hosts.lane.agent, LANE, lane).await?;
    let proxies = hosts
        .clients
        .iter()
        .map(|host| proxy(&host.agent, lane, None));
    let endpoints = try_join_all(proxies).await?;
    let endpoint = *endpoints.first().expect("some host has the clients");
    let stale = plan.target.stream_budgets.get(STALE_STREAM);
    Ok(Site {
        access: Access {
            wire: plan.target.wire,
            ..Access::plain(endpoint, lane)
        },
        endpoints,
        tokens: TokenSource::service(tokens, secrets.session, ORG),
        publish_secret: secrets.publish,
        probes: ProbesConfig {
            every: plan.workload.probe_every,
            stream: STALE_STREAM.to_owned(),
            stale: stale.map(|(retention, replay_budget)| StaleStream {
                stream: STALE_STREAM.to_owned(),
                retention: *retention,
                replay_budget: *replay_budget,
            }),
            rival: Some(Rival {
                org: RIVAL_ORG.to_owned(),
                stream: RIVAL_STREAM.to_owned(),
            }),
            operations: None,
            expect: BTreeMap::new(),
        },
    })
}

fn server_config(plan: &Plan, data_dir: PathBuf) -> SpacetimedbConfig {
    let profile = &plan.target.profile;
    SpacetimedbConfig {
        listen: ANY_PORT,
        data_dir,
        database: Names::default().database,
        ping: profile.server_tick,
        idle: profile.heartbeat_timeout,
    }
}

fn tenants(plan: &Plan) -> BTreeMap<String, Vec<String>> {
    let mut own = plan.workload.streams.clone();
    own.push(STALE_STREAM.to_owned());
    [
        (ORG.to_owned(), own),
        (RIVAL_ORG.to_owned(), vec![RIVAL_STREAM.to_owned()]),
    ]
    .into()
}
