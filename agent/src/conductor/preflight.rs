//! Preflight of a described target: every lane's doors are tried once, before a drill goes through them by the
//! thousand.

use lanes::preflight::{Open, Preflight, Shut};
use model::ids::Lane;
use scenarios::target::Target;

use super::node::Node;
use super::outside::{Outside, OutsideError};
use super::target::described::{Direct, probe_streams};

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
    #[error(transparent)]
    Outside(#[from] OutsideError),
}

/// Tries the lanes of a target, one after the other; `open` hears of each door that is.
///
/// # Errors
/// The first door that is shut.
pub async fn preflight(
    outside: &Outside<'_>,
    lanes: &[Lane],
    mut open: impl FnMut(Lane, Open),
) -> Result<(), PreflightError> {
    let agent = outside.node().await?;
    let node = agent.as_ref().map(|(node, _)| node);
    let mut outcome = Ok(());
    for lane in lanes {
        outcome = one(node, outside.target, *lane, &mut |seen| open(*lane, seen))
            .await
            .map_err(|shut| PreflightError::Shut { lane: *lane, shut });
        if outcome.is_err() {
            break;
        }
    }
    if let Some((node, _logs)) = agent {
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
    let direct = Direct::to(node, target, lane)
        .await
        .map_err(|(door, error)| Shut {
            door,
            further: None,
            status: None,
            reason: error.to_string(),
        })?;
    let preflight = Preflight {
        lane,
        access: &direct.access,
        tokens: &direct.tokens,
        lead: target.profile.refresh_lead,
        publish_secret: &direct.publish_secret,
        streams: &target.streams,
        further: &probe_streams(target),
    };
    preflight.run(open).await
}
