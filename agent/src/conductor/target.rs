//! The embedded target of a trial and its fleet: which children there are, and their configuration.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use host::http::CallError;
use model::event::{Origin, hex};
use model::quantity::Span;
use model::role::{LaneConfig, ProxyConfig, Ready, Role, SpacetimedbConfig, TokensConfig};
use model::shard::{ClientsConfig, ProbesConfig, PublishConfig, ShardConfig, TokenSource};
use model::target::{Access, Kind, Names};
use scenarios::plan::Plan;

use crate::client::Agent;

/// The name of the lane's node.
pub const LANE: &str = "lane";
/// The name of the token service's node.
pub const TOKENS: &str = "tokens";
/// The name of the proxy.
pub const PROXY: &str = "proxy";
/// The shard with the publisher and the probes; it has no clients.
pub const PUBLISHER: &str = "shard-0";

const ORG: &str = "acme";
const RIVAL_ORG: &str = "rival";
/// Published to for the stale-cursor probes: its budgets are small, so that there soon is something to be stale
/// against.
const STALE_STREAM: &str = "runtime.run.stale.events";
/// The rival's stream: whatever of it reaches the fleet has leaked.
const RIVAL_STREAM: &str = "runtime.run.rival.events";
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The children of a trial.
#[derive(Debug)]
pub struct Target {
    /// The shards with clients, by name.
    pub shards: Vec<String>,
}

impl Target {
    /// Starts everything: tokens, lane, proxy, shards. The shards wait for their start.
    ///
    /// # Errors
    /// A child could not be started; what runs already ends with the agent.
    pub async fn start(
        agent: &Agent,
        plan: &Plan,
        run: &str,
        data: &Path,
    ) -> Result<Self, CallError> {
        let secrets = Secrets::draw(plan.target.kind);
        let start = async |name: &str, role| {
            agent
                .start_child(name, &role)
                .await
                .map(|ready| data_port(&ready))
        };

        let key_file = data.join("keys.json");
        let tokens = tokens_config(plan, &secrets, &key_file);
        let tokens = start(TOKENS, Role::Tokens(tokens)).await?;
        let lane = match plan.target.kind {
            Kind::Embedded => Role::Lane(lane_config(plan, &secrets, data, key_file, tokens)),
            Kind::Spacetimedb => Role::Spacetimedb(server_config(plan, data)),
            // No command line asks for it: target files are checked and planned against, and not yet drilled.
            Kind::Described => {
                return Err(CallError::Garbled {
                    call: "the plan".to_owned(),
                    reason: "it is for a service of a target file, which cannot be started here"
                        .to_owned(),
                });
            }
        };
        let lane = start(LANE, lane).await?;
        let proxy = ProxyConfig {
            listen: ANY_PORT,
            upstream: lane,
            tls: None,
        };
        let proxy = start(PROXY, Role::Proxy(proxy)).await?;

        let shard = |ordinal| ShardConfig {
            ordinal,
            origin: Origin {
                run: run.to_owned(),
                seed: plan.seed,
                padding: plan.workload.padding,
            },
            lane: plan.lane,
            access: Access::plain(proxy, lane),
            promise: plan.target.promise.clone(),
            tokens: TokenSource {
                addr: tokens,
                session_secret: secrets.session.clone(),
                org: ORG.to_owned(),
            },
            profile: plan.target.profile.clone(),
            stream_budgets: plan.target.stream_budgets.clone(),
            clients: None,
            publish: None,
            probes: None,
            defect: plan.defect,
        };
        let publisher = ShardConfig {
            publish: Some(publish_config(plan, &secrets)),
            probes: Some(probes_config(plan)),
            ..shard(0)
        };
        start(PUBLISHER, Role::Shard(Box::new(publisher))).await?;
        let mut shards = Vec::new();
        let slices = slices(plan.workload.clients, plan.workload.shards);
        for (ordinal, (first, count)) in (1..).zip(slices) {
            let name = format!("shard-{ordinal}");
            let clients = Some(clients_config(plan, first, count));
            start(
                &name,
                Role::Shard(Box::new(ShardConfig {
                    clients,
                    ..shard(ordinal)
                })),
            )
            .await?;
            shards.push(name);
        }
        Ok(Self { shards })
    }
}

