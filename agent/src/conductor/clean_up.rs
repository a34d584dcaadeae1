//! Cleaning up after a run that could not do so itself: what bears its mark is removed from the streams that a drill of
//! the target publishes to.

use lanes::clean_up::Cleaner;
use model::ids::Lane;
use model::shard::CleanUp;

use super::outside::{Outside, OutsideError};
use super::target::described::{Direct, written_streams};

/// Removes what a run left in a lane. What could not be asked for is in the answer.
///
/// # Errors
/// An agent could not be started.
pub async fn clean_up(
    outside: &Outside<'_>,
    lane: Lane,
    run: &str,
) -> Result<CleanUp, OutsideError> {
    let agent = outside.node().await?;
    let node = agent.as_ref().map(|(node, _)| node);
    let target = outside.target;
    let done = match Direct::to(node, target, lane).await {
        Err((_, error)) => CleanUp::unasked(error.to_string()),
        Ok(direct) => {
            let cleaner = Cleaner::afterwards(
                lane,
                &direct.access,
                &direct.tokens,
                &target.profile,
                &direct.publish_secret,
                run,
            );
            match cleaner {
                Err(error) => CleanUp::unasked(error.to_string()),
                Ok(cleaner) => cleaner.clean_up(&written_streams(target)).await,
            }
        }
    };
    if let Some((node, _logs)) = agent {
        node.end().await;
    }
    Ok(done)
}
