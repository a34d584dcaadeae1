//! `faultlane why`.

use results::{Question, WhyError};

use super::print;
use crate::cli::WhyArgs;
use crate::exit::{Error, Exit};

pub(super) fn why(args: &WhyArgs) -> Result<Exit, Error> {
    let question = Question {
        client: args.client,
        scenario: args.scenario.clone(),
        lane: args.lane,
        trial: args.trial,
    };
    let why = results::why(&args.dir, &question).map_err(|error| match error {
        WhyError::Folder(_) => Error::could_not_run(error),
        _ => Error::usage(error),
    })?;
    if args.json {
        let text = serde_json::to_string_pretty(&why).map_err(Error::could_not_run)?;
        print(&format!("{text}\n"));
    } else {
        print(&why.to_string());
    }
    Ok(Exit::Go)
}
