//! The targets that a drill starts by itself: the embedded lanes, and a real server.

use std::collections::BTreeMap;
use std::path::Path;

use host::http::CallError;
use model::probe::{ProbesConfig, Rival, StaleStream};
use model::role::{LaneConfig, Role, SpacetimedbConfig, TokensConfig};
use model::shard::TokenSource;
use model::target::{Access, Kind, Names};
use scenarios::plan::Plan;

use super::{ANY_PORT, LANE, Site, TOKENS, TTL_LIMITS, proxy, secret, start};
use crate::client::Agent;

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

/// Starts tokens, lane and proxy.
pub(super) async fn begin(agent: &Agent, plan: &Plan, data: &Path) -> Result<Site, CallError> {
    let secrets = Secrets {
        session: secret(),
        publish: match plan.target.kind {
            // Its module asks nobody who they are.
            Kind::Spacetimedb => String::new(),
            Kind::Embedded | Kind::Described => secret(),
        },
    };
    let key_file = data.join("keys.json");
    let tokens = Role::Tokens(TokensConfig {
        listen: ANY_PORT,
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
    let tokens = start(agent, TOKENS, tokens).await?;
    let lane = match plan.target.kind {
        Kind::Spacetimedb => Role::Spacetimedb(server_config(plan, data)),
        Kind::Embedded | Kind::Described => Role::Lane(LaneConfig {
            lane: plan.lane,
            listen: ANY_PORT,
            data_dir: data.join("lane"),
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
    let lane = start(agent, LANE, lane).await?;
    let endpoint = proxy(agent, lane, None).await?;
    let stale = plan.target.stream_budgets.get(STALE_STREAM);
    Ok(Site {
        access: Access {
            wire: plan.target.wire,
            ..Access::plain(endpoint, lane)
        },
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

fn server_config(plan: &Plan, data: &Path) -> SpacetimedbConfig {
    let profile = &plan.target.profile;
    SpacetimedbConfig {
        listen: ANY_PORT,
        data_dir: data.join("lane"),
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
