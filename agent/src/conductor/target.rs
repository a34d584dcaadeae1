//! What a trial runs against, and its fleet: which children there are, and their configuration.
//!
//! ```text
//! builtin     the targets that a drill starts by itself: embedded lanes, a real server
//! described   a service of somebody's own, by its target file
//! ```

mod builtin;
pub mod described;

use std::net::{Ipv4Addr, SocketAddr};

use host::http::CallError;
use host::peer::PeerError;
use host::tls::TlsError;
use lanes::clean_up::Cleaner;
use model::event::{Origin, hex};
use model::ids::{Lane, StreamId};
use model::probe::ProbesConfig;
use model::quantity::Span;
use model::role::{ProxyConfig, ProxyTls, Ready, Role};
use model::shard::{ClientsConfig, PublishConfig, ShardConfig, TokenSource};
use model::target::Access;
use scenarios::plan::Plan;
use scenarios::target;

use super::fleet::Shard;
use super::hosts::Hosts;
use crate::client::Agent;

/// The name of the lane's node.
pub const LANE: &str = "lane";
/// The name of the token service's node.
pub const TOKENS: &str = "tokens";
/// The name of the proxy.
pub const PROXY: &str = "proxy";
/// The shard with the publisher and the probes; it has no clients.
pub const PUBLISHER: &str = "shard-0";

/// What the token service issues, however long a token is asked for.
const TTL_LIMITS: (Span, Span) = (Span::from_secs(1), Span::from_secs(900));
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The children of a trial.
#[derive(Debug)]
pub struct Target {
    /// The shard with the publisher and the probes.
    pub publisher: Shard,
    /// The shards with clients.
    pub shards: Vec<Shard>,
    /// Whether the lane is a child, which tells its own counters.
    pub owns_lane: bool,
    site: Site,
}

/// Why a trial has nothing to run against.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A child could not be started.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A name that the target file names does not resolve.
    #[error("`{dial}` does not resolve: {source}")]
    Unresolved {
        /// `host:port`.
        dial: String,
        /// Why.
        source: std::io::Error,
    },
    /// No certificate could be made for the proxy.
    #[error("a certificate for the proxy: {0}")]
    Certificate(TlsError),
    /// The target file does not describe the plan's lane.
    #[error("the target has no lane `{0}`")]
    NoLane(Lane),
    /// Tokens come by way of an agent, and there is none.
    #[error("tokens come by way of an agent, and none is running")]
    NoAgent,
}

/// A lane as its shards reach it.
#[derive(Debug)]
struct Site {
    /// As clients on the first of the hosts with clients reach it.
    access: Access,
    /// Where they connect, on each of these hosts: to the proxy there.
    endpoints: Vec<SocketAddr>,
    tokens: TokenSource,
    publish_secret: String,
    probes: ProbesConfig,
}

impl Target {
    /// Starts everything: what the lane needs, a proxy before it, the shards. The shards wait for their start.
    ///
    /// # Errors
    /// A child could not be started, or a described target is not reached by its names; what runs already ends with the
    /// agent.
    pub async fn start(
        hosts: &Hosts,
        plan: &Plan,
        described: Option<&target::Target>,
        run: &str,
    ) -> Result<Self, StartError> {
        let site = match described {
            Some(target) => described::begin(&hosts.local, plan, target).await?,
            None => builtin::begin(hosts, plan, run).await?,
        };
        let shard = |ordinal| ShardConfig {
            ordinal,
            origin: Origin {
                run: run.to_owned(),
                seed: plan.seed,
                padding: plan.workload.padding,
            },
            lane: plan.lane,
            access: site.access.clone(),
            promise: plan.target.promise.clone(),
            tokens: site.tokens.clone(),
            profile: plan.target.profile.clone(),
            stream_budgets: plan.target.stream_budgets.clone(),
            clients: None,
            publish: None,
            probes: None,
            defect: plan.defect,
        };
        let publisher = ShardConfig {
            publish: Some(PublishConfig {
                streams: plan.workload.streams.clone(),
                rate: plan.workload.publish,
                burst: plan.workload.burst,
                secret: site.publish_secret.clone(),
            }),
            probes: Some(site.probes.clone()),
            ..shard(0)
        };
        let agent = &hosts.publisher.agent;
        start(agent, PUBLISHER, Role::Shard(Box::new(publisher))).await?;
        let publisher = Shard {
            agent: agent.clone(),
            name: PUBLISHER.to_owned(),
        };
        let mut shards = Vec::new();
        let slices = slices(plan.workload.clients, plan.workload.shards);
        // Dealt out in turn, so that no two hosts differ by more than one.
        let places = hosts.clients.iter().zip(&site.endpoints).cycle();
        for ((ordinal, (first, count)), (host, endpoint)) in (1..).zip(slices).zip(places) {
            let name = format!("shard-{ordinal}");
            let mut config = ShardConfig {
                clients: Some(clients_config(plan, first, count)),
                ..shard(ordinal)
            };
            config.access.endpoint = *endpoint;
            start(&host.agent, &name, Role::Shard(Box::new(config))).await?;
            shards.push(Shard {
                agent: host.agent.clone(),
                name,
            });
        }
        Ok(Self {
            publisher,
            shards,
            owns_lane: described.is_none(),
            site,
        })
    }

    /// Who removes what bears the mark where no shard is left to do it: past the proxy, from the streams' beginnings.
    ///
    /// # Errors
    /// The lane or the issuer of tokens cannot be reached by these settings.
    pub(super) fn cleaner(&self, plan: &Plan, mark: &str) -> Result<Cleaner, PeerError> {
        let Site {
            access,
            tokens,
            publish_secret,
            ..
        } = &self.site;
        Cleaner::afterwards(
            plan.lane,
            access,
            tokens,
            &plan.target.profile,
            publish_secret,
            mark,
        )
    }

    /// The streams that its trial publishes to, and whose they are.
    pub(super) fn written_streams(&self, plan: &Plan) -> Vec<(String, StreamId)> {
        let Site { tokens, probes, .. } = &self.site;
        let published = &plan.workload.streams;
        let stale = probes.stale.iter();
        let stale = stale.map(|stale| (&tokens.org, &stale.stream));
        let rival = probes.rival.iter();
        let rival = rival.map(|rival| (&rival.org, &rival.stream));
        let further = stale.chain(rival);
        let further = further.filter(|(_, stream)| !published.contains(stream));
        let published = published.iter().map(|stream| (&tokens.org, stream));
        published
            .chain(further)
            .map(|(org, stream)| (org.clone(), stream.clone()))
            .collect()
    }
}

/// Starts a child; where its service listens, or its control API where it has none.
async fn start(agent: &Agent, name: &str, role: Role) -> Result<SocketAddr, CallError> {
    let ready: Ready = agent.start_child(name, &role).await?;
    Ok(ready.listen.get("data").copied().unwrap_or(ready.control))
}

/// Starts the proxy before a lane.
async fn proxy(
    agent: &Agent,
    upstream: SocketAddr,
    tls: Option<ProxyTls>,
) -> Result<SocketAddr, CallError> {
    let config = ProxyConfig {
        listen: ANY_PORT,
        upstream,
        tls,
    };
    start(agent, PROXY, Role::Proxy(config)).await
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
