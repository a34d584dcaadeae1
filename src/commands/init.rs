//! `faultlane init`.

use std::fs;
use std::io::Write as _;

use scenarios::Source;
use scenarios::target::Template;

use super::{preflight, print, source, target};
use crate::cli::InitArgs;
use crate::exit::{Error, Exit};

/// Writes a target file to begin with, checks it (what only its owner can know is named with its purpose), and tries
/// whether the target can be drilled so.
pub(super) fn init(args: &InitArgs) -> Result<Exit, Error> {
    let template = Template {
        name: args.name.clone(),
        url: args.url.clone(),
        lane: Some(args.lane),
        dial: args.dial.clone(),
        ca: args.ca.clone(),
        database: args.database.clone(),
        token_url: args.token_url.clone(),
        token_authorization: args.token_authorization.clone(),
        migration_buffer: args.migration_buffer.map(|span| span.to_string()),
        storm_target: args.storm_target.map(|span| span.to_string()),
        fallback_threshold: args.fallback_threshold.map(|share| share.to_string()),
        rollback_slo: args.rollback_slo.map(|span| span.to_string()),
    };
    let name = args.file.display().to_string();
    let text = template.text();
    // `create_new` refuses and creates in one step: nothing that appears meanwhile is overwritten.
    fs::File::create_new(&args.file)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => Error::usage(format!(
                "{name} exists and is not overwritten: name another file, or remove it"
            )),
            _ => Error::could_not_run(format!("{name}: {error}: name a file that can be written")),
        })?;
    print(&format!("{name}: written\n"));
    let source = Source {
        name: name.clone(),
        text,
    };
    let target = target::check(&source).map_err(|error| {
        Error::usage(format!(
            "{name} was written, and has to be completed:\n{}",
            error.message
        ))
    })?;
    print(&format!("{name}: ok\n"));
    let commands = source::agent_config(args.agent_config.as_deref())?.commands;
    preflight::run(&source, &target, &commands, &[args.lane], &|line| {
        print(&format!("{line}\n"));
    }).map_err(
        |error| Error {
            message: format!(
                "{name} was written, and the target is not reached as it says; mend it and run `faultlane preflight \
                 {name}`:\n{}",
                error.message
            ),
            ..error
        },
    )?;
    print(&format!("{name}: ready\n"));
    Ok(Exit::Go)
}
