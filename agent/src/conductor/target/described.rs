//! A service of somebody's own, as its target file describes it: nothing of it is started here but what stands before
//! it.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use host::tls::Authority;
use lanes::preflight::Door;
use model::ids::{Lane, StreamId};
use model::probe::{Operation, ProbesConfig, Rival};
use model::quantity::Span;
use model::role::{ProxyTls, Role, TokensConfig};
use model::shard::{Issuer, TokenSource};
use model::target::{Access, Secret, TlsClient, TokenSupply};
use scenarios::plan::Plan;
use scenarios::target::{Endpoint, Target};

use super::{ANY_PORT, Site, StartError, TOKENS, TTL_LIMITS, proxy, secret, start};
use crate::client::Agent;
use crate::conductor::hosts::Host;
use crate::conductor::node::Node;

/// The clients' organisation where the target file names none.
const ORG: &str = "drill";
/// What khala clients may do by their tokens; only publishers call over HTTP, by a secret of their own.
const BY_TOKEN: [Operation; 4] = [
    Operation::Grant,
    Operation::Connect,
    Operation::Subscribe,
    Operation::Resume,
];

/// Starts what stands before the service: a proxy, and the token service where that is to be the issuer.
pub(super) async fn begin(host: &Host, plan: &Plan, target: &Target) -> Result<Site, StartError> {
    let agent = &host.agent;
    let endpoint = target
        .lanes
        .get(&plan.lane)
        .ok_or(StartError::NoLane(plan.lane))?;
    let lane = resolve(&endpoint.dial).await?;
    let issuer = issuer(Some(agent), target, &host.data).await?;
    let (terminated, endpoint_tls) = terminate(endpoint)?;
    let fleet = proxy(agent, lane, terminated).await?;
    Ok(Site {
        access: Access {
            endpoint_tls,
            ..endpoint.access(fleet, lane)
        },
        endpoints: vec![fleet],
        tokens: source(issuer, target),
        publish_secret: publish_secret(endpoint),
        probes: probes(plan.lane, target, plan.workload.probe_every),
    })
}

/// A lane as it is reached without a proxy before it.
#[derive(Debug)]
pub struct Direct {
    /// How it is reached and spoken to.
    pub access: Access,
    /// Where tokens come from.
    pub tokens: TokenSource,
    /// What publishers present.
    pub publish_secret: String,
}

impl Direct {
    /// A target's lane; tokens come by way of the agent, where they need one.
    ///
    /// # Errors
    /// A name does not resolve, or tokens cannot be had; with the door that is shut.
    pub async fn to(
        node: Option<&Node>,
        target: &Target,
        lane: Lane,
    ) -> Result<Self, (Door, StartError)> {
        let endpoint = target
            .lanes
            .get(&lane)
            .ok_or((Door::Settings, StartError::NoLane(lane)))?;
        let addr = resolve(&endpoint.dial)
            .await
            .map_err(|error| (Door::Connection, error))?;
        let data = node.map(Node::data_dir).unwrap_or_default();
        let issuer = issuer(node.map(|node| &node.agent), target, &data)
            .await
            .map_err(|error| (Door::Token, error))?;
        Ok(Self {
            access: endpoint.access(addr, addr),
            tokens: source(issuer, target),
            publish_secret: publish_secret(endpoint),
        })
    }
}

/// The streams that a drill of the target publishes to, and whose they are.
#[must_use]
pub fn written_streams(target: &Target) -> Vec<(String, StreamId)> {
    let own = own_org(target);
    let streams = target.streams.iter();
    streams
        .map(|stream| (own.to_owned(), stream.clone()))
        .chain(probe_streams(target))
        .collect()
}

/// Those of them that are there for the probes.
#[must_use]
pub fn probe_streams(target: &Target) -> Vec<(String, StreamId)> {
    let stale = target.probes.stale.iter();
    let stale = stale.map(|stale| (own_org(target).to_owned(), stale.stream.clone()));
    stale
        .chain(rival(target).map(|rival| (rival.org, rival.stream)))
        .collect()
}

/// What an endpoint wants of publishers.
fn publish_secret(endpoint: &Endpoint) -> String {
    let secret = endpoint.publish_secret.as_ref();
    secret.map_or_else(String::new, |secret| secret.reveal().to_owned())
}

/// Where the tokens of a target's clients come from.
fn source(issuer: Issuer, target: &Target) -> TokenSource {
    TokenSource {
        issuer,
        org: own_org(target).to_owned(),
        identities: target.identities,
    }
}

/// Who issues tokens, with names resolved. The agent starts the token service, where that is to be the issuer, and runs
/// the command, where it is one.
///
/// # Errors
/// A name that does not resolve, or no agent where one is needed.
async fn issuer(agent: Option<&Agent>, target: &Target, data: &Path) -> Result<Issuer, StartError> {
    Ok(match &target.tokens {
        // The target trusts it because it takes any issuer that it can reach.
        TokenSupply::Service(None) => {
            let session = secret();
            let role = Role::Tokens(TokensConfig {
                listen: ANY_PORT,
                key_file: data.join("keys.json"),
                session_secret: session.clone(),
                ttl: target.profile.token_ttl,
                ttl_limits: TTL_LIMITS,
                refresh_lead: target.profile.refresh_lead,
                skew: target.profile.token_skew,
                rate: None,
                burst: 0,
                tenants: tenants(target),
                defect: None,
            });
            Issuer::Service {
                addr: start(agent.ok_or(StartError::NoAgent)?, TOKENS, role).await?,
                session_secret: Secret::new(session),
            }
        }
        TokenSupply::Service(Some(service)) => Issuer::Service {
            addr: resolve(&service.dial).await?,
            session_secret: service.session_secret.clone(),
        },
        TokenSupply::Http(endpoint) => Issuer::Http {
            addr: resolve(&endpoint.dial).await?,
            endpoint: endpoint.clone(),
        },
        TokenSupply::Command(name) => Issuer::Command {
            name: name.clone(),
            agent: agent.ok_or(StartError::NoAgent)?.addr(),
        },
        TokenSupply::Files(tokens) => Issuer::Files(tokens.clone()),
    })
}

