//! The commands, one file each.

use crate::cli::Command;
use crate::exit::{Error, Exit};

mod agents;
mod bench;
mod check;
mod clean_up;
mod drill;
mod gate;
mod init;
mod pki;
mod plan;
mod preflight;
mod processes;
mod proxy;
mod source;
mod target;
mod why;

/// Does what was typed.
pub(crate) fn execute(command: Command) -> Result<Exit, Error> {
    match command {
        Command::Drill { scenarios, drill } => drill::drill(&scenarios, &drill),
        Command::Run { scenario, drill } => drill::run(scenario.as_deref(), &drill),
        Command::Check { files, target, set } => check::check(&files, target.as_deref(), &set),
        Command::CleanUp(args) => clean_up::command(&args),
        Command::Init(args) => init::init(&args),
        Command::Preflight {
            target,
            agent_config,
        } => preflight::command(&target, agent_config.as_deref()),
        Command::Plan {
            scenario,
            plan,
            lane,
            json,
        } => plan::plan(&scenario, &plan, lane, json),
        Command::Scenarios => plan::list(),
        Command::Gate { dir, json } => gate::gate(&dir, json),
        Command::Why(args) => why::why(&args),
        Command::Agent(args) => processes::agent(&args),
        Command::Agents(args) => agents::agents(&args),
        Command::Halt(args) => agents::halt(&args),
        Command::Pki { command } => pki::pki(&command),
        Command::Proxy(args) => proxy::proxy(*args),
        Command::Shard(config) => processes::shard(&config),
        Command::Lane {
            lane,
            config,
            lane_args,
        } => processes::lane(lane, &config, lane_args),
        Command::Spacetimedb {
            config,
            server,
            listen,
            data_dir,
            database,
        } => processes::spacetimedb(&config, &server, listen, data_dir, database),
        Command::Tokens { config, tokens } => processes::tokens(&config, tokens),
        Command::Bench { command } => bench::bench(command),
        Command::Pressure { .. } => processes::pressure(),
        Command::Watchdog { journal } => processes::watchdog(&journal),
        Command::Launch { within, command } => processes::launch(&command, within),
        Command::Guard { command } => processes::guard(&command),
    }
}

/// Writes to stdout. A reader that went away (`| head`) is not an error.
pub(crate) fn print(text: &str) {
    use std::io::Write as _;
    let mut stdout = std::io::stdout().lock();
    let _ = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
}
