//! Where a trial's parts run, and by whom its faults are done: on the conductor's own agent, or on agents of an inventory.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use futures_util::future::join_all;
use host::http::CallError;
use model::crew::{NodeRecord, Part};
use scenarios::plan::{Plan, Step};

use super::crew::{Crew, Member};
use super::node::Node;
use super::reach::{Listener, Prober};
use super::step::Aim;
use super::target::{LANE, PROXY, TOKENS};
use crate::api::ChildView;
use crate::client::Agent;
use crate::offset::Offset;

/// A host that runs a part of the trial.
#[derive(Debug, Clone)]
pub struct Host {
    /// What the inventory calls it; `None` for the conductor's own agent.
    pub name: Option<String>,
    /// Its agent.
    pub agent: Agent,
    /// Where its children may keep data.
    pub data: PathBuf,
    ip: IpAddr,
}

impl Host {
    /// Where a service of its listens that others are to reach.
    #[must_use]
    pub const fn any_port(&self) -> SocketAddr {
        SocketAddr::new(self.ip, 0)
    }
}

/// Who runs what.
#[derive(Debug)]
pub struct Hosts {
    /// The conductor's own agent.
    pub local: Host,
    /// Who runs the lane.
    pub lane: Host,
    /// Who runs the token service.
    pub tokens: Host,
    /// Who runs publisher and probes.
    pub publisher: Host,
    /// Among whom the clients are divided; at least one.
    pub clients: Vec<Host>,
    crew: BTreeMap<String, (Agent, Option<IpAddr>, Offset)>,
}

impl Hosts {
    /// Those of a plan, and what its row tells of the agents.
    ///
    /// # Errors
    /// An agent does not tell its clocks, or is to run what it cannot.
    pub async fn of(
        plan: &Plan,
        node: &Node,
        crew: Option<&Crew>,
    ) -> Result<(Self, Vec<NodeRecord>), String> {
        let local = Host {
            name: None,
            agent: node.agent.clone(),
            data: node.data_dir(),
            ip: Ipv4Addr::LOCALHOST.into(),
        };
        let (mut known, mut records) = (BTreeMap::new(), Vec::new());
        if let Some(crew) = crew {
            for (name, clocks) in crew.clocks().await {
                let member = crew.member(&name).expect("it was asked");
                let (offset, same_kernel) =
                    clocks.map_err(|error| format!("the clocks of agent `{name}`: {error}"))?;
                let runs = plan.layout.parts_of(&name);
                if let Some(part) = runs.first().filter(|_| !same_kernel) {
                    return Err(beyond(&name, *part));
                }
                records.push(NodeRecord {
                    name: name.clone(),
                    protocol: member.protocol,
                    same_kernel,
                    runs,
                    before: offset.record(),
                    after: None,
                });
                // One clock needs no translation: what was measured is the error of the measurement.
                let offset = if same_kernel { Offset::NONE } else { offset };
                known.insert(name, (member.agent().clone(), member.host, offset));
            }
        }
        let host = |name: &String| {
            let member = crew.and_then(|crew| crew.member(name));
            let member = member.ok_or_else(|| format!("agent `{name}` is not in the inventory"))?;
            Ok(of_member(name, member))
        };
        let one = |name: &Option<String>| name.as_ref().map_or_else(|| Ok(local.clone()), host);
        let layout = &plan.layout;
        let mut clients = layout
            .clients
            .iter()
            .map(host)
            .collect::<Result<Vec<_>, String>>()?;
        if clients.is_empty() {
            clients.push(local.clone());
        }
        let hosts = Self {
            lane: one(&layout.lane)?,
            tokens: one(&layout.tokens)?,
            publisher: one(&layout.publisher)?,
            clients,
            local,
            crew: known,
        };
        Ok((hosts, records))
    }

    /// By whom a step is done.
    ///
    /// # Errors
    /// The plan names an agent that there is not.
    pub fn aims(&self, plan: &Plan, step: &Step) -> Result<Vec<Aim>, String> {
        let names = plan.done_by(step);
        if names.is_empty() {
            return Ok(vec![Aim {
                node: None,
                agent: self.local.agent.clone(),
                host: None,
                offset: Offset::NONE,
            }]);
        }
        let aim = |name: String| {
            let (agent, host, offset) = self.crew.get(&name).ok_or_else(|| {
                format!(
                    "{} is to be done by agent `{name}`, and there is none: name the inventory",
                    step.id
                )
            })?;
            Ok(Aim {
                agent: agent.clone(),
                host: *host,
                offset: *offset,
                node: Some(name),
            })
        };
        names.into_iter().map(aim).collect()
    }

    /// Who tries who hears whom around a step: the agents by which a partition is done, and all others.
    #[must_use]
    pub fn prober(&self, step: &Step) -> Option<Prober> {
        let listeners = self.crew.iter().filter_map(|(name, (agent, ip, _))| {
            Some(Listener {
                name: name.clone(),
                agent: agent.clone(),
                ip: (*ip)?,
            })
        });
        Prober::around(step, listeners.collect())
    }

    /// Every agent that has a part in the trial, the conductor's own first.
    pub fn agents(&self) -> impl Iterator<Item = (Option<&str>, &Agent)> {
        let crew = self
            .crew
            .iter()
            .map(|(name, (agent, ..))| (Some(name.as_str()), agent));
        std::iter::once((None, &self.local.agent)).chain(crew)
    }

    /// Has all agents of the inventory end what they run of the trial: clients, proxies, the target.
    ///
    /// # Errors
    /// The first of what could not be ended.
    pub async fn dismiss(&self) -> Result<(), String> {
        let ending = self.crew.iter().map(|(name, (agent, ..))| async move {
            dismiss(agent)
                .await
                .map_err(|error| format!("agent `{name}`: {error}"))
        });
        join_all(ending).await.into_iter().collect()
    }
}

fn of_member(name: &str, member: &Member) -> Host {
    Host {
        name: Some(name.to_owned()),
        agent: member.agent().clone(),
        data: member.data.clone(),
        // The inventory says it of whoever is connected to.
        ip: member.host.unwrap_or(Ipv4Addr::LOCALHOST.into()),
    }
}

fn beyond(name: &str, part: Part) -> String {
    format!(
        "agent `{name}` runs `{}`, and its host does not share this one's kernel and clock: what shards and lanes tell is \
         compared to the micro-second. Take `runs` from it in the inventory; faults it can do all the same",
        part.name()
    )
}

/// Clients before proxies before what they talk to, so that nobody sees the one vanish that it needs. One that does not end
/// keeps none of the others.
async fn dismiss(agent: &Agent) -> Result<(), CallError> {
    let children = agent.children().await?;
    let rank = |child: &ChildView| match child.name.as_str() {
        name if name.starts_with("shard-") => Some(0),
        PROXY => Some(1),
        LANE => Some(2),
        TOKENS => Some(3),
        _ => None,
    };
    let mut outcome = Ok(());
    for turn in 0..4 {
        let of_turn = children.iter().filter(|child| rank(child) == Some(turn));
        let ended = join_all(of_turn.map(|child| agent.end_child(&child.name))).await;
        outcome = ended.into_iter().fold(outcome, Result::and);
    }
    outcome
}
