//! `faultlane clean-up`: what a run that was killed has left in the streams of a target.

use agent::conductor::clean_up::clean_up;
use agent::conductor::outside::Outside;
use model::ids::Lane;
use model::shard::CleanUp;
use results::redact::Masker;

use super::{print, processes, source, target};
use crate::cli::CleanUpArgs;
use crate::exit::{Error, Exit};

pub(super) fn command(args: &CleanUpArgs) -> Result<Exit, Error> {
    let described = target::load(&args.target)?;
    let commands = source::agent_config(args.agent_config.as_deref())?.commands;
    let program = std::env::current_exe().map_err(Error::could_not_run)?;
    let outside = Outside {
        program: &program,
        target: &described,
        commands: &commands,
    };
    let lanes: Vec<Lane> = described.lanes.keys().copied().collect();
    let mut left = Vec::new();
    for lane in lanes {
        let done = processes::runtime()?
            .block_on(clean_up(&outside, lane, &args.run))
            .map_err(Error::could_not_run)?;
        print(&format!(
            "{lane}: {} events of {} removed\n",
            done.removed, args.run
        ));
        left.extend(
            troubles(&done)
                .into_iter()
                .map(|why| format!("{lane}: {why}")),
        );
    }
    if left.is_empty() {
        Ok(Exit::Go)
    } else {
        let masker = Masker::new(described.secrets());
        Err(Error::could_not_run(masker.mask(&left.join("\n"))))
    }
}

/// What keeps a lane from being clean.
fn troubles(done: &CleanUp) -> Vec<String> {
    let mut troubles: Vec<String> = done.error.iter().cloned().collect();
    if done.declined {
        troubles.push(
            "the target file says clean_up: none, so that nothing is removed; say there how events are removed"
                .to_owned(),
        );
    }
    for (stream, rows) in &done.left {
        troubles.push(format!("{stream}: {rows} events are still there"));
    }
    for (stream, why) in &done.failed {
        troubles.push(format!("{stream}: {why}"));
    }
    for (stream, rows) in &done.unseen {
        troubles.push(format!(
            "{stream}: {rows} events lie beyond what the lane replays, where nobody can look; their removal was asked for"
        ));
    }
    troubles
}