/// What keeps strangers from publishing and from drawing tokens.
struct Secrets {
    session: String,
    publish: String,
}

impl Secrets {
    fn draw(target: Kind) -> Self {
        Self {
            session: secret(),
            publish: match target {
                Kind::Embedded | Kind::Described => secret(),
                // Its module asks nobody who they are.
                Kind::Spacetimedb => String::new(),
            },
        }
    }
}

fn data_port(ready: &Ready) -> SocketAddr {
    ready.listen.get("data").copied().unwrap_or(ready.control)
}

fn tokens_config(plan: &Plan, secrets: &Secrets, key_file: &Path) -> TokensConfig {
    TokensConfig {
        listen: ANY_PORT,
        key_file: key_file.to_owned(),
        session_secret: secrets.session.clone(),
        ttl: plan.target.profile.token_ttl,
        ttl_limits: (Span::from_secs(1), Span::from_secs(900)),
        refresh_lead: plan.target.profile.refresh_lead,
        skew: plan.target.profile.token_skew,
        rate: plan.target.token_rate,
        burst: plan.target.token_burst,
        tenants: tenants(plan),
        defect: plan.defect,
    }
}

fn lane_config(
    plan: &Plan,
    secrets: &Secrets,
    data: &Path,
    key_file: PathBuf,
    tokens: SocketAddr,
) -> LaneConfig {
    LaneConfig {
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
    }
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

fn publish_config(plan: &Plan, secrets: &Secrets) -> PublishConfig {
    PublishConfig {
        streams: plan.workload.streams.clone(),
        rate: plan.workload.publish,
        burst: plan.workload.burst,
        secret: secrets.publish.clone(),
    }
}

fn probes_config(plan: &Plan) -> ProbesConfig {
    ProbesConfig {
        every: plan.workload.probe_every,
        stale_stream: STALE_STREAM.to_owned(),
        rival_org: RIVAL_ORG.to_owned(),
        rival_stream: RIVAL_STREAM.to_owned(),
    }
}

fn clients_config(plan: &Plan, first: u32, count: u32) -> ClientsConfig {
    ClientsConfig {
        first,
        count,
        fleet: plan.workload.clients,
        streams: plan.workload.streams.clone(),
        per_client: plan.workload.streams_per_client,
        ramp: plan.workload.ramp,
        policy: plan.workload.policy,
        capacity: plan.workload.capacity,
        late_after: plan.steady.delivery_p99,
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

/// Divides the clients among shards as evenly as can be: (first, count) of each.
fn slices(clients: u32, shards: u32) -> Vec<(u32, u32)> {
    let shards = shards.clamp(1, clients.max(1));
    (0..shards)
        .map(|shard| {
            let edge = |n: u32| {
                u32::try_from(u64::from(clients) * u64::from(n) / u64::from(shards))
                    .unwrap_or(clients)
            };
            (edge(shard), edge(shard + 1) - edge(shard))
        })
        .collect()
}

/// 128 random bits. Not seeded: a secret that a plan's reader could compute would be none.
fn secret() -> String {
    let mut bytes = [0_u8; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .expect("the kernel has random numbers once it runs programs");
    hex(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_client_is_in_exactly_one_slice() {
        for (clients, shards) in [(1, 1), (200, 2), (7, 3), (3, 8), (100_000, 7)] {
            let slices = slices(clients, shards);
            let mut next = 0;
            for (first, count) in slices {
                assert_eq!(first, next);
                assert!(count > 0);
                next += count;
            }
            assert_eq!(next, clients);
        }
    }

    #[test]
    fn secrets_differ() {
        assert_ne!(secret(), secret());
    }
}
