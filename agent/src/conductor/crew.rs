//! The agents of an inventory, taken for a run together: all of them or none.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use futures_util::future::join_all;
use host::http::CallError;
use model::role::PROTOCOL_VERSION;
use scenarios::inventory::{Entry, Inventory};

use super::hold::Hold;
use crate::api::AgentStatus;
use crate::client::Agent;
use crate::offset::{self, Offset};
use crate::reach::reach;

/// So many round trips tell a clock's offset.
const ROUNDS: u32 = 8;

/// Agents that a run holds, by name.
#[derive(Debug)]
pub struct Crew {
    members: BTreeMap<String, Member>,
}

/// One of them.
#[derive(Debug)]
pub struct Member {
    /// The address of its host, where the inventory says it.
    pub host: Option<IpAddr>,
    /// The version of the protocol that it speaks.
    pub protocol: u32,
    /// Where its children may keep data.
    pub data: PathBuf,
    hold: Hold,
}

impl Member {
    /// It, for calls that carry the run's fence.
    #[must_use]
    pub const fn agent(&self) -> &Agent {
        self.hold.agent()
    }
}

/// Why a run has no crew: all agents that could not be taken.
#[derive(Debug, thiserror::Error)]
#[error("run {run} needs every agent of the inventory, and none is kept; {}", told(.refusals))]
pub struct CrewError {
    /// Whose.
    pub run: String,
    /// Each agent's name, and why not.
    pub refusals: Vec<(String, String)>,
}

fn told(refusals: &[(String, String)]) -> String {
    let texts: Vec<_> = refusals
        .iter()
        .map(|(name, why)| format!("agent `{name}`: {why}"))
        .collect();
    texts.join("; ")
}

impl Crew {
    /// Takes all agents, at the same time. Where one cannot be taken, the others are given back.
    ///
    /// # Errors
    /// One is not reached, is held by another run, is halted, or speaks another version of the protocol.
    pub async fn take(inventory: &Inventory, run: &str) -> Result<Self, CrewError> {
        let taking = inventory
            .agents
            .iter()
            .map(|entry| async move { (entry.name.clone(), take(entry, run).await) });
        let (mut members, mut refusals) = (BTreeMap::new(), Vec::new());
        for (name, taken) in join_all(taking).await {
            match taken {
                Ok(member) => drop(members.insert(name, member)),
                Err(why) => refusals.push((name, why)),
            }
        }
        let crew = Self { members };
        if refusals.is_empty() {
            return Ok(crew);
        }
        crew.release().await;
        Err(CrewError {
            run: run.to_owned(),
            refusals,
        })
    }

    /// The agent of that name.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.get(name)
    }

    /// All of them, by name.
    pub fn members(&self) -> impl Iterator<Item = (&str, &Member)> {
        self.members
            .iter()
            .map(|(name, member)| (name.as_str(), member))
    }

    /// How far the clocks of each are from this host's, asked at the same time; and whether its kernel is this one.
    pub async fn clocks(&self) -> BTreeMap<String, Result<(Offset, bool), CallError>> {
        let asking = self.members.iter().map(|(name, member)| async move {
            (
                name.clone(),
                offset::measure_boot(member.agent(), ROUNDS).await,
            )
        });
        join_all(asking).await.into_iter().collect()
    }

    /// Gives all of them back. One that does not answer is free when its lease has lapsed.
    pub async fn release(self) {
        let releasing = self.members.into_iter().map(|(name, member)| async move {
            if let Err(error) = member.hold.release().await {
                tracing::warn!(agent = name, %error, "it was not given back, and is free when the run's lease has lapsed");
            }
        });
        join_all(releasing).await;
    }
}

async fn take(entry: &Entry, run: &str) -> Result<Member, String> {
    let agent = reach(&entry.at).await.map_err(|error| error.to_string())?;
    let status = agent.status().await.map_err(|error| error.to_string())?;
    if status.protocol != PROTOCOL_VERSION {
        return Err(format!(
            "it speaks protocol {}, and this is {PROTOCOL_VERSION}: run the same version of faultlane there",
            status.protocol
        ));
    }
    // The end of this run would be the end of that, and a fault that is there at the mark counts as nobody's.
    if let Some(why) = left(&status).filter(|_| status.run.is_none()) {
        return Err(why);
    }
    let hold = Hold::take(&agent, run)
        .await
        .map_err(|error| error.to_string())?;
    Ok(Member {
        host: entry.host,
        protocol: status.protocol,
        data: status.data_dir,
        hold,
    })
}

/// What is there though no run has the agent.
fn left(status: &AgentStatus) -> Option<String> {
    let (what, names) = if status.faults.is_empty() {
        ("runs", &status.children)
    } else {
        ("still has in force", &status.faults)
    };
    let names = names.join("`, `");
    (!names.is_empty()).then(|| {
        format!("it {what} `{names}`, and no run has it: end that first, or start the agent again")
    })
}