/// The address that `host:port` stands for now: the first, as every client takes it.
///
/// # Errors
/// It does not resolve.
async fn resolve(dial: &str) -> Result<SocketAddr, StartError> {
    let unknown = |source: io::Error| StartError::Unresolved {
        dial: dial.to_owned(),
        source,
    };
    let mut addresses = tokio::net::lookup_host(dial).await.map_err(unknown)?;
    addresses
        .next()
        .ok_or_else(|| unknown(io::Error::other("the name has no address")))
}

/// What the proxy needs to read inside of TLS, and what the fleet then trusts.
fn terminate(endpoint: &Endpoint) -> Result<(Option<ProxyTls>, Option<TlsClient>), StartError> {
    let Some(upstream) = &endpoint.tls else {
        return Ok((None, None));
    };
    let authority = Authority::ephemeral("faultlane").map_err(StartError::Certificate)?;
    let host = host_of(&endpoint.authority);
    let identity = authority.issue(&[host]).map_err(StartError::Certificate)?;
    let trusted = TlsClient {
        ca_pem: Some(authority.pem()),
        identity: None,
    };
    let proxy = ProxyTls {
        identity,
        client_ca_pem: None,
        upstream: Some(upstream.clone()),
        server_name: Some(host.to_owned()),
    };
    Ok((Some(proxy), Some(trusted)))
}

/// The host of `host`, `host:port` or `[::1]:port`, without brackets: what a certificate bears.
fn host_of(authority: &str) -> &str {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.chars().all(|c| c.is_ascii_digit()) => host,
        _ => authority,
    };
    host.trim_start_matches('[').trim_end_matches(']')
}

fn own_org(target: &Target) -> &str {
    target.tenants.first().map_or(ORG, |own| &own.name)
}

/// Whose streams the clients' tokens must not open. Tokens that nobody was asked for belong to nobody who could be told
/// from another.
fn rival(target: &Target) -> Option<Rival> {
    let asked_for = !matches!(target.tokens, TokenSupply::Files(_));
    let rival = target.tenants.get(1).filter(|_| asked_for)?;
    Some(Rival {
        org: rival.name.clone(),
        stream: rival.stream.clone(),
    })
}

fn probes(lane: Lane, target: &Target, every: Span) -> ProbesConfig {
    let stated = &target.probes;
    ProbesConfig {
        every,
        stream: probed(target),
        stale: stated.stale.clone(),
        rival: rival(target),
        operations: stated
            .operations
            .clone()
            .or_else(|| (lane == Lane::Khala).then(|| BY_TOKEN.to_vec())),
        expect: stated.expect.clone(),
    }
}

/// The stream for which tokens are tried: one with little in it, where there is one.
fn probed(target: &Target) -> StreamId {
    let canary = target.tenants.first().map(|own| &own.stream);
    let stale = target.probes.stale.as_ref().map(|stale| &stale.stream);
    let first = target.streams.first();
    canary.or(stale).or(first).cloned().unwrap_or_default()
}

/// Which streams the token service grants to whom.
fn tenants(target: &Target) -> BTreeMap<String, Vec<StreamId>> {
    let mut tenants: BTreeMap<String, Vec<StreamId>> = target
        .tenants
        .iter()
        .map(|tenant| (tenant.name.clone(), vec![tenant.stream.clone()]))
        .collect();
    let own = tenants.entry(own_org(target).to_owned()).or_default();
    own.extend(target.streams.iter().cloned());
    own.extend(target.probes.stale.iter().map(|stale| stale.stream.clone()));
    tenants
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_bears_the_host_without_its_port() {
        for (authority, host) in [
            ("sync.example.com", "sync.example.com"),
            ("sync.example.com:8443", "sync.example.com"),
            ("127.0.0.1:8443", "127.0.0.1"),
            ("[::1]:8443", "::1"),
            ("[::1]", "::1"),
        ] {
            assert_eq!(host_of(authority), host);
        }
    }

    const TARGET: &str = r#"name: own
lanes: { khala: { url: "ws://127.0.0.1:4000", clean_up: none } }
tokens: { command: token }
streams: [runtime.run.1.events]
tenants: [{ name: acme, stream: runtime.run.2.events }, { name: rival, stream: runtime.run.3.events }]
promise: { expiry_enforcement: live, skew: 30s, acknowledged: durable, world: open, authorization: enforced }
limits: { migration_buffer: 100ms, storm_target: 30s, fallback_threshold: 1%, rollback_slo: 5m }
"#;

    #[test]
    fn a_rival_whose_tokens_cannot_be_asked_for_is_neither_probed_nor_cleaned_up_after() {
        let source = scenarios::Source {
            name: "target.yaml".to_owned(),
            text: TARGET.to_owned(),
        };
        let around = scenarios::target::Surroundings::of(&source);
        let checked = scenarios::target::parse(&source, &around).expect("it is sound");
        let mut target = checked.target;
        let met = |target: &Target| {
            let probes = probes(Lane::Khala, target, Span::from_secs(1));
            (probes.rival.is_some(), written_streams(target).len())
        };
        assert_eq!(met(&target), (true, 2));
        target.tokens = TokenSupply::Files(Vec::new());
        assert_eq!(met(&target), (false, 1));
    }
}
