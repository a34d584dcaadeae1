//! Faults of the machine that an agent is on: what it has to give is taken up, bounded, and a reserve is always left.
//!
//! | fault | done by | seen by | undone by |
//! |---|---|---|---|
//! | cpu burn | a worker ([`crate::pressure`]) that computes | its processor time, by the kernel's count | the worker ended |
//! | memory fill | a worker that writes to pages | its resident pages | the worker ended |
//! | disk fill | a file | its blocks | the file removed |
//!
//! A worker ends by itself when the agent does, and no later than its lease. A file needs the journal: its name is there
//! before the file is.

use std::path::PathBuf;
use std::sync::Arc;

use host::http::{Failure, StatusCode};
use model::fault::{Fault, FaultOrder};

use super::deed::Deed;
use super::node;
use super::subject::node_of;
use crate::state::StateDir;
use crate::supervisor::Supervisor;

mod disk;
mod pressure;
mod worker;

pub(crate) use disk::remove;

/// What an order means here.
///
/// # Errors
/// 422 for what this machine does not allow, 404 for a folder or a node that there is not, 500 for a worker that did not
/// start.
pub(super) async fn aim(
    order: &FaultOrder,
    supervisor: &Supervisor,
    state: &StateDir,
) -> Result<Arc<dyn Deed>, Failure> {
    match &order.fault {
        Fault::DiskFill(settings) => {
            let folder = match &settings.folder {
                Some(folder) => folder.clone(),
                None => data_of(order, supervisor)?,
            };
            Ok(Arc::new(disk::DiskFault::aim(order, settings, &folder)?))
        }
        fault => {
            let press = pressure::Taken::of(fault)?;
            let (program, journal) = (supervisor.program(), state.journal());
            let fault = pressure::PressureFault::aim(order, press, program, &journal);
            Ok(Arc::new(fault.await?))
        }
    }
}

fn data_of(order: &FaultOrder, supervisor: &Supervisor) -> Result<PathBuf, Failure> {
    node::data_dir(node_of(order), supervisor).map_err(|failure| {
        let text =
            format!("{failure}; name a `folder` that this agent's policy has under `disk_folders`");
        Failure::new(failure.status, text)
    })
}

fn failed(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

fn impossible(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string())
}
