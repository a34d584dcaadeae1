//! How what a drill publishes is removed again. Where others publish too it has to be said: a drill that leaves its events
//! on shared streams without anybody having wanted that has left residue.

use model::target::{Argument, Removal, World};

use super::file::{KhalaCleanUp, SpacetimeCleanUp, TargetFile};
use crate::check::Checks;

impl From<&SpacetimeCleanUp> for Removal {
    fn from(entry: &SpacetimeCleanUp) -> Self {
        match entry {
            SpacetimeCleanUp::None => Self::Nothing,
            SpacetimeCleanUp::Sql => Self::Sql,
            SpacetimeCleanUp::Reducer(name) => Self::Reducer(name.clone()),
        }
    }
}

impl From<&KhalaCleanUp> for Removal {
    fn from(entry: &KhalaCleanUp) -> Self {
        match entry {
            KhalaCleanUp::None => Self::Nothing,
            KhalaCleanUp::Path(path) => Self::Path(path.clone()),
        }
    }
}

/// What a lane has to say in the world that the file promises.
pub(super) fn check(checks: &mut Checks<'_>, file: &TargetFile) {
    if let Some(lane) = &file.lanes.spacetime {
        const HINT: &str = "say how they are removed: sql (the database's owner may), { reducer: NAME }, or none (they stay)";
        stated(checks, file, "spacetime", lane.clean_up.is_some(), HINT);
        if lane.clean_up == Some(SpacetimeCleanUp::Sql) && lane.publish.secret.is_none() {
            let message = "`clean_up: sql` is asked for by nobody: there is no `publish.secret`";
            let hint = "only a database's owner may delete: write its token as publish.secret";
            checks.warning(&["lanes", "spacetime", "clean_up"], message, hint);
        }
        let arguments = lane.publish.arguments.as_ref();
        let blind = arguments.is_some_and(|told| {
            !told.contains(&Argument::Seq) && !told.contains(&Argument::ExpectedNextSeq)
        });
        if blind && file.promise.world == Some(World::Open) {
            let message = "the reducer is told no seq, and others publish too: nobody could tell which seq an event got";
            let hint = "name seq or expected_next_seq, or drill streams of your own (promise.world: closed)";
            checks.error(
                &["lanes", "spacetime", "publish", "arguments"],
                message,
                hint,
            );
        }
    }
    if let Some(lane) = &file.lanes.khala {
        const HINT: &str =
            "say how they are removed: { path: /internal/sync/remove }, or none (they stay)";
        stated(checks, file, "khala", lane.clean_up.is_some(), HINT);
    }
}

fn stated(checks: &mut Checks<'_>, file: &TargetFile, lane: &str, said: bool, how: &'static str) {
    let path = ["lanes", lane, "clean_up"];
    match file.promise.world {
        Some(World::Open) if !said => {
            let message = format!(
                "`lanes.{lane}.clean_up` is missing: a drill's events are among others' (promise.world: open)"
            );
            checks.error(&path, message, how);
        }
        Some(World::Closed) if said => {
            let message = "`clean_up` has no use: nobody else publishes to these streams";
            let hint = "remove it, or write promise.world: open";
            checks.warning(&path, message, hint);
        }
        _ => {}
    }
}
