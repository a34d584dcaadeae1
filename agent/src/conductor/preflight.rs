//! Preflight of a described target: every lane's doors are tried once, before a drill goes through them by the
//! thousand.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use host::child::SpawnError;
use lanes::preflight::{Door, Open, Preflight, Shut};
use model::command::CommandConfig;
use model::ids::Lane;
use model::target::TokenSupply;
use scenarios::target::Target;

use super::node::Node;
use super::target::{StartError, described};

/// Why a lane cannot be drilled.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    /// One of its doors is shut.
    #[error("{lane}: {shut}")]
    Shut {
        /// Which lane.
        lane: Lane,
        /// The door.
        shut: Shut,
    },
    /// A part of the harness could not be started.
    #[error("the agent that preflight needs: {0}")]
    Agent(#[from] SpawnError),
    /// There is no folder for its logs.
    #[error("a folder for the agent's logs: {0}")]
    Folder(#[from] io::Error),
}

/// Tries the lanes of a target, one after the other; `open` hears of each door that is. An agent is started only where
/// tokens need one; it may run these commands.
///
/// # Errors
/// The first door that is shut.
pub async fn preflight(
    program: &Path,
    target: &Target,
    commands: BTreeMap<String, CommandConfig>,
    lanes: &[Lane],
    mut open: impl FnMut(Lane, Open),
) -> Result<(), PreflightError> {
    let by_agent = matches!(
        target.tokens,
        TokenSupply::Service(None) | TokenSupply::Command(_)
    );
    let logs = tempfile::tempdir()?;
    let node = if by_agent {
        Some(Node::start(program, None, commands, "preflight", logs.path()).await?)
    } else {
        None
    };
    let mut outcome = Ok(());
    for lane in lanes {
        outcome = one(node.as_ref(), target, *lane, &mut |seen| open(*lane, seen))
            .await
            .map_err(|shut| PreflightError::Shut { lane: *lane, shut });
        if outcome.is_err() {
            break;
        }
    }
    if let Some(node) = node {
        node.end().await;
    }
    outcome
}

async fn one(
    node: Option<&Node>,
    target: &Target,
    lane: Lane,
    open: &mut dyn FnMut(Open),
) -> Result<(), Shut> {
    let shut = |door, error: StartError| Shut {
        door,
        status: None,
        reason: error.to_string(),
    };
    let endpoint = target
        .lanes
        .get(&lane)
        .ok_or_else(|| shut(Door::Settings, StartError::NoLane(lane)))?;
    let addr = described::resolve(&endpoint.dial)
        .await
        .map_err(|error| shut(Door::Connection, error))?;
    let access = endpoint.access(addr, addr);
    let data = node.map(Node::data_dir).unwrap_or_default();
    let issuer = described::issuer(node.map(|node| &node.agent), target, &data)
        .await
        .map_err(|error| shut(Door::Token, error))?;
    let tokens = described::source(issuer, target);
    let preflight = Preflight {
        lane,
        access: &access,
        tokens: &tokens,
        lead: target.profile.refresh_lead,
        publish_secret: &described::publish_secret(endpoint),
        streams: &target.streams,
    };
    preflight.run(open).await
}
