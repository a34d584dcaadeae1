//! `faultlane bench`: how the proxy compares.

use std::fs;
use std::path::Path;

use host::child;

use super::print;
use crate::cli::bench::{BenchCommand, BenchProxyArgs};
use crate::exit::{Error, Exit};

pub(super) fn bench(command: BenchCommand) -> Result<Exit, Error> {
    // One thread: what puts the load on shall not take the processors that the proxies need.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::could_not_run)?;
    match command {
        BenchCommand::Proxy(args) => proxy(&runtime, args),
        BenchCommand::Sink => runtime
            .block_on(bench::sink(child::until_stdin_ends()))
            .map(|()| Exit::Go)
            .map_err(Error::could_not_run),
    }
}

fn proxy(runtime: &tokio::runtime::Runtime, args: BenchProxyArgs) -> Result<Exit, Error> {
    let own = std::env::current_exe().map_err(Error::could_not_run)?;
    let rounds = args.rounds.unwrap_or(if args.quick { 3 } else { 15 });
    let settings = bench::Settings {
        measured: args.build.unwrap_or_else(|| own.clone()),
        own,
        rounds: rounds.into(),
        quick: args.quick,
        only: args.only,
    };
    let report = runtime
        .block_on(bench::run(&settings, |doing| eprintln!("{doing}")))
        .map_err(Error::could_not_run)?;
    let json = serde_json::to_string_pretty(&report).map_err(Error::could_not_run)? + "\n";
    match args.json.as_deref() {
        Some(file) if file == Path::new("-") => print(&json),
        file => {
            print(&report.to_string());
            if let Some(file) = file {
                fs::write(file, json).map_err(|error| {
                    Error::could_not_run(format!("--json {}: {error}", file.display()))
                })?;
            }
        }
    }
    Ok(Exit::Go)
}
